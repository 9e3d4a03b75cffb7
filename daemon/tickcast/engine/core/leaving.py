"""How likely a price leaves a band on its way, from where it ends: for forecasts that know of no direction. Pure.

From wherever such a price is, up is as likely as down. So of all paths that have touched a level half end beyond it:
twice as many touch it as end beyond it, whatever the law of the sizes of moves. A path that touches both bounds in turn
is mirrored once more each time, so what leaves a band is a sum of such shares, of alternating sign. That is exact for a
price that moves all the time, and somewhat too much for one of few ticks a bar.
"""

from math import erfc, sqrt
from statistics import NormalDist

import numpy as np

from tickcast.columns import F64

TAILS = (0.4, 0.3, 0.2, 0.1, 0.05, 0.025, 0.01, 0.005, 0.0025, 0.001)  # where the widths of a step are read
LEAST = 2 * TAILS[-1]  # what is rarer is told as this
MIRRORED = 64  # a price that would turn so often has left a band long since
DEVIATES = -np.array([0.0, *map(NormalDist().inv_cdf, TAILS)])
NARROW = 1e-30  # of a window that never moved


def leaving(reach: F64, down: float, up: float) -> F64:
    """[H] up to each step, of a band whose bounds are so far away, infinite = none. `reach` [H, 2, TAILS]: so far down
    and up such a share of what comes lies beyond.
    """
    width = down + up
    turns: F64 = width * np.arange(MIRRORED, dtype=np.float64) if np.isfinite(width) else np.zeros(1)
    sign = (-1.0) ** np.arange(len(turns))
    sign[1:][-1:] /= 2  # the middle between the last two sums
    touched = np.stack([2 * beyond(reach[:, side], away + turns) for side, away in enumerate((down, up))])
    once = touched[:, :, 0]
    found = np.clip((touched @ sign).sum(axis=0), once.max(axis=0), once.sum(axis=0))
    return np.clip(np.maximum.accumulate(found), LEAST, 1.0)


def beyond(reach: F64, away: F64) -> F64:
    """[H, K] Which share of moves ends further out than `away` [K], each step's reach [H, TAILS] read between tails as
    that of a normal law is; further out than all of them it goes on as that of the outermost."""
    found = np.empty((len(reach), len(away)))
    for step, row in enumerate(reach):
        known = np.append(0.0, np.maximum.accumulate(np.maximum(row, NARROW)))
        deviate = np.where(away > known[-1], away / known[-1] * DEVIATES[-1], np.interp(away, known, DEVIATES))
        found[step] = [erfc(one / sqrt(2)) / 2 for one in deviate]
    return found
