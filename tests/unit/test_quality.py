"""Each rule that a tick is judged by, and that every tick is counted exactly once."""

import numpy as np
import pytest

from kit import T0, Folding, settings
from tickcast.core.fold import Adjustments
from tickcast.errors import Reason

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
    assert folding.folder.counts().sum() == 2


def test_negative_prices_are_accepted_where_the_transform_allows_them() -> None:
    folding = Folding(settings(forecast__transform="level")).feed([("A", T0, -3.0, 1.0), ("A", T0 + 1, 0.0, 1.0)])
    assert folding.count(Reason.ACCEPTED) == 2


@pytest.mark.parametrize("ts", [T0 // 10**9, T0 // 10**6, T0 // 10**3])
def test_seconds_millis_or_micros_taken_for_nanos_are_refused_as_wrong_unit(ts: int) -> None:
    assert Folding(settings()).feed([("A", ts, 1.0, 1.0)]).refused == [(0, Reason.WRONG_UNIT)]


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


def test_crossed_quotes_are_counted_and_refused_only_when_asked() -> None:
    kept = Folding(settings()).feed([("A", T0, 1.0, 1.0)], bid=1.1, ask=0.9)
    assert (kept.folder.crossed, kept.count(Reason.ACCEPTED)) == (1, 1)
    refused = Folding(settings(quality__crossed="reject")).feed([("A", T0, 1.0, 1.0)], bid=1.1, ask=0.9)
    assert (refused.folder.crossed, refused.count(Reason.CROSSED)) == (1, 1)


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
    closed = [*folding.folder.beat("t", 0, ts=T0 + 2 * SECOND, offset=1), *folding.folder.closed()]
    assert [*closed[0].bars.close] == [1.0]
    assert folding.folder.counts().sum() == 1
    assert folding.feed([("A", T0 + SECOND, 1.0, 1.0)]).count(Reason.LATE) == 1


def test_splits_keep_the_series_continuous_and_unit_factor_leads_back_to_the_price_of_the_day() -> None:
    split = Adjustments(["A"], np.array([T0 + 2 * SECOND]), np.array([0.5]))
    ticks = [("A", T0, 100.0, 10.0), ("A", T0 + 2 * SECOND, 50.0, 20.0), ("A", T0 + 3 * SECOND, 51.0, 20.0)]
    folding = Folding(settings(), adjustments=split).feed(ticks)
    real = folding.bars.take(folding.bars.mask == 1)
    assert [*real.close] == [100.0, 100.0]
    assert [*real.volume] == [10.0, 10.0]
    factor = folding.folder.unit_factor(real.symbol, real.as_of)
    assert factor is not None
    assert [*factor] == [1.0, 0.5]


def test_a_gap_longer_than_the_fill_makes_the_symbol_cold() -> None:
    s = settings(window__lookback=5, forecast__horizon=2, score__horizons="[1, 2]")
    folding = Folding(s).feed([("A", T0 + k * SECOND, 1.0 + k, 1.0) for k in (0, 1, 2, 20, 21, 22)])
    assert [*folding.bars.mask] == [1] * 5
    assert [*folding.bars.gap] == [0, 0, 0, 1, 0]
    assert [*folding.folder.bars_held()] == [2]


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
    after.folder.restore(before.bars)
    after.feed([("A", T0 + k * SECOND, 1.0 + k, 1.0) for k in range(3, 9)])
    assert after.count(Reason.LATE) == 2
    assert after.bars.ordinal.tolist() == [5, 6, 7]
    assert after.bars.mask.tolist() == [1, 1, 1]
