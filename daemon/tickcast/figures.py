"""What figures of forecasts mean: one definition for live accuracy, cards, evaluation, promotion and pages. Pure.

Losses are counted in one-bar moves of the forecast's window (moves / its scale), so that every symbol weighs alike.
`skill` is 1 - pinball / pinball of last value, `skill_mae` is 1 - MAE / MAE of last value. Last value's quantiles are
calibrated as the model's are: else its wrong shape would pass for the model's skill.

Figures are computed from sums, scalars or arrays of them; NaN is the figure of nothing.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from tickcast.columns import F64
from tickcast.compiled import inlined_njit

SCALE_FLOOR = 1e-8  # the scale of a window that never moved: it has no unit, and is in no loss

CONFIDENCES = 10  # even steps of a probability, in which calibration of classes is looked at
LEAST_PROBABILITY = 1e-12  # what a class lost that came without any
LEAST_BLOCKS = 10  # independent ones, without which a figure looks surer than it is
LEAST_DRAWN = 5  # on each side
CONFIDENCE = 0.9  # of intervals
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


def skill(loss: Any, of_last_value: Any) -> F64:
    """How much smaller the loss is than that of last value: 0 is as good, below 0 is worse. Scalars or arrays; NaN
    where last value made no loss."""
    return 1.0 - _ratio(loss, of_last_value)


def losses(levels: F64, quantiles: Any, truth: Any) -> F64:
    """Quantile losses [..., Q] of quantiles [..., Q] and truths [...]."""
    beyond = np.asarray(truth, np.float64)[..., None] - quantiles
    found: F64 = np.maximum(levels * beyond, (levels - 1.0) * beyond)
    return found


def pinball(levels: F64, quantiles: Any, truth: Any) -> F64:
    """The mean of these over the levels."""
    loss: F64 = losses(levels, quantiles, truth).mean(axis=-1)
    return loss


@inlined_njit
def pinball_of(levels, quantiles, truth):  # type: ignore[no-untyped-def]
    """`pinball` of one label, in a kernel."""
    loss = 0.0
    for q in range(len(levels)):
        beyond = truth - quantiles[q]
        loss += max(levels[q] * beyond, (levels[q] - 1.0) * beyond)
    return loss / len(levels)


def mean(total: Any, n: Any) -> F64:
    found: F64 = _ratio(total, n)
    return found


def rmse(squares: Any, n: Any) -> F64:
    found: F64 = np.sqrt(mean(squares, n))
    return found


def explained(residual: Any, total: Any, squares: Any, n: Any) -> F64:
    """R2: one less the share of the variance that the errors leave. Of sums of squared errors, values and their
    squares."""
    spread = np.asarray(squares - mean(np.multiply(total, total), n))
    return 1.0 - _ratio(residual, np.where(spread > 0, spread, 0.0))


def mase(missed: Any, one_step: Any) -> F64:
    """A mean absolute error over that of last value one bar ahead, both in one-bar moves."""
    return _ratio(missed, one_step)


def directions(move: Any, said: Any) -> tuple[Any, Any]:
    """Whether an outcome moved and its forecast said a direction, and whether that was right. Arrays or expressions of
    moves from the anchor."""
    return (move != 0) & (said != 0), move * said > 0


def directional_base(ups: Any, directed: Any) -> F64:
    """What the better of always-up and always-down gets."""
    share = mean(ups, directed)
    return np.maximum(share, 1.0 - share)


def calibration(levels: Any, shares: Any) -> F64:
    """One less the mean distance of the calibration curve [..., Q] from its levels."""
    found: F64 = 1.0 - np.abs(np.asarray(levels) - shares).mean(axis=-1)
    return found


def calibration_error(gaps: Any, n: Any) -> F64:
    """ECE: by confidence [..., CONFIDENCES], how much oftener the likeliest class was right than it said; the mean size
    over n forecasts."""
    return mean(np.abs(gaps).sum(axis=-1), n)


def pairs_of(levels: Sequence[float]) -> dict[str, tuple[int, int]]:
    """The intervals between levels, outermost first, by what they are to hold."""
    ends = [(low, len(levels) - 1 - low) for low in range(len(levels) // 2)]
    return {f"{levels[high] - levels[low]:.6g}": (low, high) for low, high in ends}


def winkler(levels: Sequence[float], pair: tuple[int, int], loss_low: Any, loss_high: Any) -> F64:
    """Interval score: the width, and what a truth outside lies beyond, divided by its tail. It is made of the two
    levels' quantile losses."""
    low, high = (levels[at] for at in pair)
    found: F64 = np.asarray(loss_low / low + loss_high / (1.0 - high))
    return found


