"""The naive rung: the last value stays, and its spread grows with the root of the step."""

from collections.abc import Sequence

import numpy as np
from numba import njit

from tickcast.columns import F32
from tickcast.figures import last_value_quantiles
from tickcast_plugins.models.rung import Rung, follow


class Naive(Rung):
    kind = "naive"

    def __init__(self, transform: str, horizon: int, levels: Sequence[float], season_bars: int) -> None:
        super().__init__(transform, horizon, levels, season_bars)
        self._widths = last_value_quantiles(levels, np.arange(1, horizon + 1))

    def fill(self, past: F32, mask: F32, out: F32) -> None:
        _fill(past, mask, self.is_level, self._widths, out)


@njit(cache=True, nogil=True)
def _fill(past, mask, is_level, widths, out):  # type: ignore[no-untyped-def]
    path = np.empty(past.shape[1])
    for i in range(len(past)):
        sigma = follow(past[i], mask[i], is_level, path)
        for h in range(widths.shape[0]):
            for q in range(widths.shape[1]):
                out[i, h, q] = sigma * widths[h, q]
