"""Where the engine's work is done, and that two never work on it at once."""

import asyncio
import sys
import threading

import pytest

from tickcast.errors import BadSettings, EngineFailed
from tickcast.loop.engine_thread import EngineThread

LIMIT_S = 10.0


@pytest.fixture
def engine():
    thread = EngineThread()
    yield thread
    thread.stop(LIMIT_S)


async def test_brief_work_is_done_by_the_loop_where_the_thread_is_idle(engine: EngineThread) -> None:
    assert await engine.call_briefly(threading.current_thread) is threading.current_thread()
    assert await engine.call(threading.current_thread) is not threading.current_thread()


async def test_brief_work_waits_behind_what_was_asked_before(engine: EngineThread) -> None:
    gate, order = threading.Event(), []

    def slow() -> None:
        assert gate.wait(LIMIT_S)
        order.append("slow")

    first = asyncio.create_task(engine.call(slow))
    await asyncio.sleep(0)
    second = asyncio.create_task(engine.call_briefly(lambda: order.append("brief")))
    await asyncio.sleep(0)
    assert order == []
    gate.set()
    await asyncio.gather(first, second)
    assert order == ["slow", "brief"]


async def test_one_who_stopped_waiting_does_not_make_the_thread_look_idle(engine: EngineThread) -> None:
    gate, inside = threading.Event(), threading.Event()

    def slow() -> None:
        inside.set()
        assert gate.wait(LIMIT_S)

    waiting = asyncio.create_task(engine.call(slow))
    await asyncio.sleep(0)
    assert inside.wait(LIMIT_S)
    waiting.cancel()
    await asyncio.sleep(0)
    brief = asyncio.create_task(engine.call_briefly(threading.current_thread))
    await asyncio.sleep(0)
    assert not brief.done()
    gate.set()
    assert await brief is not threading.current_thread()


@pytest.mark.parametrize("ask", ["call", "call_briefly"])
async def test_what_breaks_in_a_turn_is_told_alike_from_either_place(engine: EngineThread, ask: str) -> None:
    def breaks() -> None:
        raise ZeroDivisionError("a bug")

    def leaves() -> None:
        sys.exit(0)

    def refuses() -> None:
        raise BadSettings("no such thing")

    with pytest.raises(EngineFailed, match="a bug"):
        await getattr(engine, ask)(breaks)
    with pytest.raises(EngineFailed, match=r"SystemExit\(0\)"):
        await getattr(engine, ask)(leaves)
    with pytest.raises(BadSettings, match="no such thing"):
        await getattr(engine, ask)(refuses)
