"""What counts as a sign of life."""

import asyncio

import pytest

from tickcast.live.process import Liveness


async def answers() -> None:
    await asyncio.sleep(0)


async def test_a_pump_that_turns_is_alive_and_one_that_stands_still_is_not() -> None:
    passes = iter([5, 6, 6, 7])
    liveness = Liveness(lambda: next(passes), lambda: False, answers)
    assert [await liveness.alive() for _ in range(4)] == [True, True, False, True]


async def test_a_daemon_that_waits_by_name_is_alive_although_its_pump_stands_still() -> None:
    liveness = Liveness(lambda: 5, lambda: True, answers)
    assert [await liveness.alive() for _ in range(2)] == [True, True]


async def test_while_one_thread_does_not_answer_there_is_no_sign_of_life() -> None:
    stuck = asyncio.Event()
    asked = asyncio.create_task(Liveness(lambda: 5, lambda: True, answers, stuck.wait).alive())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not asked.done()
    stuck.set()
    assert await asked


async def test_a_token_that_fails_is_not_swallowed() -> None:
    async def fails() -> None:
        raise ValueError("gone")

    with pytest.raises(ValueError, match="gone"):
        await Liveness(lambda: 5, lambda: True, answers, fails).alive()
