"""What a fitted model is worth on windows it never saw, beside last value and beside each of its members where it has
any; and the residuals that widths come from.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tickcast.columns import F32, F64, I64, Inputs
from tickcast.core.windows import SCALE_FLOOR
from tickcast_trainer.dataset import Dataset

TILE = 2048
Predict = Callable[[Inputs], F32]


class Figures:
    """Sums over batches of forecasts. mae and mse are in the transform's unit, pinball in one-bar moves."""

    def __init__(self, levels: Sequence[float]) -> None:
        self._levels = np.array(levels)
        self._median = list(levels).index(0.5)
        self._n = self._scaled = 0
        self._absolute = self._squared = self._pinball = 0.0
        self._below = np.zeros(len(levels))

    def add(self, quantiles: F32, target: F32, scale: F64) -> None:
        error = target.astype(np.float64)[:, :, None] - quantiles
        point = error[:, :, self._median]
        self._n += point.size
        self._absolute += float(np.abs(point).sum())
        self._squared += float((point * point).sum())
        self._below += (error <= 0).sum(axis=(0, 1))
        moved = scale > SCALE_FLOOR
        pinball = np.maximum(self._levels * error, (self._levels - 1) * error).mean(axis=(1, 2))
        self._scaled += int(moved.sum())
        self._pinball += float((pinball[moved] / scale[moved]).sum())

    def result(self) -> dict[str, Any]:
        levels = self._levels.tolist()
        below = dict(zip(levels, (self._below / self._n).tolist(), strict=True))
        pairs = [(low, high) for low, high in zip(levels, reversed(levels), strict=True) if low < high]
        return {
            "mae": self._absolute / self._n, "mse": self._squared / self._n,
            "pinball": self._pinball / max(self._scaled, 1),
            "coverage": {f"{high - low:.6g}": below[high] - below[low] for low, high in pairs},
        }  # fmt: skip


def evaluate(predict: Predict, naive: Predict, dataset: Dataset, rows: I64, levels: Sequence[float]) -> dict[str, Any]:
    """Figures of the windows `rows`; skill is 1 - pinball / pinball of last value."""
    asked = [predict, naive, *(member.predict for member in dataset.members)]
    sums = [Figures(levels) for _ in asked]
    for first in range(0, len(rows), TILE):
        inputs, target, scale = dataset.batch(rows[first : first + TILE])
        for ask, figures in zip(asked, sums, strict=True):
            figures.add(ask(inputs), target, scale)
    own, beside, *alone = [figures.result() for figures in sums]
    found = {
        **own, **{f"{name}_naive": value for name, value in beside.items()}, "skill": _skill(own, beside),
        "windows": len(rows),
    }  # fmt: skip
    if alone:
        both = zip(dataset.members, alone, strict=True)
        found["members"] = [member.figures({**one, "skill": _skill(one, beside)}) for member, one in both]
    return found


def _skill(own: dict[str, Any], beside: dict[str, Any]) -> float:
    return float(1 - own["pinball"] / beside["pinball"]) if beside["pinball"] else 0.0


def residual_gaps(predict: Predict, dataset: Dataset, levels: Sequence[float], *, limit: int = 16_384) -> F64:
    """[H, Q - 1]: gaps between quantiles of the median's residuals over the calibration part, in one-bar moves."""
    rows = dataset.parts.calibration
    rows = rows[np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(np.int64)]
    residuals = []
    for first in range(0, len(rows), TILE):
        inputs, target, scale = dataset.batch(rows[first : first + TILE])
        moved = scale > SCALE_FLOOR
        error = (target - predict(inputs)[:, :, list(levels).index(0.5)])[moved]
        residuals.append(error / scale[moved, None])
    gaps: F64 = np.diff(np.quantile(np.concatenate(residuals), levels, axis=0), axis=0).T
    return gaps
