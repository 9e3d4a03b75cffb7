"""How a daemon ends, and what it does by the clock: signals, a disk that stays full, days that roll off."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from livekit import live_settings, running, until
from tickcast.errors import EXIT_OK, EXIT_SECOND_SIGNAL, StoreStalled
from tickcast.io.store.store import Store
from tickcast.live import session

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
