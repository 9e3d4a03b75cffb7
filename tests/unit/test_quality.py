"""Each rule that a tick is judged by, and that every tick is counted exactly once."""

import numpy as np
import pytest

from kit import T0, Folding, Served, settings
from tickcast.engine.core.bars import EARLIEST_NS, LATEST_NS
from tickcast.engine.core.fold import Adjustments
from tickcast.engine.core.schedule import ClosedTime
from tickcast.errors import BadSettings, Reason
from tickcast.settings import load

MS, SECOND = 10**6, 10**9


@pytest.mark.parametrize(
    ("price", "size", "reason"),
    [
        (float("nan"), 1.0, Reason.NON_FINITE),
        (float("inf"), 1.0, Reason.NON_FINITE),
        (5.0, float("nan"), Reason.NON_FINITE),
        (0.0, 1.0, Reason.NON_POSITIVE),
        (-3.0, 1.0, Reason.NON_POSITIVE),
        (5.0, -1.0, Reason.NEGATIVE_SIZE),
    ],
)
def test_a_faulty_number_is_refused_with_its_reason_and_counted_once(price: float, size: float, reason: Reason) -> None:
    folding = Folding(settings()).feed([("A", T0, 1.0, 1.0), ("A", T0 + 1, price, size)])
    assert folding.refused == [(1, reason)]
    assert folding.count(reason) == 1
    assert folding.builder.counts().sum() == 2


def test_negative_prices_are_accepted_where_the_transform_allows_them() -> None:
    folding = Folding(settings(forecast__transform="level")).feed([("A", T0, -3.0, 1.0), ("A", T0 + 1, 0.0, 1.0)])
    assert folding.count(Reason.ACCEPTED) == 2


