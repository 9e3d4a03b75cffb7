"""Ticks whose times would overflow, hang or silence a daemon: it lives, refuses them by name and answers the others."""

from pathlib import Path

import duckdb
import pytest

from livekit import live_settings, running
from tickcast.clock import SystemClock

SECOND, HOUR = 10**9, 3600
SMALL = {"window__lookback": 12, "forecast__horizon": 4}
ENDS = [-4_600_000_000, -4_599_999_998, 5_000_000_000, 5_000_000_001, 5_000_000_002]  # further apart than 64 bits of ns


def tick(symbol: str, second: int, base: int) -> bytes:
    return f'{{"symbol":"{symbol}","ts":{(base + second) * SECOND},"price":{100 + second % 7},"size":1}}'.encode()


@pytest.mark.parametrize(
    ("hostile", "symbol", "ahead_ms", "reason"),
    [
        ([tick("A", second, 0) for second in ENDS], "A", 60_000, "wrong_unit"),
        ([tick("A", 7_200_000_000, 0)] * 2, "A", 60_000, "wrong_unit"),
        ([tick("A", 4_090_000_000, 0)] * 2, "A", 60_000, "future"),
        (HOUR + 600, "B", 60_000, "future"),
        (HOUR + 600, "B", 0, "jump"),
    ],
    ids=["further apart than 64 bits", "the year 2198 twice", "the year 2099 twice", "an hour ahead", "of no clock"],
)
async def test_hostile_times_are_dead_letters_and_honest_ticks_before_and_after_are_answered(
    tmp_path: Path, hostile: list[bytes] | int, symbol: str, ahead_ms: int, reason: str
) -> None:
    base = SystemClock().now_ns() // SECOND - 60
    bad = [tick(symbol, hostile, base)] if isinstance(hostile, int) else hostile
    settings = live_settings(tmp_path, **SMALL, quality__ahead_ms=ahead_ms)
    async with running(settings) as live:
        await live.send([tick("A", second, base) for second in range(20)])
        await live.send(bad)
        await live.send([tick("A", second, base) for second in range(20, 40)])
        health, forecasts = live.daemon.health(), await live.forecasts()
    answered = {forecast["as_of_ns"] // SECOND - base for forecast in forecasts}
    assert set(range(13, 40)) <= answered <= set(range(1, 40))
    assert (health.state, health.accepted, health.late, health.held) == ("live", 40, 0, 0)
    with duckdb.connect(str(settings.store.path), read_only=True) as store:
        letters = store.execute("SELECT value, reason FROM dead_letters").fetchall()
    assert sorted((bytes(value), told) for value, told in letters) == sorted((value, reason) for value in bad)
