"""What a window is measured in: how far its symbol moves in one bar, as the window tells. One definition for the gather
that serves and trains, for nets, which divide by it within their graphs, and for what the daemon's figures count in.

`rms` weighs all bars of the window alike. `ewma` and `har` forecast: the one by a mean that forgets, the other by a
product of means at several speeds.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np

from tickcast.columns import F64

Scale = Literal["rms", "ewma", "har"]
SCALES = get_args(Scale)
HAR_BARS, HAR_SHARES = (4, 24), (0.2, 0.3, 0.5)  # the last is the window's own length
LEAST_RATIO = 1e-4  # of a mean to the slowest: below it, bars stood still
LEAST_WEIGHT = 1e-9  # of a mean that has seen nothing


class Speeds(NamedTuple):
    """Means of squared moves, the slowest last: the scale is the root of their product, each to the power of its share.
    None of them is the root mean square."""

    keep: F64  # [P] of a mean, from bar to bar
    share: F64  # [P]


def speeds(scale: str, lookback: int) -> Speeds:
    """Those of a scale in windows of so many bars."""
    if scale == "rms":
        return Speeds(np.empty(0), np.empty(0))
    bars, shares = ([lookback / 2], [1.0]) if scale == "ewma" else ([*HAR_BARS, lookback], [*HAR_SHARES])
    spans = np.clip(np.array(bars, np.float64), 1, lookback)
    return Speeds(1 - 2 / (spans + 1), np.array(shares))


def bar_weights(keep: F64, lookback: int) -> F64:
    """[L, P]: of each bar of a window in each mean, before they are divided by the sum of those that were seen."""
    age = np.arange(lookback - 1, -1, -1.0)[:, None]
    weights: F64 = (1 - keep) * keep**age
    return weights
