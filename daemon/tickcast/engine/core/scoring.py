"""The book of open questions, and their settlement when bars close: labels go to the tally and to the widths.

Row by row, in the order in which bars closed: a bar first settles the forecasts whose target it is, then its own
question is answered. Labels are therefore never used before they arrived, whatever the batch.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.columns import F32, F64, I32, I64, U8, U64
from tickcast.compiled import inlined_njit, lean_njit
from tickcast.direction import LABELS
from tickcast.engine.core.channels import MISSING
from tickcast.engine.core.correction import adapt_points, correct, note_point
from tickcast.engine.core.tally import (
    LARGEST,
    MOST_MOVES,
    OUTSIDE,
    VOID,
    add_class,
    add_label,
    add_losses,
    close_mark,
    enter_block,
    fits,
    reach,
)
from tickcast.engine.core.uncertainty import adapt, confidence, is_warm, note, place_last_value, widen
from tickcast.errors import Quality
from tickcast.figures import SCALE_FLOOR, pinball_of
from tickcast.regimes import NORMAL
from tickcast.state import State

HEADER = np.dtype(
    [
        ("ordinal", "i8"), ("anchor", "f8"), ("scale", "f8"), ("cell", "i4"), ("open", "u1"), ("in_sample", "u1"),
        ("regime", "u1"), ("odd", "u1"), ("model", "i4"),  # what settling reads comes first
        ("as_of", "i8"), ("id_high", "u8"), ("id_low", "u8"),
    ],
    align=True,
)  # fmt: skip

ADAPTIVE_COLD, CORRECTED = int(Quality.ADAPTIVE_COLD), int(Quality.CORRECTED)

# Columns of a label in the book; from RAW on the model's quantiles, corrected but for the median, after them those that
# were published.
LOSS, LOSS_NAIVE, IS_COVERED, RAW = range(4)


class Book(NamedTuple):
    """Open questions by symbol, in a ring of `slots`; values in units of the window's scale."""

    header: npt.NDArray[np.void]  # HEADER [symbols, slots]
    labels: F32  # [symbols, slots, J, RAW + 2 Q]: what one settlement reads and writes lies together
    beside: F32  # [symbols, slots, J, Q] last value's quantiles, where another model answered
    close: F64  # [symbols, slots] of the newest bars
    reference: F64  # [symbols] first price seen: levels are summed relative to it
    probs: F32  # [symbols, slots, C] of the classes of the last step; NaN = none


class SettledRows(NamedTuple):
    """Closed bars and their questions, as the settlement kernel takes them."""

    symbol: I32
    ordinal: I64
    close: F64
    as_of: I64
    mask: U8
    void_before: I64
    mark: I64
    partition: I32
    question: I64  # row of Entries, or -1


class Entries(NamedTuple):
    """Answered questions as they are entered into the book."""

    raw: F64  # [B, H, Q] in units of scale; corrected in place, where that is done
    anchor: F64
    scale: F64
    model: I32
    in_sample: U8
    id_high: U64
    id_low: U64
    wide: F64  # [B, H, Q] out: what is published
    confidence: F32  # out
    probs: F32  # [B, C] as in Forecasts
    flags: U8  # out: ADAPTIVE_COLD by the first scored horizon, and CORRECTED
    regime: U8  # as in Scores
    odd: U8


class Settled(NamedTuple):
    """Room for the forecasts that were settled wholly; columns as in Scores."""

    symbol: I32
    as_of: I64
    model: I32
    partition: I32
    id_high: U64
    id_low: U64
    settled_ns: I64
    anchor: F64
    scale: F64
    actual: F64  # [N, J]
    point: F64
    pinball: F64
    loss: F64
    loss_naive: F64
    covered: U8
    in_sample: U8
    regime: U8
    odd: U8
    used: I64  # [1]


class LabelRows(NamedTuple):
    """What closed bars settled of the first scored horizon, row by row."""

    cell: I32  # of who had answered; -1 = nobody, or in a span that the model was trained on
    missed: U8  # 1 = outside of the outer quantiles
    loss: F64  # in one-bar moves, and last value's; 0 where the window never moved
    loss_naive: F64


PER_HORIZON = ("actual", "point", "pinball", "loss", "loss_naive")


def fresh_book(symbols: int, horizons: list[int], levels: int) -> Book:
    slots = 1 << max(horizons).bit_length()
    shape = (symbols, slots)
    labels = np.zeros((*shape, len(horizons), RAW + 2 * levels), np.float32)
    beside = np.zeros((*shape, len(horizons), levels), np.float32)
    probs = np.full((*shape, len(LABELS)), np.nan, np.float32)
    return Book(np.zeros(shape, HEADER), labels, beside, np.zeros(shape), np.zeros(symbols), probs)


