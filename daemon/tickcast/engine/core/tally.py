"""The tally: sums of settled labels, in columns, that every figure is read from. It adds; `accuracy.py` divides.

Labels gather in `current` and go on to cells of event time and of marks, and to the sum of all. A cell is found by its
number, so a label that comes late is added where its event time belongs; where that cell was given up, it is outside
of the window, and counts in longer ones. What no sum could hold is counted and added nowhere.

Labels of neighbouring bars overlap and symbols move together, so labels say less than their number. Blocks are what is
independent: labels in a row, of all symbols, over at least twice as long as the longest of them.
"""

from typing import NamedTuple

import numpy as np

from tickcast.columns import F64, I64, U8
from tickcast.compiled import inlined_njit, lean_njit
from tickcast.direction import LABELS
from tickcast.figures import CONFIDENCES, LEAST_PROBABILITY
from tickcast.state import State, put_back

(N, VOID, AE, AE_NAIVE, APE, SE, SE_PCT, MAPE, MAPE_N, SMAPE, Y, YY, MOVE, MOVE_2, WIDTH, DIRECTED, HITS, UPS,
 SCALED, ERROR, ERROR_NAIVE, PINBALL, PINBALL_NAIVE, OUTSIDE, JUDGED, BLOCKS, BLOCK_N, BLOCK_N2, BLOCK_D, BLOCK_D2,
 BLOCK_HD, BLOCK_H2, COVERED) = range(33)  # fmt: skip
"""Columns. From SCALED to PINBALL_NAIVE in one-bar moves, of labels whose window has such a unit; JUDGED are these,
since there are sums by level. Of blocks: their labels, those with a direction, those with the right one, and products.
COVERED and what follows lie by level, then by pair of levels: see `LevelColumns`."""
BEFORE_LEVELS = 23  # columns of FORMAT 6, which COVERED followed

SPANS_NS = {"minute": 60 * 10**9, "hour": 3600 * 10**9, "day": 86_400 * 10**9}
CELL_NS = (5 * 10**9, 300 * 10**9, 3600 * 10**9)  # of event time, one for each span
CELLS = (12, 12, 24)
FIRST = (0, 12, 24, 48)  # where the cells of each span lie, then those of marks
MARK_CELLS = 20  # that the rolling window consists of, and the one that is filling
NEVER = -(1 << 62)  # the number of a cell that holds nothing
EMPTY, PASSED_ON, GATHERED = 0, 1, 2  # what a cell has had since the last mark
LARGEST, MOST_MOVES = 1e135, 1e30  # of a price, and of one-bar moves: squares of larger ones have no sum
(CLASSED, CLASS_RIGHT, CLASS_LOST, CAME) = range(4)
"""Columns of classes: labels, those whose likeliest class came, what they lost, then how often each class came, then by
confidence how much oftener it was right than it said."""
GAPS = CAME + len(LABELS)
NEAR_ZERO = 1e-9  # an actual this small relative to its anchor has no meaningful percentage error
START, LONGEST = 0, 1
BLOCK_SHARES = 3  # of an open block: labels, those with a direction, right ones, then those inside by pair


class ScoreTally(NamedTuple):
    """The first axis is the cell (partition, model, group), J are the scored steps and W the columns."""

    current: F64  # [cells, J, W] since the last time at which event time or a mark went on
    at: I64  # [cells] event time of that
    gathered: U8  # [cells]
    ring: F64  # [cells, FIRST[-1] + cells of marks, J, W]
    number: I64  # [cells, FIRST[-1] + cells of marks] which cell of all it is: event time by its length, or marks
    whole: F64  # [cells, J, W] since the start
    marks: I64  # [cells] at which there was something
    block: F64  # [cells, J, BLOCK_SHARES + pairs] the open one
    block_at: I64  # [cells, J, 2] where it began, and its longest label; 0 = none is open
    class_current: F64  # [cells, K] of the last step, as those of labels
    class_ring: F64  # [cells, FIRST[-1] + cells of marks, K]
    class_whole: F64  # [cells, K]


class LevelColumns(NamedTuple):
    """Where the columns by level and by pair of levels, outermost first, begin."""

    losses: int  # in one-bar moves
    inside: int
    widths: int  # in one-bar moves
    block_in: int  # inside times labels, by block
    block_i2: int
    columns: int


def level_columns(levels: int) -> LevelColumns:
    pairs, losses = levels // 2, COVERED + levels
    return LevelColumns(losses, *(losses + levels + k * pairs for k in range(5)))


