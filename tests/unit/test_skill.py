"""Skill has one meaning and its opponent is calibrated alike: live, in a report, and where a model is judged."""

from pathlib import Path
from statistics import NormalDist

import msgspec
import numpy as np
import polars as pl
import pytest

from kit import SECOND, T0, Served, Tick, rung, settings
from tickcast import figures
from tickcast.batch.judge import report_figures, statistics
from tickcast.batch.judge.figures import outcomes, ratios
from tickcast.batch.judge.hold_out import evaluate, last_value_said, last_value_widths
from tickcast.batch.train.dataset import load_dataset
from tickcast.columns import F32, F64, Inputs
from tickcast.engine.core import uncertainty
from tickcast.plugin import Runner
from tickcast.questions import Answers, Questions
from tickcast.records import Accuracy
from tickcast.settings import Settings
from trainkit import job, series

HORIZON, BARS = 4, 3000
NORMAL, LAPLACE = NormalDist().inv_cdf, lambda level: np.sign(level - 0.5) * -np.log(2 * min(level, 1 - level)) / 2**0.5


class Shaped(Runner):
    """A last value by another name, whose quantiles are those of another law, or so many times too wide."""

    def __init__(self, s: Settings, law=NORMAL, width: float = 1.0) -> None:  # type: ignore[no-untyped-def]
        self._naive = rung("naive", s)
        self.card = msgspec.structs.replace(self._naive.card, name="shaped", kind="shaped", digest="shaped")
        levels = s.forecast.quantiles
        self._factor = np.array([1.0 if x == 0.5 else width * law(x) / NORMAL(x) for x in levels], np.float32)

    def answer(self, questions: Questions) -> Answers:
        return Answers(self._naive.answer(questions).quantiles * self._factor)


def heavy(n: int, *, seed: int = 3) -> list[Tick]:
    """Each tick a bar; moves of Student's t with three degrees of freedom."""
    moves = np.random.default_rng(seed).standard_t(3, n)
    price = 100 * np.exp(1e-3 * np.cumsum(moves))
    return [("S", T0 + i * SECOND, float(p), 1.0) for i, p in enumerate(price)]


def options(**more: object) -> Settings:
    return settings(
        bars__kind="tick", window__lookback=48, forecast__horizon=HORIZON, score__adapt_every_bars=16, **more
    )


def test_qlike_is_least_where_the_spread_is_the_true_one_and_too_narrow_costs_more() -> None:
    error = np.random.default_rng(1).laplace(0, 2.0, 200_000)
    true = 2.0 * 2**0.5
    mean = {factor: float(figures.qlike(factor * true, error).mean()) for factor in (0.5, 0.9, 1.0, 1.1, 2.0)}
    assert min(mean, key=lambda factor: mean[factor]) == 1.0
    assert mean[0.5] > mean[2.0]


def test_width_and_qlike_of_a_judged_model_are_those_of_a_plain_loop() -> None:
    draw, levels = np.random.default_rng(4), [0.1, 0.4, 0.5, 0.8]
    own, naive = (np.sort(draw.normal(size=(30, 2, 4)), axis=2).astype(np.float32) for _ in range(2))
    target, scale = draw.normal(size=(30, 2)).astype(np.float32), draw.uniform(0.5, 2.0, 30)
    scale[3] = figures.SCALE_FLOOR  # it never moved
    found = ratios(outcomes(own, naive, target, scale, levels).sum(axis=(0, 1)))
    for suffix, quantiles in (("", own), ("_naive", naive)):
        widths, losses = [], []
        for row in range(30):
            for step in range(2 if row != 3 else 0):
                low, point, high = (float(quantiles[row, step, level]) / scale[row] for level in (0, 2, 3))
                spread = (high - low) / (NormalDist().inv_cdf(0.8) - NormalDist().inv_cdf(0.1))
                error = float(target[row, step]) / scale[row] - point
                widths.append(high - low)
                losses.append(error**2 / spread**2 + np.log(spread**2))
        assert found["width" + suffix] == pytest.approx(np.mean(widths), rel=1e-5)
        assert found["qlike" + suffix] == pytest.approx(np.mean(losses), rel=1e-4)


def test_a_single_level_has_no_width_to_judge() -> None:
    point = np.zeros((5, 2, 1), np.float32)
    found = ratios(outcomes(point, point, np.ones((5, 2), np.float32), np.ones(5), [0.5]).sum(axis=(0, 1)))
    assert np.isnan(found["qlike"])
    assert found["width"] == 0