def as_now(state: State, book: Book) -> State:
    """A snapshot of FORMAT 6 has no probs, one of 7 no regimes either."""
    header = state.arrays["header"]
    nothing = np.full_like(book.probs[: len(header)], np.nan)
    known = np.zeros(header.shape, HEADER)
    known["regime"], known["odd"] = NORMAL, MISSING
    for name in header.dtype.names or ():
        known[name] = header[name]
    return State({**state.arrays, "header": known, "probs": state.arrays.get("probs", nothing)})


def settled_room(rows: int, horizons: int) -> Settled:
    of: dict[str, F64] = {name: np.empty((rows, horizons)) for name in PER_HORIZON}
    return Settled(
        symbol=np.empty(rows, np.int32), as_of=np.empty(rows, np.int64), model=np.empty(rows, np.int32),
        partition=np.empty(rows, np.int32), id_high=np.empty(rows, np.uint64), id_low=np.empty(rows, np.uint64),
        settled_ns=np.empty(rows, np.int64), anchor=np.empty(rows), scale=np.empty(rows), **of,
        covered=np.empty((rows, horizons), np.uint8), in_sample=np.empty(rows, np.uint8),
        regime=np.empty(rows, np.uint8), odd=np.empty(rows, np.uint8), used=np.zeros(1, np.int64),
    )  # fmt: skip


def labels_room(rows: int) -> LabelRows:
    return LabelRows(np.full(rows, -1, np.int32), np.zeros(rows, np.uint8), np.zeros(rows), np.zeros(rows))


@inlined_njit
def price_of(transform, anchor, move):  # type: ignore[no-untyped-def]
    return anchor * np.exp(move) if transform == 0 else anchor + move


@inlined_njit
def _last_value_cell(frame, p, group):  # type: ignore[no-untyped-def]
    return p * frame.cells + frame.last_value * frame.groups + group


@inlined_njit
def _in_prices(b, wide, levels, transform, y):  # type: ignore[no-untyped-def]
    """Mean pinball loss of the published quantiles, in prices."""
    loss = 0.0
    for q in range(len(levels)):
        beyond = y - price_of(transform, b.anchor, wide[q] * b.scale)
        loss += max(levels[q] * beyond, (levels[q] - 1.0) * beyond)
    return loss / len(levels)


@inlined_njit
def _tally(book, tally, frame, s, j, b, levels, wide, y, truth, loss, loss_naive, as_of):  # type: ignore[no-untyped-def]
    """Whether the label has losses in one-bar moves."""
    point = price_of(frame.transform, b.anchor, wide[frame.median] * b.scale)
    unit = b.scale * abs(b.anchor) if frame.transform == 0 else b.scale
    reference = book.reference[s]
    reach(tally, frame.marks_per_cell, b.cell, as_of)
    sums, block = tally.current[b.cell, j], tally.block[b.cell, j]
    if not (fits(levels, wide, y, point, b.anchor, unit, truth, reference) and loss_naive < MOST_MOVES):
        sums[OUTSIDE] += 1.0
        return False
    enter_block(tally, b.cell, j, b.as_of, as_of)
    add_label(sums, block, levels, wide, y, point, b.anchor, unit, truth, reference)
    if b.scale > SCALE_FLOOR:
        add_losses(sums, block, levels, wide, truth, loss, loss_naive, frame.median)
    return b.scale > SCALE_FLOOR


@inlined_njit
def _note_label(labels, r, cell, label, moved):  # type: ignore[no-untyped-def]
    if r < len(labels.cell):
        labels.cell[r], labels.missed[r] = cell, label[IS_COVERED] == 0.0
        if moved:
            labels.loss[r], labels.loss_naive[r] = label[LOSS], label[LOSS_NAIVE]


