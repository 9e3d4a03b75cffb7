"""What the hold-out says of a contest with the model that serves, or with last value: its terms."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tickcast.batch.judge.hold_out import TILE, last_value_said
from tickcast.batch.train.dataset import Dataset
from tickcast.columns import F32, F64, I64, Inputs
from tickcast.engine.core.contest import ContestTerms, terms_of
from tickcast.figures import SCALE_FLOOR, pinball

Predict = Callable[[Inputs], F32]
Said = Callable[[Inputs, F64], F32]  # of windows and their scales


def of_model(predict: Predict) -> Said:
    return lambda inputs, scale: predict(inputs)


def of_last_value(widths: F64) -> Said:
    return lambda inputs, scale: last_value_said(widths, scale)


def terms_against(
    champion: Said, challenger: Said, dataset: Dataset, levels: Sequence[float], *, after_ns: int, **asked: Any
) -> ContestTerms:
    """By the windows of the hold-out that end after `after_ns`, up to which the champion was fitted. `asked`: alpha and
    most_bars of `terms_of`."""
    rows = dataset.parts.holdout
    as_of = dataset.history.bars.as_of[rows]
    rows, as_of = rows[as_of > after_ns], as_of[as_of > after_ns]
    losses = np.column_stack([_losses(said, dataset, rows, levels) for said in (champion, challenger)])
    moments, at = np.unique(as_of, return_inverse=True)
    sums = np.zeros((len(moments), 2))
    np.add.at(sums, at, losses)
    return terms_of(sums[:, 0], sums[:, 1], horizon=dataset.horizon, **asked)


def _losses(said: Said, dataset: Dataset, rows: I64, levels: Sequence[float]) -> F64:
    """Of each window in one-bar moves, the mean over its steps; 0 of one that never moved."""
    found, of = np.zeros(len(rows)), np.array(levels)
    for first in range(0, len(rows), TILE):
        inputs, target, scale = dataset.batch(rows[first : first + TILE])
        moved = scale > SCALE_FLOOR
        loss = pinball(of, said(inputs, scale), target).mean(axis=1)
        found[first : first + TILE] = np.where(moved, loss / np.where(moved, scale, 1.0), 0.0)
    return found
