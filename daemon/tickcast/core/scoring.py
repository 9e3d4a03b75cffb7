"""The book of open questions, their settlement when bars close, and the figures that come of it.

Row by row, in the order in which bars closed: a bar first settles the forecasts whose target it is, then its own
question is answered. Labels are therefore never used before they arrived, whatever the batch.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.columns import F32, F64, I32, I64, U8, U64
from tickcast.compiled import inlined_njit, lean_njit
from tickcast.core.uncertainty import WARM_LABELS, adapt, confidence, note, widen

HEADER = np.dtype(
    [
        ("ordinal", "i8"), ("as_of", "i8"), ("id_high", "u8"), ("id_low", "u8"), ("anchor", "f8"), ("scale", "f8"),
        ("cell", "i4"), ("model", "i4"), ("in_sample", "u1"), ("open", "u1"),
    ],
    align=True,
)  # fmt: skip

# Columns of the tallies: sums over settled labels.
(N, VOID, AE, AE_NAIVE, APE, SE, SE_NAIVE, SE_PCT, MAPE, MAPE_N, SMAPE, Y, YY, SE_MOVE, MOVE, MOVE_2, PINBALL, WIDTH,
 DIRECTED, HITS, UPS, COVERED) = range(22)  # fmt: skip
NEAR_ZERO = 1e-9  # an actual this small relative to its anchor has no meaningful percentage error


class Book(NamedTuple):
    """Open questions by symbol, in a ring of `slots`; values in units of the window's scale."""

    header: npt.NDArray[np.void]  # HEADER [symbols, slots]
    raw: F32  # [symbols, slots, J, Q] the model's quantiles
    wide: F32  # as published
    actual: F64  # [symbols, slots, J]
    pinball: F32
    covered: U8
    reference: F64  # [symbols] first price seen: levels are summed relative to it


class Tally(NamedTuple):
    """Figures of one partition; the first axis is the cell (model, group)."""

    current: F64  # [cells, J, columns + Q] since the last mark
    rolling: F64  # [cells, marks, J, columns + Q]
    whole: F64  # [cells, J, columns + Q] since the start
    marks: I64  # [cells] marks so far


class Rows(NamedTuple):
    """Closed bars and their questions, as the settlement kernel takes them."""

    symbol: I32
    ordinal: I64
    close: F64
    as_of: I64
    mask: U8
    void_before: I64
    mark: I64
    question: I64  # row of Answers, or -1


class Answers(NamedTuple):
    """The model's raw answers to the questions of a batch."""

    raw: F64  # [B, H, Q] in units of scale
    anchor: F64
    scale: F64
    model: I32
    in_sample: U8
    id_high: U64
    id_low: U64
    wide: F64  # [B, H, Q] out: what is published
    confidence: F32  # out
    cold: U8  # out: 1 = too few labels at the first scored horizon to move the quantiles


class Settled(NamedTuple):
    """Room for the forecasts that were settled wholly; columns as in Scores."""

    symbol: I32
    as_of: I64
    model: I32
    id_high: U64
    id_low: U64
    settled_ns: I64
    anchor: F64
    scale: F64
    actual: F64  # [N, J]
    point: F64
    pinball: F64
    covered: U8
    in_sample: U8
    used: I64  # [1]


def fresh_book(symbols: int, horizons: list[int], levels: int) -> Book:
    slots = 1 << max(horizons).bit_length()
    shape = (symbols, slots, len(horizons))
    return Book(
        np.zeros((symbols, slots), HEADER), np.zeros((*shape, levels), np.float32),
        np.zeros((*shape, levels), np.float32), np.zeros(shape), np.zeros(shape, np.float32),
        np.zeros(shape, np.uint8), np.zeros(symbols),
    )  # fmt: skip


def fresh_tally(cells: int, horizons: int, levels: int, *, marks: int) -> Tally:
    width = COVERED + levels
    return Tally(
        np.zeros((cells, horizons, width)), np.zeros((cells, marks, horizons, width)),
        np.zeros((cells, horizons, width)), np.zeros(cells, np.int64),
    )  # fmt: skip


def settled_room(rows: int, horizons: int) -> Settled:
    wide = (rows, horizons)
    return Settled(
        np.empty(rows, np.int32), np.empty(rows, np.int64), np.empty(rows, np.int32), np.empty(rows, np.uint64),
        np.empty(rows, np.uint64), np.empty(rows, np.int64), np.empty(rows), np.empty(rows), np.empty(wide),
        np.empty(wide), np.empty(wide), np.empty(wide, np.uint8), np.empty(rows, np.uint8), np.zeros(1, np.int64),
    )  # fmt: skip


