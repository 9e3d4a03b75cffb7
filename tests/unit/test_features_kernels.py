"""The kernels that the built-in features are made of, each on a window that is worked out in the head."""

import statistics
from itertools import pairwise

import numpy as np
import pytest

from tickcast.columns import Bars
from tickcast.engine.core.windows import UNWRAPPED, ring
from tickcast_plugins.features.dispersion import (
    deviation,
    positions,
    regimes,
    spreads,
    volatilities,
    weighted_deviation,
    weighted_positions,
)  # fmt: skip
from tickcast_plugins.features.extremes import extremes
from tickcast_plugins.features.fourier import amplitudes, phases
from tickcast_plugins.features.linear import ema_of, newest, weigh, weighted_sum
from tickcast_plugins.features.moves import DIFFERENCE, LOG, RATE, lagged, moves
from tickcast_plugins.features.outliers import (
    density_flags,
    iqr_flags,
    is_noise,
    neighbours,
    quantile,
    robust_positions,
    robust_spread,
    sort_into,
)  # fmt: skip
from tickcast_plugins.features.ranges import bar_spreads
from tickcast_plugins.features.series import CLOSE, LOG_RETURN, VOLUME, column_of, log_move, log_moves, run, values_of
from tickcast_plugins.features.volume import volume_ratios
from tickcast_plugins.features.wilder import strengths, true_ranges, wilder_weights

DAY_NS = 86_400 * 10**9
HALVES = np.array([[0.5, 0.5]])


