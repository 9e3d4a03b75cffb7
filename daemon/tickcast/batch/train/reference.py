"""The reference of a fit, by which drift is judged later: of values from the training part alone, of losses and misses
from the hold-out, which the model never saw. It reads the bars by the kernels that serve.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from tickcast.batch.judge.hold_out import TILE, Predict, last_value_said
from tickcast.batch.train.dataset import Dataset
from tickcast.batch.train.history import BarHistory
from tickcast.columns import F64, I64
from tickcast.engine.core.channels import (
    MISSING,
    ODD,
    Measured,
    Sketches,
    measure,
    measured,
    squared_distance,
)
from tickcast.engine.core.windows import LEVEL
from tickcast.engine.inference.model_folder import REFERENCE
from tickcast.figures import SCALE_FLOOR, covered, pinball
from tickcast.reference import EDGES, STEP, Reference

CENTRAL = (0.05, 0.95)
FURTHEST = 0.95  # share of rows that are nearer than what is far
MOST_REPEATS = 0.05  # a channel that repeats itself more often is not watched for it
MOST_ROWS = 65_536  # that sketches and distances are read from, spread evenly
RIDGE = 0.05  # of the covariance of normal scores: channels that depend on one another exactly leave no direction empty
BLOCK, UNCORRELATED, LEAST_BLOCKS = 20, 0.1, 16
SHRINK_SHARE, SHRINK_LOSS = 100.0, 1000.0  # labels of all symbols that each one's own are mixed with
LEAST_WIDTH, MOST_WIDTH = 0.05, 0.5

Mask = npt.NDArray[np.bool_]


class Moments(NamedTuple):
    """What rows are of the same bar."""

    of: I64  # number, from 0 in the order of time, of each row's
    moments: int

    @classmethod
    def at(cls, as_of: I64, *, per_bar: bool) -> "Moments":
        """Rows of one event time, where bars close together; else each is of its own."""
        if per_bar:
            known, of = np.unique(as_of, return_inverse=True)
            return cls(of, len(known))
        of = np.empty(len(as_of), np.int64)
        of[np.argsort(as_of, kind="stable")] = np.arange(len(as_of))
        return cls(of, len(as_of))

    def sums(self, values: npt.NDArray[np.generic]) -> F64:
        return np.bincount(self.of, values, self.moments).astype(np.float64)


class Block(NamedTuple):
    bars: float
    left: float  # correlation from one to the next


def write_reference(
    folder: Path, dataset: Dataset, predict: Predict, last_value: F64, levels: Sequence[float], *, per_bar: bool
) -> None:  # fmt: skip
    reference = reference_of(dataset, predict, last_value, levels, per_bar=per_bar)
    save_file(reference.arrays(), folder / REFERENCE)


def reference_of(
    dataset: Dataset, predict: Predict, last_value: F64, levels: Sequence[float], *, per_bar: bool
) -> Reference:  # fmt: skip
    """`last_value` as its quantiles are in one-bar moves."""
    history = dataset.history
    rows = np.flatnonzero(dataset.parts.is_train(history) & (history.bars.mask == 1))
    of_values = describe(history, dataset.values, rows, watch_target=dataset.transform != LEVEL, per_bar=per_bar)
    of_labels = judged(dataset, predict, last_value, levels, per_bar=per_bar)
    symbols = np.frombuffer(bytearray(msgspec.json.encode(history.names)), np.uint8)
    return Reference(symbols=symbols, **of_values, **of_labels)


def describe(history: BarHistory, values: F64, rows: I64, *, watch_target: bool, per_bar: bool) -> dict[str, Any]:
    """How the values of these bars are distributed, alone and together, over time and by symbol."""
    some = rows[np.linspace(0, len(rows) - 1, min(MOST_ROWS, len(rows))).astype(np.int64)]
    sketches = _sketches(history, values, some, watch_target=watch_target)
    sketches = _with_distance(sketches, history, values, some)
    found = measured(sketches, history.bars, values, history.symbol[rows], history.ordinal[rows], history.first[rows])
    symbol, moments = history.symbol[rows], Moments.at(history.bars.as_of[rows], per_bar=per_bar)
    symbols, channels = len(history.names), values.shape[1]
    bins = [np.bincount(place[place != MISSING] % ODD, minlength=EDGES - 1) for place in found.place.T]
    hits = [(place != MISSING) & (place >= ODD) for place in found.place.T]
    odd = [block_of(moments, hits[f], found.place[:, f] != MISSING) for f in range(channels)]
    far = block_of(moments, found.far == 1, found.far != MISSING)
    return {
        "edges": sketches.edges, "bins": np.array([n / max(n.sum(), 1) for n in bins]), "low": sketches.low,
        "high": sketches.high, "repeats": sketches.repeats,
        "odd": np.stack([_shares(hits[f], found.place[:, f] != MISSING, symbol, symbols) for f in range(channels)], 1),
        "odd_block": np.array([block.bars for block in odd]), "odd_left": np.array([block.left for block in odd]),
        "center": sketches.center, "whiten": sketches.whiten, "distance": np.array([sketches.distance]),
        "far": _shares(found.far == 1, found.far != MISSING, symbol, symbols),
        "far_block": np.array([far.bars]), "far_left": np.array([far.left]),
    }  # fmt: skip


def _sketches(history: BarHistory, values: F64, rows: I64, *, watch_target: bool) -> Sketches:
    """Without any distance yet."""
    channels = values.shape[1]
    edges, low, high = np.zeros((channels, EDGES)), np.full(channels, -np.inf), np.full(channels, np.inf)
    repeats = np.ones(channels, np.uint8)
    before = rows[(history.ordinal[rows] > history.first[rows]) & (history.bars.mask[rows - 1] == 1)]
    for f in range(0 if watch_target else 1, channels):
        known = values[rows, f][np.isfinite(values[rows, f])]
        if len(known):
            edges[f] = np.quantile(known, np.linspace(0, 1, EDGES))
            low[f], high[f] = np.quantile(known, CENTRAL)
            repeats[f] = np.mean(values[before, f] == values[before - 1, f]) > MOST_REPEATS if len(before) else 0
    nothing = np.zeros(channels), np.eye(channels)
    return Sketches(edges, low, high, repeats, *nothing, np.inf)


def _with_distance(sketches: Sketches, history: BarHistory, values: F64, rows: I64) -> Sketches:
    symbol, ordinal, first = history.symbol[rows], history.ordinal[rows], history.first[rows]
    scores = np.empty((len(rows), values.shape[1]))
    found = Measured(np.empty(scores.shape, np.uint8), np.empty(len(rows), np.uint8))
    measure(sketches, history.bars, values, symbol, ordinal, first, scores, found)
    whole = scores[found.far != MISSING]
    if len(whole) < 2:
        return sketches
    center = whole.mean(axis=0)
    covariance = (1 - RIDGE) * np.atleast_2d(np.cov(whole.T)) + RIDGE * np.eye(len(center))
    whiten = np.ascontiguousarray(np.linalg.inv(np.linalg.cholesky(covariance)))
    squares = np.array([squared_distance(whiten, row, np.inf) for row in whole - center])
    return sketches._replace(center=center, whiten=whiten, distance=float(np.quantile(squares, FURTHEST)))


def _shares(hit: Mask, there: Mask, symbol: npt.NDArray[np.int32], symbols: int) -> F64:
    """[S + 1] Of each symbol, and last of all together."""
    together = hit.sum() / max(there.sum(), 1)
    hits, count = np.bincount(symbol, hit, symbols), np.bincount(symbol, there, symbols)
    return np.append((hits + SHRINK_SHARE * together) / (count + SHRINK_SHARE), together)


def block_of(moments: Moments, hits: npt.NDArray[np.generic], weight: npt.NDArray[np.generic]) -> Block:
    return blocks_of(moments.sums(hits), moments.sums(weight))[0]


def blocks_of(hits: F64, weight: F64) -> tuple[Block, F64]:
    """The shortest block, doubled, whose shares are next to uncorrelated, as far as the reference can tell; and these
    shares."""
    bars = BLOCK
    while True:
        whole = len(hits) // bars * bars
        sums = [of[:whole].reshape(-1, bars).sum(axis=1) for of in (hits, weight)]
        share = sums[0][sums[1] > 0] / sums[1][sums[1] > 0]
        left = correlation(share)
        if left < UNCORRELATED or len(hits) < 2 * bars * LEAST_BLOCKS:
            return Block(float(bars), left), share
        bars *= 2


def correlation(row: F64) -> float:
    """Of each with the next one; 0 where nothing varies."""
    away = row - row.mean() if len(row) else row
    total = float((away * away).sum())
    return float((away[1:] * away[:-1]).sum() / total) if total > 0 else 0.0


def judged(
    dataset: Dataset, predict: Predict, last_value: F64, levels: Sequence[float], *, per_bar: bool
) -> dict[str, Any]:
    """What the first step missed and lost on the hold-out, over time and by symbol."""
    rows = dataset.parts.holdout
    missed, loss, beside = (np.zeros(len(rows)) for _ in range(3))
    for begin in range(0, len(rows), TILE):
        part = slice(begin, begin + TILE)
        inputs, target, scale = dataset.batch(rows[part])
        truth, said, moved = target[:, STEP - 1], predict(inputs)[:, STEP - 1], scale > SCALE_FLOOR
        unit = np.where(moved, 1 / np.where(moved, scale, 1.0), 0.0)
        missed[part] = ~covered(said, truth)
        loss[part] = pinball(np.array(levels), said, truth) * unit
        beside[part] = pinball(np.array(levels), last_value_said(last_value, scale)[:, STEP - 1], truth) * unit
    symbol, moments = dataset.history.symbol[rows], Moments.at(dataset.history.bars.as_of[rows], per_bar=per_bar)
    ratio = _ratios(loss, beside, symbol, len(dataset.history.names))
    block, shares = blocks_of(moments.sums(loss), moments.sums(ratio[symbol] * beside))
    of_misses = block_of(moments, missed, np.ones(len(rows)))
    return {
        "missed_block": np.array([of_misses.bars]), "missed_left": np.array([of_misses.left]), "loss": ratio,
        "loss_width": np.clip([2 * shares.std() if len(shares) else MOST_WIDTH], LEAST_WIDTH, MOST_WIDTH),
        "loss_block": np.array([block.bars]), "loss_left": np.array([block.left]),
    }  # fmt: skip


def _ratios(loss: F64, beside: F64, symbol: npt.NDArray[np.int32], symbols: int) -> F64:
    """[S + 1] Losses in those of last value, of each symbol and last of all together."""
    together = loss.sum() / beside.sum() if beside.sum() > 0 else 1.0
    lost, of = np.bincount(symbol, loss, symbols), np.bincount(symbol, beside, symbols)
    extra = SHRINK_LOSS * (beside.mean() or 1.0)
    return np.append((lost + extra * together) / (of + extra), together)