def fresh_tally(cells: int, horizons: int, levels: int, *, marks: int) -> ScoreTally:
    """`marks` cells of marks."""
    shape, ring = (cells, horizons, level_columns(levels).columns), FIRST[-1] + marks
    return ScoreTally(
        current=np.zeros(shape), at=np.zeros(cells, np.int64), gathered=np.zeros(cells, np.uint8),
        ring=np.zeros((cells, ring, *shape[1:])), number=np.full((cells, ring), NEVER), whole=np.zeros(shape),
        marks=np.zeros(cells, np.int64), block=np.zeros((cells, horizons, BLOCK_SHARES + levels // 2)),
        block_at=np.zeros((cells, horizons, 2), np.int64), class_current=np.zeros((cells, GAPS + CONFIDENCES)),
        class_ring=np.zeros((cells, ring, GAPS + CONFIDENCES)), class_whole=np.zeros((cells, GAPS + CONFIDENCES)),
    )  # fmt: skip


def put_back_tally(state: State, tally: ScoreTally, at: I64, *, per_cell: int) -> None:
    """What a snapshot holds; one of FORMAT 6 knew each mark, but no event times, levels' losses, and blocks."""
    saved = state.arrays
    if "rolling" not in saved:
        put_back(state, tally, at)
        return
    levels = saved["whole"].shape[-1] - BEFORE_LEVELS
    here = np.r_[:BEFORE_LEVELS, COVERED : COVERED + levels]
    tally.whole[at[:, None], :, here] = np.moveaxis(saved["whole"] + saved["current"], -1, 1)
    tally.marks[at] = saved["marks"]
    kept = saved["rolling"].shape[1]
    for cell, marks in zip(range(len(at)), saved["marks"].tolist(), strict=True):
        for mark in range(max(marks - kept, 0), marks):
            _add(tally, int(at[cell]), mark // per_cell, here, saved["rolling"][cell, mark % kept])
        _add(tally, int(at[cell]), marks // per_cell, here, saved["current"][cell])


def _add(tally: ScoreTally, cell: int, number: int, here: I64, sums: F64) -> None:
    """To a cell of marks."""
    place = FIRST[-1] + number % (tally.ring.shape[1] - FIRST[-1])
    if tally.number[cell, place] != number:
        tally.number[cell, place], tally.ring[cell, place] = number, 0.0
    tally.ring[cell, place][:, here] += sums


@inlined_njit
def _add_to(sums, more, keep):  # type: ignore[no-untyped-def]
    """With `keep` 0 they become what is added."""
    for j in range(sums.shape[0]):
        for c in range(sums.shape[1]):
            sums[j, c] = keep * sums[j, c] + more[j, c]


@lean_njit
def pass_on(tally, per_cell, cell):  # type: ignore[no-untyped-def]
    """What has gathered goes to the cells of its event time and of the open mark, and to the sum of all."""
    current, classes, kinds = tally.current[cell], tally.class_current[cell], len(CELL_NS)
    for kind in range(kinds + 1):
        if kind < kinds:
            number, cells = tally.at[cell] // CELL_NS[kind], CELLS[kind]
        else:
            number, cells = tally.marks[cell] // per_cell, tally.number.shape[1] - FIRST[kinds]
        place = FIRST[kind] + number % cells
        if tally.number[cell, place] > number:
            continue  # it comes too late for this window
        keep = 1.0 if tally.number[cell, place] == number else 0.0
        tally.number[cell, place] = number
        _add_to(tally.ring[cell, place], current, keep)
        for c in range(len(classes)):
            tally.class_ring[cell, place, c] = keep * tally.class_ring[cell, place, c] + classes[c]
    _add_to(tally.whole[cell], current, 1.0)
    for c in range(len(classes)):
        tally.class_whole[cell, c] += classes[c]
        classes[c] = 0.0
    for j in range(current.shape[0]):
        for c in range(current.shape[1]):
            current[j, c] = 0.0
    tally.gathered[cell] = PASSED_ON


@inlined_njit
def reach(tally, per_cell, cell, as_of):  # type: ignore[no-untyped-def]
    """Labels of this event time are added to `current` next."""
    if tally.at[cell] // CELL_NS[0] != as_of // CELL_NS[0] and tally.gathered[cell] == GATHERED:
        pass_on(tally, per_cell, cell)
    tally.at[cell], tally.gathered[cell] = as_of, GATHERED


@lean_njit
def close_mark(tally, per_cell, first, end):  # type: ignore[no-untyped-def]
    """A mark of these cells has passed."""
    for cell in range(first, end):
        if tally.gathered[cell] == GATHERED:
            pass_on(tally, per_cell, cell)
        if tally.gathered[cell] == PASSED_ON:
            tally.gathered[cell] = EMPTY
            tally.marks[cell] += 1


@inlined_njit
def fits(levels, wide, y, point, anchor, unit, truth, reference):  # type: ignore[no-untyped-def]
    """Whether sums can hold a label; `wide` and `truth` are in units of scale, the rest are prices."""
    lowest, highest = wide[0], wide[len(levels) - 1]
    return (
        abs(y) < LARGEST
        and abs(point) < LARGEST
        and abs(anchor) < LARGEST
        and abs(reference) < LARGEST
        and abs(truth) < MOST_MOVES
        and lowest > -MOST_MOVES
        and highest < MOST_MOVES
        and (highest - lowest) * unit < LARGEST
    )


@inlined_njit
def add_label(sums, block, levels, wide, y, point, anchor, unit, truth, reference):  # type: ignore[no-untyped-def]
    """Add one label that fits to a row of sums and to the open block."""
    error, naive, size = y - point, y - anchor, max(abs(anchor), NEAR_ZERO)
    share, move, level = error / size, naive / size, y - reference
    sums[N] += 1.0
    sums[AE] += abs(error)
    sums[AE_NAIVE] += abs(naive)
    sums[APE] += abs(share)
    sums[SE] += error * error
    sums[SE_PCT] += share * share
    sums[Y] += level
    sums[YY] += level * level
    sums[MOVE] += move
    sums[MOVE_2] += move * move
    sums[WIDTH] += (np.float64(wide[len(levels) - 1]) - wide[0]) * unit
    if abs(y) > NEAR_ZERO * size:
        sums[MAPE_N] += 1.0
        sums[MAPE] += abs(error / y)
    both = abs(y) + abs(point)
    if both > 0.0:
        sums[SMAPE] += 2.0 * abs(error) / both
    if naive != 0.0 and point != anchor:
        right = 1.0 if (point - anchor) * naive > 0.0 else 0.0
        sums[DIRECTED] += 1.0
        sums[UPS] += naive > 0.0
        sums[HITS] += right
        block[1] += 1.0
        block[2] += right
    for q in range(len(levels)):
        sums[COVERED + q] += truth <= wide[q]


@inlined_njit
def add_losses(sums, block, levels, wide, truth, loss, loss_naive, median):  # type: ignore[no-untyped-def]
    """Add what a label cost in one-bar moves, what it cost last value, and which intervals held it."""
    count = len(levels)
    pairs, losses = count // 2, COVERED + count
    inside, widths = losses + count, losses + count + pairs
    sums[SCALED] += 1.0
    sums[JUDGED] += 1.0
    sums[ERROR] += abs(truth - wide[median])
    sums[ERROR_NAIVE] += abs(truth)
    sums[PINBALL] += loss
    sums[PINBALL_NAIVE] += loss_naive
    block[0] += 1.0
    for q in range(count):
        beyond = truth - wide[q]
        sums[losses + q] += max(levels[q] * beyond, (levels[q] - 1.0) * beyond)
    for k in range(pairs):
        low, high = np.float64(wide[k]), np.float64(wide[count - 1 - k])
        held = 1.0 if low <= truth <= high else 0.0
        sums[inside + k] += held
        sums[widths + k] += high - low
        block[BLOCK_SHARES + k] += held


@inlined_njit
def add_class(sums, probs, known):  # type: ignore[no-untyped-def]
    """Add one forecast of classes, of which `known` came."""
    likeliest = 0
    for c in range(1, len(probs)):
        if probs[c] > probs[likeliest]:
            likeliest = c
    right, confidence = 1.0 if likeliest == known else 0.0, np.float64(probs[likeliest])
    sums[CLASSED] += 1.0
    sums[CLASS_RIGHT] += right
    sums[CLASS_LOST] -= np.log(max(np.float64(probs[known]), LEAST_PROBABILITY))
    sums[CAME + known] += 1.0
    sums[GAPS + min(int(confidence * CONFIDENCES), CONFIDENCES - 1)] += right - confidence


@inlined_njit
def enter_block(tally, cell, j, asked_ns, as_of):  # type: ignore[no-untyped-def]
    """A label of that question is to be added: to the open block, or to the first of a new one."""
    at = tally.block_at[cell, j]
    if at[LONGEST] == 0:
        at[START] = as_of
    elif (as_of - at[START]) // 2 >= at[LONGEST]:
        _close_block(tally.current[cell, j], tally.block[cell, j])
        at[START], at[LONGEST] = as_of, 0
    at[LONGEST] = max(at[LONGEST], as_of - asked_ns, 1)


@lean_njit
def _close_block(sums, block):  # type: ignore[no-untyped-def]
    pairs = len(block) - BLOCK_SHARES
    crossed = len(sums) - 2 * pairs
    n, directed, right = block[0], block[1], block[2]
    sums[BLOCKS] += 1.0
    sums[BLOCK_N] += n
    sums[BLOCK_N2] += n * n
    sums[BLOCK_D] += directed
    sums[BLOCK_D2] += directed * directed
    sums[BLOCK_HD] += right * directed
    sums[BLOCK_H2] += right * right
    for k in range(pairs):
        held = block[BLOCK_SHARES + k]
        sums[crossed + k] += held * n
        sums[crossed + pairs + k] += held * held
    for k in range(len(block)):
        block[k] = 0.0