@inlined_njit
def _settle_bar(book, tally, conformal, out, labels, frame, p, s, n, y, mask, void_before, as_of, r):  # type: ignore[no-untyped-def]
    """Bar n of symbol s, in row r, answers up to one scored horizon of each of the questions before it."""
    wrap, levels = book.header.shape[1] - 1, frame.levels
    book.close[s, n & wrap] = y
    if book.reference[s] == 0.0 and abs(y) < LARGEST:
        book.reference[s] = y
    for j in range(len(frame.horizons)):
        k = n - frame.horizons[j]
        b = book.header[s, k & wrap]
        if k < 0 or not b.open or b.ordinal != k:
            continue
        label = book.labels[s, k & wrap, j]
        if mask == 0 or k < void_before:
            label[LOSS], label[LOSS_NAIVE], label[IS_COVERED] = np.nan, np.nan, 0.0
            reach(tally, frame.marks_per_cell, b.cell, as_of)
            tally.current[b.cell, j, VOID] += 1.0
        else:
            raw, wide = label[RAW : RAW + len(levels)], label[RAW + len(levels) :]
            naive = book.beside[s, k & wrap, j]
            truth = (np.log(y / b.anchor) if frame.transform == 0 else y - b.anchor) / b.scale
            is_last_value = b.model == frame.last_value
            loss = pinball_of(levels, wide, truth)
            loss_naive = loss if is_last_value else pinball_of(levels, naive, truth)
            label[LOSS], label[LOSS_NAIVE] = loss, loss_naive
            label[IS_COVERED] = wide[0] <= truth <= wide[len(levels) - 1]
            if not b.in_sample:
                moved = _tally(
                    book, tally, frame, s, j, b, levels, wide, y, truth, loss, loss_naive, as_of
                )  # fmt: skip
                edge = frame.class_edge[b.model]
                if moved and j == frame.class_step and edge >= 0.0 and book.probs[s, k & wrap, 0] >= 0.0:
                    known = 0 if truth < -edge else 2 if truth > edge else 1
                    add_class(tally.class_current[b.cell], book.probs[s, k & wrap], known)
                if j == 0:
                    _note_label(labels, r, b.cell, label, moved)
                note(conformal, b.cell, j, levels, raw, wide, truth)
                if frame.correcting:
                    note_point(conformal, b.cell, j, frame.median, raw[frame.median], truth)
                if not is_last_value:
                    beside = _last_value_cell(frame, p, b.cell % frame.groups)
                    note(conformal, beside, j, levels, frame.last_value_raw[j], naive, truth)
        if j == len(frame.horizons) - 1:
            _finish(book, out, frame, p, s, k, as_of)


@inlined_njit
def _finish(book, out, frame, p, s, k, settled_ns):  # type: ignore[no-untyped-def]
    """The last horizon has been settled: question k leaves the book as one row of Scores."""
    wrap, point = book.header.shape[1] - 1, RAW + len(frame.levels) + frame.median
    b, labels = book.header[s, k & wrap], book.labels[s, k & wrap]
    n = out.used[0]
    out.used[0] = n + 1
    out.symbol[n], out.as_of[n], out.model[n], out.partition[n] = s, b.as_of, b.model, p
    out.id_high[n], out.id_low[n], out.settled_ns[n] = b.id_high, b.id_low, settled_ns
    out.anchor[n], out.scale[n], out.in_sample[n] = b.anchor, b.scale, b.in_sample
    out.regime[n], out.odd[n] = b.regime, b.odd
    unit = 1.0 if b.scale > SCALE_FLOOR else np.nan
    for j in range(len(frame.horizons)):
        void, y = np.isnan(labels[j, LOSS]), book.close[s, (k + frame.horizons[j]) & wrap]
        out.actual[n, j] = np.nan if void else y
        out.point[n, j] = price_of(frame.transform, b.anchor, labels[j, point] * b.scale)
        wide = labels[j, RAW + len(frame.levels) :]
        out.pinball[n, j] = np.nan if void else _in_prices(b, wide, frame.levels, frame.transform, y)
        out.loss[n, j], out.loss_naive[n, j] = labels[j, LOSS] * unit, labels[j, LOSS_NAIVE] * unit
        out.covered[n, j] = labels[j, IS_COVERED]
    b.open = 0


@inlined_njit
def _open(book, answers, conformal, frame, i, s, ordinal, as_of, cell, beside):  # type: ignore[no-untyped-def]
    """Enter answered question i into the book; `beside` is the cell whose widening last value has."""
    slot = ordinal & (book.header.shape[1] - 1)
    b = book.header[s, slot]
    b.ordinal, b.as_of, b.id_high, b.id_low = ordinal, as_of, answers.id_high[i], answers.id_low[i]
    b.anchor, b.scale, b.cell, b.model = answers.anchor[i], answers.scale[i], cell, answers.model[i]
    b.in_sample, b.open, b.regime, b.odd = answers.in_sample[i], 1, answers.regime[i], answers.odd[i]
    levels = len(frame.levels)
    for c in range(answers.probs.shape[1]):
        book.probs[s, slot, c] = answers.probs[i, c]
    for j in range(len(frame.horizons)):
        for q in range(levels):
            book.labels[s, slot, j, RAW + q] = answers.raw[i, frame.horizons[j] - 1, q]
            book.labels[s, slot, j, RAW + levels + q] = answers.wide[i, frame.horizons[j] - 1, q]
        if frame.correcting and answers.raw[i, frame.horizons[j] - 1, frame.median] != 0.0:
            book.labels[s, slot, j, RAW + frame.median] -= conformal.move[cell, j, frame.median]
    if b.model != frame.last_value:
        for j in range(len(frame.horizons)):
            for q in range(levels):
                book.beside[s, slot, j, q] = conformal.beside[beside, j, q]


