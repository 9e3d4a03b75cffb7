"""Features of the window's extremes: rolling minimum, rolling maximum, and where the newest value lies between them."""

import numpy as np
from numba import njit

from tickcast.columns import F64, I32, I64, Bars
from tickcast_plugins.features import parameters
from tickcast_plugins.features.series import column_of, values_of


@njit(cache=True, nogil=True)
def extremes(bars, symbol, ordinal, length, series, lowest, highest):  # type: ignore[no-untyped-def]
    """The least and the greatest value of each window; returns the newest ones."""
    column, scratch = column_of(series, bars), np.empty(2 * length + 1)
    newest = np.empty(len(symbol))
    for i in range(len(symbol)):
        values = values_of(series, column, bars.start[symbol[i]], ordinal[i], length, bars.wrap, scratch)
        low = high = newest[i] = values[length - 1]
        for j in range(length - 1):
            low = values[j] if values[j] < low else low
            high = values[j] if values[j] > high else high
        lowest[i], highest[i] = low, high
    return newest


class _Extremes(parameters.OverSeries):
    """A window of one series, and its extremes."""

    def _find(self, bars: Bars, symbol: I32, ordinal: I64) -> tuple[F64, F64, F64]:
        lowest, highest = np.empty(len(symbol)), np.empty(len(symbol))
        newest = extremes(bars, symbol, ordinal, self._window, self._series, lowest, highest)
        return lowest, highest, newest


class RollingMin(_Extremes):
    """The least value of the window."""

    kind = "rolling_min"

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        out[:, 0] = self._find(bars, symbol, ordinal)[0]


class RollingMax(_Extremes):
    """The greatest value of the window."""

    kind = "rolling_max"

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        out[:, 0] = self._find(bars, symbol, ordinal)[1]


class MinMax(_Extremes):
    """Where the newest value lies between the window's least (0) and greatest (1); 0.5 in a window that never moved."""

    kind = "minmax"

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        lowest, highest, newest = self._find(bars, symbol, ordinal)
        span = highest - lowest
        out[:, 0] = 0.5
        np.divide(newest - lowest, span, out=out[:, 0], where=span > 0)