@inlined_njit
def price_of(transform, anchor, move):  # type: ignore[no-untyped-def]
    return anchor * np.exp(move) if transform == 0 else anchor + move


@lean_njit
def _tally(sums, levels, wide, s, slot, j, cell, y, point, anchor, unit, truth, reference, loss):  # type: ignore[no-untyped-def]
    """Add one label to sums[cell, j]; `wide` and `truth` are in units of scale, the rest are prices."""
    error, naive, size = y - point, y - anchor, max(abs(anchor), NEAR_ZERO)
    move, level = naive / size, y - reference
    sums[cell, j, N] += 1.0
    sums[cell, j, AE] += abs(error)
    sums[cell, j, AE_NAIVE] += abs(naive)
    sums[cell, j, APE] += abs(error) / size
    sums[cell, j, SE] += error * error
    sums[cell, j, SE_NAIVE] += naive * naive
    sums[cell, j, SE_PCT] += (error / size) ** 2
    sums[cell, j, Y] += level
    sums[cell, j, YY] += level * level
    sums[cell, j, SE_MOVE] += (error / size) ** 2
    sums[cell, j, MOVE] += move
    sums[cell, j, MOVE_2] += move * move
    sums[cell, j, PINBALL] += loss
    sums[cell, j, WIDTH] += (wide[s, slot, j, len(levels) - 1] - wide[s, slot, j, 0]) * unit
    if abs(y) > NEAR_ZERO * size:
        sums[cell, j, MAPE_N] += 1.0
        sums[cell, j, MAPE] += abs(error / y)
    both = abs(y) + abs(point)
    if both > 0.0:
        sums[cell, j, SMAPE] += 2.0 * abs(error) / both
    if naive != 0.0:
        sums[cell, j, DIRECTED] += 1.0
        sums[cell, j, UPS] += naive > 0.0
        sums[cell, j, HITS] += (point - anchor) * naive > 0.0
    for q in range(len(levels)):
        sums[cell, j, COVERED + q] += truth <= wide[s, slot, j, q]


@lean_njit
def _settle_label(b, wide, levels, median, transform, s, slot, j, y):  # type: ignore[no-untyped-def]
    """The truth for scored horizon j of an open question: (truth in units of scale, point, mean pinball loss)."""
    truth = (np.log(y / b.anchor) if transform == 0 else y - b.anchor) / b.scale
    loss, point = 0.0, b.anchor
    for q in range(len(levels)):
        quantile = price_of(transform, b.anchor, wide[s, slot, j, q] * b.scale)
        if q == median:
            point = quantile
        beyond = y - quantile
        loss += max(levels[q] * beyond, (levels[q] - 1.0) * beyond)
    return truth, point, loss / len(levels)


@lean_njit
def _settle_bar(book, sums, conformal, out, levels, median, horizons, transform, s, n, y, mask, void_before, as_of):  # type: ignore[no-untyped-def]
    """Bar n of symbol s answers up to one scored horizon of each of the questions before it."""
    slots, last = book.header.shape[1], len(levels) - 1
    if book.reference[s] == 0.0:
        book.reference[s] = y
    for j in range(len(horizons)):
        k = n - horizons[j]
        slot = k & (slots - 1)
        b = book.header[s, slot]
        if k < 0 or not b.open or b.ordinal != k:
            continue
        if mask == 0 or k < void_before:
            book.actual[s, slot, j] = np.nan
            book.pinball[s, slot, j] = np.nan
            book.covered[s, slot, j] = 0
            sums[b.cell, j, VOID] += 1.0
        else:
            truth, point, loss = _settle_label(b, book.wide, levels, median, transform, s, slot, j, y)
            book.actual[s, slot, j] = y
            book.pinball[s, slot, j] = loss
            book.covered[s, slot, j] = book.wide[s, slot, j, 0] <= truth <= book.wide[s, slot, j, last]
            if not b.in_sample:
                unit = b.scale * abs(b.anchor) if transform == 0 else b.scale
                _tally(
                    sums,
                    levels,
                    book.wide,
                    s,
                    slot,
                    j,
                    b.cell,
                    y,
                    point,
                    b.anchor,
                    unit,
                    truth,
                    book.reference[s],
                    loss,
                )
                note(conformal, b.cell, j, levels, book.raw[s, slot, j], book.wide[s, slot, j], truth)
        if j == len(horizons) - 1:
            _finish(book, out, median, transform, s, slot, as_of)


