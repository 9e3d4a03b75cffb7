"""Lines of cron against an oracle that looks at every minute, and slots when clocks are changed."""

import calendar
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickcast.cron import DAY, MINUTE_NS, Cron, minute_of, time_ns, wall_minute

MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun"]


@st.composite
def fields(draw: st.DrawFn, low: int, high: int, names: list[str] | None = None) -> tuple[str, set[int], bool]:
    """A field, what it means, and whether it begins with a star."""
    texts, meant = [], set()
    for _ in range(draw(st.integers(1, 3))):
        a, b = sorted(draw(st.tuples(st.integers(low, high), st.integers(low, high))))
        step, kind = draw(st.integers(1, 20)), draw(st.sampled_from(["*", "*/", "n", "n-m", "n-m/"]))
        first, last = (names[x - low] if names and draw(st.booleans()) else str(x) for x in (a, b))
        if first == "sun" and a == 7:
            first, last = "7", "7"
        if last == "sun" and b == 7:
            last = "7"
        text = {"*": "*", "*/": f"*/{step}", "n": first, "n-m": f"{first}-{last}", "n-m/": f"{first}-{last}/{step}"}
        spans = {
            "*": range(low, high + 1), "*/": range(low, high + 1, step), "n": [a], "n-m": range(a, b + 1),
            "n-m/": range(a, b + 1, step),
        }  # fmt: skip
        texts.append(text[kind])
        meant |= {*spans[kind]}
    return ",".join(texts), meant, texts[0].startswith("*")


@settings(max_examples=60, deadline=None)
@given(
    fields(0, 59), fields(0, 23), fields(1, 31), fields(1, 12, MONTHS), fields(0, 7, WEEKDAYS),
    st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)), st.integers(0, 4 * DAY),
)  # fmt: skip
def test_the_slots_of_a_line_are_the_minutes_that_all_of_its_fields_name(
    minute, hour, day, month, weekday, begin, span
):  # type: ignore[no-untyped-def]
    text = " ".join(field[0] for field in (minute, hour, day, month, weekday))
    if not any(d <= calendar.monthrange(2000, m)[1] for d in day[1] for m in month[1]) and (day[2] or weekday[2]):
        with pytest.raises(ValueError, match="never comes"):
            Cron.of(text)
        return
    line = Cron.of(text)
    after, expected = minute_of(begin), []
    for k in range(1, span + 1):
        wall = datetime(begin.year, begin.month, begin.day, begin.hour, begin.minute) + timedelta(minutes=k)
        of_month, of_week = wall.day in day[1], wall.isoweekday() in weekday[1] or wall.isoweekday() % 7 in weekday[1]
        of_day = (of_month and of_week) if day[2] or weekday[2] else (of_month or of_week)
        if wall.minute in minute[1] and wall.hour in hour[1] and wall.month in month[1] and of_day:
            expected.append(after + k)
    assert [*line.slots(after, after + span)] == expected
    following = line.next_after(after)
    assert following == expected[0] if expected else following is not None and following > after + span


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        ("30 2 * * *", ["2024-02-28T02:30", "2024-02-29T02:30", "2024-03-01T02:30"]),
        ("0 0 29 feb *", ["2024-02-29T00:00", "2028-02-29T00:00"]),
        ("0 9 1 * mon", ["2024-03-01T09:00", "2024-03-04T09:00", "2024-03-11T09:00"]),
        ("*/20 8 1-7 */2 MON-fri", ["2024-03-01T08:00", "2024-03-01T08:20", "2024-03-01T08:40"]),
        ("59 23 31 12 *", ["2024-12-31T23:59", "2025-12-31T23:59"]),
        ("0 0 * * 5-7", ["2024-03-01T00:00", "2024-03-02T00:00", "2024-03-03T00:00", "2024-03-08T00:00"]),
    ],
)
def test_lines_as_people_write_them(text: str, slots: list[str]) -> None:
    line, found, at = Cron.of(text), [], minute_of(datetime(2024, 2, 28))
    for _ in slots:
        at = line.next_after(at) or 0
        found.append((datetime(1970, 1, 1) + timedelta(minutes=at)).isoformat(timespec="minutes"))
    assert found == slots


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("* * * *", "has 4 fields"), ("@daily", "has 1 fields"), ("60 * * * *", "'60' is not 0 .. 59"),
        ("* * * * mon-", "is none of"), ("5/10 * * * *", "of a range"), ("*/0 * * * *", "above 0"),
        ("* * 0 * *", "not 1 .. 31"), ("* * * foo *", "or jan .. dec"), ("* * * * 8", "or sun .. sat"),
        ("* * * * fri-mon", "ends before it begins"), ("0 0 31 2 *", "never comes"), ("", "has 0 fields"),
        ("٣ * * * *", "is not 0 .. 59"), ("1,,2 * * * *", "is none of"), ("-1 * * * *", "is none of"),
    ],
)  # fmt: skip
def test_a_line_that_makes_no_sense_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Cron.of(text)


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("Europe/Berlin", "2024-03-30T12:00"), ("Europe/Berlin", "2024-10-26T12:00"),
        ("America/New_York", "2024-03-09T12:00"), ("America/New_York", "2024-11-02T12:00"),
        ("Australia/Lord_Howe", "2024-10-05T12:00"), ("Australia/Lord_Howe", "2024-04-06T12:00"),  # half an hour
        ("Pacific/Apia", "2011-12-29T12:00"),  # a whole day was left out
        ("Asia/Kathmandu", "2024-03-09T12:00"), ("UTC", "2024-03-09T12:00"),
    ],
)  # fmt: skip
def test_each_slot_comes_once_and_when_the_clock_first_shows_it_or_has_passed_it(zone: str, day: str) -> None:
    at, where = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()), ZoneInfo(zone)
    shown, came = wall_minute(at * 10**9, where), {}
    for k in range(1, 2 * DAY):
        now = (at + 60 * k) * 10**9
        wall = datetime.fromtimestamp(at + 60 * k, where)
        minute = minute_of(wall.replace(tzinfo=None))
        assert wall_minute(now, where) == minute
        for slot in range(shown + 1, minute + 1):
            assert slot not in came
            came[slot] = now
        shown = max(shown, minute)
    assert [*came] == [*range(min(came), max(came) + 1)]
    assert {slot: time_ns(slot, where) for slot in came} == came
    assert MINUTE_NS == 60 * 10**9
