"""The reference of a fit, by which drift is judged later: of values from the training part alone, of losses and misses
from the hold-out, by a fit that never saw it. It reads the bars by the kernels that serve.
"""

from collections.abc import Sequence
from dataclasses import replace
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
    Sketches,
    measure,
    measured,
    room,
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
BEYOND_ALL = float(np.finfo(np.float64).max)  # a distance, where no bar has all values
RIDGE = 0.05  # of the covariance of normal scores: channels that depend on one another exactly leave no direction empty
BLOCK, UNCORRELATED, LEAST_BLOCKS = 20, 0.1, 8
SHRINK_SHARE, SHRINK_LOSS = 100.0, 1000.0  # labels of all symbols that each one's own are mixed with
LEAST_WIDTH, MOST_WIDTH = 0.05, 0.5

Mask = npt.NDArray[np.bool_]


class Block(NamedTuple):
    bars: float
    left: float  # correlation from one to the next


class Rows(NamedTuple):
    """Bars in the order of their symbols, of each in the order of time."""

    symbol: npt.NDArray[np.int32]
    place: I64  # of a bar among its symbol's
    moment: I64  # number of a bar's, from 0 in the order of time: where bars close together they share it
    symbols: int
    moments: int

    @classmethod
    def at(cls, symbol: npt.NDArray[np.int32], as_of: I64, *, symbols: int, per_bar: bool) -> "Rows":
        place = np.arange(len(symbol)) - np.searchsorted(symbol, symbol)
        if per_bar:
            known, moment = np.unique(as_of, return_inverse=True)
            return cls(symbol, place, moment, symbols, len(known))
        moment = np.empty(len(as_of), np.int64)
        moment[np.argsort(as_of, kind="stable")] = np.arange(len(as_of))
        return cls(symbol, place, moment, symbols, len(as_of))

    def blocks(self, bars: int) -> tuple[I64, I64]:
        """Of each row the number of the block of its symbol that it lies in; of each block the symbol."""
        held = -(-np.bincount(self.symbol, minlength=self.symbols) // bars)
        first = np.cumsum(held) - held
        return first[self.symbol] + self.place // bars, np.repeat(np.arange(self.symbols), held)


def write_reference(folder: Path, reference: Reference) -> None:
    save_file(reference.arrays(), folder / REFERENCE)


def reference_of(
    dataset: Dataset, predict: Predict, last_value: F64, levels: Sequence[float], *, per_bar: bool
) -> Reference:  # fmt: skip
    """`last_value` as its quantiles are in one-bar moves."""
    of_labels = judged(dataset, predict, last_value, levels, per_bar=per_bar)
    symbols = np.frombuffer(bytearray(msgspec.json.encode(dataset.history.names)), np.uint8)
    return Reference(symbols=symbols, **_values_of(dataset, per_bar=per_bar), **of_labels)


def with_values_of(dataset: Dataset, judged: Reference, *, per_bar: bool) -> Reference:
    """Of a fit that has no hold-out: losses and misses are of the one that was judged, on the same bars."""
    return replace(judged, **_values_of(dataset, per_bar=per_bar))


def _values_of(dataset: Dataset, *, per_bar: bool) -> dict[str, Any]:
    history = dataset.history
    rows = np.flatnonzero(dataset.parts.is_train(history) & (history.bars.mask == 1))
    return describe(history, dataset.values, rows, watch_target=dataset.transform != LEVEL, per_bar=per_bar)


def describe(history: BarHistory, values: F64, rows: I64, *, watch_target: bool, per_bar: bool) -> dict[str, Any]:
    """How the values of these bars are distributed, alone and together, over time and by symbol."""
    some = rows[np.linspace(0, len(rows) - 1, min(MOST_ROWS, len(rows))).astype(np.int64)]
    sketches = _sketches(history, values, some, watch_target=watch_target)
    sketches = _with_distance(sketches, history, values, some)
    found = measured(sketches, history.bars, values, history.symbol[rows], history.ordinal[rows], history.first[rows])
    of = Rows.at(history.symbol[rows], history.bars.as_of[rows], symbols=len(history.names), per_bar=per_bar)
    bins = [np.bincount(place[place != MISSING] % ODD, minlength=EDGES - 1) for place in found.place.T]
    odd = [shares_of(of, (place >= ODD) & (place != MISSING), place != MISSING) for place in found.place.T]
    far = shares_of(of, found.far == 1, found.far != MISSING)
    return {
        "edges": sketches.edges, "bins": np.array([n / max(n.sum(), 1) for n in bins]), "low": sketches.low,
        "high": sketches.high, "repeats": sketches.repeats,
        "odd": np.stack([share for share, _ in odd], axis=1),
        "odd_block": np.array([block.bars for _, block in odd]),
        "odd_left": np.array([block.left for _, block in odd]),
        "center": sketches.center, "whiten": sketches.whiten, "distance": np.array([sketches.distance]),
        "far": far[0], "far_block": np.array([far[1].bars]), "far_left": np.array([far[1].left]),
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
    return Sketches(edges, low, high, repeats, *nothing, BEYOND_ALL)


def _with_distance(sketches: Sketches, history: BarHistory, values: F64, rows: I64) -> Sketches:
    symbol, ordinal, first = history.symbol[rows], history.ordinal[rows], history.first[rows]
    scores = np.empty((len(rows), values.shape[1]))
    found = room(*scores.shape)
    measure(sketches, history.bars, values, symbol, ordinal, first, scores, found)
    whole = scores[found.far != MISSING]
    if len(whole) < 2:
        return sketches
    center = whole.mean(axis=0)
    covariance = (1 - RIDGE) * np.atleast_2d(np.cov(whole.T)) + RIDGE * np.eye(len(center))
    whiten = np.ascontiguousarray(np.linalg.inv(np.linalg.cholesky(covariance)))
    squares = np.array([squared_distance(whiten, row, np.inf) for row in whole - center])
    return sketches._replace(center=center, whiten=whiten, distance=float(np.quantile(squares, FURTHEST)))


def shares_of(rows: Rows, hit: Mask, there: Mask) -> tuple[F64, Block]:
    """[S + 1] Share of hits of each symbol and last of all together, as high as it may well be: with one standard error
    of what the blocks tell. A symbol with few bars is for the most part as all are."""
    block = block_of(rows, hit, there)
    together = hit.sum() / max(there.sum(), 1)
    hits, count = (summed(rows.symbol, of, rows.symbols) for of in (hit, there))
    share = (hits + SHRINK_SHARE * together) / (count + SHRINK_SHARE)
    at, symbol = rows.blocks(int(block.bars))
    away = summed(at, hit - share[rows.symbol] * there, len(symbol))
    error = np.sqrt(summed(symbol, away * away, rows.symbols)) / (count + SHRINK_SHARE)
    return np.append(share + error, together), block


def block_of(rows: Rows, hit: npt.NDArray[Any], weight: npt.NDArray[Any]) -> Block:
    """The shortest block, doubled, whose shares are next to uncorrelated: those of each symbol by itself, and those of
    all together, for a partition may have one or many. Where blocks go up and down by turns, as with a season, those of
    twice the length must be so, too.
    """
    sums = [summed(rows.moment, row, rows.moments) for row in (hit, weight)]
    bars = BLOCK
    while True:
        left = _left(rows, hit, weight, sums, bars)
        most = left if left > -UNCORRELATED else _left(rows, hit, weight, sums, 2 * bars)
        if most < UNCORRELATED or rows.moments < 2 * bars * LEAST_BLOCKS:
            return Block(float(bars), left)
        bars *= 2


def _left(rows: Rows, hit: npt.NDArray[Any], weight: npt.NDArray[Any], sums: list[F64], bars: int) -> float:
    """Correlation from block to block: of each symbol's, or of all together, by moments, what is more."""
    at, symbol = rows.blocks(bars)
    alone = correlation(summed(at, hit, len(symbol)), summed(at, weight, len(symbol)), symbol)
    hits, of = (in_blocks(row, bars) for row in sums)
    return max(alone, correlation(hits, of))


def summed(at: npt.NDArray[Any], row: npt.NDArray[Any], size: int) -> F64:
    return np.bincount(at, row, size).astype(np.float64)


def in_blocks(row: F64, bars: int) -> F64:
    whole = len(row) // bars * bars
    sums: F64 = row[:whole].reshape(-1, bars).sum(axis=1)
    return sums


def correlation(hits: F64, weight: F64, symbol: I64 | None = None) -> float:
    """Of the share of each block with that of its symbol's next one; 0 where nothing varies. What the mean of few
    blocks takes away is given back.
    """
    of = np.zeros(len(hits), np.int64) if symbol is None else symbol
    share = summed(of, hits, 0) / np.maximum(summed(of, weight, 0), 1e-300)
    away = hits - share[of] * weight
    total, pairs = float((away * away).sum()), of[1:] == of[:-1]
    if total == 0:
        return 0.0
    blocks_each = len(hits) / (len(hits) - int(np.count_nonzero(pairs)))
    return float((away[1:] * away[:-1])[pairs].sum()) / total + 1 / blocks_each


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
    history = dataset.history
    of = Rows.at(history.symbol[rows], history.bars.as_of[rows], symbols=len(history.names), per_bar=per_bar)
    ratio = _ratios(loss, beside, of.symbol, of.symbols)
    expected = ratio[of.symbol] * beside
    block, of_misses = block_of(of, loss, expected), block_of(of, missed, np.ones(len(rows)))
    return {
        "missed_block": np.array([of_misses.bars]), "missed_left": np.array([of_misses.left]), "loss": ratio,
        "loss_width": np.array([width_of(of, loss, expected, int(block.bars))]),
        "loss_block": np.array([block.bars]), "loss_left": np.array([block.left]),
    }  # fmt: skip


def _ratios(loss: F64, beside: F64, symbol: npt.NDArray[np.int32], symbols: int) -> F64:
    """[S + 1] Losses in those of last value, of each symbol and last of all together."""
    together = loss.sum() / beside.sum() if beside.sum() > 0 else 1.0
    lost, of = np.bincount(symbol, loss, symbols), np.bincount(symbol, beside, symbols)
    extra = SHRINK_LOSS * (beside.mean() or 1.0)
    return np.append((lost + extra * together) / (of + extra), together)


def width_of(rows: Rows, loss: F64, expected: F64, bars: int) -> float:
    """By how much the losses of all together change from block to block, in what is expected of them."""
    lost, of = (in_blocks(summed(rows.moment, row, rows.moments), bars) for row in (loss, expected))
    ratio = lost[of > 0] / of[of > 0]
    return float(np.clip(2 * ratio.std() if len(ratio) > 1 else MOST_WIDTH, LEAST_WIDTH, MOST_WIDTH))
