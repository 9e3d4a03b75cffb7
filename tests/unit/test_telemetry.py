"""Telemetry: percentiles close to the exact ones, lag that counts what a block swallowed, logs of one line each."""

import asyncio
import io
import json
import logging

import numpy as np
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tickcast.clock import SetClock, SystemClock
from tickcast.io.telemetry import MOST_SAID, LastMinute, Latency, LoopLag, set_up_logging
from tickcast.settings.service import LogSettings

MS = 1_000_000


@pytest.fixture(autouse=True)
def restored_logging():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    structlog.reset_defaults()


@given(st.lists(st.integers(1, 10**13), min_size=1, max_size=300), st.sampled_from([1, 50, 90, 99, 100]))
def test_a_percentile_is_within_the_width_of_a_bucket_of_the_exact_one(durations, percent):
    latency = Latency()
    latency.record_many(np.array(durations))
    exact = np.percentile(durations, percent, method="inverted_cdf")
    assert latency.percentile_ns(percent) == pytest.approx(exact, rel=0.023, abs=1)


def test_the_largest_duration_is_exact():
    latency = Latency()
    latency.record_many(np.array([5, 123_456_789, 77]))
    assert latency.summary_ms()["max"] == 123.456789
    assert latency.percentile_ns(100) <= 123_456_789


class Stepped(SetClock):
    def monotonic_ns(self) -> int:
        return self.now


def test_what_a_library_repeats_is_counted_and_written_once_in_ten_seconds():
    clock = Stepped()
    set_up_logging(LogSettings(format="json"), clock=clock, stream=(stream := io.StringIO()))
    for at_ms in (0, 100, 9_900, 10_000, 10_100, 99_000):
        clock.advance_to(at_ms * MS)
        for library in ("client", "other"):
            logging.getLogger(library).error("no broker at %d ms", at_ms)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line.get("repeated")) for line in lines if line["logger"] == "client"] == [
        ("no broker at 0 ms", None), ("no broker at 10000 ms", 2), ("no broker at 99000 ms", 1),
    ]  # fmt: skip
    assert len(lines) == 6


def test_a_warning_for_the_same_reason_is_written_once_in_ten_seconds_and_other_events_always():
    clock = Stepped()
    set_up_logging(LogSettings(format="json"), clock=clock, stream=(stream := io.StringIO()))
    log = structlog.get_logger()
    for at_ms in (0, 200, 5_000, 10_000):
        clock.advance_to(at_ms * MS)
        log.warning("broker_away", reason="no broker answers", retry_s=at_ms / 1000)
        log.info("warming", records_left=7)
    log.warning("broker_away", reason="another one", retry_s=1)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["reason"], line.get("repeated")) for line in lines if line["event"] == "broker_away"] == [
        ("no broker answers", None), ("no broker answers", 2), ("another one", None),
    ]  # fmt: skip
    assert sum(line["event"] == "warming" for line in lines) == 4


def test_the_last_minute_forgets_what_the_whole_life_keeps():
    clock, latency = Stepped(), Latency()
    minute = LastMinute(latency, clock)
    latency.record(20_000 * MS)
    for second in range(0, 120, 5):
        clock.advance_to(second * 1000 * MS)
        latency.record(MS)
        minute.mark()
        if second < 60:
            assert minute.summary_ms()["max"] == pytest.approx(20_000, rel=0.03)
    assert minute.summary_ms()["max"] == pytest.approx(1, rel=0.03)
    assert latency.summary_ms()["max"] == 20_000


def test_a_minute_in_which_nothing_came_is_all_zero():
    clock, latency = Stepped(), Latency()
    minute = LastMinute(latency, clock)
    latency.record(MS)
    for second in range(0, 70, 5):
        clock.advance_to(second * 1000 * MS)
        minute.mark()
    assert minute.summary_ms() == {"p50": 0.0, "p99": 0.0, "max": 0.0}


def test_it_remembers_only_so_many_messages():
    set_up_logging(LogSettings(format="json"), clock=SetClock(0), stream=(stream := io.StringIO()))
    for number in range(3 * MOST_SAID):
        logging.getLogger("client").error(f"number {number}")
    (handler,) = logging.getLogger().handlers
    assert len(stream.getvalue().splitlines()) == 3 * MOST_SAID
    assert len(handler.repeats) <= MOST_SAID


