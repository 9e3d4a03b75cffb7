"""Every torch net keeps the contract, exports, repeats its fit, and learns what can be known of two processes."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tickcast.batch.judge.hold_out import evaluate, last_value_widths
from tickcast.batch.train import fit
from tickcast.batch.train.dataset import Dataset, load_dataset
from tickcast.batch.train.parity import TOLERANCE
from tickcast.batch.train.train import tensors, train
from tickcast.clock import SystemClock
from tickcast.engine.inference.load import open_model
from tickcast.io.jobs.orders import FitOrder
from tickcast.plugin import find
from tickcast.testing import check_model, walks
from trainkit import Progress, autoregressive, job, model_of, series, sine
from zookit import SENTIMENT, SMALL, fuzzed, specs

OLDER = {"nhits"}  # test_model_plugins.py fits and serves it
EVERY = pytest.mark.parametrize("name", [name for name in SMALL if name not in OLDER])
PRESETS = ("momentum", "reversal", "trend", "mean_reversion", "sentiment")
KNOWN = 0.088  # of moves that turn back, over 4 steps, by the best linear forecast against a calibrated last value
QUICK: dict[str, Any] = {"epochs": 4, "windows_per_epoch": 2048, "learning_rate": 0.01}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def make(name: str, seed: int, **over: Any) -> Any:
    kind, params = SMALL[name]
    return fuzzed(kind, model_params=params, seed=seed, **over)


@EVERY
@pytest.mark.parametrize("transform", ["log_return", "level"])
def test_it_keeps_the_contract(name: str, transform: str, tmp_path: Path) -> None:
    check_model(partial(make, name, transform=transform), lookback=24, folder=tmp_path)


@EVERY
def test_with_channels_and_calendar_it_keeps_the_contract(name: str, tmp_path: Path) -> None:
    given = {"features": specs("a", "b"), "future": ["time_of_day", "day_of_week"], "lookback": 30}
    check_model(partial(make, name, **given), lookback=30, folder=tmp_path)


@EVERY
def test_channels_and_calendar_reach_the_answer(name: str) -> None:
    model = make(name, 1, features=specs("a"), future=["time_of_day"])
    inputs = walks(model, rows=4, lookback=24)
    before = model.predict(inputs)
    inputs.past[:, :, 1] += 1
    middle = model.predict(inputs)
    inputs.future[:] += 1
    assert not np.allclose(before, middle)
    assert not np.allclose(middle, model.predict(inputs))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_micro_preset_keeps_the_contract(preset: str, tmp_path: Path) -> None:
    given = {"model_params": {"preset": preset}, "features": specs(*SENTIMENT), "transform": "level"}
    check_model(lambda seed: fuzzed("micro", seed=seed, **given), lookback=24, folder=tmp_path)


@pytest.mark.slow
@EVERY
def test_fitted_on_a_sine_and_served_as_a_graph_it_beats_last_value(name: str, tmp_path: Path) -> None:
    kind, params = SMALL[name]
    frames = [series(symbol, sine(1500, seed=i)) for i, symbol in enumerate("AB")]
    job(tmp_path, frames, kind=kind, model_params=params, transform="level", **QUICK)
    runner = open_model(model_of(tmp_path))  # which also compares the graph with the fit at 1, 7 and 256
    check_model(lambda _: runner, lookback=24)
    figures = runner.card.metrics
    assert figures["parity"] <= TOLERANCE
    assert runner.card.parameters == sum(p.numel() for p in find("models", kind)(runner.card).module().parameters())
    beats_last_value(name, figures, skill=0.6)


@pytest.mark.slow
@EVERY
def test_fitted_on_moves_that_turn_back_it_beats_last_value(name: str, tmp_path: Path) -> None:
    kind, params = SMALL[name]
    model, dataset = learnt(tmp_path, kind=kind, model_params=params, **QUICK)
    beats_last_value(name, held_out(model, dataset), skill=KNOWN / 2)


@pytest.mark.parametrize("preset", PRESETS[:4])
def test_each_micro_preset_learns_moves_that_turn_back(preset: str, tmp_path: Path) -> None:
    model, dataset = learnt(tmp_path, kind="micro", model_params={"preset": preset}, **QUICK)
    beats_last_value(f"micro {preset}", held_out(model, dataset), skill=KNOWN / 2)


@EVERY
def test_the_same_seed_and_bars_give_the_same_weights(name: str, tmp_path: Path) -> None:
    kind, params = SMALL[name]
    order = {"kind": kind, "model_params": params, "epochs": 1, "windows_per_epoch": 256}
    one, other = (
        torch.nn.utils.parameters_to_vector(learnt(tmp_path / run, **order)[0].module().parameters()) for run in "ab"
    )
    assert torch.equal(one, other)


def test_deepar_learns_by_likelihood_too(tmp_path: Path) -> None:
    model, dataset = learnt(tmp_path, kind="deepar", model_params={"hidden": 16}, epochs=1, windows_per_epoch=64)
    module, rng = model.module(), np.random.default_rng(0)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    for _ in range(150):
        parts, target, _ = tensors(dataset.batch(rng.choice(dataset.parts.train, 64)))
        optimizer.zero_grad()
        module.nll(*parts, target).mean().backward()
        optimizer.step()
    beats_last_value("deepar by likelihood", held_out(model, dataset), skill=KNOWN / 2)


def learnt(folder: Path, **order: Any) -> tuple[Any, Dataset]:
    """A model fitted on moves that turn back, without export, and its data."""
    job(folder, [series(symbol, autoregressive(1500, seed=i)) for i, symbol in enumerate("AB")], **order)
    made = FitOrder.read(folder)
    dataset = load_dataset(folder, made)
    model: Any = fit.build(made, dataset)
    train(model.module(), dataset, made, Progress(), SystemClock())
    return model, dataset


def held_out(model: Any, dataset: Dataset) -> dict[str, Any]:
    widths = last_value_widths(dataset, dataset.parts.calibration, model.card.levels)
    return evaluate(model.predict, widths, dataset, dataset.parts.holdout, model.card.levels)


def beats_last_value(name: str, figures: dict[str, Any], *, skill: float) -> None:
    beside = [f"{key} {figures[key]:.4g} (last value {figures[key + '_naive']:.4g})" for key in ("pinball", "mae")]
    print(f"{name}: {', '.join(beside)}, skill {figures['skill']:.3f}")
    assert figures["skill"] > skill
    assert figures["mae"] < figures["mae_naive"]
