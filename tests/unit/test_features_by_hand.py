"""Built-in features on examples that were worked by hand, and at their edges."""

import statistics
from fractions import Fraction

import numpy as np
import pytest

from tickcast import plugin
from tickcast.testing import history
from tickcast_plugins.features.wilder import wilder_weights

# The example of a 14-day index that textbooks print: the first 15 closes, then one more.
WILDER = [
    44.34, 44.09, 44.15, 43.61, 44.33, 44.83, 45.10, 45.42, 45.84, 46.08, 45.89, 46.03, 45.61, 46.28, 46.28, 46.00,
]  # fmt: skip


def bars_of(close, volume=None, high=None, low=None):
    close = np.array(close, np.float64)
    bars = history([len(close)], np.random.default_rng(0))
    return bars._replace(
        open=close.copy(), close=close, high=close if high is None else np.array(high, np.float64),
        low=close if low is None else np.array(low, np.float64),
        volume=np.ones(len(close)) if volume is None else np.array(volume, np.float64),
    )  # fmt: skip


def newest_of(kind, bars, **params):
    """The feature's channels of the last bar."""
    feature = plugin.find("features", kind)(**params)
    last = len(bars.close) - 1
    assert last >= feature.lookback - 1
    out = np.empty((1, len(feature.names)))
    feature.compute(bars, np.zeros(1, np.int32), np.array([last]), out)
    return out[0].tolist()


def test_wilders_smoothing_gives_the_textbook_example():
    changes = np.diff(WILDER)
    for count, index in ((14, 70.46), (15, 66.25)):
        gain, loss = (wilder_weights(count, 14) @ np.maximum(sign * changes[:count], 0) for sign in (1, -1))
        assert 100 * gain / (gain + loss) == pytest.approx(index, abs=0.005)


def test_rsi_follows_an_example_that_was_worked_by_hand():
    flat = [10.0] * 30
    assert newest_of("rsi", bars_of(flat), period=2) == [50.0]
    assert newest_of("rsi", bars_of([*flat, 12]), period=2) == [100.0]  # gain (0 + 2) / 2 = 1, loss 0
    assert newest_of("rsi", bars_of([*flat, 12, 11]), period=2) == [pytest.approx(50.0)]  # gain 0.5, loss 0.5
    assert newest_of("rsi", bars_of([*flat, 12, 11, 12]), period=2) == [pytest.approx(75.0)]  # 0.75 and 0.25
    assert newest_of("rsi", bars_of([*flat, 8]), period=2) == [0.0]


def test_atr_follows_an_example_that_was_worked_by_hand():
    closes, highs, lows = [10.0] * 30, [11.0] * 30, [9.0] * 30
    assert newest_of("atr", bars_of(closes, high=highs, low=lows), period=2) == [pytest.approx(2.0)]
    gapped = bars_of([*closes, 20.0], high=[*highs, 21.0], low=[*lows, 19.0])  # true range 21 - 10 = 11
    assert newest_of("atr", gapped, period=2) == [pytest.approx((2 + 11) / 2)]


def test_ema_and_macd_follow_a_step_that_was_worked_by_hand():
    step = bars_of([0.0] * 40 + [1.0, 1.0])
    assert newest_of("ema", step, span=3) == [pytest.approx(0.75)]  # alpha 1/2: 0.5, 0.75
    line = [Fraction(1, 2) - Fraction(1, 4), Fraction(3, 4) - Fraction(7, 16)]  # spans 3 and 7: alpha 1/2 and 1/4
    line = [line[0], Fraction(3, 4) - (1 - Fraction(3, 4) ** 2)]
    smooth = line[0] / 2 + (line[1] - line[0] / 2) / 2  # signal 3: alpha 1/2
    step = bars_of([0.0] * 60 + [1.0, 1.0])
    found = newest_of("macd", step, fast=3, slow=7, signal=3)
    assert found == [pytest.approx(float(value)) for value in (line[1], smooth, line[1] - smooth)]


def test_the_weighted_z_score_follows_a_step_that_was_worked_by_hand():
    step = bars_of([0.0] * 40 + [1.0, 1.0])  # span 3: of the weight 3/4 lies on the ones
    assert newest_of("ew_zscore", step, span=3) == [pytest.approx((1 - 3 / 4) / (3 / 4 * 1 / 4) ** 0.5)]


def test_the_weighted_z_score_forgets_a_jump_that_the_plain_one_still_sees():
    jump = bars_of([0.0] * 120 + [100.0] + [0.0, 0.01] * 20)
    plain, weighted = newest_of("zscore", jump, window=80)[0], newest_of("ew_zscore", jump, span=4)[0]
    assert abs(plain) < 0.2
    assert weighted > 0.5


@pytest.mark.parametrize("span", [1, 2, 19, 100])
def test_a_truncated_ema_is_the_endless_one_within_one_in_a_million(span):
    close = 100 * np.exp(np.cumsum(np.random.default_rng(7).normal(0, 0.001, 2_000)))
    endless = close[0]
    for value in close[1:]:
        endless += 2 / (span + 1) * (value - endless)
    assert newest_of("ema", bars_of(close), span=span)[0] == pytest.approx(endless, rel=1e-6)


