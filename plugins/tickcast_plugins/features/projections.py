"""Features that project the window onto learnt directions: principal and independent components. They learn nothing.

The window is its log returns in units of their own root mean square, so that all symbols weigh alike.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit

from tickcast.columns import F64, I32, I64, Bars
from tickcast_plugins.features import parameters
from tickcast_plugins.features.linear import weighted_sum
from tickcast_plugins.features.series import LOG_RETURN, lookback_of, scaled_moves


@njit(cache=True, nogil=True)
def project(bars, symbol, ordinal, components, offsets, out):  # type: ignore[no-untyped-def]
    """One channel per row of `components`, which is as long as the window, less the row's offset."""
    length = components.shape[1]
    scratch = np.empty(2 * length + 1)
    for i in range(len(symbol)):
        moves, _ = scaled_moves(bars.close, bars.start[symbol[i]], ordinal[i], length, bars.wrap, scratch)
        for c in range(components.shape[0]):
            out[i, c] = weighted_sum(components[c], moves, 0.0) - offsets[c]


class _Projection:
    """The window less the mean window, times each component."""

    version = 1
    kind: str

    def __init__(self, *, components: Sequence[Sequence[float]], mean: Sequence[float], learnt_to_ns: int) -> None:
        self._components = parameters.learnt("components", components, shape=(-1, -1))
        count, window = self._components.shape
        centre = parameters.learnt("mean", mean, shape=(window,))
        parameters.bars("the length of a component", window, least=2)
        self._offsets = self._components @ centre
        digest = parameters.fingerprint(learnt_to_ns, self._components, centre)
        self.names = tuple(f"{self.kind}_{window}_{digest}_{c}" for c in range(1, count + 1))
        self.lookback = lookback_of(LOG_RETURN, window)

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        project(bars, symbol, ordinal, self._components, self._offsets, out)


class Pca(_Projection):
    """Scores of the window on its first principal components."""

    kind = "pca"


class Ica(_Projection):
    """Independent components of the window: what an unmixing matrix makes of it."""

    kind = "ica"
