"""The terms of a contest are those of both models' losses over the hold-out, and of no bar that the champion saw."""

from pathlib import Path

import numpy as np

from tickcast.batch.judge.against import of_last_value, of_model, terms_against
from tickcast.batch.train.dataset import Dataset, load_dataset
from tickcast.columns import F32, F64, Inputs
from tickcast.engine.core.contest import Terms, terms_of
from tickcast.io.jobs.orders import FitOrder
from trainkit import autoregressive, job, series

LEVELS = [0.05, 0.5, 0.95]
WIDTHS = np.array([[-1.5, 0.0, 1.5], [-2.0, 0.0, 2.0]])
GIVEN = {"alpha": 0.025, "most_bars": 5000}


def dataset(folder: Path) -> Dataset:
    frames = [series(symbol, autoregressive(1500, seed=i)) for i, symbol in enumerate("AB")]
    job(folder, frames, kind="ridge", lookback=8, horizon=2, levels=LEVELS)
    return load_dataset(folder, FitOrder.read(folder))


def turns_back(inputs: Inputs) -> F32:
    """Half of the last move comes back."""
    point = -0.5 * inputs.past[:, -1, 0]
    return (point[:, None, None] + 1e-3 * WIDTHS).astype(np.float32)


def naively(data: Dataset, *, after_ns: int) -> Terms:
    rows = data.parts.holdout
    as_of = data.history.bars.as_of[rows]
    rows = rows[as_of > after_ns]
    inputs, target, scale = data.batch(rows)
    said = (scale[:, None, None] * WIDTHS).astype(np.float32), turns_back(inputs)
    losses: list[F64] = []
    for quantiles in said:
        by_moment: dict[int, float] = {}
        for i, row in enumerate(rows):
            beyond = target[i][:, None].astype(np.float64) - quantiles[i]
            loss = np.maximum(np.array(LEVELS) * beyond, (np.array(LEVELS) - 1) * beyond).mean() / scale[i]
            moment = int(data.history.bars.as_of[row])
            by_moment[moment] = by_moment.get(moment, 0.0) + loss
        losses.append(np.array([by_moment[moment] for moment in sorted(by_moment)]))
    return terms_of(*losses, horizon=data.horizon, **GIVEN)


def test_they_are_those_of_losses_that_are_added_up_by_hand(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    terms = terms_against(of_last_value(WIDTHS), of_model(turns_back), data, LEVELS, after_ns=0, **GIVEN)
    for ours, theirs in zip(terms, naively(data, after_ns=0), strict=True):
        assert ours == theirs if isinstance(ours, str | bool) else np.isclose(ours, theirs, rtol=1e-6)
    assert terms.gain > 0.02
    assert not terms.refusal


def test_what_the_champion_was_fitted_on_is_left_out(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    seen = int(np.quantile(data.history.bars.as_of[data.parts.holdout], 0.5))
    half = terms_against(of_last_value(WIDTHS), of_model(turns_back), data, LEVELS, after_ns=seen, **GIVEN)
    whole = terms_against(of_last_value(WIDTHS), of_model(turns_back), data, LEVELS, after_ns=0, **GIVEN)
    assert half.blocks == naively(data, after_ns=seen).blocks < whole.blocks
    none = terms_against(of_last_value(WIDTHS), of_model(turns_back), data, LEVELS, after_ns=1 << 62, **GIVEN)
    assert "too few" in none.refusal