def held(quantiles: Any, truth: Any, pair: tuple[int, int]) -> Any:
    """Whether each truth [...] lies between these two of the quantiles [..., Q], the ends included."""
    low, high = pair
    return (truth >= quantiles[..., low]) & (truth <= quantiles[..., high])


def covered(quantiles: Any, truth: Any) -> Any:
    """Whether it lies within the outermost pair."""
    return held(quantiles, truth, (0, -1))


class BlockSums(NamedTuple):
    """Over blocks [parts, ...], of what was counted in each (n) and what of it was so (k). Parts moved together."""

    n: F64
    n2: F64  # of n * n
    kn: F64
    k2: F64
    blocks: F64


def wilson(share: Any, sums: BlockSums, z: float = Z) -> tuple[F64, F64]:
    """The interval of a share: Wilson's, of as many independent trials as blocks vary like (Korn and Graubard 1998:
    never more than were counted, and with Student's quantile for Wilson's normal one). NaN of too few blocks."""
    share = np.asarray(share, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        blocks, counted = sums.blocks.max(axis=0), sums.n.sum(axis=0)
        spread = np.maximum(sums.k2 - 2 * share * sums.kn + share * share * sums.n2, 0.0)
        variance = np.sqrt(spread).sum(axis=0) ** 2 / counted**2 * blocks / (blocks - 1)
        varied = (share > 0) & (share < 1)
        trials = np.where(varied, np.minimum(share * (1 - share) / variance, counted), blocks)
        n = trials * (z / students(blocks - 1, z)) ** 2
        middle, half = share + z * z / (2 * n), z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        enough = (blocks >= LEAST_BLOCKS) & (counted > 0)
        low, high = ((middle + side * half) / (1 + z * z / n) for side in (-1, 1))
    return np.where(enough, np.maximum(low, 0.0), np.nan), np.where(enough, np.minimum(high, 1.0), np.nan)


def apart(drawn: F64, rest: F64) -> tuple[float, float, float]:
    """How much larger the mean of those values is that were drawn, with its interval, Welch's. Chance decided who is
    where, so it holds however alike they move; NaN of too few."""
    if min(len(drawn), len(rest)) < LEAST_DRAWN:
        return float("nan"), float("nan"), float("nan")
    squares = [float(each.var(ddof=1)) / len(each) for each in (drawn, rest)]
    more, spread = float(drawn.mean() - rest.mean()), sum(squares)
    within = sum(square**2 / (len(each) - 1) for square, each in zip(squares, (drawn, rest), strict=True))
    margin = float(students(spread**2 / within)) * spread**0.5 if spread > 0 else 0.0
    return more, more - margin, more + margin


def students(degrees: Any, z: float = Z) -> F64:
    """Student's quantile at which the normal one is z, by the first terms of its series: right to .001 from 9 on, and
    to a hundredth of itself for a z of 3."""
    nu = np.maximum(np.asarray(degrees, np.float64), 1.0)
    found: F64 = z + (z**3 + z) / (4 * nu) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * nu * nu)
    return found


def _ratio(over: Any, under: Any) -> F64:
    over, under = np.asarray(over, np.float64), np.asarray(under, np.float64)
    found = np.full(np.broadcast(over, under).shape, np.nan)
    np.divide(over, under, out=found, where=under > 0)
    return found


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