def test_an_empty_histogram_has_zero_everywhere():
    latency = Latency()
    latency.record_many(np.array([], np.int64))
    assert len(latency) == 0
    assert latency.summary_ms() == {"p50": 0.0, "p99": 0.0, "max": 0.0}


def test_batches_and_single_durations_add_up():
    one, many = Latency(), Latency()
    for duration in (3, 3000, 3_000_000):
        one.record(duration)
    many.record_many(np.array([3, 3000, 3_000_000]))
    assert one.counts.tolist() == many.counts.tolist()
    assert len(one) == 3


@pytest.mark.parametrize("duration", [-5, 0, 1 << 60])
def test_a_duration_beyond_the_scale_lands_in_an_outer_bucket(duration):
    latency = Latency()
    latency.record(duration)
    assert len(latency) == 1
    assert latency.counts[0] + latency.counts[-1] == 1


def test_a_cleared_histogram_is_empty():
    latency = Latency()
    latency.record(MS)
    latency.clear()
    assert latency.summary_ms()["max"] == 0
    assert len(latency) == 0


def test_a_block_of_the_loop_counts_the_wake_ups_that_it_swallowed():
    lag = LoopLag(SetClock(), every_ms=5)
    lag.record(12 * MS)
    assert len(lag.latency) == 3  # 12, 7 and 2 ms late
    assert lag.latency.summary_ms()["p50"] == pytest.approx(7, rel=0.03)


def test_a_wake_up_on_time_or_early_counts_as_not_late():
    lag = LoopLag(SetClock(), every_ms=5)
    lag.record(0)
    lag.record(-MS)
    assert len(lag.latency) == 2
    assert lag.latency.max_ns == 0


async def test_the_probe_sees_a_loop_that_was_blocked():
    clock = SystemClock()
    lag = LoopLag(clock, every_ms=2)
    async with asyncio.timeout(20):
        watching = asyncio.create_task(lag.watch())
        await asyncio.sleep(0)
        until = clock.monotonic_ns() + 60 * MS
        while clock.monotonic_ns() < until:
            pass
        while not len(lag.latency):
            await asyncio.sleep(0.005)
        watching.cancel()
    assert lag.latency.summary_ms()["max"] > 50


def logged(log, write):
    stream = io.StringIO()
    set_up_logging(log, clock=SetClock(1_700_000_000_123_000_000), stream=stream)
    write(structlog.get_logger())
    return stream.getvalue().splitlines()


def test_away_from_a_terminal_each_event_is_one_line_of_json_with_the_clock_s_time():
    lines = logged(LogSettings(), lambda log: log.info("UnitClosed", rows=3))
    assert [json.loads(line) for line in lines] == [
        {"event": "UnitClosed", "rows": 3, "level": "info", "at": "2023-11-14T22:13:20.123+00:00"}
    ]


def test_the_console_format_is_for_reading():
    (line,) = logged(LogSettings(format="console"), lambda log: log.warning("StoreStalled", behind=8))
    assert "StoreStalled" in line
    assert "behind=8" in line
    with pytest.raises(json.JSONDecodeError):
        json.loads(line)


def test_events_below_the_level_are_not_written():
    assert not logged(LogSettings(level="error"), lambda log: log.warning("StoreStalled"))


def test_values_that_json_does_not_know_are_written_as_text():
    (line,) = logged(LogSettings(), lambda log: log.info("FileRead", where=io.BytesIO, count=np.int64(3)))
    assert json.loads(line)["count"] == "3"


def test_bound_context_is_on_every_event():
    def write(log):
        with structlog.contextvars.bound_contextvars(turn=7):
            log.info("TurnEnded")

    (line,) = logged(LogSettings(), write)
    assert json.loads(line)["turn"] == 7


def test_an_exception_is_logged_with_its_traceback_on_the_same_line():
    def write(log):
        try:
            raise ValueError("torn")
        except ValueError:
            log.exception("UnitFailed")

    (line,) = logged(LogSettings(), write)
    assert "ValueError: torn" in json.loads(line)["exception"]


def test_records_of_libraries_come_out_in_the_same_format():
    (line,) = logged(LogSettings(), lambda _: logging.getLogger("asyncio").warning("slow %s", "callback"))
    event = json.loads(line)
    assert (event["event"], event["logger"], event["level"]) == ("slow callback", "asyncio", "warning")
