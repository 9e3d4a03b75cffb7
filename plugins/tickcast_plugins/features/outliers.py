"""Features of rank in the window: robust scaling, and flags for moves that lie apart from the others."""

import numpy as np
from numba import njit

from tickcast.columns import F64, I32, I64, Bars
from tickcast_plugins.features import parameters
from tickcast_plugins.features.series import LOG_RETURN, column_of, lookback_of, values_of

LONGEST_RANKED = 1_000  # bars: to sort takes time by the square of them
NORMAL_MAD = 1.4826  # standard deviations of a normal distribution per median absolute deviation


@njit(cache=True, nogil=True)
def sort_into(values, ascending):  # type: ignore[no-untyped-def]
    """Sort finite values: count for each those below it, and fill the places that equal ones leave free.

    Quadratic, but without a branch: at 48 values six times as fast as a sort that compares.
    """
    length = len(values)
    ascending[:] = np.inf
    for i in range(length):
        below = 0
        for j in range(length):
            below += values[j] < values[i]
        ascending[below] = values[i]
    for i in range(1, length):
        if ascending[i] == np.inf:
            ascending[i] = ascending[i - 1]


@njit(cache=True, nogil=True)
def quantile(ascending, share):  # type: ignore[no-untyped-def]
    """By linear interpolation between the two nearest ranks."""
    place = share * (len(ascending) - 1)
    below = int(place)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (place - below) * (ascending[above] - ascending[below])


@njit(cache=True, nogil=True, error_model="numpy")
def robust_positions(bars, symbol, ordinal, length, series, out):  # type: ignore[no-untyped-def]
    """(newest - median) / interquartile range; 0 where that is 0."""
    column, scratch, ascending = column_of(series, bars), np.empty(2 * length + 1), np.empty(length)
    for i in range(len(symbol)):
        values = values_of(series, column, bars.start[symbol[i]], ordinal[i], length, bars.wrap, scratch)
        sort_into(values, ascending)
        spread = quantile(ascending, 0.75) - quantile(ascending, 0.25)
        out[i, 0] = (values[length - 1] - quantile(ascending, 0.5)) / spread if spread > 0.0 else 0.0


@njit(cache=True, nogil=True)
def iqr_flags(bars, symbol, ordinal, length, k, out):  # type: ignore[no-untyped-def]
    """1 where the newest log return lies beyond Tukey's fences, k interquartile ranges outside the quartiles."""
    scratch, ascending = np.empty(2 * length + 1), np.empty(length)
    for i in range(len(symbol)):
        moves = values_of(LOG_RETURN, bars.close, bars.start[symbol[i]], ordinal[i], length, bars.wrap, scratch)
        sort_into(moves, ascending)
        low, high = quantile(ascending, 0.25), quantile(ascending, 0.75)
        reach = k * (high - low)
        out[i, 0] = moves[length - 1] < low - reach or moves[length - 1] > high + reach


@njit(cache=True, nogil=True)
def neighbours(values, value, radius):  # type: ignore[no-untyped-def]
    """How many values lie within the radius of `value`, itself among them."""
    count = 0
    for j in range(len(values)):
        count += abs(values[j] - value) <= radius
    return count


@njit(cache=True, nogil=True)
def is_noise(values, value, radius, least):  # type: ignore[no-untyped-def]
    """DBSCAN in one dimension: noise has fewer than `least` values within `radius`, and none of these has as many."""
    if neighbours(values, value, radius) >= least:
        return False
    for j in range(len(values)):
        if abs(values[j] - value) <= radius and neighbours(values, values[j], radius) >= least:
            return False
    return True


@njit(cache=True, nogil=True)
def robust_spread(moves, ascending, distances):  # type: ignore[no-untyped-def]
    """(robust standard deviation of the moves, how far the newest lies from their median)."""
    sort_into(moves, ascending)
    center = quantile(ascending, 0.5)
    for j in range(len(moves)):
        distances[j] = abs(moves[j] - center)
    sort_into(distances, ascending)
    return NORMAL_MAD * quantile(ascending, 0.5), distances[len(moves) - 1]


@njit(cache=True, nogil=True)
def density_flags(bars, symbol, ordinal, length, eps, least, out):  # type: ignore[no-untyped-def]
    """1 where the newest log return is noise; the radius is `eps` robust standard deviations of the window."""
    scratch, ascending, distances = np.empty(2 * length + 1), np.empty(length), np.empty(length)
    for i in range(len(symbol)):
        moves = values_of(LOG_RETURN, bars.close, bars.start[symbol[i]], ordinal[i], length, bars.wrap, scratch)
        spread, _ = robust_spread(moves, ascending, distances)
        out[i, 0] = is_noise(moves, moves[length - 1], eps * spread, least)


@njit(cache=True, nogil=True, error_model="numpy")
def anomaly_scores(bars, symbol, ordinal, length, out):  # type: ignore[no-untyped-def]
    """How far the newest log return lies from the median, in robust standard deviations; 0 where these are 0."""
    scratch, ascending, distances = np.empty(2 * length + 1), np.empty(length), np.empty(length)
    for i in range(len(symbol)):
        moves = values_of(LOG_RETURN, bars.close, bars.start[symbol[i]], ordinal[i], length, bars.wrap, scratch)
        spread, newest = robust_spread(moves, ascending, distances)
        out[i, 0] = newest / spread if spread > 0.0 else 0.0


class Robust(parameters.OverSeries):
    """(newest - median) / interquartile range of the window; 0 where that is 0."""

    kind, least, most = "robust", 4, LONGEST_RANKED

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        robust_positions(bars, symbol, ordinal, self._window, self._series, out)


class IqrOutlier:
    """1 where the newest log return lies more than k interquartile ranges outside the quartiles of the window."""

    version = 1

    def __init__(self, *, window: int = 48, k: float = 1.5) -> None:
        self._window = parameters.bars("window", window, least=4, most=LONGEST_RANKED)
        self._k = parameters.positive("k", k)
        self.names = (f"iqr_outlier_{window}_{k:g}",)
        self.lookback = lookback_of(LOG_RETURN, window)

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        iqr_flags(bars, symbol, ordinal, self._window, self._k, out)


class DensityOutlier:
    """1 where the newest log return is noise to DBSCAN over the window, `eps` in robust standard deviations."""

    version = 1

    def __init__(self, *, window: int = 48, eps: float = 1.0, least: int = 5) -> None:
        self._window = parameters.bars("window", window, least=4, most=LONGEST_RANKED)
        self._eps = parameters.positive("eps", eps)
        self._least = parameters.bars("least", least, least=2, most=window)
        self.names = (f"density_outlier_{window}_{eps:g}_{least}",)
        self.lookback = lookback_of(LOG_RETURN, window)

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        density_flags(bars, symbol, ordinal, self._window, self._eps, self._least, out)


class AnomalyScore:
    """How far the newest log return lies from the window's median, in units of 1.4826 MAD; 0 where that is 0."""

    version = 1

    def __init__(self, *, window: int = 48) -> None:
        self._window = parameters.bars("window", window, least=4, most=LONGEST_RANKED)
        self.names = (f"anomaly_score_{window}",)
        self.lookback = lookback_of(LOG_RETURN, window)

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        anomaly_scores(bars, symbol, ordinal, self._window, out)