class Frame(NamedTuple):
    """What settlement must know of the deployment."""

    levels: F64
    horizons: I64
    median: int
    transform: int
    groups: int
    cells: int  # of one partition
    widening: bool
    gamma: float
    memory: float
    bound: float
    per_bar: bool  # labels of one mark are of one time bar
    last_value: int  # the number of that model, which stands beside every other
    marks_per_cell: int  # of the tally
    class_step: int  # where among the horizons the last step is; -1 = it is not scored
    class_edge: F64  # by model: moves within it are flat; -1 = it has no classes
    last_value_raw: F64  # [J, Q] its quantiles before they are widened, in one-bar moves
    correcting: bool  # points by what they were off


@lean_njit
def settle(book, tally, conformal, out, labels, frame, group, rows, answers, mark, newest):  # type: ignore[no-untyped-def]
    """Work through closed bars; by partition, `mark` is the mark that is open and `newest` the one to end at. Labels
    are noted where there is room for them."""
    levels, horizons = frame.levels, frame.horizons
    for r in range(len(rows.symbol)):
        p = rows.partition[r]
        if rows.mark[r] != mark[p]:
            _pass_mark(tally, conformal, frame, p)
            mark[p] = rows.mark[r]
        s, n, as_of, i = rows.symbol[r], rows.ordinal[r], rows.as_of[r], rows.question[r]
        _settle_bar(
            book,
            tally,
            conformal,
            out,
            labels,
            frame,
            p,
            s,
            n,
            rows.close[r],
            rows.mask[r],
            rows.void_before[r],
            as_of,
            r,
        )
        if i >= 0:
            cell = p * frame.cells + answers.model[i] * frame.groups + group[s]
            corrected = frame.correcting and correct(conformal.move, cell, horizons, frame.median, answers.raw, i)
            widen(conformal.move, cell, levels, horizons, frame.median, answers.raw, answers.wide, i)
            answers.confidence[i] = confidence(levels, answers.wide[i, answers.wide.shape[1] - 1])
            cold = not is_warm(conformal.labels[cell, 0], horizons[0])
            answers.flags[i] = cold * ADAPTIVE_COLD + corrected * CORRECTED
            if answers.scale[i] < np.inf:  # else the window's moves overflow, and there is no unit to score in
                beside = _last_value_cell(frame, p, group[s])
                _open(book, answers, conformal, frame, i, s, n, as_of, cell, beside)
    for r in range(len(rows.symbol)):
        p = rows.partition[r]
        if mark[p] < newest[p]:
            _pass_mark(tally, conformal, frame, p)
            mark[p] = newest[p]


@lean_njit
def void_open(book, tally, out, frame, symbol, closed, partition, now):  # type: ignore[no-untyped-def]
    """End the open questions of these symbols: what bars after their `closed` first ones would have settled is void."""
    for i in range(len(symbol)):
        s = symbol[i]
        for slot in range(book.header.shape[1]):
            b = book.header[s, slot]
            if not b.open:
                continue
            for j in range(len(frame.horizons)):
                if b.ordinal + frame.horizons[j] >= closed[i]:
                    label = book.labels[s, slot, j]
                    label[LOSS], label[LOSS_NAIVE], label[IS_COVERED] = np.nan, np.nan, 0.0
                    reach(tally, frame.marks_per_cell, b.cell, now[i])
                    tally.current[b.cell, j, VOID] += 1.0
            _finish(book, out, frame, partition[i], s, b.ordinal, now[i])


@lean_njit
def _pass_mark(tally, conformal, frame, p):  # type: ignore[no-untyped-def]
    first, end = p * frame.cells, (p + 1) * frame.cells
    if frame.correcting:
        adapt_points(conformal, first, end, frame.median, frame.horizons, frame.memory, frame.per_bar)
    if frame.widening:
        adapt(
            conformal, first, end, frame.levels, frame.horizons, frame.gamma, frame.memory, frame.bound, frame.per_bar
        )
        beside = _last_value_cell(frame, p, 0)
        place_last_value(conformal, beside, beside + frame.groups, frame.median, frame.last_value_raw)
    close_mark(tally, frame.marks_per_cell, first, end)
