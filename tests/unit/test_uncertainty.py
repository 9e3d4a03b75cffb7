"""Quantiles that are moved until their coverage is true, and never wildly."""

import numpy as np
import pytest

from tickcast.engine.core import uncertainty as u

LEVELS = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
HORIZONS = np.array([1, 4], np.int64)
MEDIAN = 2


def run(raw_width: float, *, bars: int, labels: int = 5, seed: int = 0) -> tuple[u.Conformal, np.ndarray]:
    """Standard normal truths against raw quantiles of another width; returns state and coverage of the second half."""
    rng = np.random.default_rng(seed)
    state = u.fresh(1, 2, list(LEVELS))
    raw = np.outer(np.ones(4), raw_width * np.array([-1.64, -0.67, 0.0, 0.67, 1.64]))
    wide = np.empty_like(raw)
    below = np.zeros(5)
    for bar in range(bars):
        u.widen(state.move, 0, LEVELS, HORIZONS, MEDIAN, raw[None], wide[None], 0)
        for truth in rng.standard_normal(labels):
            for j, h in enumerate(HORIZONS):
                u.note(state, 0, j, LEVELS, raw[h - 1], wide[h - 1], truth)
            if bar >= bars // 2:
                below += truth <= wide[0]
        u.adapt(state, 0, len(state.labels), LEVELS, HORIZONS, 0.01, 500.0, 20.0, True)
    return state, below / (labels * (bars - bars // 2))


@pytest.mark.parametrize("raw_width", [0.2, 1.0, 5.0])
def test_coverage_becomes_nominal_whether_the_model_is_over_or_under_confident(raw_width: float) -> None:
    _, covered = run(raw_width, bars=2000)
    np.testing.assert_allclose(covered, LEVELS, atol=0.02)


def test_nothing_moves_before_enough_labels_and_the_median_never_does() -> None:
    state, _ = run(0.2, bars=20)
    assert not state.move.any()
    state, _ = run(0.2, bars=200)
    assert state.move[0, 0, 0] > 0.5
    assert not state.move[:, :, MEDIAN].any()


def test_quantiles_stay_sorted_and_do_not_cross_the_median_when_the_model_is_far_too_wide() -> None:
    state, _ = run(30.0, bars=500)
    raw = np.outer(np.ones(4), np.array([-0.1, -0.05, 0.0, 0.05, 0.1]))
    out = np.empty_like(raw)
    u.widen(state.move, 0, LEVELS, HORIZONS, MEDIAN, raw[None], out[None], 0)
    assert (np.diff(out, axis=1) >= 0).all()
    assert (out[:, MEDIAN] == raw[:, MEDIAN]).all()


def test_widths_and_miss_rates_are_bounded_when_every_truth_is_absurd() -> None:
    state = u.fresh(1, 2, list(LEVELS))
    raw = np.zeros((4, 5))
    for _ in range(400):
        u.note(state, 0, 0, LEVELS, raw[0], raw[0], 1e9)
        u.adapt(state, 0, len(state.labels), LEVELS, HORIZONS, 0.01, 500.0, 20.0, True)
    assert np.abs(state.move[0, 0]).max() <= 20.0
    assert state.alpha.min() >= u.ALPHA_MIN
    assert state.alpha.max() <= u.ALPHA_MAX


def test_state_is_untouched_between_marks() -> None:
    state, _ = run(1.0, bars=100)
    before = [column.copy() for column in (state.histogram, state.alpha, state.move)]
    u.note(state, 0, 0, LEVELS, np.zeros(5), np.zeros(5), 3.0)
    for was, now in zip(before, (state.histogram, state.alpha, state.move), strict=True):
        np.testing.assert_array_equal(was, now)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_the_histogram_gives_the_quantile_of_what_went_in_within_its_bins(share: float) -> None:
    rng = np.random.default_rng(3)
    scores = rng.standard_normal(20_000)
    state = u.fresh(1, 1, list(LEVELS))
    for score in scores:
        u.note(state, 0, 0, LEVELS, np.zeros(5), np.zeros(5), score)
    u.adapt(state, 0, len(state.labels), LEVELS, np.array([1], np.int64), 0.01, 500.0, 20.0, True)
    found = u.quantile(state.histogram[0, 0, 4], share)
    assert found == pytest.approx(np.quantile(scores, share), abs=0.05)


def test_a_score_lies_in_its_bin_and_what_is_no_number_lies_in_one_too() -> None:
    for score in (*np.linspace(-70.0, 70.0, 1001), 1e-12, -1e-300):
        inside = min(max(score, -u.REACH), u.REACH)
        bins = (np.arcsinh(inside / u.CORE) / u.SPAN + 1.0) * 0.5 * (u.BINS - 1)
        assert u._position(score) == pytest.approx(bins, abs=1e-9)
    assert [u._position(x) for x in (np.inf, -np.inf, np.nan)] == pytest.approx([u.BINS - 1, 0.0, 0.0], abs=1e-9)


@pytest.mark.parametrize(
    ("row", "expected"),
    [([-2.0, -1.0, 0.0, 1.0, 2.0], 0.5), ([1.0, 2.0, 3.0, 4.0, 5.0], 0.95), ([-5.0, -4.0, -3.0, -2.0, -1.0], 0.95),
     ([0.0] * 5, 0.5), ([-1.0, 1.0, 2.0, 3.0, 4.0], 0.85)],
)  # fmt: skip
def test_confidence_is_the_probability_on_the_points_side_of_the_anchor(row: list[float], expected: float) -> None:
    assert u.confidence(LEVELS, np.array(row)) == pytest.approx(expected)


def test_coverage_holds_at_long_steps_whose_labels_come_late_and_overlap() -> None:
    """A walk that the raw quantiles describe exactly: nothing has to be moved, and swings would cost coverage."""
    ahead = np.array([1, 8, 32, 96], np.int64)
    symbols, bars, settled_from = 3, 12_000, 2_400
    walk = np.cumsum(np.random.default_rng(5).standard_normal((bars, symbols)), axis=0)
    state = u.fresh(1, len(ahead), list(LEVELS))
    raw = np.outer(np.sqrt(np.arange(1, ahead[-1] + 1)), np.array([-1.645, -0.674, 0.0, 0.674, 1.645]))
    told = np.empty((bars, len(ahead), len(LEVELS)))  # what was published at each bar, by step
    wide, covered, n = np.empty_like(raw), np.zeros(len(ahead)), np.zeros(len(ahead))
    for bar in range(bars):
        for j, step in enumerate(ahead[ahead <= bar]):
            quantiles = told[bar - step, j]
            for truth in walk[bar] - walk[bar - step]:
                u.note(state, 0, j, LEVELS, raw[step - 1], quantiles, truth)
                if bar >= settled_from:
                    covered[j] += quantiles[0] <= truth <= quantiles[-1]
                    n[j] += 1
        u.adapt(state, 0, 1, LEVELS, ahead, 0.01, 500.0, 20.0, True)
        u.widen(state.move, 0, LEVELS, ahead, MEDIAN, raw[None], wide[None], 0)
        told[bar] = wide[ahead - 1]
    assert n.min() > 100 * ahead[-1]
    np.testing.assert_allclose(100 * covered / n, 90, atol=2)


def test_the_spread_of_a_step_without_labels_follows_from_that_of_the_step_before() -> None:
    state, _ = run(0.2, bars=60)  # enough labels of step 1, too few of step 4
    assert [u.is_warm(labels, h) for labels, h in zip(state.labels[0], HORIZONS, strict=True)] == [True, False]
    assert state.move[0, 0, 0] > 0.5
    np.testing.assert_allclose(state.move[0, 1], 2 * state.move[0, 0])
