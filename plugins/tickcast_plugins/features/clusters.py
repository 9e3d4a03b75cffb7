"""Features of what kind of window it is: four numbers that describe it, its cluster, its distance from usual windows.

Centres and usual windows were learnt beforehand; nothing is learnt here.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit

from tickcast.columns import F64, I32, I64, Bars
from tickcast_plugins.features import parameters
from tickcast_plugins.features.series import LOG_RETURN, lookback_of, run, scaled_moves

PARTS = ("volatility", "drift", "autocorrelation", "volume")
FLOOR = 1e-8  # a window that never moved counts as this volatile
MOST_CORES = 500


@njit(cache=True, nogil=True)
def describe(bars, base, ordinal, length, scratch, shape):  # type: ignore[no-untyped-def]
    """Log volatility, drift in standard errors, autocorrelation at lag 1, the newer half's share of the volume."""
    volumes = run(bars.volume, base, ordinal, length, bars.wrap, scratch)
    half = length // 2
    older, newer = 0.0, 0.0
    for j in range(length - half):
        older += volumes[j]
    for j in range(length - half, length):
        newer += volumes[j]
    older, newer = older / (length - half), newer / half
    shape[3] = newer / (older + newer) if older + newer > 0.0 else 0.5
    moves, size = scaled_moves(bars.close, base, ordinal, length, bars.wrap, scratch)
    total, products = moves[0], 0.0
    for j in range(1, length):
        total += moves[j]
        products += moves[j] * moves[j - 1]
    shape[0] = np.log(max(size, FLOOR))
    shape[1] = total / np.sqrt(length)
    shape[2] = products / length


@njit(cache=True, nogil=True)
def nearest(points, place):  # type: ignore[no-untyped-def]
    """The number of the nearest point, the first of equals, and how far it is."""
    found, least = 0, np.inf
    for p in range(points.shape[0]):
        squares = 0.0
        for d in range(points.shape[1]):
            squares += (points[p, d] - place[d]) ** 2
        if squares < least:
            found, least = p, squares
    return found, np.sqrt(least)


@njit(cache=True, nogil=True)
def shapes(bars, symbol, ordinal, length, out):  # type: ignore[no-untyped-def]
    scratch, shape = np.empty(2 * length + 1), np.empty(4)
    for i in range(len(symbol)):
        describe(bars, bars.start[symbol[i]], ordinal[i], length, scratch, shape)
        out[i, :] = shape


@njit(cache=True, nogil=True)
def locate(bars, symbol, ordinal, length, mean, spread, points, out):  # type: ignore[no-untyped-def]
    """The nearest of `points` to each window's shape in units of `spread`, and how far it is."""
    scratch, shape = np.empty(2 * length + 1), np.empty(4)
    for i in range(len(symbol)):
        describe(bars, bars.start[symbol[i]], ordinal[i], length, scratch, shape)
        for d in range(4):
            shape[d] = (shape[d] - mean[d]) / spread[d]
        found, distance = nearest(points, shape)
        out[i, 0], out[i, 1] = found, distance


class WindowShape:
    """What the window is like: volatility (log), drift, autocorrelation, and whether volume comes or goes."""

    version = 1

    def __init__(self, *, window: int = 48) -> None:
        self._window = parameters.bars("window", window, least=4)
        self.names = tuple(f"shape_{window}_{part}" for part in PARTS)
        self.lookback = lookback_of(LOG_RETURN, window)

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        shapes(bars, symbol, ordinal, self._window, out)


class _Located:
    """A window's shape among learnt points."""

    version = 1

    def _place(self, window: int, mean: Sequence[float], spread: Sequence[float]) -> None:
        self._window = parameters.bars("window", window, least=4)
        self._mean = parameters.learnt("mean", mean, shape=(len(PARTS),))
        self._spread = parameters.learnt("spread", spread, shape=(len(PARTS),))
        if (self._spread <= 0).any():
            parameters.positive("spread", float(self._spread.min()))
        self.lookback = lookback_of(LOG_RETURN, window)


class KMeans(_Located):
    """The number of the nearest learnt centre, in the order in which they are given, and the distance to it."""

    def __init__(
        self, *, window: int, centers: Sequence[Sequence[float]], mean: Sequence[float], spread: Sequence[float],
        learnt_to_ns: int,
    ) -> None:  # fmt: skip
        self._place(window, mean, spread)
        self._centers = parameters.learnt("centers", centers, shape=(-1, len(PARTS)))
        digest = parameters.fingerprint(learnt_to_ns, self._centers, self._mean, self._spread)
        self.names = (f"kmeans_{window}_{digest}_cluster", f"kmeans_{window}_{digest}_distance")

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        locate(bars, symbol, ordinal, self._window, self._mean, self._spread, self._centers, out)


class Dbscan(_Located):
    """1 where no learnt core window lies within reach, and the distance to the nearest one over that reach."""

    def __init__(
        self, *, window: int, cores: Sequence[Sequence[float]], reach: float, mean: Sequence[float],
        spread: Sequence[float], learnt_to_ns: int,
    ) -> None:  # fmt: skip
        self._place(window, mean, spread)
        self._cores = parameters.learnt("cores", cores, shape=(-1, len(PARTS)))
        parameters.bars("the number of cores", len(self._cores), most=MOST_CORES)
        self._reach = parameters.positive("reach", reach)
        known = (self._cores, self._mean, self._spread, np.array([self._reach]))
        digest = parameters.fingerprint(learnt_to_ns, *known)
        self.names = (f"dbscan_{window}_{digest}_outlier", f"dbscan_{window}_{digest}_score")

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        locate(bars, symbol, ordinal, self._window, self._mean, self._spread, self._cores, out)
        out[:, 1] /= self._reach
        out[:, 0] = out[:, 1] > 1.0