def bars_of(close, volume=None):
    """One symbol's history; each bar reaches from one below its close to one above, and ends a quarter day later."""
    close = np.array(close, np.float64)
    n = len(close)
    return Bars(
        close.copy(), close + 1, close - 1, close, np.array(volume or [1.0] * n, np.float64), np.ones(n, np.uint8),
        np.arange(n) * (DAY_NS // 4), np.zeros(1, np.int64), UNWRAPPED,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kernel", "arguments", "value"),
    [
        (moves, (2, LOG), np.log(2)),
        (bar_spreads, (1.0, 0.0), np.log(9 / 7)),
        (bar_spreads, (0.0, 1.0), 0.0),
        (moves, (2, RATE), 1.0),
        (moves, (2, DIFFERENCE), 4.0),
        (lagged, (np.array([1]), CLOSE), 6.0),
        (lagged, (np.array([0]), LOG_RETURN), np.log(8 / 6)),
        (weigh, (HALVES, CLOSE, 1.0), 7.0),
        (weigh, (HALVES - [[0, 1]], CLOSE, 0.0), -1.0),
        (spreads, (3, CLOSE), 2.0),
        (positions, (3, CLOSE, 1), 1.0),
        (weighted_positions, (HALVES[0], CLOSE), 1.0),
        (volatilities, (1,), np.log(8 / 6)),
        (regimes, (3, 1, 9), -1.0),
        (regimes, (3, 1, 3), 0.0),
        (robust_positions, (3, CLOSE), 1.0),
        (iqr_flags, (3, 1.5), 0.0),
        (iqr_flags, (3, 0.01), 1.0),
        (density_flags, (3, 0.5, 2), 1.0),
        (density_flags, (3, 9.0, 2), 0.0),
        (volume_ratios, (2,), 1.6),
        (strengths, (wilder_weights(3, 3),), 100.0),
        (true_ranges, (wilder_weights(2, 2),), 3.0),
        (phases, (DAY_NS, 0), -1.0),
        (amplitudes, (np.ones((1, 2)), np.zeros((1, 2))), np.log(2)),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_of_two_four_six_eight_a_kernel_makes(kernel, arguments, value):
    out = np.full((1, 2 if kernel is phases else 1), np.nan)
    kernel(bars_of([2, 4, 6, 8], volume=[1, 1, 1, 4]), np.zeros(1, np.int32), np.array([3]), *arguments, out)
    assert out[0, 0] == pytest.approx(value)


def test_a_run_is_a_view_of_the_ring_until_it_wraps():
    bars = ring(2, 8)
    bars.close[:] = np.arange(16.0)
    scratch = np.empty(4)
    whole = run(bars.close, 8, 13, 4, bars.wrap, scratch)  # ordinals 10..13 lie at 10..13
    assert whole.tolist() == [10, 11, 12, 13]
    assert np.shares_memory(whole, bars.close)
    wrapped = run(bars.close, 8, 17, 4, bars.wrap, scratch)  # 14, 15, 16, 17 lie at 14, 15, 8, 9
    assert wrapped.tolist() == [14, 15, 8, 9]
    assert run(bars.close, 8, 3, 2, UNWRAPPED, scratch).tolist() == [10, 11]


def test_values_are_those_of_the_series():
    bars = bars_of([1.0, 2.0, 4.0], volume=[5, 6, 7])
    found = [
        values_of(series, column_of(series, bars), 0, 2, 2, UNWRAPPED, np.empty(5)).tolist()
        for series in (CLOSE, LOG_RETURN, VOLUME)
    ]
    assert found == [[2, 4], [pytest.approx(np.log(2))] * 2, [6, 7]]


@pytest.mark.parametrize("move", [0.0, 1e-12, 1e-6, 0.001, 0.0399, 0.0401, 0.5, 20.0])
def test_a_log_move_is_the_logarithm_to_the_last_bits(move):
    before, now = 123.456, 123.456 * float(np.exp(move))
    expected = float(np.log1p((now - before) / before))
    assert log_move(before, now) == pytest.approx(expected, rel=1e-15, abs=1e-20)
    assert -log_move(now, before) == pytest.approx(expected, rel=1e-15, abs=1e-20)


def test_a_row_of_log_moves_is_the_log_move_of_each_to_the_bit():
    closes = np.array([100.0, 100.1, 100.1, 150.0, 149.0, 0.0, 3.0, -3.0, -3.1, 7.0, 7.0001, 1e100, 1e-100])
    moves = np.empty(len(closes) - 1)
    log_moves(closes, moves)
    assert moves.tolist() == [log_move(a, b) for a, b in pairwise(closes)]
    assert np.isfinite(moves).all()


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8, 11])
def test_a_weighted_sum_takes_every_value_once(length):
    weights, values = 2.0 ** np.arange(length), np.arange(length) + 10.0
    assert weighted_sum(weights, values, 7.0) == weights @ (values - 7.0)


def test_weights_of_averages_sum_to_one():
    for weights in (ema_of(newest(80), 10), ema_of(ema_of(newest(80), 10), 4), wilder_weights(60, 5)):
        assert weights.sum() == pytest.approx(1.0, abs=1e-14)
        assert (weights > 0).all()


@pytest.mark.parametrize("values", [[3.0, 1.0, 2.0], [2.0, 2.0, 1.0, 2.0, 1.0], [0.0, -0.0, 0.0], [5.0]])
def test_sorting_by_count_sorts_and_keeps_equal_values(values):
    ascending = np.empty(len(values))
    sort_into(np.array(values), ascending)
    assert ascending.tolist() == sorted(values)


def test_a_quantile_lies_between_the_nearest_ranks():
    assert [quantile(np.array([1.0, 2.0, 4.0, 8.0]), share) for share in (0, 0.25, 0.5, 1)] == [1, 1.75, 3, 8]


def test_the_robust_spread_is_that_of_the_median_absolute_deviation() -> None:
    moves = np.array([1.0, 2.0, 3.0, 4.0, 10.0])  # median 3, distances 2, 1, 0, 1, 7: their median is 1
    spread, newest = robust_spread(moves, np.empty(5), np.empty(5))
    assert spread == pytest.approx(1.4826, rel=1e-4)
    assert newest == 7.0


def test_a_border_point_is_no_noise_but_a_lone_one_is():
    values = np.array([1.0, 1.1, 1.2, 1.3, 2.0])
    assert neighbours(values, 1.3, 0.11) == 2
    assert not is_noise(values, 1.2, 0.11, 3)  # three within reach: core
    assert not is_noise(values, 1.3, 0.11, 3)  # two, but one of them is core
    assert is_noise(values, 2.0, 0.11, 3)
    assert is_noise(values, 1.3, 0.11, 4)
    assert not is_noise(np.array([0.5, 1.0, 1.5]), 1.5, 0.5, 3)  # the radius itself is within reach


def test_the_deviation_of_a_window_is_its_distance_and_its_spread():
    distance, spread = deviation(np.array([1.0, 2.0, 6.0]), 1)
    assert (distance, spread) == (pytest.approx(3.0), pytest.approx(statistics.stdev([1, 2, 6])))


def test_a_weighted_deviation_is_that_of_values_repeated_by_their_weight():
    distance, spread = weighted_deviation(np.array([0.5, 0.3, 0.2]), np.array([1.0, 2.0, 6.0]))
    repeated = [1.0] * 5 + [2.0] * 3 + [6.0] * 2
    assert (distance, spread) == (
        pytest.approx(6.0 - statistics.fmean(repeated)), pytest.approx(statistics.pstdev(repeated))
    )  # fmt: skip


def test_extremes_of_a_window_are_found_with_its_newest_value():
    bars = bars_of([9.0, 3.0, 5.0, 4.0])
    low, high = np.empty(1), np.empty(1)
    last = extremes(bars, np.zeros(1, np.int32), np.array([3]), 3, CLOSE, low, high)
    assert (low[0], high[0], last[0]) == (3.0, 5.0, 4.0)
