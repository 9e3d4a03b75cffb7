"""A signal while the daemon starts ends it cleanly, wherever its start is: it drains nothing and waits for nothing."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from livekit import live_settings, running, until
from netkit import HOST, Child, free_port, wait_until
from tickcast.clock import SystemClock
from tickcast.errors import EXIT_OK, EXIT_SECOND_SIGNAL
from tickcast.io.memory_bus import MemoryBus
from tickcast.live import process
from tickcast.live.buses.memory import EmbeddedBus
from tickcast.live.daemon import Daemon

WELL_BELOW_S = 30  # what holds the start up holds for minutes or for ever
Start = Callable[..., Child]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    children: list[Child] = []

    def begin(*settings: str, python: Sequence[str] = ("-m", "tickcast")) -> Child:
        paths = [f"store.path={tmp_path / 'store.duckdb'}", f"runtime.folder={tmp_path / 'run'}"]
        flags = [part for setting in (*paths, "log.format=json", *settings) for part in ("--set", setting)]
        children.append(Child([sys.executable, *python, "run", *flags], tmp_path / "log"))
        return children[-1]

    yield begin
    for child in children:
        child.kill()


def ended(child: Child) -> int | None:
    wait_until(lambda: not child.is_alive, "the daemon to end", limit_s=WELL_BELOW_S)
    return child._process.poll()


def assert_given_up(child: Child, number: signal.Signals) -> None:
    child.signal(number)
    assert ended(child) == EXIT_OK, child.log()
    assert "start_given_up" in child.log()
    assert "Traceback" not in child.log()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_no_broker_answers_which_is_told_once(start: Start, number: signal.Signals) -> None:
    child = start("bus.kind=kafka", f"kafka.bootstrap_servers={HOST}:{free_port()}")
    child.wait_until(lambda: "broker_away" in child.log(), "a broker that is away")
    assert_given_up(child, number)
    assert child.log().count("broker_away") == 1


@pytest.mark.slow
def test_while_a_broker_takes_the_connection_and_says_nothing(start: Start) -> None:
    with socket.create_server((HOST, 0)) as mute:
        mute.settimeout(WELL_BELOW_S)
        child = start("bus.kind=kafka", f"kafka.bootstrap_servers={HOST}:{mute.getsockname()[1]}")
        connection, _ = mute.accept()
        with connection:
            assert_given_up(child, signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize(
    "stuck",
    ["session.warm_up = lambda _: hang()", "bus_edges.fill_windows = lambda *_: asyncio.to_thread(hang)",
     "session.Store.open = lambda *_, **__: hang()"],
    ids=["compiling kernels", "filling windows", "opening the store"],
)  # fmt: skip
def test_while_a_thread_of_the_start_is_busy_for_long(start: Start, tmp_path: Path, stuck: str) -> None:
    begun = tmp_path / "begun"
    program = f"""
import asyncio, pathlib, sys, time
from tickcast.ui import cli
from tickcast.live.buses import memory as bus_edges
from tickcast.live import session
def hang():
    pathlib.Path({str(begun)!r}).touch()
    time.sleep(600)
{stuck}
sys.exit(cli.main())
"""
    child = start(python=["-c", program])
    child.wait_until(begun.exists, "the thread that is busy")
    assert_given_up(child, signal.SIGTERM)


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(start: Start) -> None:
    child = start("bus.kind=kafka", f"kafka.bootstrap_servers={HOST}:{free_port()}")
    child.wait_until(lambda: "broker_away" in child.log(), "a broker that is away")
    os.kill(child.pid, signal.SIGSTOP)  # both are there when it looks
    child.signal(signal.SIGINT)
    child.signal(signal.SIGTERM)
    os.kill(child.pid, signal.SIGCONT)
    assert ended(child) == EXIT_SECOND_SIGNAL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_that_a_wrapper_and_its_group_both_send_is_one(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    drained, ended = [], []
    monkeypatch.setattr(process.os, "_exit", ended.append)
    process.drain_on_signals(lambda: drained.append(number))
    loop = asyncio.get_running_loop()
    try:
        for _ in range(2):
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.01)
        assert (drained, ended) == ([number], [])
        monkeypatch.setattr(process, "ECHO_S", 0.0)
        os.kill(os.getpid(), number)
        await asyncio.sleep(0.01)
        assert (drained, ended) == ([number], [EXIT_SECOND_SIGNAL])
    finally:
        for one in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(one)


@pytest.mark.slow
async def test_within_a_program_the_store_is_let_go_and_can_be_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def never(*_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    settings = live_settings(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("tickcast.live.buses.memory.fill_windows", never)
        daemon = Daemon(settings, EmbeddedBus(MemoryBus(SystemClock())), clock=SystemClock())
        run = asyncio.create_task(daemon.run())
        await until(begun.is_set, "the start to be under way")
        daemon.drain()
        await run
    assert daemon.gave_up
    assert daemon.state == "stopped"
    async with running(settings) as live:
        assert not live.daemon.gave_up


@pytest.mark.slow
def test_a_daemon_that_nobody_can_send_ticks_says_so(start: Start) -> None:
    child = start()
    child.wait_until(lambda: "daemon_started" in child.log(), "the daemon to be live")
    assert "nobody_can_send" in child.log()
    assert "bus.kind = 'kafka' or 'mqtt'" in child.log()
    child.signal(signal.SIGTERM)
    assert ended(child) == EXIT_OK
    assert "daemon_drained" in child.log()
