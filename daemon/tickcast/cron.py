"""Lines of cron, and which minutes of a wall clock they name. It asks no clock and knows no day but that it is told.

Five fields: minute, hour, day of the month, month, day of the week. Lists, ranges, steps and names of months and days;
Sunday is 0 or 7. Where both days are given, either will do, as cron has it. A minute is counted from 1970 on the wall
clock of some zone, as `wall_minute` tells it.

A slot is a minute that a line names. It has come as soon as the wall clock shows it or has passed it, so each comes
once: those that a spring leaves out come at the leap, those that an autumn shows again do not come again.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Self
from zoneinfo import ZoneInfo

DAY = 24 * 60
MINUTE_NS = 60 * 10**9
SPAN = 41 * 366  # days: weekdays of dates repeat after 28 years, after 40 over the year 2100
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
PIECE = re.compile(r"(?:(\*)|(\w+)(?:-(\w+))?)(?:/([0-9]+))?")


@dataclass(frozen=True, slots=True)
class Cron:
    text: str
    minutes: tuple[int, ...]  # of the day, ascending
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 = Sunday
    either: bool  # day of the month or day of the week

    @classmethod
    def of(cls, text: str) -> Self:
        """ValueError says what is wrong with a line."""
        fields = text.split()
        if len(fields) != 5:
            raise ValueError(f"'{text}' has {len(fields)} fields: minute, hour, day, month, day of the week are five")
        minutes, hours = _field(fields[0], 0, 59), _field(fields[1], 0, 23)
        line = cls(
            text=text, minutes=tuple(sorted(60 * hour + minute for hour in hours for minute in minutes)),
            days=_field(fields[2], 1, 31), months=_field(fields[3], 1, 12, MONTHS),
            weekdays=frozenset(day % 7 for day in _field(fields[4], 0, 7, WEEKDAYS)),
            either=not (fields[2].startswith("*") or fields[4].startswith("*")),
        )  # fmt: skip
        if line.next_after(minute_of(datetime(2000, 1, 1))) is None:
            raise ValueError(f"'{text}' names a day that never comes")
        return line

    def slots(self, after: int, until: int) -> Iterator[int]:
        """Wall minutes above `after`, up to `until` and with it, in order."""
        for day in range((after + 1) // DAY, until // DAY + 1):
            if self._names(date.fromordinal(EPOCH + day)):
                yield from (slot for minute in self.minutes if after < (slot := day * DAY + minute) <= until)

    def next_after(self, minute: int) -> int | None:
        return next(self.slots(minute, minute + SPAN * DAY), None)

    def _names(self, day: date) -> bool:
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and (of_month or of_week if self.either else of_month and of_week)


EPOCH = date(1970, 1, 1).toordinal()


def minute_of(wall: datetime) -> int:
    """Of what a clock shows, as a number."""
    return (wall.toordinal() - EPOCH) * DAY + wall.hour * 60 + wall.minute


def wall_minute(at_ns: int, zone: ZoneInfo) -> int:
    """What the wall clock of the zone shows at that time."""
    shown = datetime.fromtimestamp(at_ns // 10**9, UTC).astimezone(zone)
    return minute_of(shown)


def time_ns(slot: int, zone: ZoneInfo) -> int:
    """When the wall clock of the zone first shows that minute or has passed it."""
    wall = datetime(1970, 1, 1, tzinfo=zone) + timedelta(minutes=slot)  # arithmetic on the wall clock
    at = int(wall.timestamp()) // 60
    if wall_minute(at * MINUTE_NS, zone) == slot:
        return at * MINUTE_NS
    before = int(wall.replace(fold=1).timestamp()) // 60  # it was left out: the leap lies between
    while at - before > 1:
        middle = (at + before) // 2
        before, at = (before, middle) if wall_minute(middle * MINUTE_NS, zone) >= slot else (middle, at)
    return at * MINUTE_NS


def _field(text: str, low: int, high: int, names: tuple[str, ...] = ()) -> frozenset[int]:
    found: set[int] = set()
    for piece in text.split(","):
        match = PIECE.fullmatch(piece)
        if match is None:
            raise ValueError(f"'{piece}' is none of *, N, N-M, each with /STEP")
        every, first, last, step = match.groups()
        if step is not None and (int(step) == 0 or not (every or last)):
            raise ValueError(f"'{piece}': a step is above 0, of * or of a range")
        start = low if every else _number(first, low, high, names)
        end = high if every else _number(last or first, low, high, names)
        if end < start:
            raise ValueError(f"'{piece}' ends before it begins")
        found.update(range(start, end + 1, int(step or 1)))
    return frozenset(found)


def _number(text: str, low: int, high: int, names: tuple[str, ...]) -> int:
    if text.lower() in names:
        return names.index(text.lower()) + low
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        known = f" or {names[0]} .. {names[-1]}" if names else ""
        raise ValueError(f"'{text}' is not {low} .. {high}{known}")
    return int(text)
