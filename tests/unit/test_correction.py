"""Points are corrected by what they were off of late: as a plain computation has it, never by chance, never wildly."""

from typing import Any

import numpy as np
import pytest

from kit import T0, Off, Served, rung, settings, walk
from tickcast.engine.core import correction as c
from tickcast.engine.core import uncertainty as u
from tickcast.engine.core.events import Ask
from tickcast.engine.core.scorekeeper import Scorekeeper
from tickcast.errors import Quality
from tickcast.records import Command

LEVELS, HORIZONS, MEDIAN, MEMORY = np.array([0.05, 0.25, 0.5, 0.75, 0.95]), np.array([1, 4], np.int64), 2, 500.0
SMALL = {"window__lookback": 12, "forecast__horizon": 4, "bars__every_ms": 500, "inference__bias_correction": True}
OFF = 0.6  # one-bar moves


def served(ticks: Any, *, chunk: int = 500, by: float = OFF, **changed: object) -> Served:
    s = settings(**{**SMALL, **changed})
    return Served(s, ticks, chunk=chunk, runners=[Off(rung("naive", s), by=by), rung("naive", s)])


def keep(errors: np.ndarray, *, point: float = -0.4, labels: int = 3) -> u.Conformal:
    """The state after bars with these errors of `labels` symbols each, of which the first step's count once a bar."""
    state = u.fresh(1, len(HORIZONS), LEVELS.tolist())
    for bar in errors:
        for error in bar[:labels]:
            for j in range(len(HORIZONS)):
                state.arrived[0, j] += 1.0
                c.note_point(state, 0, j, MEDIAN, point, point + error)
        c.adapt_points(state, 0, 1, MEDIAN, HORIZONS, MEMORY, True)
        state.arrived[:] = 0.0
    return state


def plainly(errors: np.ndarray, horizon: int) -> float:
    """The same from a sorted list of errors, each with its weight."""
    bars, labels = errors.shape
    weight = np.repeat((1 - 1 / (MEMORY * horizon)) ** np.arange(bars - 1, -1, -1.0), labels) / labels
    order = np.argsort(errors.ravel())
    value, reached = errors.ravel()[order], np.cumsum(weight[order])
    total = reached[-1]
    if total < u.WARM_LABELS * horizon:
        return 0.0
    middle, away = np.interp(0.5 * total, reached, value), 0.5 * c.SURE * np.sqrt(horizon / total)
    unsure = abs(middle - np.interp((0.5 - np.sign(middle) * away) * total, reached, value))
    return float(middle * max(1 - (unsure / middle) ** 2, 0.0))


@pytest.mark.parametrize("off", [0.0, 0.05, 0.3, -1.0])
@pytest.mark.parametrize("bars", [10, 60, 700])
def test_it_is_what_a_plain_computation_has(off: float, bars: int) -> None:
    errors = off + np.random.default_rng(bars).standard_normal((bars, 3))
    move = keep(errors).move[0, :, MEDIAN]
    for j, horizon in enumerate(HORIZONS):
        assert move[j] == pytest.approx(plainly(errors, int(horizon)), abs=0.02)


def test_what_is_counted_is_shared_between_two_bins_and_forgotten() -> None:
    state = u.fresh(1, 1, LEVELS.tolist())
    u.count_score(state.pending, 0, 0, MEDIAN, 0.7)
    bins = np.flatnonzero(state.pending[0, 0, MEDIAN])
    assert bins[1] - bins[0] == 1
    assert state.pending.sum() == 1.0
    keep_part = u.kept_at(50.0, 4, 2.0)
    assert keep_part == (1 - 1 / 200) ** 2
    u.fold_in(state, 0, 0, MEDIAN, keep_part, 0.5)
    assert (state.histogram.sum(), state.pending.sum()) == (0.5, 0.0)
    u.fold_in(state, 0, 0, MEDIAN, keep_part, 0.5)
    assert state.histogram.sum() == pytest.approx(0.5 * keep_part)
    assert u.quantile(state.histogram[0, 0, MEDIAN], 0.5) == pytest.approx(0.7, abs=0.05)


def test_errors_that_may_be_chance_correct_next_to_nothing() -> None:
    found = [keep(np.random.default_rng(seed).standard_normal((1000, 1))).move[0, :, MEDIAN] for seed in range(20)]
    assert np.mean(np.array(found) != 0) < 0.3
    assert np.mean(np.array(found) ** 2) < 0.02**2  # of errors of 1


def test_it_is_bounded_and_no_number_counts_nothing() -> None:
    wild = keep(np.full((200, 2), 1e30)).move[0, :, MEDIAN]
    np.testing.assert_allclose(wild, c.MOST_CORRECTED * np.sqrt(HORIZONS))
    assert not keep(np.full((200, 2), np.nan)).histogram.any()


def test_a_point_that_is_last_value_is_never_corrected() -> None:
    assert not keep(np.full((300, 2), 1.0), point=0.0).histogram.any()
    move = np.full((1, 2, 5), 0.5)
    raw = np.zeros((1, 4, 5)) + np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    before = raw.copy()
    assert not c.correct(move, 0, HORIZONS, MEDIAN, raw, 0)
    np.testing.assert_array_equal(raw, before)


