"""The tally's sums: where labels go as event time and marks pass, what a block is, and what is added for one label."""

import math

import numpy as np
import pytest

from tickcast.engine.core import tally

LEVELS = np.array([0.1, 0.5, 0.9])
AT = tally.level_columns(3)
SECOND, HOUR = 10**9, 3600 * 10**9
PER_CELL = 2


def fresh() -> tally.ScoreTally:
    return tally.fresh_tally(2, 1, 3, marks=3)


def add(sums: tally.ScoreTally, as_of: int, n: float = 1.0) -> None:
    tally.reach(sums, PER_CELL, 0, as_of)
    sums.current[0, 0, tally.N] += n


def held(sums: tally.ScoreTally) -> dict[int, float]:
    """Labels by the number of the cell, of every cell that is there."""
    return {
        int(number): float(row[0, tally.N])
        for number, row in zip(sums.number[0], sums.ring[0], strict=True)
        if number != tally.NEVER
    }


def test_labels_go_to_the_cell_of_their_event_time_late_ones_too_and_each_once_to_the_sum_of_all() -> None:
    sums, start = fresh(), 1000 * HOUR
    add(sums, start)
    add(sums, start + 4 * SECOND)
    add(sums, start + 70 * SECOND)
    add(sums, start + 61 * SECOND)  # the first cell of 5 s is given up for it
    add(sums, start + SECOND)  # too late for the minute
    tally.pass_on(sums, PER_CELL, 0)
    five, minutes, hour = start // (5 * SECOND), start // (300 * SECOND), 1000
    assert held(sums) == {five + 14: 1.0, five + 12: 1.0, minutes: 5.0, hour: 5.0, 0: 5.0}
    assert sums.whole[0, 0, tally.N] == 5
    assert not sums.current.any()


def test_a_cell_is_given_up_for_a_newer_one_and_takes_nothing_older() -> None:
    sums = fresh()
    for second in (0, 60, 0, 60):
        add(sums, 1000 * HOUR + second * SECOND)
    tally.pass_on(sums, PER_CELL, 0)
    fives = [number for number in held(sums) if number > 100_000]
    newest = (1000 * HOUR + 60 * SECOND) // (5 * SECOND)
    assert {number: held(sums)[number] for number in fives} == {newest: 2.0}
    assert held(sums)[1000] == 4.0


def test_a_mark_at_which_something_came_is_counted_and_fills_a_cell_with_its_neighbours() -> None:
    sums = fresh()
    for mark in range(5):
        if mark != 2:
            add(sums, 1000 * HOUR)
        tally.close_mark(sums, PER_CELL, 0, 2)
    assert sums.marks.tolist() == [4, 0]
    assert [held(sums)[number] for number in (0, 1)] == [2.0, 2.0]
    assert sums.gathered.tolist() == [tally.EMPTY, tally.EMPTY]


def test_a_block_is_at_least_twice_as_long_as_its_longest_label() -> None:
    sums = fresh()
    for settled, asked in [(10, 9), (11, 8), (15, 14), (16, 15), (17, 16), (18, 17)]:
        tally.enter_block(sums, 0, 0, asked, settled)
        sums.block[0, 0] += [1.0, 1.0, settled % 2, 1.0]
    row = sums.current[0, 0]
    # 10, 11 and 15 are less than 2 * 3 apart; 16 and 17 are a block as their labels are of 1
    assert row[[tally.BLOCKS, tally.BLOCK_N, tally.BLOCK_N2]].tolist() == [2.0, 5.0, 9.0 + 4.0]
    assert row[[tally.BLOCK_D, tally.BLOCK_D2, tally.BLOCK_HD, tally.BLOCK_H2]].tolist() == [5.0, 13.0, 8.0, 5.0]
    assert row[[AT.block_in, AT.block_i2]].tolist() == [13.0, 13.0]
    assert sums.block[0, 0].tolist() == [1.0, 1.0, 0.0, 1.0]


def test_what_a_label_adds() -> None:
    sums, block, wide = np.zeros(AT.columns), np.zeros(4), np.array([-1.0, 0.5, 2.0], np.float32)
    label = 104.0, 101.0, 100.0, 2.0, 2.5, 90.0  # truth, point, anchor, unit, truth in units, first price
    tally.add_label(sums, block, LEVELS, wide, *label)
    tally.add_losses(sums, block, LEVELS, wide, 2.5, 0.4, 0.6, 1)
    expected = {
        tally.N: 1, tally.AE: 3, tally.AE_NAIVE: 4, tally.APE: 0.03, tally.SE: 9, tally.SE_PCT: 0.0009,
        tally.MAPE: 3 / 104, tally.MAPE_N: 1, tally.SMAPE: 6 / 205, tally.Y: 14, tally.YY: 196, tally.MOVE: 0.04,
        tally.MOVE_2: 0.0016, tally.WIDTH: 6, tally.DIRECTED: 1, tally.HITS: 1, tally.UPS: 1, tally.SCALED: 1,
        tally.JUDGED: 1, tally.ERROR: 2, tally.ERROR_NAIVE: 2.5, tally.PINBALL: 0.4, tally.PINBALL_NAIVE: 0.6,
        AT.losses: 0.35, AT.losses + 1: 1.0, AT.losses + 2: 0.45, AT.inside: 0, AT.widths: 3,
    }  # fmt: skip
    for column in range(AT.columns):
        assert sums[column] == pytest.approx(expected.get(column, 0.0)), column
    assert block.tolist() == [1.0, 1.0, 1.0, 0.0]


def test_what_a_forecast_of_classes_adds() -> None:
    sums = np.zeros(tally.GAPS + tally.CONFIDENCES)
    tally.add_class(sums, np.array([0.25, 0.25, 0.5], np.float32), 2)
    tally.add_class(sums, np.array([1.0, 0.0, 0.0], np.float32), 1)
    assert sums[: tally.GAPS].tolist() == [2.0, 1.0, pytest.approx(-math.log(0.5) - math.log(1e-12)), 0.0, 1.0, 1.0]
    assert sums[tally.GAPS :].tolist() == [0.0] * 5 + [0.5] + [0.0] * 3 + [-1.0]


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, 1e150), (0, np.nan), (1, np.inf), (2, -1e140), (3, 1e135), (4, -1e31), (4, np.nan), (5, 1e200)],
)
def test_what_no_sum_holds_does_not_fit(place: int, value: float) -> None:
    wide, label = np.array([-1.0, 0.5, 2.0], np.float32), np.array([104.0, 101.0, 100.0, 2.0, 2.5, 90.0])
    assert tally.fits(LEVELS, wide, *label)
    assert not tally.fits(LEVELS, np.array([-np.inf, 0.0, 1.0], np.float32), *label)
    label[place] = value
    assert not tally.fits(LEVELS, wide, *label)