@pytest.mark.parametrize("ts", [T0 // 10**9, T0 // 10**6, T0 // 10**3])
def test_seconds_millis_or_micros_taken_for_nanos_are_refused_as_wrong_unit(ts: int) -> None:
    assert Folding(settings()).feed([("A", ts, 1.0, 1.0)]).refused == [(0, Reason.WRONG_UNIT)]


@pytest.mark.parametrize("stamp_ns", [-1, 0, T0, (1 << 63) - 1])
def test_event_times_before_1900_or_after_2100_are_refused_whatever_the_stamp(stamp_ns: int) -> None:
    absurd = [
        -(1 << 63),
        -4_600_000_000 * SECOND,
        EARLIEST_NS - 1,
        LATEST_NS + 1,
        7_200_000_000 * SECOND,
        (1 << 63) - 1,
    ]
    folding = Folding(settings(quality__future_ms=0)).feed([("A", ts, 1.0, 1.0) for ts in absurd], stamp_ns=stamp_ns)
    assert folding.refused == [(i, Reason.WRONG_UNIT) for i in range(len(absurd))]
    ends = Folding(settings()).feed([("A", ts, 1.0, 1.0) for ts in (EARLIEST_NS, -SECOND, LATEST_NS, LATEST_NS)])
    assert ends.count(Reason.ACCEPTED) == 4


@pytest.mark.parametrize("lateness_ms", [0, 60_000])
def test_two_centuries_in_one_step_close_one_bar_and_serving_goes_on(lateness_ms: int) -> None:
    folding = Folding(settings(bars__lateness_ms=lateness_ms)).feed([("A", EARLIEST_NS, 1.0, 1.0)])
    folding.feed([("A", LATEST_NS - k * SECOND, 2.0, 1.0) for k in (3, 2, 1)])
    assert folding.count(Reason.ACCEPTED) == 4
    assert folding.bars.as_of.tolist()[:1] == [EARLIEST_NS + SECOND]


def test_a_gap_longer_than_the_room_of_one_call_is_filled() -> None:
    s = settings(window__lookback=70_000, symbols__limit=2)
    folding = Folding(s).feed([("A", T0, 1.0, 1.0), ("A", T0 + 66_000 * SECOND, 1.0, 1.0)])
    folding.feed([("A", T0 + 66_001 * SECOND, 1.0, 1.0), ("A", T0 + 66_002 * SECOND, 1.0, 1.0)])
    assert len(folding.bars) == 66_002


def test_future_and_ancient_are_judged_against_the_broker_stamp_only() -> None:
    folding = Folding(settings(quality__ancient_ms=5000))
    folding.feed([("A", T0 + 61_000 * MS, 1.0, 1.0), ("A", T0 - 5001 * MS, 1.0, 1.0), ("A", T0, 1.0, 1.0)], stamp_ns=T0)
    assert [reason for _, reason in folding.refused] == [Reason.FUTURE, Reason.ANCIENT]
    unstamped = Folding(settings(quality__ancient_ms=5000)).feed(
        [("A", T0, 1.0, 1.0), ("A", T0 + 61_000 * MS, 1.0, 1.0)]
    )
    assert not unstamped.refused


def test_a_jump_is_held_then_confirmed_by_the_next_tick_and_both_enter_in_order() -> None:
    folding = Folding(settings()).feed([("A", T0, 1.0, 1.0), ("A", T0 + 2 * 3600 * SECOND, 2.0, 1.0)])
    assert folding.count(Reason.HELD) == 1
    folding.feed([("A", T0 + 2 * 3600 * SECOND + 10 * SECOND, 3.0, 1.0)])
    assert folding.count(Reason.HELD) == 0
    assert folding.count(Reason.ACCEPTED) == 3
    assert [*folding.bars.close] == [1.0, 2.0]


def test_a_jump_that_the_next_tick_contradicts_is_refused_with_its_own_message() -> None:
    folding = Folding(settings()).feed([("A", T0, 1.0, 1.0), ("A", T0 + 9 * 3600 * SECOND, 2.0, 1.0)])
    folding.feed([("A", T0 + SECOND, 3.0, 1.0)])
    assert folding.count(Reason.JUMP) == 1
    assert [reason for _, reason in folding.refused] == [Reason.JUMP]
    assert folding.count(Reason.ACCEPTED) == 2


def test_a_straggler_just_over_the_span_is_not_confirmed_by_the_market_going_on() -> None:
    hour = 3600 * SECOND
    folding = Folding(settings()).feed(
        [("A", T0, 1.0, 1.0), ("B", T0 + hour + MS, 2.0, 1.0), ("A", T0 + SECOND, 1.0, 1.0)]
    )
    assert folding.refused == [(1, Reason.JUMP)]
    assert folding.feed([("B", T0 + SECOND, 1.0, 1.0)]).count(Reason.LATE) == 0


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_where_several_symbols_live_one_alone_confirms_its_jump_with_five_ticks_another_at_once(chunk: int) -> None:
    day = 86_400 * SECOND
    both = [("A", T0, 1.0, 1.0), ("B", T0, 1.0, 1.0)]
    jump = [("A", T0 + day + k * SECOND, 1.0, 1.0) for k in range(6)]
    alone = Folding(settings()).feed(both + jump[:4], chunk=chunk)
    assert (alone.count(Reason.HELD), alone.builder.newest_ns()) == (4, T0)
    alone.feed(jump[4:5], chunk=chunk)
    assert (alone.count(Reason.HELD), alone.count(Reason.ACCEPTED)) == (0, 7)
    other = Folding(settings()).feed(both + jump[:2], chunk=chunk).feed([("B", T0 + day + 2 * SECOND, 1.0, 1.0)])
    assert (other.count(Reason.HELD), other.count(Reason.ACCEPTED)) == (0, 5)


def test_names_that_nobody_knows_confirm_no_jump_by_twos() -> None:
    day = 86_400 * SECOND
    invented = [(name, T0 + day, 1.0, 1.0) for name in ("X", "X", "Y", "Z", "X")]
    folding = Folding(settings()).feed([("A", T0, 1.0, 1.0), *invented[:4]])
    assert (folding.count(Reason.HELD), folding.builder.newest_ns()) == (4, T0)
    assert folding.feed([("A", T0 + SECOND, 1.0, 1.0)]).count(Reason.JUMP) == 4
    assert Folding(settings()).feed([("A", T0, 1.0, 1.0), *invented]).count(Reason.ACCEPTED) == 6


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_a_contradiction_refuses_every_held_tick_by_its_own_message_whatever_the_chunk(chunk: int) -> None:
    day = 86_400 * SECOND
    ticks = [("A", T0, 1.0, 1.0), ("B", T0, 1.0, 1.0), *[("A", T0 + day + k, 1.0, 1.0) for k in range(3)],
             ("B", T0 + 1, 1.0, 1.0), ("A", T0 + 2 * day, 1.0, 1.0), ("B", T0 + 2 * day, 1.0, 1.0)]  # fmt: skip
    folding = Folding(settings()).feed(ticks, chunk=chunk)
    assert folding.refused == [(2, Reason.JUMP), (3, Reason.JUMP), (4, Reason.JUMP)]
    assert folding.count(Reason.ACCEPTED) == 5
    assert folding.count(Reason.JUMP) == 3


def test_held_ticks_are_judged_again_as_they_enter_and_refused_with_their_own_message() -> None:
    split = Adjustments(["A"], np.array([T0 + 2]), np.array([0.5]))
    folding = Folding(settings(), adjustments=split)
    hours = 7200 * SECOND
    folding.feed([("A", T0, 1.0, 1.0)]).feed([("A", T0 + hours, 1.0, 1.0)], sequence=5)
    folding.feed([("A", T0 + hours, 1.0, 1.0)], sequence=4)  # enters after 5: a duplicate by then
    assert folding.refused == [(2, Reason.DUPLICATE)]
    assert folding.count(Reason.ACCEPTED) == 2


def test_late_ticks_are_counted_by_partition() -> None:
    folding = Folding(settings()).feed([("A", T0 + 9 * SECOND, 1.0, 1.0), ("A", T0, 1.0, 1.0)])
    folding.feed([("B", T0, 1.0, 1.0)], partition=1)
    assert folding.builder.arrived() == {("t", 0): (2, 1), ("t", 1): (1, 0)}


def test_the_last_sequence_number_of_all_is_a_duplicate_when_it_comes_again() -> None:
    most = (1 << 63) - 1
    folding = Folding(settings()).feed([("A", T0, 1.0, 1.0)] * 2, sequence=most).feed([("A", T0, 1.0, 1.0)], sequence=0)
    assert (folding.count(Reason.ACCEPTED), folding.count(Reason.DUPLICATE)) == (1, 2)


def test_a_price_that_its_splits_take_beyond_all_numbers_is_refused() -> None:
    splits = Adjustments(["A", "A"], np.array([T0, T0 + SECOND]), np.array([1e-100, 1e300]))
    folding = Folding(settings(), adjustments=splits)
    folding.feed([("A", T0, 1e60, 1.0), ("A", T0 + SECOND, 5e-324, 0.0), ("A", T0, 1.0, 1.0)])
    assert folding.refused == [(0, Reason.NON_FINITE), (1, Reason.NON_POSITIVE)]


def test_one_absurd_price_does_not_end_the_outlier_rule_for_its_symbol() -> None:
    quiet = [("A", T0 + i, 100.0 + i % 2, 1.0) for i in range(60)]
    wild = [
        ("A", T0 + 60, 1e150, 1.0),
        ("A", T0 + 60, 5e-324, 1.0),
        ("A", T0 + 61, 1e150, 1.0),
        ("A", T0 + 62, 100.0, 1.0),
    ]
    folding = Folding(settings(quality__outlier_sigmas=20.0)).feed(quiet + wild)
    later = folding.count(Reason.OUTLIER)
    folding.feed([("A", T0 + 63 + i, 100.0 + i % 2, 1.0) for i in range(2000)]).feed([("A", T0 + 9999, 1e9, 1.0)])
    assert folding.count(Reason.OUTLIER) > later


def test_a_bar_restored_into_what_is_closed_time_by_now_is_followed_by_the_next() -> None:
    stored = Folding(settings()).feed([("A", T0 + k * SECOND, 1.0, 1.0) for k in range(3)])
    closed = ClosedTime(*(np.array([t], np.int64) for t in (T0 - SECOND, T0 + 60 * SECOND, 0)))
    after = Folding(settings(bars__calendar="made above"), closed_time=closed)
    after.symbols.code("A")
    after.builder.restore(stored.bars)
    after.feed([("A", T0 + (60 + k) * SECOND, 1.0, 1.0) for k in range(3)])
    assert after.bars.ordinal.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bars.every_ms", 10**12), ("bars.lateness_ms", 10**15), ("bars.idle_ms", 10**18),
        ("quality.future_ms", 10**18),
        ("quality.ahead_ms", 10**18), ("quality.ancient_ms", 10**18), ("quality.max_jump_ms", 10**18),
    ],
)  # fmt: skip
def test_a_span_beside_which_an_event_time_leaves_64_bits_is_refused(key: str, value: int) -> None:
    with pytest.raises(BadSettings, match=key):
        load(overrides={key: str(value)}, environ={})


