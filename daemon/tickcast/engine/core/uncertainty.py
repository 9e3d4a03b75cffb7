"""Honest quantiles: conformal scores with an adaptive miss rate, kept per cell, scored horizon and level.

A cell is a (partition, model, group). Everything is in units of the window's scale, so every symbol weighs
alike. State changes only in `adapt`, at an adaptation mark; between marks labels gather in `pending`.

Labels of step h come h bars late, and h neighbours tell of the same moves: they are worth one. So all that is counted
in label bars is multiplied by the step, and the miss rate takes steps that are so much smaller. Else it swings, is cut
off at its bounds, and forgets the misses that it owes.

Scores live in a histogram over asinh-spaced bins with exponential forgetting: constant memory, no sort, and each
score is shared between its two nearest bins, so results move continuously with the data (a run with other batches,
whose model outputs differ in the seventh digit, stays within that distance).
"""

from bisect import bisect_left, bisect_right
from typing import NamedTuple

import numpy as np

from tickcast.columns import F32, F64
from tickcast.compiled import inlined_njit, lean_njit

BINS = 256
CORE = 0.05  # below this the bins are linear, above logarithmic
REACH = 60.0  # scores beyond are counted in the outermost bins
SPAN = float(np.arcsinh(REACH / CORE))
MIDDLE = 0.5 * (BINS - 1)  # the bin of score 0
SOFT_EDGE = 1e-3  # a truth this close to a quantile is partly a miss
WARM_LABELS = 30.0  # label bars, for each bar of the step, before the quantiles are moved by scores of their own
ALPHA_MIN, ALPHA_MAX = 0.001, 0.5
SAME_LEVEL = 1e-9
LONGEST_STEP = 10.0  # label bars that one mark may count for in the miss rate (tick and volume bars)


class Conformal(NamedTuple):
    """The first axis is the cell."""

    histogram: F64  # [cells, J, Q, BINS], of (truth - quantile) outward; of the median, where points are corrected
    labels: F64  # [cells, J] label bars remembered
    alpha: F64  # [cells, J, Q] current miss rate asked of the histogram
    move: F64  # [cells, J, Q] how far outward each quantile is moved now; of the median: how far up all of them are
    pending: F64  # [cells, J, Q, BINS] since the last mark
    missed: F64  # [cells, J, Q] since the last mark
    arrived: F64  # [cells, J] labels since the last mark
    beside: F32  # [cells, J, Q] where last value's quantiles are now: in its own cells, by `place_last_value`


def fresh(cells: int, horizons: int, levels: list[float]) -> Conformal:
    q = len(levels)
    target = np.minimum(np.array(levels), 1 - np.array(levels))
    shape = (cells, horizons, q)
    return Conformal(
        histogram=np.zeros((*shape, BINS)), labels=np.zeros(shape[:2]), alpha=np.broadcast_to(target, shape).copy(),
        move=np.zeros(shape), pending=np.zeros((*shape, BINS)), missed=np.zeros(shape), arrived=np.zeros(shape[:2]),
        beside=np.zeros(shape, np.float32),
    )  # fmt: skip


@inlined_njit
def _position(score):  # type: ignore[no-untyped-def]
    """Between 0 and BINS - 1 for any score: what is no number lies in the lowest bin."""
    size = (abs(score) if abs(score) < REACH else REACH) * (1.0 / CORE)
    away = np.log(size + np.sqrt(size * size + 1.0)) * MIDDLE / SPAN  # arcsinh, at half its cost
    return MIDDLE + away if score > 0.0 else MIDDLE - away


@inlined_njit
def _score_at(position):  # type: ignore[no-untyped-def]
    return CORE * np.sinh((position / (BINS - 1) * 2.0 - 1.0) * SPAN)


@inlined_njit
def count_score(pending, cell, j, q, score):  # type: ignore[no-untyped-def]
    """Between its two nearest bins."""
    position = _position(score)
    low = min(int(position), BINS - 2)
    part = position - low
    pending[cell, j, q, low] += 1.0 - part
    pending[cell, j, q, low + 1] += part


