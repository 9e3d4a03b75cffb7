"""How a daemon ends, and what it does by the clock: signals, a disk that stays full, days that roll off."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from livekit import live_settings, records, running, until
from tickcast.clock import SystemClock
from tickcast.errors import EXIT_DIED, EXIT_OK, EXIT_SECOND_SIGNAL, EngineFailed, StoreStalled
from tickcast.io.store.store import Store
from tickcast.live import session
from tickcast.live.daemon import Daemon
from tickcast.loop.commits import CommitQueue
from tickcast.plugin import Runner
from tickcast.questions import Answers, Questions

SMALL = {"window__lookback": 4, "forecast__horizon": 2, "symbols__limit": 8, "uncertainty__memory_bars": 20}
T0, SECOND, DAY = 1_700_006_400_000_000_000, 10**9, 86_400 * 10**9  # T0 is a midnight
DRAINS_FOR_EVER = """
import asyncio, sys
from tickcast.live.session import Session
async def never(self):
    print("draining", flush=True)
    await asyncio.Event().wait()
Session._settle = never
from tickcast.__main__ import main
sys.exit(main())
"""


def ticks(first_ns: int, count: int) -> list[bytes]:
    return [b'{"symbol":"A","ts":%d,"price":%d,"size":1}' % (first_ns + k * SECOND, 100 + k % 3) for k in range(count)]


def arguments(folder: Path) -> list[str]:
    paths = {"store.path": folder / "s.duckdb", "runtime.folder": folder / "run"}
    return [
        "run",
        "--set",
        "log.format=json",
        *(part for key, path in paths.items() for part in ("--set", f"{key}={path}")),
    ]


def until_live(child: "subprocess.Popen[str]") -> None:
    assert child.stderr is not None
    assert any("daemon_started" in line for line in child.stderr), child.poll()


@pytest.mark.slow
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains(tmp_path: Path, first: signal.Signals) -> None:
    command = [sys.executable, "-m", "tickcast", *arguments(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        until_live(child)
        child.send_signal(first)
        assert "daemon_drained" in child.communicate(timeout=60)[1]
    assert child.returncode == EXIT_OK


@pytest.mark.slow
def test_the_second_signal_ends_a_drain_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRAINS_FOR_EVER, *arguments(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        until_live(child)
        child.send_signal(signal.SIGTERM)
        assert child.stdout is not None
        assert child.stdout.readline() == "draining\n"
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
    assert child.returncode == EXIT_SECOND_SIGNAL


async def test_a_store_that_stays_full_ends_the_daemon_after_max_wait_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    async def full(self: Store, unit: Any, **named: Any) -> None:
        nonlocal tries
        tries += 1
        raise StoreStalled("no space left")

    async def stalls() -> None:
        async with running(live_settings(tmp_path, **SMALL, store__unit_ms=20, runtime__max_wait_s=1)) as live:
            monkeypatch.setattr(Store, "write", full)
            await live.bus.produce(live.topic, ticks(T0, 5))
            await until(lambda: live.daemon.health().state == "store_stalled", "a store that takes nothing")

    with pytest.raises(StoreStalled, match="no space left"):
        await stalls()
    assert tries > 1


async def test_days_roll_off_while_the_daemon_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "ROLL_OFF_EVERY_S", 0.05)
    settings = live_settings(tmp_path, **SMALL, store__keep_days=1, store__unit_ms=20)
    async with running(settings) as live:
        await live.send([*ticks(T0, 6), *ticks(T0 + 3 * DAY, 6)])
        await live.stored()
        old = f"SELECT count(*) FROM bars WHERE as_of_ns < {T0 + DAY}"
        async with asyncio.timeout(60):
            while (await live.daemon.session.store.query(old)).rows != [(0,)]:
                await asyncio.sleep(0.02)
        left = (await live.daemon.session.store.query("SELECT count(*) FROM bars")).rows
    assert left != [(0,)]
    assert [path.name for path in (tmp_path / "archive" / "bars").iterdir()] == ["2023-11-15.parquet"]


class Leaves(Runner):
    """A model that ends the interpreter, as a plugin should not."""

    def __init__(self, like: Runner) -> None:
        self.card = like.card

    def answer(self, questions: Questions) -> Answers:
        sys.exit(0)


@pytest.mark.parametrize("chunk", [2000, 1], ids=["on the engine's thread", "on the loop"])
async def test_a_plugin_that_calls_sys_exit_ends_the_daemon_with_1_and_what_it_did(tmp_path: Path, chunk: int) -> None:
    daemon: Daemon | None = None
    with pytest.raises(EngineFailed, match=r"SystemExit\(0\)") as failed:  # noqa: PT012
        async with running(live_settings(tmp_path, **SMALL)) as live:
            daemon = live.daemon
            await live.send(ticks(T0, 10))
            live.daemon.session.serving.ladder.runners[0] = Leaves(live.daemon.session.serving.ladder.runners[0])
            for first in range(0, 2000, chunk):
                await live.bus.produce(live.topic, ticks(T0 + (10 + first) * SECOND, chunk))
                if chunk == 1 and first == 5:
                    break
            await until(lambda: live.daemon._running is None, "the end of the daemon")
    assert daemon is not None
    assert failed.value.exit_code == EXIT_DIED


class Steered(SystemClock):
    """The machine's clock, as somebody sets it."""

    set_by_ns = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.set_by_ns


