"""Features of how widely the window is spread: standard deviation, z-scores, Bollinger position, realised volatility
and its regime.

Sums are taken anew for every bar and relative to the newest value: nothing drifts, and large prices do not cancel.
"""

import numpy as np
from numba import njit

from tickcast.columns import F64, I32, I64, Bars
from tickcast.regimes import FAST_BARS, NORMAL, SLOW_BARS, regime_after, weight
from tickcast_plugins.features import parameters
from tickcast_plugins.features.linear import SPANS, ema_of, newest, weighted_sum
from tickcast_plugins.features.series import CLOSE, LOG_RETURN, column_of, lookback_of, values_of


@njit(cache=True, nogil=True, error_model="numpy")
def deviation(values, degrees):  # type: ignore[no-untyped-def]
    """How far the newest value lies from the mean, and the standard deviation with so many degrees of freedom lost."""
    length = len(values)
    anchor = values[length - 1]
    total = 0.0
    for j in range(length):
        total += values[j] - anchor
    mean = total / length
    squares = 0.0
    for j in range(length):
        distance = values[j] - anchor - mean
        squares += distance * distance
    return -mean, np.sqrt(squares / (length - degrees))


@njit(cache=True, nogil=True)
def spreads(bars, symbol, ordinal, length, series, out):  # type: ignore[no-untyped-def]
    column, scratch = column_of(series, bars), np.empty(2 * length + 1)
    for i in range(len(symbol)):
        values = values_of(series, column, bars.start[symbol[i]], ordinal[i], length, bars.wrap, scratch)
        out[i, 0] = deviation(values, 1)[1]


@njit(cache=True, nogil=True, error_model="numpy")
def positions(bars, symbol, ordinal, length, series, degrees, out):  # type: ignore[no-untyped-def]
    """The newest value's distance from the mean in standard deviations; 0 in a window that never moved."""
    column, scratch = column_of(series, bars), np.empty(2 * length + 1)
    for i in range(len(symbol)):
        values = values_of(series, column, bars.start[symbol[i]], ordinal[i], length, bars.wrap, scratch)
        distance, spread = deviation(values, degrees)
        out[i, 0] = distance / spread if spread > 0.0 else 0.0


@njit(cache=True, nogil=True)
def weighted_deviation(weights, values):  # type: ignore[no-untyped-def]
    """Like `deviation`, with a weight for each value; they sum to 1, and no degrees of freedom are lost."""
    anchor = values[len(values) - 1]
    mean = weighted_sum(weights, values, anchor)
    squares = 0.0
    for j in range(len(values)):
        distance = values[j] - anchor - mean
        squares += weights[j] * distance * distance
    return -mean, np.sqrt(squares)


@njit(cache=True, nogil=True, error_model="numpy")
def weighted_positions(bars, symbol, ordinal, weights, series, out):  # type: ignore[no-untyped-def]
    """Like `positions`, but of a window whose values do not all weigh the same."""
    length = len(weights)
    column, scratch = column_of(series, bars), np.empty(2 * length + 1)
    for i in range(len(symbol)):
        values = values_of(series, column, bars.start[symbol[i]], ordinal[i], length, bars.wrap, scratch)
        distance, spread = weighted_deviation(weights, values)
        out[i, 0] = distance / spread if spread > 0.0 else 0.0


@njit(cache=True, nogil=True)
def volatilities(bars, symbol, ordinal, length, out):  # type: ignore[no-untyped-def]
    scratch = np.empty(2 * length + 1)
    for i in range(len(symbol)):
        moves = values_of(LOG_RETURN, bars.close, bars.start[symbol[i]], ordinal[i], length, bars.wrap, scratch)
        squares = 0.0
        for j in range(length):
            squares += moves[j] * moves[j]
        out[i, 0] = np.sqrt(squares)


@njit(cache=True, nogil=True)
def regimes(bars, symbol, ordinal, length, fast_bars, slow_bars, out):  # type: ignore[no-untyped-def]
    scratch = np.empty(2 * length + 1)
    for i in range(len(symbol)):
        moves = values_of(LOG_RETURN, bars.close, bars.start[symbol[i]], ordinal[i], length, bars.wrap, scratch)
        label, fast, slow = NORMAL, 0.0, 0.0
        for j in range(length):
            size = abs(moves[j])
            fast += (size - fast) * weight(fast_bars, j + 1)
            slow += (size - slow) * weight(slow_bars, j + 1)
            label = regime_after(label, fast, slow)
        out[i, 0] = label - NORMAL


class RollingStd(parameters.OverSeries):
    """The sample standard deviation of the window."""

    kind, least = "rolling_std", 2

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        spreads(bars, symbol, ordinal, self._window, self._series, out)


class ZScore(parameters.OverSeries):
    """(newest - mean) / sample standard deviation of the window; 0 where that is 0."""

    kind, least = "zscore", 2

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        positions(bars, symbol, ordinal, self._window, self._series, 1, out)


class EwZScore:
    """(newest - mean) / standard deviation, both exponentially weighted over 8 x span values; 0 where that is 0."""

    version = 1

    def __init__(self, *, span: int = 19, of: str = "close") -> None:
        self._series = parameters.series(of)
        length = SPANS * parameters.bars("span", span, least=2, most=parameters.LONGEST_SPAN)
        self._weights = ema_of(newest(length), span)
        self.names = (f"ew_zscore_{span}{parameters.suffix(of, 'close')}",)
        self.lookback = lookback_of(self._series, length)

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        weighted_positions(bars, symbol, ordinal, self._weights, self._series, out)


class Bollinger:
    """Where the close lies between the bands at mean -+ k standard deviations: 0 = lower, 1 = upper, beyond allowed."""

    version = 1

    def __init__(self, *, window: int = 20, k: float = 2.0) -> None:
        self.lookback = parameters.bars("window", window, least=2)
        self._k = parameters.positive("k", k)
        self.names = (f"bollinger_{window}_{k:g}",)

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        positions(bars, symbol, ordinal, self.lookback, CLOSE, 0, out)
        out[:, 0] = 0.5 + out[:, 0] / (2 * self._k)


class RealisedVolatility:
    """The root of the sum of the window's squared log returns."""

    version = 1

    def __init__(self, *, window: int = 24) -> None:
        self._window = parameters.bars("window", window)
        self.names = (f"realised_volatility_{window}",)
        self.lookback = lookback_of(LOG_RETURN, window)

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        volatilities(bars, symbol, ordinal, self._window, out)


class VolatilityRegime:
    """-1 calm, 0 normal, 1 wild: the mean size of the last moves beside that of many, with hysteresis, over 4 x slow
    moves; `tickcast.regimes` says when."""

    version = 1

    def __init__(self, *, fast: int = FAST_BARS, slow: int = SLOW_BARS) -> None:
        self._slow = parameters.bars("slow", slow, least=2, most=parameters.LONGEST_SPAN)
        self._fast = parameters.bars("fast", fast, most=slow - 1)
        self._length = SPANS // 2 * slow
        self.names = (f"volatility_regime_{fast}_{slow}",)
        self.lookback = lookback_of(LOG_RETURN, self._length)

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        regimes(bars, symbol, ordinal, self._length, self._fast, self._slow, out)