def test_forecasts_that_reach_beyond_a_century_are_refused() -> None:
    with pytest.raises(BadSettings, match="100 years"):
        settings(bars__every_ms=31_622_400_000, forecast__horizon=101)


@pytest.mark.parametrize(("by_clock", "accepted"), [(True, 2), (False, 3)])
def test_live_no_tick_is_believed_that_is_further_ahead_of_the_clock_than_allowed(
    by_clock: bool, accepted: int
) -> None:
    s, minute = settings(), 60 * SECOND
    served = Served(s, [], chunk=1, by_clock=by_clock)
    ticks = [("A", T0, 1.0, 1.0), ("A", T0 + minute + 1, 1.0, 1.0), ("B", T0 + minute, 1.0, 1.0)]
    outcome = served.turn(ticks, now_ns=T0)
    counts = served.engine.builder.counts()
    assert (counts[Reason.ACCEPTED], counts[Reason.FUTURE]) == (accepted, 3 - accepted)
    assert [int(reason) for letter in outcome.letters for reason in letter.rejects.reason] == [Reason.FUTURE] * (
        3 - accepted
    )


def test_crossed_quotes_are_counted_and_refused_only_when_asked() -> None:
    kept = Folding(settings()).feed([("A", T0, 1.0, 1.0)], bid=1.1, ask=0.9)
    assert (kept.builder.crossed, kept.count(Reason.ACCEPTED)) == (1, 1)
    refused = Folding(settings(quality__crossed="reject")).feed([("A", T0, 1.0, 1.0)], bid=1.1, ask=0.9)
    assert (refused.builder.crossed, refused.count(Reason.CROSSED)) == (1, 1)