def test_the_loss_of_a_kernel_is_that_of_arrays() -> None:
    draw, levels = np.random.default_rng(2), np.array([0.05, 0.5, 0.9])
    quantiles, truth = np.sort(draw.normal(size=(50, 3))), draw.normal(size=50)
    one_by_one = [figures.pinball_of.py_func(levels, *label) for label in zip(quantiles, truth, strict=True)]
    np.testing.assert_allclose(figures.pinball(levels, quantiles, truth), one_by_one)
    assert np.isnan(figures.skill([1.0, 0.0], [0.0, 0.0])).all()
    assert figures.skill(1.0, 2.0) == 0.5


def test_last_values_quantiles_are_moved_outward_kept_in_order_and_never_cross_its_median() -> None:
    levels = [0.05, 0.25, 0.5, 0.75, 0.95]
    raw, conformal = figures.last_value_quantiles(levels, [1, 4]), uncertainty.fresh(3, 2, levels)
    conformal.move[1] = [[0.5, -9.0, 7.0, 2.5, 0.25], [0.0, 0.0, 0.0, 0.0, 0.0]]
    uncertainty.place_last_value(conformal, 1, 2, 2, raw)
    np.testing.assert_allclose(conformal.beside[1, 1], 2 * np.array([NORMAL(level) for level in levels]), rtol=1e-6)
    upper = sorted([NORMAL(0.75) + 2.5, NORMAL(0.95) + 0.25])
    np.testing.assert_allclose(conformal.beside[1, 0], [NORMAL(0.05) - 0.5, 0.0, 0.0, *upper], rtol=1e-6)
    assert not conformal.beside[[0, 2]].any()


def served(s: Settings, runner: Runner) -> Served:
    return Served(s, heavy(BARS), chunk=500, runners=[runner])


def accuracy(run: Served) -> dict[int, Accuracy]:
    return {row.horizon: row for row in run.engine.scorekeeper.accuracy(0, window="all")}


@pytest.fixture(scope="module")
def shaped() -> Served:
    """A model that knows no more than last value, but the shape of the moves."""
    s = options()
    return served(s, Shaped(s, LAPLACE))


def test_last_value_itself_has_a_skill_of_exactly_zero_and_says_nothing_of_direction() -> None:
    s = options()
    for row in accuracy(served(s, rung("naive", s))).values():
        assert (row.skill, row.skill_mae, row.pinball) == (0.0, 0.0, row.pinball_naive)
        assert np.isnan([row.directional, row.directional_base]).all()


def test_a_model_that_equals_last_value_has_no_skill() -> None:
    s = options()
    for row in accuracy(served(s, Shaped(s))).values():
        assert row.n > BARS - 60
        assert row.skill == pytest.approx(0, abs=1e-6)
        assert row.skill_mae == 0


def test_right_medians_with_too_wide_quantiles_cost_skill_and_no_skill_of_the_point() -> None:
    s = options(uncertainty__enabled=False)
    for row in accuracy(served(s, Shaped(s, width=3.0))).values():
        assert row.skill_mae == 0
        assert row.skill < -0.2


def test_beside_a_raw_normal_spread_the_shape_alone_would_pass_for_skill_beside_a_calibrated_one_it_does_not(
    shaped: Served,
) -> None:
    scores, levels = shaped.scores, np.array(options().forecast.quantiles)
    steps = np.array(shaped.engine.scorekeeper.horizons)
    truth = np.log(scores.actual / scores.anchor[:, None]) / scores.scale[:, None]
    raw = figures.pinball(levels, figures.last_value_quantiles(levels.tolist(), steps), truth)
    low, _ = interval(scores.loss[:, 0], raw[:, 0])
    assert low > 0, "as it was: 'better than last value' for certain"
    low, high = interval(scores.loss[:, 0], scores.loss_naive[:, 0])
    assert low < 0 < high


def interval(own: F64, beside: F64) -> tuple[float, float]:
    drawn = statistics.bootstrap_sums(np.stack([own, beside], axis=1), block=20, draws=300, seed=0)
    low, high = statistics.percentiles(figures.skill(*drawn.T), 0.9)
    return low or np.nan, high or np.nan