@pytest.mark.parametrize(("kind", "params", "value"), [
    ("rolling_mean", {"window": 4}, 2.5), ("rolling_std", {"window": 4}, statistics.stdev([1, 2, 3, 4])),
    ("rolling_min", {"window": 3}, 2.0), ("rolling_max", {"window": 3}, 4.0), ("minmax", {"window": 4}, 1.0),
    ("zscore", {"window": 3}, 1.0), ("diff", {"period": 3}, 3.0), ("roc", {"period": 3}, 3.0),
    ("detrend", {"window": 4}, 0.0), ("robust", {"window": 4}, 1.0), ("log_return", {"period": 2}, np.log(2)),
    ("volume_ratio", {"window": 4}, 1.0), ("bollinger", {"window": 2, "k": 1.0}, 1.0),
    ("realised_volatility", {"window": 1}, np.log(4 / 3)),
])  # fmt: skip
def test_on_one_two_three_four_it_is(kind, params, value):
    assert newest_of(kind, bars_of([1, 2, 3, 4]), **params) == [pytest.approx(value, abs=1e-14)]


@pytest.mark.parametrize(
    ("kind", "neutral"),
    [("zscore", 0.0), ("ew_zscore", 0.0), ("bollinger", 0.5), ("minmax", 0.5), ("robust", 0.0),
     ("rolling_std", 0.0), ("detrend", 0.0), ("rsi", 50.0), ("iqr_outlier", 0.0), ("density_outlier", 0.0),
     ("realised_volatility", 0.0), ("parkinson", 0.0), ("garman_klass", 0.0)],
)  # fmt: skip
def test_prices_that_never_move_are_neutral(kind, neutral):
    price = 0.1 + 0.2  # no number that a sum over it would be exact for
    assert newest_of(kind, bars_of([price] * 250)) == [neutral]


def test_a_window_without_volume_has_the_usual_volume():
    assert newest_of("volume_ratio", bars_of([1.0] * 30, volume=[0.0] * 30)) == [1.0]


@pytest.mark.parametrize("prices", [[0.0, 5.0], [5.0, 0.0], [-1.0, -2.0], [-3.0, 3.0]])
def test_the_log_return_of_a_price_that_is_not_positive_is_zero(prices):
    assert newest_of("log_return", bars_of(prices)) == [0.0]
    assert newest_of("lags", bars_of([*prices, 1.0]), n=1) == [0.0]
    assert newest_of("realised_volatility", bars_of(prices), window=1) == [0.0]


def test_the_rate_of_change_keeps_its_direction_below_zero_and_is_zero_at_zero():
    assert newest_of("roc", bars_of([-2.0, -1.0]), period=1) == [0.5]
    assert newest_of("roc", bars_of([0.0, 5.0]), period=1) == [0.0]


def test_a_move_apart_from_the_others_is_an_outlier_of_both_kinds():
    moves = np.random.default_rng(2).normal(0, 0.001, 60)
    for last, flag in ((0.0005, 0.0), (0.05, 1.0), (-0.05, 1.0)):
        moves[-1] = last
        bars = bars_of(100 * np.exp(np.append(0.0, np.cumsum(moves))))
        assert newest_of("iqr_outlier", bars) == newest_of("density_outlier", bars) == [flag]


def test_a_second_cluster_of_moves_is_no_outlier_of_density():
    moves = np.random.default_rng(2).normal(0, 0.001, 60)
    moves[-6:] = 0.05 + np.arange(6) * 1e-5
    bars = bars_of(100 * np.exp(np.append(0.0, np.cumsum(moves))))
    assert newest_of("iqr_outlier", bars) == [1.0]
    assert newest_of("density_outlier", bars) == [0.0]


def test_the_deviation_does_not_drift_at_large_prices():
    """100,000 bars around 1e8: the last window equals exact arithmetic on it alone, and a start from there."""
    steps = np.random.default_rng(1).integers(-3, 4, 100_000) / 64
    close = 1e8 + np.cumsum(steps)
    (value,) = newest_of("rolling_std", bars_of(close), window=24)
    exact = statistics.stdev([Fraction(price) for price in close[-24:].tolist()])
    assert value == pytest.approx(float(exact), rel=1e-12)
    assert newest_of("rolling_std", bars_of(close[-24:]), window=24) == [value]


def test_large_prices_do_not_cancel_in_differences_of_averages():
    small = np.cumsum(np.random.default_rng(4).integers(-3, 4, 300)) / 64
    for kind in ("macd", "detrend", "zscore", "ew_zscore", "bollinger"):
        near, far = newest_of(kind, bars_of(small + 10.0)), newest_of(kind, bars_of(small + 1e8))
        assert far == pytest.approx(near, rel=1e-12)


def test_time_of_day_and_week_turn_with_the_bar():
    day = 86_400 * 10**9
    bars = bars_of([1.0])
    bars.as_of[:] = 3 * day + day // 4  # Sunday, 1970-01-04, 06:00
    assert newest_of("fourier", bars, n=2) == pytest.approx([1, 0, 0, -1], abs=1e-12)
    angle = 2 * np.pi / 28
    assert newest_of("fourier", bars, n=1, period="week") == pytest.approx([np.sin(angle), np.cos(angle)])


def test_the_spectrum_finds_the_swing_it_was_given():
    moves = 0.01 * np.sin(2 * np.pi * 3 * np.arange(32) / 32)
    bars = bars_of(100 * np.exp(np.append(0.0, np.cumsum(moves))))
    assert newest_of("spectrum", bars, window=32, n=5) == pytest.approx([0, 0, 0.01, 0, 0], abs=1e-12)
