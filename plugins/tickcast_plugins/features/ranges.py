"""The spread of one bar from where it opened, reached and closed: Parkinson's and Garman and Klass's. In the unit of a
log return, and 0 in a bar that never moved; many ticks tell more of a spread than the two that a move is made of.
"""

import numpy as np
from numba import njit

from tickcast.columns import F64, I32, I64, Bars
from tickcast_plugins.features.series import log_move

PARKINSON = 1 / (4 * np.log(2))  # of the squared range of a random walk, its variance
OF_CLOSE = 2 * np.log(2) - 1


@njit(cache=True, nogil=True)
def bar_spreads(bars, symbol, ordinal, of_range, of_close, out):  # type: ignore[no-untyped-def]
    for i in range(len(symbol)):
        at = bars.start[symbol[i]] + (ordinal[i] & bars.wrap)
        reach, move = log_move(bars.low[at], bars.high[at]), log_move(bars.open[at], bars.close[at])
        out[i, 0] = np.sqrt(max(of_range * reach * reach - of_close * move * move, 0.0))


class Parkinson:
    """The root of log(high / low)^2 / (4 log 2)."""

    names, version, lookback = ("parkinson",), 1, 1

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        bar_spreads(bars, symbol, ordinal, PARKINSON, 0.0, out)


class GarmanKlass:
    """The root of log(high / low)^2 / 2 - (2 log 2 - 1) log(close / open)^2."""

    names, version, lookback = ("garman_klass",), 1, 1

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        bar_spreads(bars, symbol, ordinal, 0.5, OF_CLOSE, out)