@lean_njit
def _finish(book, out, median, transform, s, slot, settled_ns):  # type: ignore[no-untyped-def]
    """The last horizon has been settled: the question leaves the book as one row of Scores."""
    b = book.header[s, slot]
    n = out.used[0]
    out.used[0] = n + 1
    out.symbol[n], out.as_of[n], out.model[n] = s, b.as_of, b.model
    out.id_high[n], out.id_low[n], out.settled_ns[n] = b.id_high, b.id_low, settled_ns
    out.anchor[n], out.scale[n], out.in_sample[n] = b.anchor, b.scale, b.in_sample
    for j in range(out.actual.shape[1]):
        out.actual[n, j] = book.actual[s, slot, j]
        out.point[n, j] = price_of(transform, b.anchor, book.wide[s, slot, j, median] * b.scale)
        out.pinball[n, j] = book.pinball[s, slot, j]
        out.covered[n, j] = book.covered[s, slot, j]
    b.open = 0


@lean_njit
def _open(book, answers, horizons, i, s, ordinal, as_of, cell):  # type: ignore[no-untyped-def]
    """Enter answered question i into the book."""
    slot = ordinal & (book.header.shape[1] - 1)
    b = book.header[s, slot]
    b.ordinal, b.as_of, b.id_high, b.id_low = ordinal, as_of, answers.id_high[i], answers.id_low[i]
    b.anchor, b.scale, b.cell, b.model = answers.anchor[i], answers.scale[i], cell, answers.model[i]
    b.in_sample, b.open = answers.in_sample[i], 1
    for j in range(len(horizons)):
        for q in range(answers.raw.shape[2]):
            book.raw[s, slot, j, q] = answers.raw[i, horizons[j] - 1, q]
            book.wide[s, slot, j, q] = answers.wide[i, horizons[j] - 1, q]


@lean_njit
def _close_mark(tally):  # type: ignore[no-untyped-def]
    """What gathered since the last mark becomes one entry of the rolling figures."""
    for cell in range(tally.current.shape[0]):
        current = tally.current[cell]
        if current[:, N].sum() + current[:, VOID].sum() == 0.0:
            continue
        slot = tally.marks[cell] % tally.rolling.shape[1]
        tally.marks[cell] += 1
        for j in range(current.shape[0]):
            for c in range(current.shape[1]):
                tally.rolling[cell, slot, j, c] = current[j, c]
                tally.whole[cell, j, c] += current[j, c]
                current[j, c] = 0.0


class Frame(NamedTuple):
    """What settlement must know of the deployment."""

    levels: F64
    horizons: I64
    median: int
    transform: int
    groups: int
    widening: bool
    gamma: float
    memory: float
    bound: float
    per_bar: bool  # labels of one mark are of one time bar


@lean_njit
def settle(book, tally, conformal, out, frame, group, rows, answers, mark):  # type: ignore[no-untyped-def]
    """Work through the closed bars of one partition; `mark[0]` is the mark that is open, `mark[1]` the newest one."""
    levels, horizons, median, transform = frame.levels, frame.horizons, frame.median, frame.transform
    for r in range(len(rows.symbol)):
        if rows.mark[r] != mark[0]:
            _pass_mark(tally, conformal, frame)
            mark[0] = rows.mark[r]
        s, n, as_of, i = rows.symbol[r], rows.ordinal[r], rows.as_of[r], rows.question[r]
        _settle_bar(
            book, tally.current, conformal, out, levels, median, horizons, transform, s, n, rows.close[r],
            rows.mask[r], rows.void_before[r], as_of,
        )  # fmt: skip
        if i >= 0:
            cell = answers.model[i] * frame.groups + group[s]
            widen(conformal.move, cell, levels, horizons, median, answers.raw, answers.wide, i)
            answers.confidence[i] = confidence(levels, answers.wide[i, answers.wide.shape[1] - 1])
            answers.cold[i] = conformal.labels[cell, 0] < WARM_LABELS
            _open(book, answers, horizons, i, s, n, as_of, cell)
    if mark[0] < mark[1]:
        _pass_mark(tally, conformal, frame)
        mark[0] = mark[1]


@lean_njit
def _pass_mark(tally, conformal, frame):  # type: ignore[no-untyped-def]
    if frame.widening:
        adapt(conformal, frame.levels, frame.horizons, frame.gamma, frame.memory, frame.bound, frame.per_bar)
    _close_mark(tally)
