"""The seasonal rung: the moves of the last season repeat. Its spread is the error that this would have made before."""

from typing import Any

import numpy as np
from numba import njit

from tickcast.columns import F32
from tickcast.figures import SCALE_FLOOR
from tickcast_plugins.models.rung import Rung, follow, quantile_widths


class Seasonal(Rung):
    kind = "seasonal"

    @property
    def params(self) -> dict[str, Any]:
        return {"season_bars": self.season_bars}

    @property
    def lookback(self) -> int:
        return self.season_bars + 1

    @property
    def need_bars(self) -> int:
        return self.season_bars + 1

    def fill(self, past: F32, mask: F32, out: F32) -> None:
        steps = np.sqrt(np.arange(1, self.horizon + 1, dtype=np.float64))
        _fill(past, mask, self.is_level, self.season_bars, quantile_widths(self.deviates, steps), out)


@njit(cache=True, nogil=True)
def _season_error(path, season, otherwise):  # type: ignore[no-untyped-def]
    """RMS of (one-bar move - the move a season before), from at least one season of pairs; else `otherwise`."""
    first = season + 1
    if len(path) - first < season:
        return otherwise
    squares = 0.0
    for j in range(first, len(path)):
        error = (path[j] - path[j - 1]) - (path[j - season] - path[j - season - 1])
        squares += error * error
    return max(np.sqrt(squares / (len(path) - first)), SCALE_FLOOR)


@njit(cache=True, nogil=True)
def _fill(past, mask, is_level, season, widths, out):  # type: ignore[no-untyped-def]
    path = np.empty(past.shape[1])
    last = len(path) - 1
    for i in range(len(past)):
        sigma = _season_error(path, season, follow(past[i], mask[i], is_level, path))
        whole = path[last] - path[last - season]
        for h in range(widths.shape[0]):
            seasons, step = (h + 1) // season, (h + 1) % season
            point = seasons * whole + path[last - season + step] - path[last - season]
            for q in range(widths.shape[1]):
                out[i, h, q] = point + sigma * widths[h, q]
