"""A daemon says how it is: a line every so often, a warning with the remedy, a state, figures of the last minute."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from livekit import live_settings, running, until

SMALL = {"window__lookback": 4, "forecast__horizon": 2, "runtime__heartbeat_s": 0.1}
START_NS, SECOND = 1_700_000_000 * 10**9, 10**9


def tick(number: int, *, symbol: str = "A", unit: int = 1, **more: Any) -> bytes:
    ts = (START_NS + number * SECOND) // unit
    return msgspec.json.encode({"symbol": symbol, "ts": ts, "price": 100 + number % 7, **more})


async def told(logs: list[Any], event: str, **like: Any) -> dict[str, Any]:
    """The next such event from now on."""
    begin = len(logs)

    def found() -> list[Any]:
        return [line for line in logs[begin:] if line["event"] == event and like.items() <= line.items()]

    await until(lambda: bool(found()), event)
    return dict(found()[0])


@pytest.mark.slow
async def test_a_healthy_daemon_says_what_it_did_in_the_window(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with running(live_settings(tmp_path, **SMALL, score__publish_every_s=0.05)) as live:
            await live.send([tick(n) for n in range(60)] + [tick(0)])
            await told(logs, "heartbeat", bars=0)
            await told(logs, "heartbeat", skill=0.0)
        beats = [line for line in logs if line["event"] == "heartbeat"]
    assert {"state", "ticks_per_s", "bars", "forecasts", "skill", "refused", "cold", "lag_records"} <= beats[0].keys()
    assert sum(beat["bars"] for beat in beats) == 59
    assert sum(beat["forecasts"] for beat in beats) == live.daemon.session.pump.meter.forecasts > 50
    assert sum(beat["refused"].get("late", 0) for beat in beats) == 1
    assert any(beat["ticks_per_s"] > 0 for beat in beats)
    assert beats[-1]["skill"] == 0.0  # last value beside itself
    assert not [line for line in logs if line["log_level"] == "warning"]


async def test_a_feed_that_is_refused_is_told_with_its_remedy(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with running(live_settings(tmp_path, **SMALL)) as live:
            await live.send([tick(n, unit=10**6) for n in range(50)])
            warning = await told(logs, "ticks_refused")
            await told(logs, "heartbeat")
            quiet = len(logs)
            await told(logs, "heartbeat")
    assert warning["log_level"] == "warning"
    assert "(wrong_unit): 1700000000000 looks like milliseconds: set codec.time_unit = 'ms'" in warning["reason"]
    assert not [line for line in logs[quiet:] if line["event"] == "ticks_refused"]  # nothing came, nothing is told


@pytest.mark.slow
async def test_messages_of_other_channels_are_no_refusals(tmp_path: Path) -> None:
    settings = live_settings(tmp_path, **SMALL, codec__preset="coinbase-match")
    with capture_logs() as logs:
        async with running(settings) as live:
            await live.send([b'{"type":"heartbeat","product_id":"A"}'] * 40)
            await told(logs, "heartbeat")
            await told(logs, "heartbeat")
    assert not [line for line in logs if line["event"] == "ticks_refused"]
    assert not any(line["refused"] for line in logs if line["event"] == "heartbeat")


async def test_a_partition_that_is_mostly_late_is_a_state_until_it_is_in_time_again(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with running(live_settings(tmp_path, **SMALL)) as live:
            await live.send([tick(n) for n in range(100, 120)])
            await told(logs, "heartbeat")
            await live.send([tick(n) for n in range(20)])
            error = await told(logs, "partition_late")
            assert live.daemon.health().state == "partition_late"
            assert live.daemon.health().partitions == {"tickcast.ticks/0": "late"}
            await live.send([tick(n) for n in range(120, 160)])
            await told(logs, "partition_in_time")
            assert live.daemon.health().state == "live"
            assert live.daemon.health().partitions == {}
    assert error["log_level"] == "error"
    assert "bars.lateness_ms" in error["reason"]


async def test_a_paused_daemon_says_so(tmp_path: Path) -> None:
    async with running(live_settings(tmp_path, **SMALL)) as live:
        assert (await live.daemon.command("pause")).ok
        assert live.daemon.health().state == "paused"
        assert (await live.daemon.command("resume")).ok
        assert live.daemon.health().state == "live"
        assert live.daemon.health().commands == {"done": 2}
        refused = await live.daemon.command("promote", model="nobody")
        assert live.daemon.health().commands == {"done": 2, refused.error_code: 1}
        assert live.daemon.health().models == {"held": 0, "loads": 0, "evictions": 0}


async def test_ticks_that_were_stamped_before_the_daemon_went_live_say_nothing_of_its_latency(tmp_path: Path) -> None:
    async with running(live_settings(tmp_path, **SMALL)) as live:
        meter = live.daemon.session.pump.meter
        real, meter.live_since_ns = meter.live_since_ns, 1 << 62  # as if all of these had waited for it
        await live.send([tick(n) for n in range(10)])
        assert len(meter.latency) == 0
        assert live.daemon.health().latency_ms["max"] == 0
        meter.live_since_ns = real
        await live.send([tick(n) for n in range(10, 20)])
        await until(lambda: len(meter.latency) > 5, "their latency")
        assert 0 < live.daemon.health().latency_ms["p50"] <= live.daemon.health().latency_life_ms["max"]
