"""Body of the job "evaluate": a model folder and test bars -> figures beside last value, with intervals and a test.

The model's own quantiles are judged, before any widening. Windows that touch the span that the model was trained on are
counted and left out. It fits nothing and changes no file but by what it returns.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.batch.judge.figures import SUMS, Certainty, LossTally, figures, outcomes
from tickcast.batch.judge.hold_out import last_value_said, last_value_widths
from tickcast.batch.train.classes import SUMS as CLASS_SUMS
from tickcast.batch.train.classes import ClassJudge, class_judge
from tickcast.batch.train.dataset import Channels, Dataset
from tickcast.batch.train.history import BarHistory, read_history
from tickcast.batch.train.splits import PARTS, SplitRows, usable_windows
from tickcast.columns import F64, I64
from tickcast.engine.core.features import FeatureSet
from tickcast.engine.core.fold import match_group
from tickcast.engine.inference.load import open_model
from tickcast.errors import BadData, BadModel, BadSettings
from tickcast.io.jobs.folder import MODEL
from tickcast.io.jobs.orders import EvaluateOrder, FitOrder
from tickcast.plugin import Report, Runner
from tickcast.records import ModelCard
from tickcast.settings.engine import FeatureEntry

TILE = 2048
Flags = npt.NDArray[np.bool_]


def run(folder: Path, report: Report) -> dict[str, Any]:
    """Judge `model` on `bars.parquet` of a job folder."""
    order = EvaluateOrder.read(folder)
    runner = open_model(folder / MODEL)
    dataset = test_data(folder, runner.card)
    horizons = _horizons(order, runner.card)
    asked = JudgedModel(runner, class_judge(folder / MODEL, runner.card))
    calibrated = _calibrated(runner.card)
    tally = _tally(asked, dataset, order, horizons, report, last_value=calibrated)
    if tally is None:
        return {"status": "stopped"}
    certainty = Certainty(order.confidence, order.draws, order.seed)
    return {
        "status": "done",
        "judged": {name: getattr(runner.card, name) for name in ("name", "version", "kind", "digest")},
        "dataset_hash": dataset.history.digest, "symbols": len(dataset.history.names),
        "confidence": order.confidence, "draws": order.draws, "seed": order.seed,
        "unit": runner.card.transform, "last_value": "hindsight" if calibrated is None else "calibrated",
        **figures(tally, certainty, horizons),
    }  # fmt: skip


def test_data(folder: Path, card: ModelCard) -> Dataset:
    """Every usable window of the bars, with the features of the card; all of it is hold-out."""
    history = read_history(folder, on_gap=str(card.bars.get("on_gap", "carry")))
    close = history.bars.close
    if not np.isfinite(close).all() or (card.transform == "log_return" and not (close > 0).all()):
        raise BadData(f"a close is not finite, or not positive where the model works in {card.transform}")
    features = FeatureSet(_entries(card), card.transform)
    if features.specs != card.features:
        raise BadModel("the features of this program are not the model's", remedy="fit it again: tickcast fit")
    rows = usable_windows(history, need_bars=card.need_bars, horizon=card.horizon)
    if not len(rows):
        raise BadData(
            f"{len(history)} bars of {len(history.names)} symbols hold no window of {card.need_bars} bars with "
            f"{card.horizon} after it",
            remedy="give more bars",
        )
    none = np.empty(0, np.int64)
    first = np.repeat(history.bars.start[:, None], len(PARTS), axis=1)
    parts = SplitRows(none, none, none, rows, np.hstack([first, history.ends[:, None]]))
    values = features.compute(history.bars, history.symbol, history.ordinal, history.first)
    order = FitOrder(
        kind=card.kind, bars=card.bars, transform=card.transform, lookback=card.lookback,  # type: ignore[arg-type]
        horizon=card.horizon, levels=card.levels, future=card.future, scale=card.scale,  # type: ignore[arg-type]
    )  # fmt: skip
    dataset = Dataset(history, Channels(values, features.specs, features.lookback), parts, order)
    dataset.place(card.symbols)
    return dataset


def _entries(card: ModelCard) -> list[FeatureEntry]:
    """The settings that gave the card's channels; one plugin may give several."""
    found: list[FeatureEntry] = []
    for spec in card.features:
        entry = FeatureEntry(kind=spec.kind, normalization=spec.normalization, **spec.params)
        if entry not in found:
            found.append(entry)
    return found


