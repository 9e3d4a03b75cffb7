"""Where a restart without a snapshot reads from: the decision, and what the store keeps for it."""

import pytest

from kit import settings as settings_of
from storekit import SECOND, SOURCE, T0, bars, open_store, store_settings, table, value
from tickcast.io.store.history import BarsOfPartition, Kept, Mark
from tickcast.io.store.store import Commit
from tickcast.live.recovery import BEGINNING_NS, END_NS, PartitionStart, start

MINUTE = 60 * SECOND
BEGAN = T0 // MINUTE * MINUTE
OTHER = ("ticks", 1)


def time_bars(**overrides: object):
    return settings_of(bars__every_ms=1000, **overrides)


def tick_bars(**overrides: object):
    return settings_of(bars__kind="tick", **overrides)


def marks(*minutes: float) -> list[Mark]:
    """A mark at every such minute; a second of event time is ten records."""
    return [Mark(T0 + int(m * MINUTE), int(m * 600) + 5) for m in minutes]


def kept(*minutes: float, closed: float | None, next_offset: int = 10**6) -> Kept:
    return Kept(marks(*minutes), None if closed is None else T0 + int(closed * MINUTE), next_offset)


def begin(settings, kept: Kept, *, committed: int = 3000, low: int = 0, bars_needed: int = 100) -> PartitionStart:
    return start(settings, kept, bars_needed=bars_needed, committed=committed, low=low)


def test_time_bars_are_read_from_the_newest_mark_below_the_commit_whose_open_bars_begin_later():
    found = begin(time_bars(), kept(1, 2, 3, 4, 6, closed=4.5))
    assert found == PartitionStart(2405, 3000, T0 + 4 * MINUTE + SECOND, T0 + 4 * MINUTE)


def test_a_mark_on_a_boundary_leaves_the_bar_that_begins_there_to_the_ticks_before_it():
    """A tick at the boundary itself may lie below the mark: its bar has to come from the store."""
    assert begin(time_bars(), kept(3, 4, closed=4)).offset == 1805
    assert begin(time_bars(), kept(3, 4, closed=4 + 1 / 60)).offset == 2405