def test_all_quantiles_of_a_step_move_alike_and_between_scored_steps_by_what_lies_between() -> None:
    move = np.zeros((1, 2, 5))
    move[0, :, MEDIAN] = 0.3, 0.9
    raw = np.full((1, 6, 5), 0.1) + np.arange(5)
    before = raw.copy()
    assert c.correct(move, 0, HORIZONS, MEDIAN, raw, 0)
    np.testing.assert_allclose((raw - before)[0], np.array([0.3, 0.5, 0.7, 0.9, 0.9, 0.9])[:, None].repeat(5, 1))
    assert u.between(HORIZONS, 1, 0) == (0, 1, pytest.approx(1 / 3))
    assert u.between(HORIZONS, 5, 0) == (1, 1, 0.0)


def test_a_planted_error_is_gone_within_two_hundred_bars_and_the_band_holds_what_it_says() -> None:
    """Of every symbol; the other half of the forecasts is last value's, which is never touched."""
    ticks = walk(60_000, 5, seed=3)
    found, without = served(ticks), served(ticks, inference__bias_correction=False)
    rows = found.forecasts.take(found.forecasts.model == 0)
    age = rows.ordinal - rows.ordinal.min()
    point = np.log(rows.quantiles[:, 0, MEDIAN] / rows.anchor) / rows.scale
    assert point[age < 20].mean() == pytest.approx(-OFF, abs=0.05)
    assert abs(point[age > 200].mean()) < 0.1 * OFF
    assert ((rows.flags & Quality.CORRECTED) > 0).mean() > 0.8
    last = found.engine.scorekeeper.accuracy(0, window="rolling")[0]
    assert last.coverage["0.95"] == pytest.approx(0.95, abs=0.03)
    figures = [each.engine.scorekeeper.accuracy(0, window="all")[0] for each in (found, without)]
    assert figures[0].skill > figures[1].skill + 0.05
    assert not (without.forecasts.flags & Quality.CORRECTED).any()


def test_off_there_is_no_trace_of_it() -> None:
    found = served(walk(6000, 5, seed=4), inference__bias_correction=False).engine.scorekeeper
    state = found.snapshot().arrays
    assert state["conformal.move"].any()
    for name in ("histogram", "pending", "move"):
        assert not state[f"conformal.{name}"][:, :, MEDIAN].any()
    assert found.corrections("off") == {}


def test_it_says_how_large_it_is_by_group_and_step() -> None:
    keeper = served(walk(20_000, 5, seed=4)).engine.scorekeeper
    told = keeper.corrections("off")
    assert list(told) == ["all"]
    assert len(told["all"]) == len(keeper.horizons)
    assert told["all"][0] == pytest.approx(OFF, abs=0.1)
    assert keeper.corrections("naive") == keeper.corrections("nobody") == {} or not any(
        keeper.corrections("naive").get("all", [])
    )


def test_who_asks_hears_a_corrected_answer_too() -> None:
    ticks = walk(20_000, 1, seed=5)
    found = served(ticks)
    (answer,) = found.engine.turn([Ask(("S0",), confidence_level=0.9)], T0).answers
    rows = found.forecasts
    last = rows.take(rows.as_of == rows.as_of.max())
    assert answer.as_of[0] == last.as_of[0]
    away = [np.log(each.quantiles[0] / each.anchor[0]) / each.scale[0] for each in (answer, last)]
    np.testing.assert_allclose(*away, atol=0.1)  # a mark has passed since
    assert abs(away[0][0, MEDIAN]) < 0.5 * OFF
    assert answer.flags[0] & Quality.CORRECTED
    assert answer.interval is not None
    np.testing.assert_allclose(answer.interval[0], answer.quantiles[0][:, [0, 4]], rtol=1e-9)


def test_a_shadow_has_its_own_and_brings_it_along() -> None:
    s, ticks = settings(**SMALL), walk(20_000, 5, seed=6)
    found = Served(s, [], chunk=500, runners=[Off(rung("naive", s), by=OFF), rung("naive", s)])
    engine = found.engine
    engine.install(Off(rung("naive", s), name="other", by=-OFF))
    begin = {"model": "other", "contest": "c", "block_ns": 20 * 10**9}
    engine.turn([Command(id="", command="shadow_model", args=begin)], T0)
    for raw in found.feed.batches(ticks, 500):
        engine.turn([raw], T0)
    assert engine.shadows is not None
    own: Scorekeeper = engine.shadows._keeper  # type: ignore[assignment]
    engine.turn([], T0)
    other, ours = own.corrections("other")["all"], engine.scorekeeper.corrections("off")["all"]
    assert other[0] == pytest.approx(-OFF, abs=0.1)
    assert ours[0] == pytest.approx(OFF, abs=0.1)
    assert not any(engine.scorekeeper.corrections("other")["all"])
    engine.turn([Command(id="", command="use_model", args={"model": "other"})], T0)
    assert engine.scorekeeper.corrections("other")["all"] == other
