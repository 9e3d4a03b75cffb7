"""Features with Wilder's smoothing, a mean that moves by 1 / period: relative strength index and average true range.

Both are cut off at 8 spans of the equal EMA (2 x period - 1) and are then fixed weights over the window.
"""

import numpy as np
from numba import njit

from tickcast.columns import F64, I32, I64, Bars
from tickcast_plugins.features import parameters
from tickcast_plugins.features.linear import SPANS, weighted_sum
from tickcast_plugins.features.series import run


def changes_of(period: int) -> int:
    """Bar-to-bar changes after which the smoothing is cut off."""
    return SPANS * (2 * period - 1)


def wilder_weights(changes: int, period: int) -> F64:
    """Begin as the mean of the first `period` changes, then move by 1 / period of the way at each."""
    age = np.arange(changes - 1, -1, -1.0)
    alpha = 1 / period
    weights: F64 = alpha * (1 - alpha) ** age
    weights[:period] = alpha * (1 - alpha) ** (changes - period)
    return weights


@njit(cache=True, nogil=True, error_model="numpy")
def strengths(bars, symbol, ordinal, weights, out):  # type: ignore[no-untyped-def]
    """100 x gains / (gains + losses), smoothed; 50 where the close never moved."""
    length = len(weights)
    scratch, moves, sizes = np.empty(length + 1), np.empty(length), np.empty(length)
    for i in range(len(symbol)):
        closes = run(bars.close, bars.start[symbol[i]], ordinal[i], length + 1, bars.wrap, scratch)
        for j in range(length):
            moves[j] = closes[j + 1] - closes[j]
            sizes[j] = abs(moves[j])
        size = weighted_sum(weights, sizes, 0.0)
        out[i, 0] = 50.0 + 50.0 * weighted_sum(weights, moves, 0.0) / size if size > 0.0 else 50.0


@njit(cache=True, nogil=True)
def true_ranges(bars, symbol, ordinal, weights, out):  # type: ignore[no-untyped-def]
    """The smoothed reach of each bar, the close before it included."""
    length = len(weights)
    scratch, ranges = np.empty((3, length + 1)), np.empty(length)
    for i in range(len(symbol)):
        highs = run(bars.high, bars.start[symbol[i]], ordinal[i], length, bars.wrap, scratch[0])
        lows = run(bars.low, bars.start[symbol[i]], ordinal[i], length, bars.wrap, scratch[1])
        closes = run(bars.close, bars.start[symbol[i]], ordinal[i], length + 1, bars.wrap, scratch[2])
        for j in range(length):
            top = highs[j] if highs[j] > closes[j] else closes[j]
            bottom = lows[j] if lows[j] < closes[j] else closes[j]
            ranges[j] = top - bottom
        out[i, 0] = weighted_sum(weights, ranges, 0.0)


class Rsi:
    """Wilder's relative strength index, 0 .. 100."""

    version = 1

    def __init__(self, *, period: int = 14) -> None:
        changes = changes_of(parameters.bars("period", period, most=parameters.LONGEST_SPAN // 2))
        self._weights = wilder_weights(changes, period)
        self.names = (f"rsi_{period}",)
        self.lookback = changes + 1

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        strengths(bars, symbol, ordinal, self._weights, out)


class Atr:
    """Wilder's average true range, in the unit of the prices."""

    version = 1

    def __init__(self, *, period: int = 14) -> None:
        changes = changes_of(parameters.bars("period", period, most=parameters.LONGEST_SPAN // 2))
        self._weights = wilder_weights(changes, period)
        self.names = (f"atr_{period}",)
        self.lookback = changes + 1

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        true_ranges(bars, symbol, ordinal, self._weights, out)
