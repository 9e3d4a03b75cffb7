"""The fit from job folder to model folder: ends, seeds, losses, figures, and the worker around it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from tickcast import __version__, plugin
from tickcast.batch.judge.hold_out import Figures
from tickcast.batch.train import fit
from tickcast.batch.train.dataset import load_dataset
from tickcast.batch.train.export import export
from tickcast.batch.train.losses import make_loss
from tickcast.batch.train.parity import check_parity, probe_inputs
from tickcast.columns import Inputs
from tickcast.engine.inference.load import open_model
from tickcast.engine.inference.model_folder import read_card
from tickcast.errors import BadData, BadModel, BadSettings
from tickcast.io.jobs import worker
from tickcast.io.jobs.folder import MODEL
from tickcast.io.jobs.orders import FitOrder
from tickcast.records import ModelCard
from tickcast_plugins.models.nhits import NHITSParams
from trainkit import Progress, Ticking, autoregressive, fitted, job, model_of, series, walk

LEVELS = [0.25, 0.5, 0.75]


def frames(n: int = 600) -> list[Any]:
    return [series(name, autoregressive(n, seed=i)) for i, name in enumerate("AB")]


def test_one_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        net, _ = fitted(tmp_path / name, Progress(), seed=seed, epochs=2)
        weights.append(torch.nn.utils.parameters_to_vector(net.module().parameters()).detach().numpy())
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_without_progress_it_stops_early_and_keeps_the_best_weights(tmp_path: Path) -> None:
    report = Progress()
    net, outcome = fitted(tmp_path, report, epochs=60, patience=2, learning_rate=0.3, weight_decay=0.0)
    epochs = [line for line in report.lines if "validation_loss" in line]
    losses = [line["validation_loss"] for line in epochs]
    assert outcome.status == "stopped_early"
    assert outcome.epochs == len(losses) == outcome.best_epoch + 2
    assert outcome.validation_loss == min(losses) == losses[outcome.best_epoch - 1]
    order = FitOrder.read(tmp_path)
    dataset = load_dataset(tmp_path, order)
    batch = dataset.batch(dataset.parts.validation)
    scale = batch.scale[:, None].astype(np.float32)
    quantiles = torch.from_numpy(net.predict(batch.inputs) / scale[:, :, None])
    again = make_loss("quantile", order.levels)(quantiles, torch.from_numpy(batch.target / scale)).item()
    assert again == pytest.approx(outcome.validation_loss, rel=1e-5)


def test_a_report_that_says_no_ends_the_fit(tmp_path: Path) -> None:
    _, outcome = fitted(tmp_path, Progress(enough=2), epochs=9)
    assert (outcome.status, outcome.epochs) == ("stopped", 2)


def test_the_time_budget_ends_the_fit(tmp_path: Path) -> None:
    _, outcome = fitted(tmp_path, epochs=50, time_budget_s=40, clock=Ticking())
    assert outcome.status == "out_of_time"
    assert outcome.epochs < 50


def test_a_fit_that_diverges_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="diverged"):
        fitted(tmp_path, Progress(), learning_rate=1e30, epochs=2)


def test_the_quantile_loss_is_least_at_the_true_quantiles() -> None:
    sample = torch.from_numpy(np.random.default_rng(0).normal(size=(20_000, 1)).astype(np.float32))
    loss = make_loss("quantile", LEVELS)
    truth = torch.tensor([-0.6745, 0.0, 0.6745])
    best = loss(truth.expand(20_000, 1, 3), sample)
    for shift in ([0.1, 0, 0], [0, -0.1, 0], [0, 0, 0.1]):
        assert loss((truth + torch.tensor(shift)).expand(20_000, 1, 3), sample) > best


@pytest.mark.slow
def test_after_a_point_loss_the_widths_come_from_the_calibration_part(tmp_path: Path) -> None:
    job(tmp_path, frames(4000), loss="mae", epochs=3, model_params={"hidden": 8})
    metrics = read_card(model_of(tmp_path)).metrics
    assert metrics["coverage"]["0.9"] == pytest.approx(0.9, abs=0.03)
    assert metrics["coverage"]["0.5"] == pytest.approx(0.5, abs=0.05)


def test_the_likelihood_is_a_loss_of_those_that_state_one(tmp_path: Path) -> None:
    small = {"kind": "deepar", "model_params": {"hidden": 8}}
    _, outcome = fitted(tmp_path, Progress(), loss="nll", epochs=3, **small)
    _, before = fitted(tmp_path, Progress(), loss="nll", epochs=1, learning_rate=1e-9, **small)
    assert outcome.validation_loss < before.validation_loss - 0.01
    for wrong in ({"loss": "nll", "kind": "nlinear", "model_params": {}}, {"loss": "mse", **small}):
        with pytest.raises(BadSettings, match="set loss ="):
            fitted(tmp_path, Progress(), **wrong)


def test_a_parameter_that_nobody_has_is_refused_with_the_nearest_and_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(BadSettings) as refused:
        fitted(tmp_path, Progress(), model_params={"epoch": 3})
    for word in ("epoch`", "did you mean epochs?", "hidden", "learning_rate"):
        assert word in str(refused.value)


def test_figures_are_those_of_a_plain_count() -> None:
    figures = Figures(LEVELS)
    quantiles = np.array([[[-1.0, 0.0, 1.0]], [[0.0, 1.0, 2.0]]], np.float32)
    target, scale = np.array([[0.5], [4.0]], np.float32), np.array([2.0, 1.0])
    figures.add(quantiles, target, scale)
    found = figures.result()
    first = (0.25 * 1.5 + 0.5 * 0.5 + 0.25 * 0.5) / 3 / 2
    second = (0.25 * 4 + 0.5 * 3 + 0.75 * 2) / 3
    assert found["mae"] == pytest.approx((0.5 + 3) / 2)
    assert found["mse"] == pytest.approx((0.25 + 9) / 2)
    assert found["pinball"] == pytest.approx((first + second) / 2)
    assert found["coverage"] == {"0.5": 0.5}


@pytest.mark.slow
@pytest.mark.parametrize("transform", ["log_return", "level"])
def test_the_graph_answers_as_torch_at_every_batch_size_and_holds_no_note_of_the_machine(
    tmp_path: Path, transform: str
) -> None:
    card = ModelCard(
        name="n", kind="nhits", version="", digest="", framework="onnx", bars={}, transform=transform, lookback=24,
        horizon=4, levels=LEVELS, features=[], future=["time_of_day"], model_params={"hidden": 8},
    )  # fmt: skip
    net = plugin.find("models", "nhits")(card)
    with torch.no_grad():
        for parameter in net.module().parameters():
            parameter.uniform_(-0.3, 0.3, generator=torch.Generator().manual_seed(0))
    export(net, tmp_path)
    assert check_parity(net, tmp_path) < 1e-4
    graph = (tmp_path / "model.onnx").read_bytes()
    assert b".py" not in graph
    with torch.no_grad():
        net.module().body.blocks[0].perceptron[0].bias += 1
    with pytest.raises(BadModel, match="differs from the fit"):
        check_parity(net, tmp_path)


@pytest.mark.slow
def test_graph_and_fit_may_differ_by_a_share_of_the_farthest_quantile(tmp_path: Path, monkeypatch: Any) -> None:
    card = ModelCard(
        name="n", kind="nhits", version="", digest="", framework="onnx", bars={}, transform="level", lookback=24,
        horizon=4, levels=LEVELS, features=[], model_params={"hidden": 8},
    )  # fmt: skip
    net = plugin.find("models", "nhits")(card)
    export(net, tmp_path)
    whole = net.predict

    def off(share: float) -> None:
        monkeypatch.setattr(net, "predict", lambda inputs: whole(inputs) * (1 + share))

    off(0.5e-4)
    assert check_parity(net, tmp_path) == pytest.approx(0.5e-4, rel=0.1)
    off(2e-4)
    with pytest.raises(BadModel, match="differs from the fit"):
        check_parity(net, tmp_path)


@pytest.mark.slow
def test_the_card_says_what_was_fitted_on_what(tmp_path: Path) -> None:
    order = job(
        tmp_path, frames(), name="mine", tags=["a"], seed=4, created_ns=77, features=[{"kind": "roc"}], epochs=1
    )
    folder = model_of(tmp_path)
    card = open_model(folder).card
    dataset = load_dataset(tmp_path, order)
    assert (card.name, card.kind, card.seed, card.created_ns) == ("mine", "nhits", 4, 77)
    assert card.tags == ["a"]
    assert (card.bars, card.lookback, card.horizon, card.levels) == (order.bars, 24, 4, order.levels)
    assert [spec.kind for spec in card.features] == ["roc"]
    assert card.need_bars == 24 + dataset.need_bars - order.lookback
    first_held_out = dataset.history.bars.as_of[dataset.parts.edges[:, 3]].min()
    assert card.trained_from_ns == dataset.history.bars.as_of.min()
    assert card.trained_to_ns < first_held_out
    assert set(card.artefacts) == {"model.onnx", *(f"{name}.safetensors" for name in ("weights", "probe", "reference"))}
    assert card.parameters > 0
    assert card.cost_us > 0
    assert (card.dataset_hash, card.settings_digest) == (dataset.digest, order.digest)
    assert (card.code_version, card.export_path, card.parent) == (__version__, fit.BY_TORCH, "")
    told = card.metrics["fit"]
    assert (told["status"], told["converged"], len(told["curve"])) == ("done", False, 1)
    assert [advice["code"] for advice in told["advice"]] == ["few_epochs"]


def test_a_rung_needs_no_fit_and_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    for kind, message in (("naive", "needs no fit"), ("oracle", "no model named")):
        job(tmp_path, frames(), kind=kind)
        with pytest.raises(BadSettings, match=message):
            fit.run(tmp_path, Progress())


@pytest.mark.slow
def test_a_model_that_fits_itself_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nhits, naive = plugin.find("models", "nhits"), plugin.find("models", "naive")

    class Itself:
        """Wraps a net, but shows no module to the trainer."""

        kind = "itself"

        def __init__(self, card: ModelCard) -> None:
            self.card, self._net, self.windows = card, nhits(card), 0

        def fit(self, dataset: Any, report: Any) -> None:
            self.windows = len(dataset.parts.train)
            report(step=1, steps=1)

        def save(self, folder: Path) -> None:
            assert self.windows
            export(self._net, folder)

        def predict(self, inputs: Inputs) -> Any:
            return self._net.predict(inputs)

    monkeypatch.setattr(fit, "find", lambda _, name: {"itself": Itself, "naive": naive}[name])
    job(tmp_path, frames(), kind="itself")
    report = Progress()
    runner = open_model(model_of(tmp_path, report))
    assert runner.card.kind == "itself"
    assert len(report.lines) == 1
    assert runner.predict(probe_inputs(runner.card, 2, seed=0)).shape == (2, 4, 5)


@pytest.mark.slow
@pytest.mark.usefixtures("cold_workers")
def test_the_worker_leaves_progress_result_and_model(tmp_path: Path) -> None:
    job(tmp_path, frames(), epochs=2)
    done = run_worker(tmp_path)
    assert done.returncode == 0, done.stderr
    result = msgspec.json.decode((tmp_path / worker.RESULT).read_bytes(), type=worker.Result)
    assert (result.ok, result.status) == (True, "done")
    assert open_model(tmp_path / result.model).card.metrics == result.metrics
    lines = [msgspec.json.decode(line) for line in (tmp_path / worker.PROGRESS).read_bytes().splitlines()]
    assert [line["epoch"] for line in lines if "epoch" in line] == [1, 2]


@pytest.mark.parametrize(
    ("change", "code"),
    [({"learning_rate": -1}, "invalid_config"), ({"lookback": 5000}, "bad_data"), ({"surprise": 1}, "invalid_config")],
)
def test_a_failed_fit_leaves_a_result_with_a_stable_code(tmp_path: Path, change: dict[str, Any], code: str) -> None:
    order = msgspec.to_builtins(job(tmp_path, frames(60)))
    (tmp_path / "order.json").write_bytes(msgspec.json.encode(order | change))
    result = worker.work(tmp_path)
    assert (result.ok, result.error_code) == (False, code)
    assert result.error
    assert not (tmp_path / MODEL).exists()


def test_a_worker_whose_parent_is_gone_asks_for_an_early_end(tmp_path: Path) -> None:
    with (tmp_path / worker.PROGRESS).open("wb") as file:
        assert worker.ProgressFile(file, os.getppid())(step=1, steps=2)
        assert not worker.ProgressFile(file, -1)(step=1, steps=2)


def test_the_guide_names_every_parameter_of_the_model() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    assert not [name for name in NHITSParams.__struct_fields__ if f"| `{name}` |" not in guide]


@pytest.mark.usefixtures("cold_workers")
def test_the_worker_says_how_it_is_called() -> None:
    done = subprocess.run([sys.executable, "-m", "tickcast.io.jobs.worker"], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "JOB_FOLDER" in done.stderr


def run_worker(folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tickcast.io.jobs.worker", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_an_order_is_read_back_as_written(tmp_path: Path) -> None:
    made = job(tmp_path, [series("A", walk(50, seed=0))], features=[{"kind": "roc", "window": 3}], loss="huber")
    assert FitOrder.read(tmp_path) == made
    assert isinstance(made, FitOrder)
