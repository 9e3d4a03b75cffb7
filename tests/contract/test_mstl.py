"""MSTL: what it takes out by a plain computation, what it finds in a series of known seasons, and what it is worth."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tickcast import plugin
from tickcast.columns import F64
from tickcast.engine.inference.load import open_model
from tickcast.errors import BadSettings
from tickcast.testing import check_model, walks
from tickcast_plugins.models import mstl
from trainkit import autoregressive, job, model_of, series
from zookit import net

DAY, WEEK, LENGTH = 8, 24, 96


def two_seasons(n: int, *, seed: int, noise: float = 0.05, start: int = 0) -> F64:
    """A price with a trend, a day of 8 bars and a week of 24."""
    bar = np.arange(start, start + n)
    daily, weekly = np.sin(2 * np.pi * bar / DAY), 0.7 * np.where(bar % WEEK < 6, 1.5, -0.5)
    return 50 + 0.002 * bar + daily + weekly + np.random.default_rng(seed).normal(0, noise, n)


def by_hand(path: list[float], periods: list[int]) -> list[list[float]]:
    """Each season bar by bar, in plain loops."""
    length = len(path)
    found = [[0.0] * length for _ in periods]
    for _ in range(mstl.ROUNDS):
        for i, period in enumerate(periods):
            left = [path[t] - sum(found[j][t] for j in range(len(periods)) if j != i) for t in range(length)]
            rest = [left[t] - found[i][t] for t in range(length)]
            trend = [line_through(rest, t, int(1.5 * period) | 1) for t in range(length)]
            profile = []
            for phase in range(period):
                values = [left[t] - trend[t] for t in range(phase, length, period)]
                profile.append(sum(values) / len(values))
            middle = sum(profile) / period
            found[i] = [profile[t % period] - middle for t in range(length)]
    return found


def line_through(path: list[float], bar: int, span: int) -> float:
    """At the bar; the further of the nearest bars count less, and the furthest not at all."""
    reach = sorted(abs(t - bar) for t in range(len(path)))[span - 1]
    near = [t for t in range(len(path)) if abs(t - bar) < reach]
    weights = [(1 - (abs(t - bar) / reach) ** 3) ** 1.5 for t in near]
    return float(np.polyfit([t - bar for t in near], [path[t] for t in near], 1, w=weights)[1])


def test_the_matrices_take_out_what_plain_loops_take_out() -> None:
    path = two_seasons(60, seed=1, noise=0.4)
    profiles = mstl.decomposition(60, [5, 12])
    for profile, expected in zip(profiles, by_hand(path.tolist(), [5, 12])):
        found = (path @ profile)[np.arange(60) % profile.shape[1]]
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_seasons_that_are_known_are_found_and_go_on() -> None:
    path = two_seasons(LENGTH, seed=2)
    profiles = mstl.decomposition(LENGTH, [DAY, WEEK])
    found = mstl.seasons(path[None], profiles, np.arange(LENGTH + WEEK))[0]
    bar = np.arange(LENGTH + WEEK)
    true = np.sin(2 * np.pi * bar / DAY) + 0.7 * np.where(bar % WEEK < 6, 1.5, -0.5)
    assert np.abs(found - (true - true.mean())).mean() < 0.1
    daily = (path @ profiles[0])[bar % DAY]
    assert np.corrcoef(daily, np.sin(2 * np.pi * bar / DAY))[0, 1] > 0.97


def test_a_tick_far_off_moves_the_seasons_little() -> None:
    moves = np.diff(two_seasons(LENGTH + 1, seed=3))[None]
    spoilt = moves.copy()
    spoilt[0, 40:42] += np.array([30.0, -30.0])
    profiles, bars = mstl.decomposition(LENGTH, [DAY, WEEK]), np.arange(LENGTH)
    whole = mstl.seasons(mstl.cut(moves, 4.0).cumsum(axis=1), profiles, bars)
    cut = mstl.seasons(mstl.cut(spoilt, 4.0).cumsum(axis=1), profiles, bars)
    uncut = mstl.seasons(spoilt.cumsum(axis=1), profiles, bars)
    assert np.abs(cut - whole).max() < 0.4 * np.abs(uncut - whole).max()
    np.testing.assert_array_equal(mstl.cut(moves, 9.0), moves)


@pytest.mark.parametrize("periods", [[13], [4, 4], [4, 30]])
def test_seasons_that_are_equal_or_do_not_fit_twice_are_refused(periods: list[int]) -> None:
    with pytest.raises(BadSettings, match="fit twice into window.lookback"):
        net("mstl", model_params={"periods": periods})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On two seasons, with widths from errors, as the daemon opens it."""
    folder = tmp_path_factory.mktemp("mstl")
    frames = [series(s, two_seasons(1500, seed=i)) for i, s in enumerate("AB")]
    params = {"periods": [WEEK, DAY]}
    job(folder, frames, kind="mstl", transform="difference", lookback=3 * WEEK, horizon=6, model_params=params)
    return model_of(folder)


def test_fitted_and_served_it_knows_two_seasons_and_keeps_the_contract(fitted: Path, tmp_path: Path) -> None:
    runner = open_model(fitted)
    check_model(lambda _: runner, lookback=3 * WEEK)
    metrics: dict[str, Any] = runner.card.metrics
    assert metrics["skill"] > 0.8
    assert metrics["coverage"]["0.9"] == pytest.approx(0.9, abs=0.08)
    assert "seasons of 8, 24 bars" in runner.card.description


def test_loaded_from_its_weights_it_answers_as_its_graph_does(fitted: Path) -> None:
    runner = open_model(fitted)
    model = plugin.find("models", "mstl")(runner.card)
    model.load(fitted)
    for rows in (1, 7, 256):
        inputs = walks(runner, rows=rows, lookback=3 * WEEK, seed=rows)
        inputs.past[0, 5] = 40.0
        np.testing.assert_allclose(model.predict(inputs), runner.predict(inputs), atol=1e-4)


def test_without_a_season_it_is_smoothing_and_beats_last_value_on_moves_that_turn_back(tmp_path: Path) -> None:
    frames = [series(s, autoregressive(1500, seed=i)) for i, s in enumerate("AB")]
    job(tmp_path, frames, kind="mstl", lookback=32, model_params={})
    card = open_model(model_of(tmp_path)).card
    assert card.metrics["skill"] > 0.065
    assert "seasons of no bars" in card.description


def test_another_seed_takes_other_windows_and_the_same_seed_the_same(tmp_path: Path) -> None:
    frames = [series(s, two_seasons(900, seed=i)) for i, s in enumerate("AB")]
    fit = partial(job, frames=frames, kind="mstl", transform="difference", lookback=48)
    said = []
    for run, seed in (("a", 1), ("b", 1), ("c", 2)):
        fit(tmp_path / run, model_params={"periods": [DAY], "rows": 10}, seed=seed)
        runner = open_model(model_of(tmp_path / run))
        said.append(runner.predict(walks(runner, rows=3, lookback=48)))
    np.testing.assert_array_equal(said[0], said[1])
    assert (said[0] != said[2]).any()
