"""What figures of forecasts mean: one definition for live accuracy, cards, evaluation, promotion and pages. Pure.

Losses are counted in one-bar moves of the forecast's window (moves / its scale), so that every symbol weighs alike.
`skill` is 1 - pinball / pinball of last value, `skill_mae` is 1 - MAE / MAE of last value. Last value's quantiles are
calibrated as the model's are: else its wrong shape would pass for the model's skill.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from tickcast.columns import F64
from tickcast.compiled import inlined_njit

SCALE_FLOOR = 1e-8  # the scale of a window that never moved: it has no unit, and is in no loss


def skill(loss: Any, of_last_value: Any) -> F64:
    """How much smaller the loss is than that of last value: 0 is as good, below 0 is worse. Scalars or arrays; NaN
    where last value made no loss."""
    own, beside = np.asarray(loss, np.float64), np.asarray(of_last_value, np.float64)
    ratio = np.full(np.broadcast(own, beside).shape, np.nan)
    np.divide(own, beside, out=ratio, where=beside > 0)
    return 1.0 - ratio


def pinball(levels: F64, quantiles: Any, truth: Any) -> F64:
    """Quantile loss [...], the mean over the levels, of quantiles [..., Q] and truths [...]."""
    beyond = np.asarray(truth, np.float64)[..., None] - quantiles
    loss: F64 = np.maximum(levels * beyond, (levels - 1.0) * beyond).mean(axis=-1)
    return loss


@inlined_njit
def pinball_of(levels, quantiles, truth):  # type: ignore[no-untyped-def]
    """`pinball` of one label, in a kernel."""
    loss = 0.0
    for q in range(len(levels)):
        beyond = truth - quantiles[q]
        loss += max(levels[q] * beyond, (levels[q] - 1.0) * beyond)
    return loss / len(levels)


def covered(quantiles: Any, truth: Any) -> Any:
    """Whether each truth [...] lies within the outermost pair of quantiles [..., Q]."""
    return (truth >= quantiles[..., 0]) & (truth <= quantiles[..., -1])


def spread_of(levels: Sequence[float], quantiles: Any) -> F64:
    """[...] The standard deviation of a normal law whose outermost quantiles lie as far apart as those of [..., Q]."""
    if levels[0] == levels[-1]:
        return np.full(np.shape(quantiles)[:-1], np.nan)
    apart = NormalDist().inv_cdf(levels[-1]) - NormalDist().inv_cdf(levels[0])
    spread: F64 = (np.asarray(quantiles, np.float64)[..., -1] - quantiles[..., 0]) / apart
    return np.maximum(spread, SCALE_FLOOR)


def qlike(spread: Any, error: Any) -> F64:
    """How ill a forecast spread suits an error: (error / spread)^2 + log spread^2. Of all spreads the true one has the
    smallest mean, whatever the law of the errors; one that is too narrow costs more than one that is too wide.
    """
    ratio = np.asarray(error, np.float64) / spread
    loss: F64 = ratio * ratio + 2.0 * np.log(spread)
    return loss


def last_value_quantiles(levels: Sequence[float], steps: Any) -> F64:
    """[steps, Q] in one-bar moves: where a random walk of normal moves would lie. Calibration moves them from here."""
    deviates = np.array([NormalDist().inv_cdf(level) for level in levels])
    quantiles: F64 = np.sqrt(np.asarray(steps, np.float64))[:, None] * deviates
    return quantiles
