"""Classifiers of down, flat and up on the rows that trees see: Gaussian naive Bayes, linear support vector machine.

Each gives a score per class and step, served as one matrix product over the row (and its squares). Scores say too much
or too little of how sure they are, so the validation part chooses one factor and a shift per class for each step.
"""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
from msgspec import Meta
from scipy.optimize import minimize
from sklearn.linear_model import SGDClassifier

from tickcast.columns import F32, F64, I64, Inputs
from tickcast.direction import LABELS, classes_of, counts_of, frequencies
from tickcast.plugin import Parameter, Report
from tickcast.records import ModelCard
from tickcast_plugins.models.classical import TILE, Arrays, RowModel, RowSample
from tickcast_plugins.models.counting import Counting, Forget
from tickcast_plugins.models.direction import (
    BAND,
    LEAST_WINDOWS,
    Band,
    Classes,
    of_moves,
    probabilities,
    probability_nodes,
    quantile_nodes,
    quantiles,
)
from tickcast_plugins.models.onnx_graph import Graph
from tickcast_plugins.models.window_rows import recent_moves

NEVER = -1e9  # score of a class that hardly came: its probability is then the least
SMOOTHED = 1e-3  # share of the widest column's variance that every variance gets: some columns hardly change
UPDATES = 500_000  # of a separating plane, over all passes
Plane = tuple[F64, F64]  # of one step: `weights` [classes, E] and `bias` of their scores
STEADY = 1e-3  # pull of the shifts to zero: a class that the validation part lacks is not shifted out of the world


class BayesParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    rows: Annotated[int, Meta(ge=100, le=200_000)] = 50_000
    band: Band = BAND
    forget: Forget = 0.0


class SvmParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    rows: Annotated[int, Meta(ge=100, le=200_000)] = 50_000
    band: Band = BAND
    penalty: Annotated[float, Meta(gt=0, le=1)] = 1e-4


class Classifier(RowModel):
    """Arrays `weights` [E, H * C] and `bias` [H * C] of the scores, and what the classes are like (direction.py)."""

    squared = False  # whether the squares of the row stand beside it

    def __init__(self, card: ModelCard) -> None:
        super().__init__(card)
        self.card = msgspec.structs.replace(self.card, labels=LABELS)

    def basis(self) -> F64:
        return recent_moves(self.card.lookback)

    def scores(
        self, classes: Classes, counts: F64 | I64, plane: Callable[[int, I64], Plane], validation: RowSample,
        report: Report,
    ) -> Arrays:  # fmt: skip
        """By planes of each step and the classes present in it, made to say what the validation part bears out."""
        later, beside = classes_of(validation.y, self.params.band), self._seen(validation.x)
        horizon = len(counts)
        weights = np.zeros((horizon, len(LABELS), beside.shape[1]))
        bias = np.log(classes.frequencies)  # of a step with nothing to choose from, and of those that are left out
        for step in range(horizon):
            present = np.flatnonzero(counts[step] >= LEAST_WINDOWS)
            if len(present) > 1:
                own, shift = plane(step, present)
                factor, add = calibrated(beside @ own.T + shift, later[:, step], present)
                weights[step, present], bias[step] = factor * own, NEVER
                bias[step, present] = factor * shift + add
            if not report(step=step + 1, steps=horizon):
                break
        flat = weights.reshape(-1, weights.shape[2]).T
        return {"weights": flat, "bias": bias.ravel(), **classes._asdict()}

    def quantiles(self, x: F32) -> F32:
        return quantiles(self._probs(x), self._classes(), self.card.levels).astype(np.float32)

    def probs(self, inputs: Inputs) -> F32:
        """[B, H, C]: how likely each class is."""
        out = np.empty((len(inputs), self.card.horizon, len(LABELS)), np.float32)
        for first in range(0, len(inputs), TILE):
            tile = slice(first, first + TILE)
            out[tile] = self._probs(self._row().rows(inputs.take(tile))[0])
        return out

    def answer_nodes(self, g: Graph, x: str) -> tuple[str, str]:
        seen = g.cast(x, np.float64)
        if self.squared:
            seen = g.add("Concat", seen, g.add("Mul", seen, seen), axis=1)
        scores = g.add("MatMul", seen, g.constant(self.arrays["weights"], np.float64))
        scores = g.add("Add", scores, g.constant(self.arrays["bias"], np.float64))
        shape = g.constant([-1, self.card.horizon, len(LABELS)], np.int64)
        probs = probability_nodes(g, g.add("Reshape", scores, shape))
        found = quantile_nodes(g, probs, self._classes(), self.card.levels)
        return g.cast(found, np.float32), g.cast(probs, np.float32)

    def fits(self, arrays: Arrays) -> bool:
        each = (self.card.horizon, len(LABELS))
        widths = arrays["weights"].shape[1:] if "weights" in arrays else ()
        return bool(widths == (each[0] * each[1],) and "knots" in arrays and arrays["knots"].shape[0] == each[0])

    def _probs(self, x: F32) -> F64:
        scores = self._seen(x) @ self.arrays["weights"] + self.arrays["bias"]
        return probabilities(scores.reshape(len(x), -1, len(LABELS)))

    def _classes(self) -> Classes:
        return Classes(*(self.arrays[name] for name in Classes._fields))

    def _seen(self, x: F32) -> F64:
        row = x.astype(np.float64)
        return np.concatenate([row, row * row], axis=1) if self.squared else row


