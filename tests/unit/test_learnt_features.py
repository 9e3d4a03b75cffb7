"""Features with learnt numbers: their kernels on windows worked out by hand, what they are called, what they refuse."""

import numpy as np
import pytest

from learntkit import LEARNT, UNTIL_NS
from tickcast import plugin
from tickcast.columns import Bars
from tickcast.engine.core.features import FeatureSet
from tickcast.engine.core.windows import UNWRAPPED
from tickcast.errors import BadSettings
from tickcast.settings.engine import FeatureEntry
from tickcast_plugins.features.clusters import describe, locate, nearest, shapes
from tickcast_plugins.features.outliers import anomaly_scores
from tickcast_plugins.features.projections import project
from tickcast_plugins.features.regimes import believe, filtered
from tickcast_plugins.features.seasonal import local_line, odd_from, stl, weights_at_last
from tickcast_plugins.features.series import scaled_moves

FIRST, LAST = np.zeros(1, np.int32), np.array([4])


def bars_of(moves, volume=None):
    """One symbol whose closes make these log returns."""
    close = 100 * np.exp(np.concatenate([[0.0], np.cumsum(moves)]))
    n = len(close)
    volumes = np.array([1.0] * n if volume is None else volume, np.float64)
    return Bars(
        close, close, close, close, volumes, np.ones(n, np.uint8), np.arange(n), np.zeros(1, np.int64), UNWRAPPED
    )


MOVES = [0.01, -0.01, 0.03, 0.03]  # their mean square is 0.0005
SIZE = np.sqrt(0.0005)


def test_moves_are_scaled_by_their_own_root_mean_square():
    moves, size = scaled_moves(bars_of(MOVES).close, 0, 4, 4, UNWRAPPED, np.empty(9))
    assert size == pytest.approx(SIZE)
    assert moves == pytest.approx(np.array(MOVES) / SIZE)
    moves, size = scaled_moves(np.full(5, 7.0), 0, 4, 4, UNWRAPPED, np.empty(9))
    assert (moves.tolist(), size) == ([0, 0, 0, 0], 0.0)


def test_a_projection_is_the_sum_of_products_less_its_offset():
    out = np.empty((1, 2))
    project(bars_of(MOVES), FIRST, LAST, np.array([[1.0, 0, 0, 0], [0, 0, 2, 1]]), np.array([0.0, 5.0]), out)
    assert out[0] == pytest.approx([0.01 / SIZE, 0.09 / SIZE - 5])


def test_a_shape_is_volatility_drift_autocorrelation_and_volume():
    bars, found, out = bars_of(MOVES, volume=[9, 1, 1, 2, 4]), np.empty(4), np.empty((1, 4))
    describe(bars, 0, 4, 4, np.empty(9), found)
    expected = [np.log(SIZE), 0.06 / SIZE / 2, (-1e-4 - 3e-4 + 9e-4) / 0.002, 3 / 4]
    assert found == pytest.approx(expected)
    shapes(bars, FIRST, LAST, 4, out)
    assert out[0].tolist() == found.tolist()


def test_the_nearest_point_is_the_first_of_equals():
    points = np.array([[5.0, 5.0], [0.0, 3.0], [3.0, 0.0]])
    assert nearest(points, np.zeros(2)) == (1, 3.0)
    bars, out = bars_of(MOVES), np.empty((1, 2))
    here = np.empty((1, 4))
    shapes(bars, FIRST, LAST, 4, here)
    points = np.array([[9.0, 9, 9, 9], [0.0, 0, 0, 2]])
    locate(bars, FIRST, LAST, 4, here[0], np.ones(4), points, out)
    assert out[0] == pytest.approx([1, 2])


def test_a_belief_is_the_prior_times_the_density():
    belief = np.empty(2)
    wide = np.array([1.0, 2.0])
    believe(np.array([0.25, 0.75]), 1.0, np.zeros(2), wide, np.log(wide), belief)
    calm, wild = 0.25 * np.exp(-0.5), 0.75 * np.exp(-0.125) / 2
    assert belief == pytest.approx([calm / (calm + wild), wild / (calm + wild)])
    believe(np.array([0.5, 0.5]), 1e6, np.zeros(2), wide / 1e3, np.log(wide / 1e3), belief)
    assert belief == pytest.approx([0, 1]), "a move that no state explains is of the widest"


def test_beliefs_are_filtered_through_the_window():
    out, belief, start, mean, spread = (
        np.empty((1, 2)),
        np.empty(2),
        np.array([0.5, 0.5]),
        np.zeros(2),
        np.array([0.5, 1.5]),
    )
    change = np.array([[0.9, 0.1], [0.3, 0.7]])
    filtered(bars_of(MOVES), FIRST, LAST, 4, start, change, mean, spread, out)
    prior = start
    for move in np.array(MOVES) / SIZE:
        believe(prior, move, mean, spread, np.log(spread), belief)
        prior = belief @ change
    assert out[0] == pytest.approx(belief)


