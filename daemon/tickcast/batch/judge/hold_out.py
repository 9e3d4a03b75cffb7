"""What a fitted model is worth on windows it never saw, beside last value and beside each of its members where it has
any; and the errors that widths come from, the model's and last value's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tickcast.batch.judge import statistics
from tickcast.batch.train.dataset import Dataset
from tickcast.columns import F32, F64, I64, Inputs
from tickcast.figures import CONFIDENCE, SCALE_FLOOR, held, pairs_of, pinball, skill

TILE = 2048
MOST_ERRORS = 16_384  # that widths are read from
DRAWS = 500
Predict = Callable[[Inputs], F32]


class Figures:
    """Sums over batches of forecasts. mae and mse are in the transform's unit, pinball in one-bar moves."""

    def __init__(self, levels: Sequence[float]) -> None:
        self._levels = np.array(levels)
        self._median = list(levels).index(0.5)
        self._n = self._scaled = 0
        self._absolute = self._squared = self._missed = self._pinball = 0.0
        self._pairs = pairs_of(levels)
        self._held = np.zeros(len(self._pairs))

    def add(self, quantiles: F32, target: F32, scale: F64) -> F64:
        """Returns the pinball loss of each forecast, in one-bar moves; 0 where the window never moved."""
        error = target.astype(np.float64)[:, :, None] - quantiles
        point = error[:, :, self._median]
        self._n += point.size
        self._absolute += float(np.abs(point).sum())
        self._squared += float((point * point).sum())
        self._held += [np.count_nonzero(held(quantiles, target, pair)) for pair in self._pairs.values()]
        moved = scale > SCALE_FLOOR
        per_move = np.where(moved, 1.0 / np.where(moved, scale, 1.0), 0.0)
        self._scaled += int(moved.sum())
        self._missed += float(np.abs(point).mean(axis=1) @ per_move)
        loss: F64 = pinball(self._levels, quantiles, target).mean(axis=1) * per_move
        self._pinball += float(loss.sum())
        return loss

    def result(self) -> dict[str, Any]:
        return {
            "mae": self._absolute / self._n, "mse": self._squared / self._n,
            "pinball": self._pinball / max(self._scaled, 1), "missed": self._missed / max(self._scaled, 1),
            "coverage": dict(zip(self._pairs, (self._held / self._n).tolist(), strict=True)),
        }  # fmt: skip


def evaluate(predict: Predict, last_value: F64, dataset: Dataset, rows: I64, levels: Sequence[float]) -> dict[str, Any]:
    """Figures of the windows `rows` beside last value of these widths; the skill has an interval."""
    asked = [predict, *(member.predict for member in dataset.members)]
    sums, losses = [Figures(levels) for _ in range(len(asked) + 1)], np.empty((len(rows), len(asked) + 1))
    for first in range(0, len(rows), TILE):
        inputs, target, scale = dataset.batch(rows[first : first + TILE])
        said = [last_value_said(last_value, scale), *(ask(inputs) for ask in asked)]
        for i, (quantiles, figures) in enumerate(zip(said, sums, strict=True)):
            losses[first : first + TILE, i] = figures.add(quantiles, target, scale)
    beside, own, *alone = [figures.result() for figures in sums]
    found = {
        **_beside(own, beside), **{f"{name}_naive": value for name, value in beside.items() if name != "missed"},
        "windows": len(rows), **_certainty(losses[:, 1::-1], dataset.history.bars.as_of[rows], dataset.horizon),
    }  # fmt: skip
    if alone:
        both = zip(dataset.members, alone, strict=True)
        found["members"] = [member.figures(_beside(one, beside)) for member, one in both]
    return found


def _beside(own: dict[str, Any], last_value: dict[str, Any]) -> dict[str, Any]:
    """Figures of a model with its skill."""
    pairs = {"skill": "pinball", "skill_mae": "missed"}
    skills = {name: float(skill(own[of], last_value[of])) if last_value[of] else 0.0 for name, of in pairs.items()}
    return {name: value for name, value in own.items() if name != "missed"} | skills


def last_value_widths(dataset: Dataset, rows: I64, levels: Sequence[float]) -> F64:
    """[H, Q] Last value's quantiles in one-bar moves: those of its own errors over the windows `rows`, the calibration
    part, step by step, as a model's widths come from its errors there. The median stays last value.
    """
    moves = _errors(lambda target, _: target, dataset, rows)
    if not len(moves):
        return np.zeros((dataset.horizon, len(levels)))
    quantiles = np.quantile(moves, levels, axis=0).T
    median = list(levels).index(0.5)
    widths: F64 = quantiles - quantiles[:, median : median + 1]
    return widths


def last_value_said(widths: F64, scale: F64) -> F32:
    """Its quantiles for windows of these scales."""
    return (scale[:, None, None] * widths).astype(np.float32)


def _certainty(losses: F64, as_of: I64, horizon: int) -> dict[str, Any]:
    """The interval of the skill by a bootstrap over moments, in blocks: forecasts of one moment share what the market
    did, and neighbouring ones share targets. None where there are too few moments to say anything.
    """
    moments, at = np.unique(as_of, return_inverse=True)
    sums = np.zeros((len(moments), 2))
    np.add.at(sums, at, losses)
    low = high = None
    if len(moments) >= statistics.LEAST_ROWS and sums[:, 1].any():
        block = statistics.block_length(sums[:, 1] - sums[:, 0], at_least=horizon)
        own, beside = statistics.bootstrap_sums(sums, block=block, draws=DRAWS, seed=0).T
        low, high = statistics.percentiles(skill(own, beside), CONFIDENCE)
    return {"moments": len(moments), "skill_low": low, "skill_high": high}


def residual_gaps(predict: Predict, dataset: Dataset, levels: Sequence[float]) -> F64:
    """[H, Q - 1]: gaps between quantiles of the median's residuals over the calibration part, in one-bar moves."""
    median = list(levels).index(0.5)
    errors = _errors(lambda target, inputs: target - predict(inputs)[:, :, median], dataset, dataset.parts.calibration)
    gaps: F64 = np.diff(np.quantile(errors, levels, axis=0), axis=0).T
    return gaps


def _errors(error: Callable[[F32, Inputs], F32], dataset: Dataset, rows: I64) -> F64:
    """[N, H] Errors at no more than MOST_ERRORS of these windows, spread evenly, in one-bar moves."""
    rows = rows[np.linspace(0, len(rows) - 1, min(MOST_ERRORS, len(rows))).astype(np.int64)]
    found = []
    for first in range(0, len(rows), TILE):
        inputs, target, scale = dataset.batch(rows[first : first + TILE])
        moved = scale > SCALE_FLOOR
        found.append(error(target, inputs)[moved] / scale[moved, None])
    return np.concatenate(found)