class NaiveBayes(Counting, Classifier):
    """A normal distribution per column and class; the score is its logarithm, which is quadratic in the column."""

    kind = "naive_bayes"
    params_type = BayesParams
    space: ClassVar = {"rows": Parameter("int", 5_000, 100_000, log=True)}
    squared = True

    def sums(self, train: RowSample) -> Arrays:
        known, x = classes_of(train.y, self.params.band), self._seen(train.x)
        each = (known[:, :, None] == np.arange(len(LABELS))).reshape(len(x), -1).astype(np.float64)
        columns = (each.T @ x).reshape(*known.shape[1:], len(LABELS), -1)
        return {"counts": counts_of(known).astype(np.float64), "columns": columns}

    def sizes(self) -> dict[str, tuple[int, ...]]:
        each = (self.card.horizon, len(LABELS))
        return {"counts": each, "columns": (*each, 2 * self.width)}

    def are_sums(self, sums: Arrays) -> bool:
        return super().are_sums(sums) and bool((sums["counts"] >= 0).all())

    def solve(self, sums: Arrays, train: RowSample, validation: RowSample, report: Report) -> Arrays:
        """The moves within each class are as the first fit found them."""
        counts, columns = sums["counts"], sums["columns"]
        if "knots" in self.arrays:
            classes = Classes(frequencies(counts), self.arrays["knots"])
        else:
            classes = of_moves(train.y, self.params.band)
        return self.scores(
            classes, counts, lambda step, present: normal_plane(counts[step, present], columns[step, present]),
            validation, report,
        )  # fmt: skip


class LinearSvm(Classifier):
    """A plane per class that keeps it apart from the two others, by hinge loss and stochastic gradient descent."""

    kind = "svm"
    params_type = SvmParams
    space: ClassVar = {"penalty": Parameter("float", 1e-6, 1e-2, log=True)}

    def learn(self, train: RowSample, validation: RowSample, report: Report) -> Arrays:
        known, x = classes_of(train.y, self.params.band), train.x.astype(np.float64)

        def plane(step: int, present: I64) -> Plane:
            usable = np.isin(known[:, step], present)
            return self._plane(x[usable], known[usable, step], present)

        return self.scores(of_moves(train.y, self.params.band), counts_of(known), plane, validation, report)

    def _plane(self, x: F64, known: I64, present: I64) -> Plane:
        fitted: list[Any] = [
            SGDClassifier(
                loss="hinge", alpha=self.params.penalty, max_iter=max(UPDATES // len(x), 1), tol=None, average=True,
                random_state=self.card.seed % 2**32,
            ).fit(x, known == place)
            for place in present
        ]  # fmt: skip
        return np.concatenate([one.coef_ for one in fitted]), np.concatenate([one.intercept_ for one in fitted])


def normal_plane(counts: F64, columns: F64) -> Plane:
    """Of classes that came so often, from the sums of their columns and of the squares of these, which lie behind."""
    total, half = columns.sum(axis=0) / counts.sum(), columns.shape[1] // 2
    widest = (total[half:] - total[:half] ** 2).max()
    mean = columns[:, :half] / counts[:, None]
    variance = np.maximum(columns[:, half:] / counts[:, None] - mean**2, 0.0) + SMOOTHED * widest
    bias = np.log(counts / counts.sum()) - 0.5 * (np.log(2 * np.pi * variance) + mean**2 / variance).sum(axis=1)
    return np.concatenate([mean / variance, -0.5 / variance], axis=1), bias


def calibrated(scores: F64, known: I64, present: I64) -> tuple[float, F64]:
    """The factor, not below zero, and the shifts of the scores [N, len(present)] that make `known` likeliest."""
    own = np.isin(known, present)
    scores, hit = scores[own], (known[own, None] == present).astype(np.float64)
    unit, n = max(float(scores.std()) if len(scores) else 0.0, 1e-9), max(len(scores), 1)
    scores = scores / unit

    def loss(at: F64) -> tuple[float, F64]:
        z = at[0] * scores + at[1:]
        z = z - z.max(axis=1, keepdims=True)
        logarithm = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        off = np.exp(logarithm) - hit
        slope = np.concatenate([[(off * scores).sum() / n], off.sum(axis=0) / n + STEADY * at[1:]])
        return float(-(logarithm * hit).sum() / n + 0.5 * STEADY * (at[1:] ** 2).sum()), slope

    start = np.concatenate([[1.0], np.zeros(len(present))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] + [(None, None)] * len(present)).x
    return float(found[0]) / unit, found[1:]