def test_an_anomaly_is_measured_in_robust_deviations():
    out = np.empty((1, 1))
    anomaly_scores(bars_of([0.01, 0.02, 0.03, 0.09]), FIRST, LAST, 4, out)
    assert out[0, 0] == pytest.approx((0.09 - 0.025) / (1.4826 * 0.01))  # distances .015 .005 .005 .065


def test_a_local_line_gives_lines_back():
    place = np.arange(12.0)
    for neighbours in (3, 7, 30):
        matrix = local_line(place, np.array([-1.0, 0, 4.5, 12]), neighbours)
        assert matrix @ (3 * place + 2) == pytest.approx([-1, 2, 15.5, 38])
    assert [odd_from(x) for x in (1, 2, 2.5, 3, 3.1)] == [1, 3, 3, 3, 5]


def test_a_sum_of_line_and_season_is_taken_apart():
    time = np.arange(60)
    season = np.array([3.0, -1, -2, 0])[time % 4]
    values = (100 + 0.5 * time + season)[:, None]
    found, trend = stl(values, 4, 11)
    assert found[-1, 0] == pytest.approx(season[-1], abs=0.05)
    assert trend[-1, 0] == pytest.approx(100 + 0.5 * 59, abs=0.05)
    weights = weights_at_last(60, [4])
    assert weights.sum(axis=1) == pytest.approx([1, 0, 0], abs=1e-9)
    assert weights @ values[:, 0] == pytest.approx([129.5, 0, 0], abs=0.1)


def test_two_seasons_are_told_apart():
    time = np.arange(120)
    short, long = np.array([2.0, -1, -1])[time % 3], np.sin(2 * np.pi * time / 12) * 5
    _, of_three, of_twelve, rest = weights_at_last(120, [3, 12]) @ (50 + short + long)
    assert of_three == pytest.approx(short[-1], abs=0.2)
    assert of_twelve == pytest.approx(long[-1], abs=0.5)
    assert abs(rest) < 0.5


@pytest.mark.parametrize("kind", LEARNT)
def test_other_learnt_numbers_give_channels_of_other_names_and_the_card_has_them_all(kind):
    params = LEARNT[kind]
    (first, *_) = built = FeatureSet([FeatureEntry(kind=kind, **params)], "log_return").specs
    assert first.params == params
    other = {**params, "mean": [params["mean"][0] + 1e-7, *params["mean"][1:]]}
    later = {**params, "learnt_to_ns": UNTIL_NS + 1}
    names = [spec.name for spec in built]
    assert not {*names} & {*plugin.find("features", kind)(**other).names}
    assert names == [*plugin.find("features", kind)(**later).names]


@pytest.mark.parametrize(
    ("kind", "changed", "says"),
    [
        ("pca", {"components": []}, "components must be n x n numbers .*tickcast learn"),
        ("pca", {"components": [[1.0, 2.0], [3.0]]}, "components must be n x n"),
        ("pca", {"mean": [0.0]}, "mean must be 5 numbers"),
        ("pca", {"learnt_to_ns": 0}, "learnt_to_ns must be"),
        ("ica", {"components": [["a"] * 4]}, "components"),
        ("kmeans", {"centers": [[1.0, 2.0]]}, "centers must be n x 4"),
        ("kmeans", {"spread": [1.0, 1.0, 0.0, 1.0]}, "spread must be a number above 0"),
        ("dbscan", {"reach": 0.0}, "reach"),
        ("dbscan", {"cores": [[0.0] * 4] * 501}, "number of cores"),
        ("dbscan", {"cores": [[0.0, 0.0, 0.0, float("nan")]]}, "finite"),
        ("regime", {"mean": [0.0], "spread": [1.0]}, "number of states"),
        ("regime", {"start": [0.5, 0.5, 0.0]}, "start must be probabilities"),
        ("regime", {"transition": [[0.5, 0.4, 0.2]] * 3}, "transition must be probabilities"),
    ],
)
def test_an_entry_that_is_not_whole_is_refused_by_name(kind, changed, says):
    with pytest.raises(BadSettings, match=says):
        FeatureSet([FeatureEntry(kind=kind, **{**LEARNT[kind], **changed})], "log_return")


def test_a_kind_that_must_be_learnt_is_refused_without_its_numbers():
    with pytest.raises(BadSettings, match=r"'pca' missing a required .*argument: 'components'"):
        FeatureSet([FeatureEntry(kind="pca")], "log_return")


@pytest.mark.parametrize("params", [{"periods": [1]}, {"periods": [49]}, {"periods": []}, {"window": 1_001}])
def test_periods_that_do_not_fit_the_window_are_refused(params):
    with pytest.raises(BadSettings, match=r"periods|window"):
        plugin.find("features", "mstl")(**params)
