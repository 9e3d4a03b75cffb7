"""Figures by hand, on examples small enough for that, and what an interval promises."""

import math

import numpy as np
import pytest

from tickcast import figures
from tickcast.figures import BlockSums

LEVELS = [0.05, 0.25, 0.5, 0.75, 0.95]


def test_means_and_shares_of_nothing_are_nan() -> None:
    assert np.isnan(figures.mean(0.0, 0.0))
    assert np.isnan(figures.rmse([0.0], [0.0])).all()
    assert np.isnan(figures.explained(1.0, 6.0, 12.0, 3.0))  # three times 2: nothing varies
    assert np.isnan(figures.mase(1.0, 0.0))


def test_r2_is_the_share_of_the_variance_that_the_errors_leave() -> None:
    truth, point = np.array([1.0, 2.0, 4.0, 5.0]), np.array([1.0, 3.0, 4.0, 4.0])
    sums = ((truth - point) ** 2).sum(), truth.sum(), (truth**2).sum(), len(truth)
    assert figures.explained(*sums) == pytest.approx(1 - 2 / 10)
    assert figures.rmse(sums[0], 4) == pytest.approx(math.sqrt(0.5))


def test_the_interval_score_is_the_width_and_what_lies_beyond_divided_by_its_tail() -> None:
    quantiles = np.array([[-2.0, -1.0, 0.0, 1.0, 2.0]] * 3)
    loss = figures.losses(np.array(LEVELS), quantiles, np.array([0.5, 3.0, -2.5]))
    outer, inner = (
        figures.winkler(LEVELS, pair, loss[:, pair[0]], loss[:, pair[1]]) for pair in figures.pairs_of(LEVELS).values()
    )
    np.testing.assert_allclose(outer, [4.0, 4.0 + 1.0 / 0.05, 4.0 + 0.5 / 0.05])
    np.testing.assert_allclose(inner, [2.0, 2.0 + 2.0 / 0.25, 2.0 + 1.5 / 0.25])
    np.testing.assert_allclose(figures.pinball(np.array(LEVELS), quantiles, [0.5, 3.0, -2.5]), loss.mean(axis=1))


def test_intervals_are_named_by_what_they_are_to_hold_outermost_first_and_their_ends_belong_to_them() -> None:
    assert figures.pairs_of(LEVELS) == {"0.9": (0, 4), "0.5": (1, 3)}
    assert figures.pairs_of([0.5]) == {}
    flat = np.zeros((2, 5))
    assert figures.held(flat, np.array([0.0, 0.1]), (0, 4)).tolist() == [True, False]


def test_calibration_and_the_better_of_always_up_and_always_down() -> None:
    assert figures.calibration([0.1, 0.5, 0.9], [0.2, 0.5, 0.7]) == pytest.approx(0.9)
    assert figures.directional_base(3, 10) == pytest.approx(0.7)


def blocks(n: np.ndarray, k: np.ndarray) -> BlockSums:
    """Of blocks [blocks, ...]."""
    return BlockSums(*(of.sum(axis=0)[None] for of in (n, n * n, k * n, k * k, np.ones_like(n))))


def test_blocks_of_one_coin_each_give_the_interval_of_so_many_coins() -> None:
    n, k = np.ones(21), np.r_[np.ones(9), np.zeros(12)]
    low, high = figures.wilson(9 / 21, blocks(n, k))
    trials = 20 * (figures.Z / 1.7247) ** 2  # the quantile of Student's t with 20 degrees, from a table
    p, z = 9 / 21, figures.Z
    middle, half = p + z * z / (2 * trials), z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    assert [low, high] == pytest.approx([(middle + side * half) / (1 + z * z / trials) for side in (-1, 1)], rel=1e-4)


def test_labels_that_are_right_and_wrong_together_count_as_one() -> None:
    together = np.r_[np.ones(9), np.zeros(12)]
    one, many = (figures.wilson(9 / 21, blocks(np.full(21, size), size * together)) for size in (1.0, 1000.0))
    np.testing.assert_allclose(one, many)
    apart = figures.wilson(9 / 21, blocks(np.full(21, 1000.0), np.tile([428.0, 429.0, 428.7], 7)))
    assert apart[1] - apart[0] < 0.1 * (one[1] - one[0])
    partitions = BlockSums(*(np.repeat(of, 4, axis=0) for of in blocks(np.ones(21), together)))
    np.testing.assert_allclose(figures.wilson(9 / 21, partitions), one)  # they move together


def test_too_few_blocks_give_no_interval_and_unanimous_ones_no_certainty() -> None:
    assert np.isnan(figures.wilson(0.5, blocks(np.ones(9), np.tile([1.0, 0.0, 0.5], 3)))).all()
    low, high = figures.wilson(1.0, blocks(np.full(10, 5000.0), np.full(10, 5000.0)))
    assert high == 1.0
    assert 0.7 < low < 0.85  # ten times right: Wilson's is 0.79


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_the_interval_holds_the_true_share_as_often_as_it_says(shared: float, share: float) -> None:
    """Blocks of 30 labels, of which so many do what all of the block do."""
    rng, size, runs = np.random.default_rng(7), 30, 2000
    own = rng.random((40, runs, size)) < share
    all_do = rng.random((40, runs, 1)) < share
    k = np.where(rng.random((40, runs, size)) < shared, all_do, own).sum(axis=2).astype(float)
    n = np.full_like(k, size)
    low, high = figures.wilson(k.sum(axis=0) / n.sum(axis=0), blocks(n, k))
    held = float(((low <= share) & (share <= high)).mean())
    assert 0.86 <= held <= 0.97
