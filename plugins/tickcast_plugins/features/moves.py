"""Features of single moves of the close: log return, rate of change, difference, and lags of a series."""

from collections.abc import Sequence

import numpy as np
from numba import njit

from tickcast.columns import F64, I32, I64, Bars
from tickcast.errors import BadSettings
from tickcast_plugins.features import parameters
from tickcast_plugins.features.series import LOG_RETURN, column_of, log_move, lookback_of

LOG, RATE, DIFFERENCE = 0, 1, 2
LAGS = 5


@njit(cache=True, nogil=True, error_model="numpy")
def moves(bars, symbol, ordinal, period, form, out):  # type: ignore[no-untyped-def]
    """The move of the close over `period` bars."""
    for i in range(len(symbol)):
        base = bars.start[symbol[i]]
        now = bars.close[base + (ordinal[i] & bars.wrap)]
        before = bars.close[base + ((ordinal[i] - period) & bars.wrap)]
        if form == LOG:
            out[i, 0] = log_move(before, now)
        elif form == RATE:
            out[i, 0] = (now - before) / abs(before) if before != 0.0 else 0.0
        else:
            out[i, 0] = now - before


@njit(cache=True, nogil=True)
def lagged(bars, symbol, ordinal, lags, series, out):  # type: ignore[no-untyped-def]
    """The series so many bars ago, for each of `lags`."""
    column = column_of(series, bars)
    for i in range(len(symbol)):
        base = bars.start[symbol[i]]
        for c in range(len(lags)):
            k = ordinal[i] - lags[c]
            value = column[base + (k & bars.wrap)]
            out[i, c] = log_move(column[base + ((k - 1) & bars.wrap)], value) if series == LOG_RETURN else value


class _Move:
    version = 1
    kind: str
    form: int

    def __init__(self, *, period: int = 1) -> None:
        self._period = parameters.bars("period", period)
        self.names = (f"{self.kind}_{period}",)
        self.lookback = period + 1

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        moves(bars, symbol, ordinal, self._period, self.form, out)


class LogReturn(_Move):
    """log(close / close of `period` bars ago); 0 where either is not positive."""

    kind, form = "log_return", LOG


class Roc(_Move):
    """The change of the close over `period` bars, in units of the earlier close; 0 where that was 0."""

    kind, form = "roc", RATE

    def __init__(self, *, period: int = 10) -> None:
        super().__init__(period=period)


class Diff(_Move):
    """The change of the close over `period` bars."""

    kind, form = "diff", DIFFERENCE


class Lags:
    """The series 1 .. n bars ago, or as many bars ago as `at` says."""

    version = 1

    def __init__(self, *, n: int | None = None, at: Sequence[int] | None = None, of: str = "log_return") -> None:
        if n is not None and at is not None:
            raise BadSettings("lags takes n or at, not both")
        self._series = parameters.series(of)
        count = parameters.bars("n", LAGS if n is None else n)
        chosen = list(range(1, count + 1)) if at is None else parameters.several("at", at)
        self._lags = np.array(chosen, np.int64)
        self.names = tuple(f"lag_{lag}{parameters.suffix(of, 'log_return')}" for lag in chosen)
        self.lookback = max(chosen) + lookback_of(self._series, 1)

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        lagged(bars, symbol, ordinal, self._lags, self._series, out)