def test_a_mark_within_a_bar_waits_for_the_next_one():
    mark = Mark(T0 + SECOND // 2, 7)
    assert begin(time_bars(), Kept([mark], T0 + SECOND, 10)) == PartitionStart(7, 3000, T0 + SECOND, mark.watermark_ns)


def test_no_mark_beyond_the_commit_or_below_what_the_broker_holds_is_used():
    many = kept(1, 2, 3, 4, closed=9)
    assert begin(time_bars(), many, committed=2404).offset == 1805
    assert begin(time_bars(), many, committed=1805).offset == 1805
    assert begin(time_bars(), many, low=2405).offset == 2405
    gone = begin(time_bars(), many, low=2406)
    assert gone == PartitionStart(3000, 3000, T0 + 9 * MINUTE, T0 + 9 * MINUTE, "open bars")


def test_the_first_ticks_of_all_are_read_again_when_no_later_mark_fits():
    found = begin(time_bars(), Kept([Mark(None, 40), Mark(T0, 90)], T0 - SECOND, 10**6))
    assert found == PartitionStart(40, 3000, BEGINNING_NS, None)


@pytest.mark.parametrize("settings", [tick_bars(), time_bars()], ids=["tick", "time"])
def test_a_store_that_was_put_back_from_a_copy_is_caught_up_with(settings):
    """Without a mark the stored position is all that is known to be whole."""
    found = begin(settings, kept(closed=1, next_offset=1200))
    assert (found.offset, found.below) == (1200, 3000)
    assert begin(settings, kept(closed=1, next_offset=1200), low=1300).offset == 1300


@pytest.mark.parametrize("settings", [tick_bars(), time_bars()], ids=["tick", "time"])
def test_a_store_without_bars_that_is_behind_is_caught_up_with_too(settings):
    assert begin(settings, kept(closed=None, next_offset=1200)).offset == 1200
    assert begin(settings, Kept([], None, None)).offset == 3000  # the store never knew it


def test_with_a_bar_a_tick_nothing_is_read_again_and_nothing_is_lacking():
    assert begin(tick_bars(), kept(1, 4, closed=4.5)) == PartitionStart(3000, 3000, END_NS, T0 + int(4.5 * MINUTE))


@pytest.mark.parametrize(
    "settings", [tick_bars(bars__every_ticks=3), settings_of(bars__kind="volume", bars__every_size=9.0)]
)
def test_other_tick_and_volume_bars_begin_anew_and_it_is_said(settings):
    assert begin(settings, kept(1, 4, closed=4.5)) == PartitionStart(
        3000, 3000, END_NS, T0 + int(4.5 * MINUTE), "open bars"
    )


def test_without_stored_bars_time_bars_are_rewound_by_as_many_as_the_windows_want():
    found = begin(time_bars(), kept(0, 1, 2, 3, 4, closed=None))
    assert found == PartitionStart(1205, 3000, T0 + 2 * MINUTE + SECOND, T0 + 2 * MINUTE)
    short = begin(time_bars(), kept(3, 4, closed=None))
    assert short == PartitionStart(1805, 3000, T0 + 3 * MINUTE + SECOND, T0 + 3 * MINUTE, "windows")


def test_without_stored_bars_what_began_within_the_span_is_whole():
    found = begin(time_bars(), Kept([Mark(None, 0), *marks(0.1, 1)], None, 10**6))
    assert found == PartitionStart(0, 3000, BEGINNING_NS, None)


def test_without_stored_bars_tick_bars_are_rewound_by_records():
    few = {"symbols__limit": 4}
    assert begin(tick_bars(**few), kept(1, 2, 3, 4, closed=None)).offset == 2405
    rare = begin(tick_bars(bars__every_ticks=3, **few), kept(1, 2, 3, 4, closed=None))
    assert (rare.offset, rare.lacks) == (1205, "open bars")
    many = begin(tick_bars(symbols__limit=1000), kept(1, 2, 3, 4, closed=None))
    assert (many.offset, many.lacks) == (605, "windows")


def test_with_neither_bars_nor_marks_the_commit_is_all_and_a_new_deployment_lacks_nothing():
    assert begin(time_bars(), kept(closed=None)) == PartitionStart(3000, 3000, END_NS, None, "windows")
    assert begin(time_bars(), kept(closed=None), committed=0).lacks == ""


@pytest.fixture
async def store(tmp_path):
    opened = open_store(store_settings(tmp_path))
    yield opened
    await opened.close()


def reached(watermark_ns: int, offset: int, source=SOURCE) -> Commit:
    return Commit(offsets={source: offset}, watermarks={source: watermark_ns})


async def test_the_store_keeps_a_watermark_a_minute_of_each_source(store):
    await store.write(Commit(offsets={SOURCE: 3}))
    for n in range(13):
        await store.write(reached(BEGAN + n * 10 * SECOND, 10 + n))
    await store.write(reached(BEGAN - MINUTE, 99))  # read again after a restart
    await store.write(reached(BEGAN, 7, OTHER))
    found = store.kept({SOURCE: 10**9, OTHER: 10**9, ("ticks", 2): 0})
    assert found[SOURCE].marks == [
        Mark(None, 3), Mark(BEGAN, 10), Mark(BEGAN + MINUTE, 16), Mark(BEGAN + 2 * MINUTE, 22)
    ]  # fmt: skip
    assert found[OTHER].marks == [Mark(BEGAN, 7)]
    assert found["ticks", 2] == Kept([], None, None)


async def test_a_store_that_is_opened_again_goes_on_with_the_next_minute(tmp_path):
    for second in (0, 30, 70, 80):
        store = open_store(store_settings(tmp_path))
        await store.write(reached(BEGAN + second * SECOND, 10 + second))
        await store.close()
    store = open_store(store_settings(tmp_path))
    assert [mark.next_offset for mark in store.kept({SOURCE: 0})[SOURCE].marks] == [10, 80]
    await store.close()


async def test_old_watermarks_go_with_the_days_that_roll_off(tmp_path):
    store = open_store(store_settings(tmp_path, store__keep_days=1))
    day = 24 * 60
    for minute in (0, 1, day, 3 * day):
        await store.write(reached(BEGAN + minute * MINUTE, minute))
    await store.roll_off(BEGAN + 3 * day * MINUTE)
    assert await value(store, "SELECT list(next_offset) FROM watermarks") == [3 * day]
    await store.close()


async def test_bars_beyond_an_offset_or_a_time_or_of_others_stay_out_of_the_windows(store):
    await store.write(Commit(bars=[bars(0, 40)], offsets={SOURCE: 40}, sources=[SOURCE]))
    assert store.kept({SOURCE: 30})[SOURCE].closed_ns == T0 + 29 * SECOND
    assert store.kept({SOURCE: 0})[SOURCE].closed_ns is None

    def tail(parts) -> list[int]:
        return sorted(store.bars_tail(table(), 100, parts).offset.tolist())

    assert tail({SOURCE: BarsOfPartition(30, END_NS)}) == [*range(30)]
    assert tail({SOURCE: BarsOfPartition(40, T0 + 19 * SECOND)}) == [*range(20)]
    assert tail({OTHER: BarsOfPartition(40, END_NS)}) == []


async def test_a_bar_of_the_tail_says_which_partition_it_came_from_or_that_it_came_from_none(store):
    few = bars(0, 8)
    await store.write(Commit(bars=[few.take(few.symbol < 2)], offsets={OTHER: 8}, sources=[OTHER]))
    await store.write(Commit(bars=[few.take(few.symbol == 2)]))
    tail = store.bars_tail(table(), 100, {SOURCE: BarsOfPartition(40, END_NS), OTHER: BarsOfPartition(40, END_NS)})
    assert dict(zip(tail.symbol.tolist(), tail.partition.tolist(), strict=True)) == {0: 1, 1: 1, 2: -1}
