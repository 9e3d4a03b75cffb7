"""The Holt rung: level and damped trend, smoothed over the window. Its spread is its own one-step error, carried on."""

from typing import Any

import numpy as np
from numba import njit

from tickcast.columns import F32, F64
from tickcast.figures import SCALE_FLOOR
from tickcast_plugins.models.rung import Rung, follow, quantile_widths

ALPHA, BETA, DAMPING = 0.8, 0.1, 0.9  # of level, trend, and of the trend's effect per step
NEED_BARS = 10  # before that the trend is noise


class Holt(Rung):
    kind = "holt"

    @property
    def params(self) -> dict[str, Any]:
        return {"alpha": ALPHA, "beta": BETA, "damping": DAMPING}

    @property
    def need_bars(self) -> int:
        return NEED_BARS

    def fill(self, past: F32, mask: F32, out: F32) -> None:
        damped = np.cumsum(DAMPING ** np.arange(1, self.horizon + 1))
        widths = quantile_widths(self.deviates, _spread(damped))
        _fill(past, mask, self.is_level, damped, widths, out)


def _spread(damped: F64) -> F64:
    """[H]: standard error of step h in units of the one-step error (the textbook's variance of damped Holt)."""
    carried = ALPHA * (1 + BETA * np.concatenate([[0.0], damped[:-1]]))
    carried[0] = 1.0  # the error of the step itself
    spread: F64 = np.sqrt(np.cumsum(carried**2))
    return spread


@njit(cache=True, nogil=True)
def _smooth(path, mask):  # type: ignore[no-untyped-def]
    """Level and trend at the window's end and the RMS one-step error, over usable bars."""
    level, trend, squares, errors, started = 0.0, 0.0, 0.0, 0, False
    for j in range(len(path)):
        if mask[j] <= 0:
            continue
        if not started:
            level, started = path[j], True
            continue
        expected = level + DAMPING * trend
        error = path[j] - expected
        squares += error * error
        errors += 1
        before = level
        level = expected + ALPHA * error
        trend = BETA * (level - before) + (1 - BETA) * DAMPING * trend
    return level, trend, max(np.sqrt(squares / errors), SCALE_FLOOR) if errors else SCALE_FLOOR


@njit(cache=True, nogil=True)
def _fill(past, mask, is_level, damped, widths, out):  # type: ignore[no-untyped-def]
    path = np.empty(past.shape[1])
    for i in range(len(past)):
        follow(past[i], mask[i], is_level, path)
        level, trend, sigma = _smooth(path, mask[i])
        start = level - path[-1]
        for h in range(widths.shape[0]):
            point = start + damped[h] * trend
            for q in range(widths.shape[1]):
                out[i, h, q] = point + sigma * widths[h, q]