def test_a_sequence_not_above_the_last_is_a_duplicate_and_equal_rows_without_one_are_kept() -> None:
    numbered = Folding(settings()).feed([("A", T0, 1.0, 1.0)], sequence=7).feed([("A", T0, 1.0, 1.0)], sequence=7)
    assert numbered.count(Reason.DUPLICATE) == 1
    assert numbered.feed([("A", T0, 1.0, 1.0)], sequence=8).count(Reason.ACCEPTED) == 2
    plain = Folding(settings()).feed([("A", T0, 1.0, 1.0)] * 3)
    assert plain.count(Reason.ACCEPTED) == 3


def test_a_symbol_seen_in_a_second_partition_is_refused_there() -> None:
    folding = Folding(settings()).feed([("A", T0, 1.0, 1.0)]).feed([("A", T0, 1.0, 1.0)], partition=1)
    assert folding.count(Reason.SYMBOL_IN_TWO_PARTITIONS) == 1


def test_an_outlier_is_refused_once_and_believed_when_the_level_stays() -> None:
    rng = np.random.default_rng(1)
    quiet = [("A", T0 + i * MS, 100.0 * (1 + 1e-4 * rng.standard_normal()), 1.0) for i in range(60)]
    folding = Folding(settings(quality__outlier_sigmas=20.0)).feed(quiet)
    folding.feed([("A", T0 + 100 * MS, 150.0, 1.0), ("A", T0 + 101 * MS, 100.0, 1.0)])
    assert folding.count(Reason.OUTLIER) == 1
    folding.feed([("A", T0 + 102 * MS, 150.0, 1.0), ("A", T0 + 103 * MS, 150.0, 1.0)])
    assert folding.count(Reason.OUTLIER) == 2
    assert folding.count(Reason.ACCEPTED) == 62