def _horizons(order: EvaluateOrder, card: ModelCard) -> list[int]:
    if order.horizons and max(order.horizons) > card.horizon:
        raise BadSettings(f"horizon {max(order.horizons)} is beyond the model's, which is {card.horizon}")
    return sorted(set(order.horizons) or {*(1 << k for k in range(20) if 1 << k < card.horizon), card.horizon})


class JudgedModel(NamedTuple):
    """The model, and what its classes are held against where it answers in any."""

    runner: Runner
    classes: ClassJudge | None

    @property
    def n_sums(self) -> int:
        return len(SUMS) + (len(CLASS_SUMS) if self.classes else 0)


def _calibrated(card: ModelCard) -> F64 | None:
    """[H, Q] Last value's quantiles as the fit calibrated them on the model's calibration part; None = it did not."""
    if not card.last_value:
        return None
    widths = np.array(card.last_value, np.float64) if len({*map(len, card.last_value)}) == 1 else np.empty(0)
    if widths.shape != (card.horizon, len(card.levels)) or not np.isfinite(widths).all():
        raise BadModel("the card's last_value is not one number for each step and level", remedy="fit the model again")
    return widths


def _tally(
    asked: JudgedModel,
    dataset: Dataset,
    order: EvaluateOrder,
    horizons: list[int],
    report: Report,
    *,
    last_value: F64 | None,
) -> LossTally | None:
    """None where the report asks for an early end: figures of the first symbols alone would mislead."""
    card, history, rows = asked.runner.card, dataset.history, dataset.parts.holdout
    trained = _trained_on(history, rows, card)
    if last_value is None:
        last_value = last_value_widths(dataset, rows[~trained] if not trained.all() else rows, card.levels)
    moment, moments = _moments(history, rows, trained, kind=str(card.bars.get("kind", "time")))
    group = np.array([match_group(order.groups, name) for name in history.names])[history.symbol[rows]]
    groups = ["all", *order.groups]
    sums = np.zeros((moments * len(groups), len(horizons), asked.n_sums))
    inside = np.zeros(asked.n_sums)
    for first in range(0, len(rows), TILE):
        tile = slice(first, first + TILE)
        inputs, target, scale = dataset.batch(rows[tile])
        steps = np.array(horizons) - 1
        both = (asked.runner.predict(inputs), last_value_said(last_value, scale))
        own, beside = (quantiles[:, steps] for quantiles in both)
        outcome = outcomes(own, beside, target[:, steps], scale, card.levels)
        if asked.classes:
            outcome = np.concatenate([outcome, asked.classes.outcomes(inputs, target, scale)[:, steps]], axis=2)
        outside = ~trained[tile]
        np.add.at(sums, (moment[tile] * len(groups) + group[tile])[outside], outcome[outside])
        inside += outcome[~outside].sum(axis=(0, 1))
        if not report(step=min(first + TILE, len(rows)), steps=len(rows)):
            return None
    shaped = sums.reshape(moments, len(groups), len(horizons), asked.n_sums)
    shaped[:, 0] = shaped.sum(axis=1)
    at = history.bars.as_of[rows[~trained]]
    span = (int(at.min()), int(at.max())) if len(at) else (0, 0)
    return LossTally(shaped, groups, inside, len(rows), int(trained.sum()), span)


def _trained_on(history: BarHistory, rows: I64, card: ModelCard) -> Flags:
    """Windows whose question or targets lie in the span that steered the fit."""
    as_of = history.bars.as_of
    if not card.trained_to_ns:
        return np.zeros(len(rows), np.bool_)
    inside: Flags = (as_of[rows] <= card.trained_to_ns) & (as_of[rows + card.horizon] >= card.trained_from_ns)
    return inside


def _moments(history: BarHistory, rows: I64, trained: Flags, *, kind: str) -> tuple[I64, int]:
    """Per window the number of its moment, and how many there are. Time bars of all symbols end together; other bars
    share a moment when they end within one usual bar of each other.
    """
    at = history.bars.as_of[rows]
    if kind != "time":
        steps = np.diff(history.bars.as_of)[np.diff(history.symbol) == 0]
        at = at // max(int(np.median(steps)), 1) if len(steps) else at
    kept = np.unique(at[~trained])
    return np.searchsorted(kept, at), len(kept)