@inlined_njit
def note(conformal, cell, j, levels, raw, wide, truth):  # type: ignore[no-untyped-def]
    """A label has arrived: how far outside each raw quantile it lay, and whether it missed the published one."""
    conformal.arrived[cell, j] += 1.0
    for q in range(len(levels)):
        if levels[q] == 0.5:
            continue
        outward = -1.0 if levels[q] < 0.5 else 1.0
        count_score(conformal.pending, cell, j, q, outward * (truth - raw[q]))
        beyond = outward * (truth - wide[q])
        conformal.missed[cell, j, q] += min(max(beyond / SOFT_EDGE + 0.5, 0.0), 1.0)


@lean_njit
def quantile(histogram, share):  # type: ignore[no-untyped-def]
    """The score that `share` of the histogram's weight lies below, interpolated between bins."""
    total = histogram.sum()
    below, wanted = 0.0, share * total
    for b in range(BINS):
        if below + histogram[b] >= wanted:
            part = (wanted - below) / histogram[b] if histogram[b] > 0.0 else 0.0
            return _score_at(max(b - 0.5 + part, 0.0))
        below += histogram[b]
    return _score_at(BINS - 1.0)


@inlined_njit
def is_warm(labels, horizon):  # type: ignore[no-untyped-def]
    """So many label bars are remembered that the outer quantiles of a step can be read from its own scores."""
    return labels >= WARM_LABELS * horizon


@lean_njit
def _moved(conformal, cell, j, q, horizons, bound):  # type: ignore[no-untyped-def]
    """How far outward a quantile belongs by its step's scores; before there are enough, as far as that of the step
    before, for spreads grow with the root of the step.
    """
    if is_warm(conformal.labels[cell, j], horizons[j]):
        limit = bound * np.sqrt(horizons[j])
        own = quantile(conformal.histogram[cell, j, q], 1.0 - conformal.alpha[cell, j, q])
        return min(max(own, -limit), limit)
    return conformal.move[cell, j - 1, q] * np.sqrt(horizons[j] / horizons[j - 1]) if j > 0 else 0.0


@inlined_njit
def kept_at(memory, horizon, weight):  # type: ignore[no-untyped-def]
    """The part of what is remembered that a mark leaves."""
    return (1.0 - 1.0 / (memory * horizon)) ** weight


@inlined_njit
def fold_in(conformal, cell, j, q, keep, share):  # type: ignore[no-untyped-def]
    histogram, pending = conformal.histogram[cell, j, q], conformal.pending[cell, j, q]
    for b in range(BINS):
        histogram[b] = histogram[b] * keep + pending[b] * share
        pending[b] = 0.0


@lean_njit
def adapt(conformal, first, end, levels, horizons, gamma, memory, bound, per_bar):  # type: ignore[no-untyped-def]
    """At a mark of the cells first .. end: fold in the labels, step the miss rates, and move the quantiles.

    Labels of one time bar count as one label bar together (`per_bar`); each tick or volume bar is its own.
    """
    for cell in range(first, end):
        for j in range(conformal.labels.shape[1]):
            n = conformal.arrived[cell, j]
            if n == 0.0:
                continue
            weight = 1.0 if per_bar else n
            keep = kept_at(memory, horizons[j], weight)
            conformal.labels[cell, j] = conformal.labels[cell, j] * keep + weight
            step = gamma / horizons[j] * min(weight, LONGEST_STEP)
            for q in range(len(levels)):
                if levels[q] == 0.5:
                    continue
                target = min(levels[q], 1.0 - levels[q])
                fold_in(conformal, cell, j, q, keep, weight / n)
                alpha = conformal.alpha[cell, j, q] + step * (target - conformal.missed[cell, j, q] / n)
                conformal.alpha[cell, j, q] = min(max(alpha, ALPHA_MIN), ALPHA_MAX)
                conformal.missed[cell, j, q] = 0.0
                conformal.move[cell, j, q] = _moved(conformal, cell, j, q, horizons, bound)
            conformal.arrived[cell, j] = 0.0


@inlined_njit
def between(horizons, h, j):  # type: ignore[no-untyped-def]
    """The scored horizons around step h + 1, from the j-th on, and how far it is on its way to the second."""
    last = len(horizons) - 1
    while j < last and horizons[j + 1] <= h + 1:
        j += 1
    after = min(j + 1, last)
    gap = horizons[after] - horizons[j]
    return j, after, min(max((h + 1 - horizons[j]) / gap, 0.0), 1.0) if gap > 0 else 0.0