@pytest.mark.parametrize(("hours", "ahead_ms", "refused"), [(-1, 60_000, 10), (-1, 0, 0), (1, 60_000, 0)])
async def test_a_clock_that_is_set_while_it_runs_stops_nothing_for_good(
    tmp_path: Path, hours: int, ahead_ms: int, refused: int
) -> None:
    """A clock that was set back an hour makes ticks of now ticks to come: they are refused, and counted, until it is
    right again, unless `quality.ahead_ms` is off.
    """
    clock = Steered()
    idle_ms = 50 if hours < 0 else 0  # a heartbeat takes the clock at its word
    settings = live_settings(
        tmp_path, **SMALL, quality__ahead_ms=ahead_ms, bars__idle_ms=idle_ms, score__publish_every_s=0.05,
        store__unit_ms=20,
    )  # fmt: skip
    async with running(settings, clock=clock) as live:
        health = live.bus.subscribe(settings.topics.prefix + "health")
        began = clock.now_ns()
        await live.send(ticks(began, 10))
        before = await live.forecasts()
        clock.set_by_ns = hours * 3600 * SECOND
        status = await live.daemon.command("status")
        await live.send(ticks(began + 10 * SECOND, 10))
        assert live.daemon.health().reasons.get("future", 0) == refused
        meanwhile = await live.forecasts()
        clock.set_by_ns = 0
        await live.send(ticks(began + 20 * SECOND, 10))
        after = await live.forecasts()
        await live.stored()
        told = await records(health)
        last = live.daemon.health()
    assert (last.state, last.accepted, last.late) == ("live", 30 - refused, 0)
    assert status.ok
    assert bool(meanwhile) == (not refused)
    as_of = [f["as_of_ns"] for f in (*before, *meanwhile, *after)]
    assert before
    assert after
    assert as_of == sorted(set(as_of))  # event time owes nothing to the clock
    assert not meanwhile or (meanwhile[-1]["produced_ns"] < before[-1]["produced_ns"]) == (hours < 0)  # which it says
    assert min(part for one in told for name in ("latency_ms", "loop_lag_ms") for part in one[name].values()) >= 0
    uptime = [one["uptime_s"] for one in told]
    assert uptime == sorted(uptime)


async def test_a_command_that_comes_while_it_drains_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle, go_on = CommitQueue.idle, asyncio.Event()

    async def slowly(self: CommitQueue) -> None:
        await go_on.wait()
        await idle(self)

    monkeypatch.setattr(CommitQueue, "idle", slowly)
    async with running(live_settings(tmp_path, **SMALL)) as live:
        await live.send(ticks(T0, 10))
        assert (await live.daemon.command("drain")).ok
        await until(lambda: live.daemon.state == "draining", "the drain")
        status = await live.daemon.command("status")
        asked = await live.daemon.command("forecast", symbols=["A"])
        assert (status.result["health"]["state"], status.result["health"]["consumed"]) == ("draining", 10)
        assert asked.ok, asked.error
        assert len(asked.result["forecasts"]) == 1
        assert (await live.daemon.command("drain")).ok
        go_on.set()
    assert live.daemon.state == "stopped"
