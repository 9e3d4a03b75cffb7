"""The naive rung: the last value stays, and its spread grows with the root of the step."""

import numpy as np
from numba import njit

from tickcast.columns import F32
from tickcast_plugins.models.rung import Rung, follow, quantile_widths


class Naive(Rung):
    kind = "naive"

    def fill(self, past: F32, mask: F32, out: F32) -> None:
        steps = np.sqrt(np.arange(1, self.horizon + 1, dtype=np.float64))
        _fill(past, mask, self.is_level, quantile_widths(self.deviates, steps), out)


@njit(cache=True, nogil=True)
def _fill(past, mask, is_level, widths, out):  # type: ignore[no-untyped-def]
    path = np.empty(past.shape[1])
    for i in range(len(past)):
        sigma = follow(past[i], mask[i], is_level, path)
        for h in range(widths.shape[0]):
            for q in range(widths.shape[1]):
                out[i, h, q] = sigma * widths[h, q]
