"""What a search seeks decides which of two models wins it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tickcast.batch.judge.metrics import MOST_IS_BEST, SIDE_COST, validation_value
from tickcast.batch.train.dataset import Dataset, load_dataset
from tickcast.batch.tune.study import Study
from tickcast.batch.tune.trial_worker import Task, Trial
from tickcast.clock import SystemClock
from tickcast.columns import F32, Inputs
from tickcast.io.jobs.orders import FitOrder, Metric, TuneOrder
from tickcast.plugin import Parameter
from trainkit import job, series

METRICS: list[Metric] = ["pinball", "mae", "mse", "directional", "sharpe"]
BARS = 600


def turning() -> np.ndarray:
    """Prices whose every move turns the one before, by sizes that nobody knows."""
    size = np.random.default_rng(2).uniform(0.005, 0.015, BARS)
    return 100 * np.exp(np.cumsum(size * (-1.0) ** np.arange(BARS)))


def said(median: np.ndarray, spread: float) -> F32:
    return (median[:, None, None] + spread * np.array([-2.0, -1.0, 0.0, 1.0, 2.0])).astype(np.float32)


def timid(inputs: Inputs) -> F32:
    """Says no direction, in a spread that is about right."""
    return said(np.zeros(len(inputs)), 0.006)


def bold(inputs: Inputs) -> F32:
    """Always right about the direction, and ten times too loud."""
    return said(-10 * inputs.past[:, -1, 0].astype(np.float64), 0.006)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, FitOrder]:
    folder = tmp_path_factory.mktemp("metrics")
    order = job(folder, [series("A", turning())], horizon=1)
    return load_dataset(folder, order), order


@pytest.mark.slow
@pytest.mark.parametrize("metric", METRICS)
def test_another_metric_lets_another_trial_win(metric: Metric, given: tuple[Dataset, FitOrder], tmp_path: Path) -> None:
    order = TuneOrder(fit=given[1], trials=3, metric=metric, sampler="grid", pruner="none")
    space = {"which": Parameter("choice", choices=["timid", "bold"])}
    models: dict[str, Callable[[Inputs], F32]] = {"timid": timid, "bold": bold}
    with Study(tmp_path, order, space, {"which": "timid"}, fingerprint="x") as study:
        while (asked := study.ask()) is not None:
            number, params = asked
            value = validation_value(metric, models[params["which"]], *given)
            study.end(number, value, epochs=0, seconds=0.1)
        assert study.best().params["which"] == ("bold" if metric in MOST_IS_BEST else "timid")


def test_a_sharpe_ratio_is_what_trades_earned_after_both_their_costs(given: tuple[Dataset, FitOrder]) -> None:
    dataset, _ = given
    rows, close = dataset.parts.validation, dataset.history.bars.close
    earned = np.abs(close[rows + 1] / close[rows] - 1) - 2 * SIDE_COST
    found = validation_value("sharpe", bold, *given)
    assert found == pytest.approx(earned.mean() / earned.std(ddof=1), rel=1e-4)
    assert validation_value("sharpe", timid, *given) == 0.0
    assert validation_value("directional", bold, *given) == 1.0


def test_a_trial_is_worth_what_the_metric_says_of_its_fit(tmp_path: Path) -> None:
    order = job(tmp_path, [series("A", turning())], kind="ar", model_params={})
    dataset = load_dataset(tmp_path, order)
    shares = Trial(Task(0, order), "directional", lambda _: True).run(dataset, SystemClock())
    losses = Trial(Task(0, order), "mse", lambda _: True).run(dataset, SystemClock())
    assert 0.5 < (shares or 0.0) <= 1.0
    assert 0.0 < (losses or 1.0) < 1e-3
