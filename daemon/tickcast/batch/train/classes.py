"""What the classes of a direction model are worth: accuracy beside the commonest class, log loss beside frequencies.

Both rivals know the training part only. It fits nothing.
"""

from pathlib import Path
from typing import Any

import numpy as np

from tickcast.batch.train.dataset import Dataset
from tickcast.columns import F32, F64, I64, Inputs
from tickcast.direction import band_of, classes_of, counts_of, frequencies
from tickcast.engine.inference.onnx import OnnxRunner
from tickcast.errors import BadData
from tickcast.figures import CONFIDENCES, LEAST_PROBABILITY, SCALE_FLOOR, calibration_error, mean
from tickcast.records import ModelCard

TILE = 2048
TRAINING_WINDOWS = 65_536  # at most, evenly spaced: what the classes are like is known from fewer
GAPS = tuple(f"gap_{tenth}" for tenth in range(CONFIDENCES))
SUMS = ("forecasts", "right", "right_commonest", "lost", "lost_usual", *GAPS)
FREQUENCIES = "frequencies"  # of a card's metrics, under "classes"
AT = {name: place for place, name in enumerate(SUMS)}


def training_moves(dataset: Dataset) -> F64:
    """[N, H]: where the windows of the training part that ever moved led to, in one-bar moves."""
    rows = dataset.parts.train
    rows = rows[np.linspace(0, len(rows) - 1, min(TRAINING_WINDOWS, len(rows))).astype(np.int64)]
    found = []
    for first in range(0, len(rows), TILE):
        _, target, scale = dataset.batch(rows[first : first + TILE])
        found.append(moves_of(target, scale)[scale > SCALE_FLOOR])
    moves = np.concatenate(found)
    if not len(moves):
        raise BadData("no window of the training part ever moved", remedy="give a history of prices that change")
    return moves


def moves_of(target: F32, scale: F64) -> F64:
    moves: F64 = target / scale[:, None]
    return moves


class ClassJudge:
    """Holds forecasts of classes against what came; `usual` [H, C] are the frequencies of the training part."""

    def __init__(self, runner: OnnxRunner, usual: F64) -> None:
        self.runner, self.usual, self.band = runner, usual, band_of(runner.card)

    def outcomes(self, inputs: Inputs, target: F32, scale: F64) -> F64:
        """[B, H, SUMS]: what each forecast adds; a window that never moved has no unit and adds nothing."""
        probs, moved = self.runner.probs(inputs), scale > SCALE_FLOOR
        known = classes_of(moves_of(target[moved], scale[moved]), self.band)
        given = np.take_along_axis(probs[moved].astype(np.float64), known[..., None], axis=2)[..., 0]
        found = np.zeros((*target.shape, len(SUMS)))
        found[moved, :, AT["forecasts"]] = 1.0
        found[moved, :, AT["right"]] = right = probs[moved].argmax(axis=2) == known
        found[moved, :, AT[GAPS[0]] :] = _gaps(probs[moved].max(axis=2).astype(np.float64), right)
        found[moved, :, AT["right_commonest"]] = self.usual.argmax(axis=1) == known
        found[moved, :, AT["lost"]] = -np.log(np.maximum(given, LEAST_PROBABILITY))
        found[moved, :, AT["lost_usual"]] = -np.log(self.usual[np.arange(known.shape[1]), known])
        return found


def _gaps(confidence: F64, right: Any) -> F64:
    """[..., CONFIDENCES]: in the tenth that it lies in, how much more it came than was said."""
    tenth = np.minimum((confidence * CONFIDENCES).astype(np.int64), CONFIDENCES - 1)
    found = np.zeros((*confidence.shape, CONFIDENCES))
    np.put_along_axis(found, tenth[..., None], (right - confidence)[..., None], axis=-1)
    return found


def ratios(sums: F64) -> dict[str, Any]:
    """Figures of sums [..., SUMS]."""
    of = {name: sums[..., place] for name, place in AT.items()}
    n = of["forecasts"]
    return {
        "accuracy": mean(of["right"], n), "accuracy_majority": mean(of["right_commonest"], n),
        "log_loss": mean(of["lost"], n), "log_loss_frequencies": mean(of["lost_usual"], n),
        "calibration_error": calibration_error(sums[..., AT[GAPS[0]] :], n),
    }  # fmt: skip


def class_figures(runner: OnnxRunner, dataset: Dataset, rows: I64) -> dict[str, Any]:
    """For the card: over the windows `rows`, all steps alike; and the training part's frequencies."""
    usual = usual_classes(dataset, runner.card)
    judge, sums = ClassJudge(runner, usual), np.zeros(len(SUMS))
    for first in range(0, len(rows), TILE):
        sums += judge.outcomes(*dataset.batch(rows[first : first + TILE])).sum(axis=(0, 1))
    figures = {name: float(value) for name, value in ratios(sums).items()}
    return {**figures, FREQUENCIES: usual.round(6).tolist()}


def usual_classes(dataset: Dataset, card: ModelCard) -> F64:
    """[H, C]: how often each came in the training part."""
    usual: F64 = frequencies(counts_of(classes_of(training_moves(dataset), band_of(card))))
    return usual


def class_judge(folder: Path, card: ModelCard) -> ClassJudge | None:
    """Of a fitted model's folder; None where it answers in no classes, or its card does not say how often they came."""
    usual = card.metrics.get("classes", {}).get(FREQUENCIES)
    return ClassJudge(OnnxRunner(folder, card), np.array(usual)) if card.labels and usual else None