@lean_njit
def widen(move, cell, levels, horizons, median, raw, out, i):  # type: ignore[no-untyped-def]
    """raw[i] [H, Q] -> out[i], moved outward and sorted. Between scored horizons the move is interpolated.

    No quantile crosses the median, which is the point and never moves. What is published are the very numbers that the
    book holds, which are float32.
    """
    j = 0
    for h in range(raw.shape[1]):
        j, after, part = between(horizons, h, j)
        point = raw[i, h, median]
        for q in range(median):
            outward = move[cell, j, q] + part * (move[cell, after, q] - move[cell, j, q])
            out[i, h, q] = np.float32(raw[i, h, q] - outward)
        out[i, h, median] = np.float32(point)
        for q in range(median + 1, len(levels)):
            outward = move[cell, j, q] + part * (move[cell, after, q] - move[cell, j, q])
            out[i, h, q] = np.float32(raw[i, h, q] + outward)
        _put_in_order(out[i, h], median)


@lean_njit
def place_last_value(conformal, first, end, median, raw):  # type: ignore[no-untyped-def]
    """Widen raw [J, Q], last value's own quantiles in one-bar moves, by the moves of the cells first .. end."""
    for cell in range(first, end):
        for j in range(len(raw)):
            out = conformal.beside[cell, j]
            for q in range(len(out)):
                outward = 0.0 if q == median else conformal.move[cell, j, q]
                out[q] = raw[j, q] + (-outward if q < median else outward)
            _put_in_order(out, median)


@inlined_njit
def _put_in_order(row, median):  # type: ignore[no-untyped-def]
    point = row[median]
    for q in range(median):
        row[q] = min(row[q], point)
    for q in range(median + 1, len(row)):
        row[q] = max(row[q], point)
    for k in range(1, len(row)):  # insertion sort: five numbers, nearly always in order
        x = row[k]
        at = k
        while at > 0 and row[at - 1] > x:
            row[at] = row[at - 1]
            at -= 1
        row[at] = x


def level_beside(levels: list[float], level: float) -> int:
    """The published level that another is read from: the same, the next further out, or the outermost of its side."""
    median = levels.index(0.5)
    if level < 0.5:
        return max(bisect_right(levels, level + SAME_LEVEL, hi=median) - 1, 0)
    return min(bisect_left(levels, level - SAME_LEVEL, lo=median + 1), len(levels) - 1)


def moves_at(
    conformal: Conformal, cell: int, levels: list[float], level: float, horizons: list[int], bound: float
) -> F64:
    """[J] How far outward from the level beside it `level` lies, by the scores of that one, whose miss rate is asked in
    proportion; NaN where too few labels came. Of a published level it is `move`.
    """
    q = level_beside(levels, level)
    if abs(levels[q] - level) < SAME_LEVEL:
        return conformal.move[cell, :, q].copy()
    share = conformal.alpha[cell, :, q] * min(level, 1 - level) / min(levels[q], 1 - levels[q])
    moves = np.array([
        quantile(conformal.histogram[cell, j, q], 1.0 - alpha)
        for j, alpha in enumerate(np.clip(share, ALPHA_MIN, ALPHA_MAX))
    ])  # fmt: skip
    ahead = np.array(horizons)
    limit = bound * np.sqrt(ahead)
    return np.where(conformal.labels[cell] < WARM_LABELS * ahead, np.nan, np.clip(moves, -limit, limit))


@lean_njit
def confidence(levels, row):  # type: ignore[no-untyped-def]
    """The forecast probability that the truth lies on the point's side of the anchor (zero): 0.5 .. 1."""
    q = len(levels)
    if row[0] >= 0.0 or row[q - 1] <= 0.0:
        below = levels[0] if row[0] >= 0.0 else levels[q - 1]
        return max(below, 1.0 - below) if row[0] != row[q - 1] else 0.5
    for i in range(1, q):
        if row[i] >= 0.0:
            width = row[i] - row[i - 1]
            part = -row[i - 1] / width if width > 0.0 else 0.5
            below = levels[i - 1] + part * (levels[i] - levels[i - 1])
            return max(below, 1.0 - below)
    return 0.5
