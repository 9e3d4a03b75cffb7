"""Trading calendars: which intervals exist."""

from datetime import UTC, datetime

import numpy as np
import pytest

from kit import Folding, settings
from tickcast.engine.core.schedule import (
    ClosedTime,
    is_closed,
    parse_calendar,
    target_times,
    trading_time,
    trading_times,
)
from tickcast.errors import BadSettings, Reason

MINUTE = 60 * 10**9
CALENDAR = """
zone = "America/New_York"
holidays = ["2024-07-04"]
[hours]
mon = ["09:30-16:00"]
tue = ["09:30-16:00"]
wed = ["09:30-16:00"]
thu = ["09:30-16:00"]
fri = ["09:30-16:00"]
"""


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


@pytest.fixture(scope="module")
def closed() -> ClosedTime:
    return parse_calendar(CALENDAR, name="nyse.toml", every_ns=MINUTE)


def test_nights_weekends_holidays_and_daylight_saving_are_closed_time(closed: ClosedTime) -> None:
    for moment, expected in (
        ("2024-07-03T13:29", True), ("2024-07-03T13:30", False), ("2024-07-03T19:59", False),
        ("2024-07-03T20:00", True), ("2024-07-04T15:00", True), ("2024-07-06T15:00", True),
        ("2024-01-03T14:29", True), ("2024-01-03T14:30", False),  # winter: an hour later in UTC
    ):  # fmt: skip
        assert is_closed(closed, utc(moment)) is expected, moment


def test_trading_time_counts_open_time_only(closed: ClosedTime) -> None:
    span = trading_time(closed, utc("2024-07-05T13:31")) - trading_time(closed, utc("2024-07-03T19:59"))
    assert span == 2 * MINUTE
    moments = np.array([utc("2024-07-03T19:59"), utc("2024-07-04T12:00"), utc("2024-07-05T13:31")])
    assert np.diff(trading_times(closed, moments)).tolist() == [MINUTE, MINUTE]


def test_targets_skip_closed_time(closed: ClosedTime) -> None:
    targets = target_times(closed, np.array([utc("2024-07-03T19:59")]), steps=3, every_ns=MINUTE)
    assert [*targets[0]] == [utc("2024-07-03T20:00"), utc("2024-07-05T13:31"), utc("2024-07-05T13:32")]


@pytest.mark.parametrize(
    ("friday", "monday"),
    [("2024-03-08T20:58", "2024-03-11T13:31"), ("2024-11-01T19:58", "2024-11-04T14:31")],
    ids=["summer begins", "summer ends"],
)
def test_targets_follow_the_clock_of_the_market_over_a_switch(closed: ClosedTime, friday: str, monday: str) -> None:
    """It opens at 09:30 of its own zone on both sides: one hour less or more lies between them."""
    targets = target_times(closed, np.array([utc(friday)]), steps=4, every_ns=MINUTE)[0]
    assert [*targets] == [utc(friday) + MINUTE, utc(friday) + 2 * MINUTE, utc(monday), utc(monday) + MINUTE]


def test_a_night_is_no_gap_and_a_tick_at_night_is_refused(closed: ClosedTime) -> None:
    s = settings(bars__every_ms=60_000, bars__calendar="nyse.toml", quality__max_jump_ms=10**9)
    times = ["2024-07-03T19:58", "2024-07-03T19:59", "2024-07-03T21:00", "2024-07-05T13:30", "2024-07-05T13:32"]
    folding = Folding(s, closed_time=closed).feed([("A", utc(t), 1.0, 1.0) for t in times])
    assert folding.count(Reason.MARKET_CLOSED) == 1
    assert [*folding.bars.mask] == [1, 1, 1]
    assert [*folding.bars.gap] == [0, 0, 0]
    assert folding.feed([("A", utc("2024-07-05T13:34"), 1.0, 1.0)]).bars.mask[-2:].tolist() == [0, 1]


def test_a_calendar_that_makes_no_sense_is_refused_with_its_name() -> None:
    with pytest.raises(BadSettings, match="no span of a day"):
        parse_calendar(CALENDAR.replace("16:00", "09:00"), name="crooked.toml", every_ns=MINUTE)
    with pytest.raises(BadSettings, match="crooked.toml"):
        parse_calendar(CALENDAR.replace("New_York", "Atlantis"), name="crooked.toml", every_ns=MINUTE)
    with pytest.raises(BadSettings, match="multiple of bars.every_ms"):
        parse_calendar(CALENDAR, name="nyse.toml", every_ns=7 * MINUTE)