def test_a_heartbeat_closes_the_bars_of_a_silent_partition_and_is_no_tick() -> None:
    folding = Folding(settings()).feed([("A", T0, 1.0, 1.0)])
    closed = [*folding.builder.beat("t", 0, ts=T0 + 2 * SECOND, offset=1), *folding.builder.closed()]
    assert [*closed[0].bars.close] == [1.0]
    assert folding.builder.counts().sum() == 1
    assert folding.feed([("A", T0 + SECOND, 1.0, 1.0)]).count(Reason.LATE) == 1


def test_splits_keep_the_series_continuous_and_unit_factor_leads_back_to_the_price_of_the_day() -> None:
    split = Adjustments(["A"], np.array([T0 + 2 * SECOND]), np.array([0.5]))
    ticks = [("A", T0, 100.0, 10.0), ("A", T0 + 2 * SECOND, 50.0, 20.0), ("A", T0 + 3 * SECOND, 51.0, 20.0)]
    folding = Folding(settings(), adjustments=split).feed(ticks)
    real = folding.bars.take(folding.bars.mask == 1)
    assert [*real.close] == [100.0, 100.0]
    assert [*real.volume] == [10.0, 10.0]
    factor = folding.builder.unit_factor(real.symbol, real.as_of)
    assert factor is not None
    assert [*factor] == [1.0, 0.5]


def test_a_gap_longer_than_the_fill_makes_the_symbol_cold() -> None:
    s = settings(window__lookback=5, forecast__horizon=2, score__horizons="[1, 2]")
    folding = Folding(s).feed([("A", T0 + k * SECOND, 1.0 + k, 1.0) for k in (0, 1, 2, 20, 21, 22)])
    assert [*folding.bars.mask] == [1] * 5
    assert [*folding.bars.gap] == [0, 0, 0, 1, 0]
    assert [*folding.builder.bars_held()] == [2]


def test_symbols_appear_while_running_up_to_the_limit_without_moving_what_is_there() -> None:
    folding = Folding(settings(symbols__limit=1000))
    folding.feed([(f"S{i}", T0 + i, 1.0, 1.0) for i in range(1000)])
    folding.feed([(f"S{i}", T0 + 2 * SECOND + i, 2.0, 1.0) for i in range(1000)])
    assert len(folding.bars) == 1000
    assert folding.symbols.code("one more") == -1


def test_an_outlier_is_judged_in_the_units_of_the_series_so_that_a_split_is_none() -> None:
    split = Adjustments(["A"], np.array([T0 + 60 * MS]), np.array([0.5]))
    rng = np.random.default_rng(1)
    prices = 100.0 * (1 + 1e-4 * rng.standard_normal(120)) * np.where(np.arange(120) < 60, 1.0, 0.5)
    ticks = [("A", T0 + i * MS, float(price), 1.0) for i, price in enumerate(prices)]
    folding = Folding(settings(quality__outlier_sigmas=20.0), adjustments=split).feed(ticks)
    assert folding.count(Reason.OUTLIER) == 0


def test_ticks_of_bars_that_were_restored_are_late_and_the_next_bar_follows_on() -> None:
    before = Folding(settings()).feed([("A", T0 + k * SECOND, 1.0 + k, 1.0) for k in range(6)])
    after = Folding(settings())
    after.symbols.code("A")
    after.builder.restore(before.bars)
    after.feed([("A", T0 + k * SECOND, 1.0 + k, 1.0) for k in range(3, 9)])
    assert after.count(Reason.LATE) == 2
    assert after.bars.ordinal.tolist() == [5, 6, 7]
    assert after.bars.mask.tolist() == [1, 1, 1]
