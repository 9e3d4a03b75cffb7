"""Features of the traded volume."""

import numpy as np
from numba import njit

from tickcast.columns import F64, I32, I64, Bars
from tickcast_plugins.features import parameters
from tickcast_plugins.features.series import run


@njit(cache=True, nogil=True, error_model="numpy")
def volume_ratios(bars, symbol, ordinal, length, out):  # type: ignore[no-untyped-def]
    scratch = np.empty(length)
    for i in range(len(symbol)):
        volumes = run(bars.volume, bars.start[symbol[i]], ordinal[i], length, bars.wrap, scratch)
        total = 0.0
        for j in range(length):
            total += volumes[j]
        out[i, 0] = volumes[length - 1] * length / total if total > 0.0 else 1.0


class VolumeRatio:
    """The bar's volume over the mean of the window; 1 where nothing was traded in all of it."""

    version = 1

    def __init__(self, *, window: int = 24) -> None:
        self.lookback = parameters.bars("window", window)
        self.names = (f"volume_ratio_{window}",)

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        volume_ratios(bars, symbol, ordinal, self.lookback, out)
