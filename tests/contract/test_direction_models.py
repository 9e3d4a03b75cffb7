"""Every kind that can answer in classes keeps the contract, exports, and tells a direction that can be told."""

import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import polars as pl
import pytest
import torch

from tickcast.batch.judge import judge
from tickcast.batch.train import fit
from tickcast.batch.train.dataset import load_dataset
from tickcast.batch.train.train import train
from tickcast.clock import SetClock
from tickcast.columns import F32, F64, Inputs
from tickcast.direction import LABELS, classes_of
from tickcast.engine.inference.load import open_model
from tickcast.engine.inference.onnx import OnnxRunner
from tickcast.errors import BadModel
from tickcast.io.jobs.folder import BARS, ORDER
from tickcast.io.jobs.orders import EvaluateOrder, FitOrder, WarmStart
from tickcast.plugin import Runner, find
from tickcast.testing import check_direction, check_model, turning, walks
from trainkit import Progress, job, model_of, series
from zookit import SMALL, fuzzed

NETS = sorted(set(SMALL) - {"deepar"})
CLASSIFIERS = ("naive_bayes", "svm")
LOOKBACK, HORIZON, SEED = 24, 3, 7
CLASSED = {"head": "direction"}
FITS: dict[str, dict[str, Any]] = {
    "micro": {"kind": "micro", "model_params": CLASSED | {"preset": "reversal", "band": 0.4}, "loss": "cross_entropy"},
    "naive_bayes": {"kind": "naive_bayes", "model_params": {}},
    "svm": {"kind": "svm", "model_params": {}, "transform": "level"},
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def bars(n: int = 1200, *, seed: int = 0, start: int = 0) -> list[pl.DataFrame]:
    return [series(name, turning(n, seed=seed + i), start=start) for i, name in enumerate("AB")]


def quick(folder: Path, frames: list[pl.DataFrame], **order: Any) -> None:
    job(folder, frames, **{"lookback": LOOKBACK, "horizon": HORIZON, "epochs": 4, "learning_rate": 0.01, **order})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Fitted once per name, exported, and compared with the fit at batches of 1, 7 and 256."""

    @cache
    def get(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        quick(folder, bars(), **FITS[name])
        return model_of(folder)

    return get


class Served:
    """What a folder serves, with its second output."""

    def __init__(self, folder: Path) -> None:
        self._runner = open_model(folder)
        self.card = self._runner.card
        self._session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])

    def predict(self, inputs: Inputs) -> F32:
        return self._runner.predict(inputs)

    def probs(self, inputs: Inputs) -> F32:
        names = [node.name for node in self._session.get_inputs()]
        found: F32 = self._session.run(["probs"], {name: getattr(inputs, name) for name in names})[0]
        return found


@pytest.mark.parametrize("name", NETS)
def test_every_net_with_a_direction_head_keeps_the_contract(name: str, tmp_path: Path) -> None:
    kind, params = SMALL[name]
    make = partial(fuzzed, kind, model_params=params | CLASSED, transform="level")
    check_model(lambda seed: make(seed=seed), lookback=24, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_fitted_and_served_it_tells_a_direction_that_can_be_told(served: Any, name: str) -> None:
    model = Served(served(name))
    check_model(lambda _: model, lookback=LOOKBACK)
    check_direction(model, lookback=LOOKBACK, seed=SEED)
    metrics = model.card.metrics
    assert metrics["skill"] > 0.05, "the quantiles that follow from the classes beat those of the last value"
    assert metrics["coverage"]["0.9"] == pytest.approx(0.9, abs=0.08)
    assert metrics["classes"]["accuracy"] > metrics["classes"]["accuracy_majority"] + 0.03
    assert metrics["classes"]["log_loss"] < metrics["classes"]["log_loss_frequencies"] - 0.03


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_loaded_from_its_weights_it_answers_as_its_graph_does(served: Any, name: str) -> None:
    folder = served(name)
    graph = OnnxRunner(folder, open_model(folder).card)
    model = find("models", graph.card.kind)(graph.card)
    model.load(folder)
    for rows in (1, 7, 256):
        inputs = walks(graph, rows=rows, lookback=LOOKBACK, seed=rows)
        np.testing.assert_allclose(model.predict(inputs), graph.predict(inputs), atol=1e-4)
        np.testing.assert_allclose(model.probs(inputs), graph.probs(inputs), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_classifier_keeps_the_contract_with_channels_and_calendar(kind: str, tmp_path: Path) -> None:
    given = {"features": [{"kind": "log_return", "period": 3}], "future": ["time_of_day"]}

    def make(seed: int) -> Any:
        quick(tmp_path / str(seed), bars(500, seed=2 * seed), kind=kind, model_params={}, **given)
        return learnt(tmp_path / str(seed))

    (tmp_path / "files").mkdir()
    check_model(make, lookback=LOOKBACK, folder=tmp_path / "files")


def learnt(folder: Path) -> Any:
    """A classical model fitted as its job folder orders, without export."""
    order = FitOrder.read(folder)
    dataset = load_dataset(folder, order)
    model: Any = fit.build(order, dataset)
    model.fit(dataset, Progress())
    return model


def test_weights_of_another_shape_are_refused(served: Any) -> None:
    folder = served("naive_bayes")
    card = msgspec.structs.replace(open_model(folder).card, horizon=9)
    with pytest.raises(BadModel, match="does not fit"):
        find("models", "naive_bayes")(card).load(folder)


def test_what_the_classes_are_like_is_learnt_from_the_training_part_alone(tmp_path: Path) -> None:
    """Bars after the training part may be anything."""
    close, found = turning(1200, seed=0), []
    other = np.r_[close[:900], close[900] * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.01, 300)))]
    for name, closes in (("one", close), ("other", other)):
        quick(tmp_path / name, [series("A", closes)], **FITS["micro"] | {"epochs": 1})
        order = FitOrder.read(tmp_path / name)
        dataset = load_dataset(tmp_path / name, order)
        net: Any = fit.build(order, dataset)
        train(net.module(), dataset, order, Progress(), SetClock())
        found.append(dict(net.module().head.state_dict()))
    assert set(found[0]) == {"knots", "usual"}
    for key, value in found[0].items():
        assert torch.equal(value, found[1][key])
    finetuned: Any = fit.build(order, dataset)
    before = {name: value.clone() for name, value in finetuned.module().head.state_dict().items()}
    train(
        finetuned.module(),
        dataset,
        msgspec.structs.replace(order, start=WarmStart(mode="finetune")),
        Progress(),
        SetClock(),
    )
    assert torch.equal(before["knots"], finetuned.module().head.knots), "it keeps what it was finetuned from"
    assert not torch.equal(before["knots"], found[0]["knots"])


@pytest.mark.slow
def test_evaluate_judges_the_classes_too_with_intervals(served: Any, tmp_path: Path) -> None:
    folder = served("micro")
    frames = bars(400, seed=50, start=1200)
    pl.concat(frames).write_parquet(tmp_path / BARS)
    shutil.copytree(folder, tmp_path / judge.MODEL)
    (tmp_path / ORDER).write_bytes(msgspec.json.encode(EvaluateOrder(draws=200)))
    found = judge.run(tmp_path, Progress())
    model, by_hand = Served(folder), right_by_hand(folder, [turning(400, seed=50 + i) for i in range(2)])
    assert model.card.labels == LABELS
    for row, right in zip(found["by_horizon"], by_hand.T[[0, 1, 2]], strict=True):
        assert row["accuracy"]["value"] == pytest.approx(right.mean())
        assert row["accuracy"]["low"] < row["accuracy"]["value"] < row["accuracy"]["high"]
    head = found["headline"]
    assert head["accuracy"]["low"] > head["accuracy_majority"]["value"]
    assert head["log_loss"]["high"] < head["log_loss_frequencies"]["value"]


def right_by_hand(folder: Path, closes: list[F64]) -> F64:
    """[windows, horizon]: whether the likeliest class came, from closes and graph alone."""
    model, found = Served(folder), []
    for close in closes:
        moves = np.diff(np.log(close))
        for at in range(LOOKBACK, len(close) - HORIZON):
            past = moves[at - LOOKBACK : at]
            inputs = Inputs(
                past.astype(np.float32)[None, :, None], np.ones((1, LOOKBACK), np.float32),
                np.empty((1, HORIZON, 0), np.float32), np.empty((1, 0), np.float32),
            )  # fmt: skip
            ahead = np.log(close[at + 1 : at + 1 + HORIZON] / close[at]) / np.sqrt((past**2).mean())
            known = classes_of(ahead[None], model.card.model_params["band"])[0]
            found.append(model.probs(inputs)[0].argmax(axis=1) == known)
    return np.array(found, np.float64)


class Broken:
    """A model that is right but for one thing."""

    def __init__(self, model: Any, probs: Callable[[F32], F32]) -> None:
        self._model, self._probs, self.card = model, probs, model.card

    def predict(self, inputs: Inputs) -> F32:
        found: F32 = self._model.predict(inputs)
        return found

    def probs(self, inputs: Inputs) -> F32:
        return self._probs(self._model.probs(inputs))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda probs: probs * np.float32(0.9), "add up to one"),
        (lambda probs: probs[:, :, ::-1].copy(), "a class that"),
        (lambda probs: probs.astype(np.float64), "float32"),
        (lambda probs: probs - probs.mean(axis=0) + probs.mean(), "probabilities"),
    ],
)
def test_the_check_notices_what_is_wrong(served: Any, spoil: Callable[[F32], F32], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_direction(Broken(Served(served("micro")), spoil), lookback=LOOKBACK, seed=SEED)


def test_the_check_notices_a_model_that_learnt_nothing() -> None:
    unfitted: Runner = fuzzed("micro", model_params=CLASSED | {"preset": "reversal"}, horizon=HORIZON)
    with pytest.raises(AssertionError, match="it is right in"):
        check_direction(unfitted, lookback=24, seed=SEED)
