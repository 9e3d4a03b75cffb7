"""The arithmetic of the classical models against textbook forms, plain loops and the libraries themselves."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.svm import SVR

from tickcast.columns import F64, Inputs
from tickcast.records import ModelCard
from tickcast_plugins.models import arima, kalman, trees
from tickcast_plugins.models.classical import RowSample
from tickcast_plugins.models.holt import ALPHA, BETA, DAMPING, Holt
from tickcast_plugins.models.prophet_like import ProphetLike
from tickcast_plugins.models.recursion import unit
from tickcast_plugins.models.rung import follow
from tickcast_plugins.models.smoothing import Form, drifted, smooth, smoothed
from tickcast_plugins.models.svr import SupportVectors
from tickcast_plugins.models.window_rows import recent_moves, scaled_moves
from trainkit import Progress

HORIZON = 5


def card(kind: str, **params: Any) -> ModelCard:
    return ModelCard(
        name=kind, kind=kind, version="", digest="", framework="onnx", bars={}, transform="difference", lookback=24,
        horizon=HORIZON, levels=[0.1, 0.5, 0.9], features=[], model_params=params,
    )  # fmt: skip


def noise(rows: int = 6, bars: int = 24) -> F64:
    return np.random.default_rng(3).standard_normal((rows, bars))


def sample(rows: int, columns: int) -> RowSample:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((rows, columns)).astype(np.float32)
    y = np.sin(x[:, :1].astype(np.float64)) * np.arange(1, HORIZON + 1) + 0.1 * rng.standard_normal((rows, HORIZON))
    return RowSample(x, y)


@pytest.mark.parametrize("is_level", [False, True])
def test_moves_and_scale_of_a_window_are_those_that_the_rungs_see(is_level: bool) -> None:
    rng = np.random.default_rng(5)
    past = rng.standard_normal((40, 24)).astype(np.float32)
    usable = rng.random((40, 24)) > 0.3
    usable[0], usable[1, :20], usable[2] = False, False, True
    past[~usable] = np.nan
    moves, scale = scaled_moves(past, usable, is_level=is_level)
    path = np.empty(24)
    for row in range(40):
        expected = follow(past[row][:, None], usable[row].astype(np.float32), is_level, path)
        assert scale[row, 0] == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose((moves[row] * scale[row]).cumsum()[-1], path[-1] - path[0] * is_level, atol=1e-5)
        np.testing.assert_allclose(moves[row, 1:] * scale[row], np.diff(path), atol=1e-5)


def test_recent_moves_are_the_newest_and_sums_in_the_unit_of_a_random_walk() -> None:
    seen = noise(1, 24)[0] @ recent_moves(24)
    moves = noise(1, 24)[0]
    np.testing.assert_array_equal(seen[:12], moves[-12:])
    assert seen[12] == pytest.approx(moves[-2:].sum() / np.sqrt(2))
    assert seen[-1] == pytest.approx(moves.sum() / np.sqrt(24))


def test_packed_trees_answer_as_sklearn_does_even_on_a_threshold() -> None:
    train = sample(600, 4)
    forest = RandomForestRegressor(7, max_depth=5, random_state=0).fit(train.x, train.y)
    found = trees.packed([tree.tree_ for tree in forest.estimators_], 1 / 7)
    x = sample(400, 4).x[::-1].copy()
    x[:50, :] = found["threshold"][:50, None]
    np.testing.assert_allclose(trees.ensemble(found, x), forest.predict(x), atol=1e-5)


def test_a_threshold_is_rounded_to_the_side_that_changes_no_comparison() -> None:
    values = np.random.default_rng(0).standard_normal(1000)
    rounded = trees.rounded_down(values)
    for x in (rounded, np.nextafter(rounded, np.float32(9)), np.nextafter(rounded, np.float32(-9))):
        np.testing.assert_array_equal(x <= rounded, x.astype(np.float64) <= values)


def test_support_vectors_answer_as_sklearn_does() -> None:
    train = sample(300, 6)
    model = SupportVectors(card("svr"))
    model.arrays = model.learn(train, train, Progress())
    gamma = float(model.arrays["gamma"])
    for step in range(HORIZON):
        own = np.sqrt(step + 1)
        direct = SVR(C=0.3, epsilon=0.5, gamma=gamma).fit(train.x, train.y[:, step] / own).predict(train.x) * own
        np.testing.assert_allclose(model.point(train.x)[:, step], direct, atol=1e-5)


def test_the_kalman_filter_is_the_textbook_s_in_matrices() -> None:
    logs, path = np.log([0.4, 0.2, 0.05]), noise().cumsum(axis=1)
    step, seen = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 0.0]])
    ahead, surprise = np.empty((len(path), HORIZON)), 0.0
    for row, own in enumerate(path):
        state, spread = np.array([own[0], 0.0]), np.diag([0.4, kalman.TREND_PRIOR])
        for value in own[1:]:
            state, spread = step @ state, step @ spread @ step.T + np.diag([0.2, 0.05])
            variance = (seen @ spread @ seen.T).item() + 0.4
            error, gain = value - (seen @ state).item(), (spread @ seen.T / variance)[:, 0]
            state, spread = state + gain * error, spread - np.outer(gain, gain) * variance
            surprise += 0.5 * (np.log(variance) + error**2 / variance)
        ahead[row] = [(seen @ np.linalg.matrix_power(step, h) @ state).item() - own[-1] for h in range(1, HORIZON + 1)]
    np.testing.assert_allclose(kalman.filtered(path, logs, HORIZON), ahead, atol=1e-9)
    assert kalman.surprise(path, logs) == pytest.approx(surprise)


def test_a_level_without_slope_forecasts_a_constant() -> None:
    ahead = kalman.filtered(noise().cumsum(axis=1), np.log([0.4, 0.2]), HORIZON)
    np.testing.assert_array_equal(ahead, np.broadcast_to(ahead[:, :1], ahead.shape))


def logit(value: float) -> float:
    return float(np.log(value / (1 - value)))


def test_a_damped_trend_is_the_holt_rung_s() -> None:
    moves = noise().astype(np.float32)
    form = Form(trend=True, damped=True, season=0)
    raw = np.array([logit(ALPHA), logit(BETA), logit((DAMPING - 0.8) / (0.998 - 0.8))])
    empty = np.empty((len(moves), 0), np.float32)
    rung = Holt("difference", HORIZON, [0.5], 1)
    expected = rung.predict(Inputs(moves[:, :, None], np.ones_like(moves), empty, empty))[:, :, 0]
    np.testing.assert_allclose(smoothed(moves.cumsum(axis=1), form, raw, HORIZON), expected, atol=1e-4)


def test_a_repeating_season_is_carried_on_without_error() -> None:
    form = Form(trend=False, damped=False, season=8)
    pattern = np.array([0.0, 2, 3, 1, -1, -3, -2, 0])
    path = np.tile(pattern, 4)[None, :29]  # it ends in mid-season
    raw = np.array([-2.0, 0.0])
    np.testing.assert_allclose(smooth(path, form, raw)[0], 0, atol=1e-12)
    expected = np.tile(pattern, 5)[29 : 29 + HORIZON] - path[0, -1]
    np.testing.assert_allclose(smoothed(path, form, raw, HORIZON)[0], expected, atol=1e-12)


def test_theta_is_simple_smoothing_with_a_part_of_the_straight_line() -> None:
    path, raw = noise().cumsum(axis=1), np.array([0.3, -0.4])
    rate, part = unit(raw)
    for own, found in zip(path, drifted(path, raw, HORIZON)):
        level, bars = own[0], len(own)
        for value in own[1:]:
            level += rate * (value - level)
        slope = np.polyfit(np.arange(bars), own, 1)[0]
        steps = np.arange(HORIZON) + (1 - (1 - rate) ** bars) / rate
        np.testing.assert_allclose(found, level - own[-1] + part * slope * steps, atol=1e-9)


def test_an_autoregression_fades_as_its_powers_do() -> None:
    moves = noise()
    powers = (0.5 ** np.arange(1, HORIZON + 1)).cumsum()
    expected = moves[:, -1:] * powers
    ar, ma = arima.Orders(1, 0, 0, 0, 0, 0).polynomials(np.array([np.arctanh(0.5)]))
    np.testing.assert_allclose(arima.foreseen(moves, ar, ma, 0, HORIZON), expected)


def test_a_moving_average_forgets_after_one_step() -> None:
    moves = noise()
    ar, ma = arima.Orders(0, 1, 0, 0, 0, 0).polynomials(np.array([np.arctanh(-0.4)]))
    error = 0.0
    for t in range(moves.shape[1]):
        error = moves[:, t] + 0.4 * error
    expected = np.repeat((-0.4 * error)[:, None], HORIZON, axis=1)
    np.testing.assert_allclose(arima.foreseen(moves, ar, ma, 0, HORIZON), expected)


def test_a_seasonal_difference_repeats_the_moves_of_the_last_season() -> None:
    moves = noise()
    ar, ma = arima.Orders(0, 0, 0, 1, 0, 8).polynomials(np.zeros(0))
    found = arima.foreseen(moves, ar, ma, 8, HORIZON)
    np.testing.assert_allclose(found, moves[:, -8 : -8 + HORIZON].cumsum(axis=1))


def test_any_numbers_give_a_stationary_process() -> None:
    for raw in np.random.default_rng(1).normal(0, 2, (200, 3)):
        assert (np.abs(np.roots([1, *-arima.coefficients(raw)])) < 1).all()


class Truth(NamedTuple):
    ar: float
    ma: float


@pytest.mark.parametrize("truth", [Truth(-0.6, 0.0), Truth(0.0, 0.5), Truth(0.7, -0.3)])
def test_conditional_least_squares_finds_the_process_that_made_the_moves(truth: Truth) -> None:
    rng = np.random.default_rng(2)
    shocks, moves = rng.standard_normal((100, 80)), np.zeros((100, 80))
    for t in range(1, 80):
        moves[:, t] = truth.ar * moves[:, t - 1] + shocks[:, t] + truth.ma * shocks[:, t - 1]
    orders = arima.Orders(1, 1, 0, 0, 0, 0)
    _, raw = arima.fitted(moves[:, 30:], orders, 3)
    ar, ma = orders.polynomials(raw)
    assert ar[0] + ma[0] == pytest.approx(truth.ar + truth.ma, abs=0.05)
    if truth.ar and truth.ma:
        assert (ar[0], ma[0]) == pytest.approx(truth, abs=0.1)


def test_least_squares_find_order_and_coefficients_of_an_autoregression() -> None:
    rng = np.random.default_rng(6)
    moves = np.zeros((300, 60))
    for t in range(2, 60):
        moves[:, t] = 0.5 * moves[:, t - 1] - 0.3 * moves[:, t - 2] + rng.standard_normal(300)
    forecast = arima.Ar(card("ar")).estimate(moves[:, -24:], np.zeros((300, HORIZON)), Progress())
    one = forecast(np.eye(24))[:, 0]  # the weight of each move in the next one
    assert one[-1] == pytest.approx(0.5, abs=0.03)
    assert one[-2] == pytest.approx(-0.3, abs=0.03)


def test_a_curve_without_penalty_carries_lines_and_seasons_on() -> None:
    model = ProphetLike(card("prophet_like", periods=[8], knots=0, harmonics=1))
    bars = np.arange(-23, HORIZON + 1)
    whole = 0.3 * bars + np.sin(2 * np.pi * bars / 8)
    seen = np.diff(whole[:24], prepend=0.0)
    bent, level = model.curve(1.0)
    np.testing.assert_allclose(seen @ bent, whole[24:] - whole[23], atol=0.15)
    np.testing.assert_allclose(seen @ level, 0, atol=0.1)
