"""Trading time: which intervals exist, how many lie between two bars, and when the h-th next one ends.

Closed time makes no bars. Times are event times; nothing here asks for the time of day.
"""

import tomllib
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numba import njit

from tickcast.columns import I64
from tickcast.errors import BadSettings

FIRST_YEAR, LAST_YEAR = 1970, 2100
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class ClosedTime(NamedTuple):
    """Closed spans, ascending, as kernels see them; `before[i]` is the closed time before span i."""

    start: I64
    end: I64
    before: I64


ALWAYS_OPEN = ClosedTime(*(np.empty(0, np.int64) for _ in range(3)))


@njit(cache=True, nogil=True)
def trading_time(closed, t):  # type: ignore[no-untyped-def]
    """Open time before t."""
    if len(closed.start) == 0:
        return t
    i = np.searchsorted(closed.start, t, side="right") - 1
    if i < 0:
        return t
    return t - closed.before[i] - min(t, closed.end[i]) + closed.start[i]


@njit(cache=True, nogil=True)
def trading_times(closed, times):  # type: ignore[no-untyped-def]
    """`trading_time` of each."""
    found = np.empty(len(times), np.int64)
    for i in range(len(times)):
        found[i] = trading_time(closed, times[i])
    return found


@njit(cache=True, nogil=True)
def is_closed(closed, t):  # type: ignore[no-untyped-def]
    if len(closed.start) == 0:
        return False
    i = np.searchsorted(closed.start, t, side="right") - 1
    return i >= 0 and t < closed.end[i]


@njit(cache=True, nogil=True)
def _target_times(closed, as_of, steps, every_ns, out):  # type: ignore[no-untyped-def]
    for i in range(len(as_of)):
        t = as_of[i]
        for h in range(steps):
            t += every_ns
            while is_closed(closed, t - 1):  # the interval that ends at t must be open time
                k = np.searchsorted(closed.start, t - 1, side="right") - 1
                t = closed.end[k] + every_ns
            out[i, h] = t


def target_times(closed: ClosedTime, as_of: I64, *, steps: int, every_ns: int) -> I64:
    """[B, steps]: the ends of the next open intervals after each as_of."""
    out = np.empty((len(as_of), steps), np.int64)
    if len(closed.start):
        _target_times(closed, as_of, steps, every_ns, out)
    else:
        out[:] = as_of[:, None] + every_ns * np.arange(1, steps + 1)
    return out


def parse_calendar(text: str, *, name: str, every_ns: int) -> ClosedTime:
    """TOML: `zone`, `[hours] mon = ["09:30-16:00"]`, `holidays = ["2026-12-25"]`; `name` is for the error."""
    try:
        spec = tomllib.loads(text)
        zone = ZoneInfo(spec["zone"])
        hours = {day: [_span(text) for text in spec["hours"].get(day, [])] for day in DAYS}
        holidays = {date.fromisoformat(text) for text in spec.get("holidays", [])}
    except (KeyError, ValueError, ZoneInfoNotFoundError, tomllib.TOMLDecodeError) as error:
        raise BadSettings(
            f"bars.calendar {name} cannot be used: {error!r}", remedy="see docs/bars.md for the form of a calendar"
        ) from None
    return _closed(_open_spans(zone, hours, holidays), every_ns)


def _span(text: str) -> tuple[int, int]:
    """`09:30-16:00` as minutes of the day."""
    first, last = (int(h) * 60 + int(m) for h, m in (part.split(":") for part in text.split("-")))
    if not 0 <= first < last <= 24 * 60:
        raise ValueError(f"'{text}' is no span of a day")
    return first, last


def _open_spans(zone: ZoneInfo, hours: dict[str, list[tuple[int, int]]], holidays: set[date]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    day, last = date(FIRST_YEAR, 1, 1), date(LAST_YEAR, 1, 1)
    while day < last:
        if day not in holidays:
            midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
            for a, b in hours[DAYS[day.weekday()]]:
                spans.append((_utc_ns(midnight, a), _utc_ns(midnight, b)))
        day += timedelta(days=1)
    return sorted(spans)


def _utc_ns(midnight: datetime, minutes: int) -> int:
    local = midnight + timedelta(minutes=minutes)  # wall-clock arithmetic: the zone's offset is applied afterwards
    return int(local.astimezone(UTC).timestamp()) * 10**9


def _closed(spans: list[tuple[int, int]], every_ns: int) -> ClosedTime:
    """The complement of the open spans, which must be whole intervals so that no bar is half open."""
    starts, ends, before, total = [], [], [], 0
    for (_, closes), (opens, _) in pairwise(spans):
        if closes % every_ns or opens % every_ns:
            raise BadSettings("bars.calendar: trading hours must begin and end on a multiple of bars.every_ms")
        if opens > closes:
            starts.append(closes)
            ends.append(opens)
            before.append(total)
            total += opens - closes
    return ClosedTime(*(np.array(column, np.int64) for column in (starts, ends, before)))
