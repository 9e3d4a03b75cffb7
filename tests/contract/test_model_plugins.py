"""Every model, built in or fitted and served, keeps the contract of testing.check_model; fitted, it knows something."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tickcast import plugin
from tickcast.columns import Inputs
from tickcast.engine.inference.load import open_model
from tickcast.plugin import Runner
from tickcast.records import FeatureSpec, ModelCard
from tickcast.testing import check_model, walks
from trainkit import autoregressive, job, model_of, series, sine

TRANSFORMS = ("log_return", "difference", "level")
LEVELS = [0.05, 0.25, 0.5, 0.75, 0.95]


def rung(kind: str, transform: str, _: int) -> Any:
    return plugin.find("models", kind)(transform, 6, LEVELS, 8)


def nhits(transform: str, features: list[FeatureSpec], future: list[str], seed: int) -> Any:
    """With weights by seed in every part; unfitted, the forecast heads are zero."""
    card = ModelCard(
        name="n", kind="nhits", version="", digest="", framework="onnx", bars={}, transform=transform, lookback=30,
        horizon=6, levels=LEVELS, features=features, future=future, model_params={"hidden": 8}, seed=seed,
    )  # fmt: skip
    net = plugin.find("models", "nhits")(card)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.module().parameters():
            parameter.uniform_(-0.3, 0.3, generator=generator)
    return net


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("kind", ["naive", "seasonal", "holt"])
def test_a_rung_keeps_the_contract(kind: str, transform: str) -> None:
    check_model(partial(rung, kind, transform), lookback=30)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_nhits_keeps_the_contract(transform: str, tmp_path: Path) -> None:
    check_model(partial(nhits, transform, [], []), lookback=30, folder=tmp_path)


def test_nhits_with_channels_and_calendar_keeps_the_contract(tmp_path: Path) -> None:
    features = [FeatureSpec(name=kind, kind="x", version=1, normalization=kind) for kind in ("none", "log")]
    check_model(partial(nhits, "log_return", features, ["time_of_day"]), lookback=30, folder=tmp_path)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Runner]:
    """Fitted once per series and opened as the daemon does."""
    made: dict[str, Runner] = {}

    def get(name: str) -> Runner:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            make, transform = {"sine": (sine, "level"), "autoregressive": (autoregressive, "log_return")}[name]
            job(folder, [series(s, make(2000, seed=i)) for i, s in enumerate("AB")], transform=transform)
            made[name] = open_model(model_of(folder))
        return made[name]

    return get


@pytest.mark.slow
@pytest.mark.parametrize(("name", "skill"), [("sine", 0.7), ("autoregressive", 0.08)])
def test_fitted_it_beats_last_value_on_what_can_be_known(
    served: Callable[[str], Runner], name: str, skill: float
) -> None:
    metrics = served(name).card.metrics
    assert metrics["skill"] > skill
    assert metrics["mae"] < metrics["mae_naive"]
    assert metrics["coverage"]["0.9"] == pytest.approx(0.9, abs=0.08)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sine", "autoregressive"])
def test_served_it_keeps_the_contract(served: Callable[[str], Runner], name: str) -> None:
    check_model(lambda _: served(name), lookback=24)


@pytest.mark.slow
def test_different_inputs_get_clearly_different_answers(served: Callable[[str], Runner]) -> None:
    runner = served("autoregressive")
    up, down = window(runner, last=+3.0), window(runner, last=-3.0)
    one, other = runner.predict(up)[0, :, 2], runner.predict(down)[0, :, 2]
    assert (one < 0).all(), "after a jump up the process turns back"
    assert (other > 0).all()


@pytest.mark.slow
def test_a_window_longer_than_the_model_s_is_cut_to_its_newest_bars(served: Callable[[str], Runner]) -> None:
    runner = served("sine")
    long = walks(runner, rows=3, lookback=40)
    short = Inputs(long.past[:, -24:], long.mask[:, -24:], long.future, long.static)
    np.testing.assert_array_equal(runner.predict(long), runner.predict(short))


def window(runner: Runner, *, last: float) -> Inputs:
    inputs = walks(runner, rows=1, lookback=runner.card.lookback)
    inputs.mask[:] = 1
    inputs.past[0, -1, 0] = last
    return inputs