def test_the_opponents_quantiles_are_where_they_say_on_a_heavy_tailed_walk() -> None:
    s = options()
    row = accuracy(served(s, rung("naive", s)))[1]
    assert row.coverage["0.95"] - row.coverage["0.05"] == pytest.approx(0.9, abs=0.02)
    assert row.coverage["0.75"] - row.coverage["0.25"] == pytest.approx(0.5, abs=0.03)
    raw = accuracy(served(options(uncertainty__enabled=False), rung("naive", s)))[1]
    assert raw.coverage["0.75"] - raw.coverage["0.25"] > 0.57
    assert row.pinball < 0.995 * raw.pinball


def test_live_figures_a_report_and_a_judged_model_agree_about_the_same_forecasts(shaped: Served) -> None:
    scores, horizons = shaped.scores, shaped.engine.scorekeeper.horizons
    frame = pl.DataFrame({
        "symbol": "S", "as_of_ns": scores.as_of, "model": "shaped", "anchor": scores.anchor, "scale": scores.scale,
        "in_sample": False, "horizons": [horizons] * len(scores),
        **{name: getattr(scores, name).tolist() for name in ("actual", "point", "loss", "loss_naive", "covered")},
    })  # fmt: skip
    reported = {
        row["horizon"]: row
        for row in report_figures.by(report_figures.labels(frame, log_return=True).settled, "horizon")
    }
    live, last = accuracy(shaped), horizons[-1]
    names = ("pinball", "pinball_naive", "skill", "skill_mae", "crps")
    assert live[last].n == reported[last]["n"] == len(scores)
    assert {name: reported[last][name] for name in names} == pytest.approx(
        {name: getattr(live[last], name) for name in names}, rel=1e-5, abs=1e-6
    )  # fmt: skip
    judged = as_judged(shaped)
    assert float(judged["pinball"]) == pytest.approx(live[last].pinball, rel=1e-5)
    for name in ("skill", "skill_mae"):
        assert float(judged[name]) == pytest.approx(getattr(live[last], name), abs=1e-5)
    for name in ("coverage", "width", "winkler"):
        assert float(judged[name]) == pytest.approx(getattr(live[last].intervals["0.9"], name), rel=1e-9)
    assert float(judged["mase"]) == pytest.approx(live[last].mase, rel=1e-9)


def as_judged(run: Served) -> dict[str, F64]:
    """Figures of the published quantiles at the last step, as `evaluate` makes them beside the naive rung alone."""
    s, scores = options(), run.scores
    alone, own = served(s, rung("naive", s)).forecasts, run.forecasts
    rows = np.flatnonzero(np.isin(own.as_of, scores.as_of))
    moves = [np.log(of.quantiles[rows, -1:] / of.anchor[rows, None, None]) for of in (own, alone)]
    target = np.log(scores.actual[:, -1:] / scores.anchor[:, None])
    sums = outcomes(*moves, target, scores.scale, s.forecast.quantiles).sum(axis=(0, 1))  # type: ignore[arg-type]
    rows = own.ordinal + 1 < BARS
    anchor, scale, truth = own.anchor[rows], own.scale[rows], own.anchor[own.ordinal[rows] + 1 - own.ordinal[0]]
    still = np.zeros((len(anchor), 1, len(s.forecast.quantiles)), np.float32)
    one_step = outcomes(still, still, np.log(truth / anchor)[:, None], scale, s.forecast.quantiles)
    return ratios(sums, one_step.sum(axis=(0, 1)))


def test_offline_too_the_right_shape_alone_is_no_skill(tmp_path: Path) -> None:
    frames = [series(name, np.array([tick[2] for tick in heavy(6000, seed=i)])) for i, name in enumerate("ABC")]
    order = job(tmp_path, frames, horizon=HORIZON)
    dataset = load_dataset(tmp_path, order)
    shape = last_value_widths(dataset, dataset.parts.train, order.levels)

    def predict(inputs: Inputs, widths: F64 = shape) -> F32:
        return last_value_said(widths, np.sqrt((inputs.past[:, :, 0].astype(np.float64) ** 2).mean(axis=1)))

    beside = last_value_widths(dataset, dataset.parts.calibration, order.levels)
    found = evaluate(predict, beside, dataset, dataset.parts.holdout, order.levels)
    assert found["skill_low"] < 0 < found["skill_high"]
    assert found["skill_mae"] == 0
    normal = figures.last_value_quantiles(order.levels, np.arange(1, HORIZON + 1))
    as_it_was = evaluate(lambda inputs: predict(inputs, normal), beside, dataset, dataset.parts.holdout, order.levels)
    assert as_it_was["skill_high"] < 0, "the raw normal spread, which was the opponent, is worse for certain"
