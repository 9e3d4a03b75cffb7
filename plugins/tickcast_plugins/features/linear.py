"""Features that are fixed weights over the window: rolling mean, EMA, MACD, distance from the trend line.

A recursion that is cut off at a stated lookback is such a sum too, so any start of the process gives the same bits.
Everything is summed relative to the newest value: large prices do not cancel.
"""

import numpy as np
from numba import njit

from tickcast.columns import F64, I32, I64, Bars
from tickcast_plugins.features import parameters
from tickcast_plugins.features.series import CLOSE, column_of, lookback_of, values_of

SPANS = 8  # bars after which a recursion is cut off, in spans: what lies before would weigh exp(-16)


def ema_of(weights: F64, span: int) -> F64:
    """The weights that `weights` over the values of an EMA have as weights over what the EMA is of.

    The EMA starts as the first value and has alpha = 2 / (span + 1).
    """
    alpha = 2 / (span + 1)
    chained, tail = np.empty_like(weights), 0.0
    for j in range(len(weights) - 1, -1, -1):
        tail = weights[j] + (1 - alpha) * tail
        chained[j] = alpha * tail
    chained[0] = tail
    return chained


def newest(length: int) -> F64:
    """The weights that pick the newest value."""
    return np.append(np.zeros(length - 1), 1.0)


@njit(cache=True, nogil=True)
def weighted_sum(weights, values, anchor):  # type: ignore[no-untyped-def]
    """The weighted sum of values - anchor, in four strands that a processor adds at once."""
    length = len(weights)
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    for j in range(0, length - 3, 4):
        a += weights[j] * (values[j] - anchor)
        b += weights[j + 1] * (values[j + 1] - anchor)
        c += weights[j + 2] * (values[j + 2] - anchor)
        d += weights[j + 3] * (values[j + 3] - anchor)
    for j in range(length - length % 4, length):
        a += weights[j] * (values[j] - anchor)
    return (a + b) + (c + d)


@njit(cache=True, nogil=True)
def weigh(bars, symbol, ordinal, weights, series, level, out):  # type: ignore[no-untyped-def]
    """One channel per row of `weights`. `level` is what each row sums to: 1 for an average, 0 for a difference."""
    length = weights.shape[1]
    column, scratch = column_of(series, bars), np.empty(2 * length + 1)
    for i in range(len(symbol)):
        values = values_of(series, column, bars.start[symbol[i]], ordinal[i], length, bars.wrap, scratch)
        anchor = values[length - 1]
        for c in range(weights.shape[0]):
            out[i, c] = level * anchor + weighted_sum(weights[c], values, anchor)


class RollingMean(parameters.OverSeries):
    """The mean of the window."""

    kind = "rolling_mean"

    def __init__(self, *, window: int = 24, of: str = "close") -> None:
        super().__init__(window=window, of=of)
        self._weights = np.full((1, window), 1 / window)

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        weigh(bars, symbol, ordinal, self._weights, self._series, 1.0, out)


class Ema:
    """The exponential moving average over 8 x span values, starting as the first of them."""

    version = 1

    def __init__(self, *, span: int = 19, of: str = "close") -> None:
        self._series = parameters.series(of)
        length = SPANS * parameters.bars("span", span, most=parameters.LONGEST_SPAN)
        self._weights = ema_of(newest(length), span)[None]
        self.names = (f"ema_{span}{parameters.suffix(of, 'close')}",)
        self.lookback = lookback_of(self._series, length)

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        weigh(bars, symbol, ordinal, self._weights, self._series, 1.0, out)


class Macd:
    """Fast EMA - slow EMA of the closes (line), the EMA of that (signal), and line - signal (histogram)."""

    version = 1

    def __init__(self, *, fast: int = 12, slow: int = 26, signal: int = 9) -> None:
        parameters.bars("slow", slow, least=2, most=parameters.LONGEST_SPAN)
        parameters.bars("fast", fast, most=slow - 1)
        parameters.bars("signal", signal, most=parameters.LONGEST_SPAN)
        self.lookback = SPANS * max(slow, signal)
        rows = []
        for last in (newest(self.lookback), ema_of(newest(self.lookback), signal)):
            rows.append(ema_of(last, fast) - ema_of(last, slow))
        self._weights = np.stack(rows)
        self.names = tuple(f"macd_{fast}_{slow}_{signal}_{part}" for part in ("line", "signal", "histogram"))

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        weigh(bars, symbol, ordinal, self._weights, CLOSE, 0.0, out)
        np.subtract(out[:, 0], out[:, 1], out=out[:, 2])


class Detrend:
    """How far the close lies above the least-squares line through the window."""

    version = 1

    def __init__(self, *, window: int = 24) -> None:
        self.lookback = parameters.bars("window", window, least=3)
        time = np.arange(window) - (window - 1) / 2
        line_at_last = 1 / window + time[-1] * time / (time @ time)
        self._weights = (newest(window) - line_at_last)[None]
        self.names = (f"detrend_{window}",)

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        weigh(bars, symbol, ordinal, self._weights, CLOSE, 0.0, out)
