"""A fit that begins with a fitted model: what it takes over, what it freezes, what it refuses."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from tickcast.batch.train import fit
from tickcast.batch.train.dataset import Dataset, load_dataset
from tickcast.batch.train.fit_job import FitJob, completed, read_parent
from tickcast.batch.train.start import Begun, begin
from tickcast.clock import SystemClock
from tickcast.engine.inference.load import open_model
from tickcast.engine.inference.model_folder import CARD, read_card
from tickcast.errors import BadModel, BadSettings
from tickcast.io.jobs.orders import FitOrder, WarmStart
from tickcast.records import digest
from trainkit import EVERY_NS, Progress, autoregressive, job, model_of, series, weights

pytestmark = pytest.mark.slow

ORDER: dict[str, Any] = {
    "model_params": {"hidden": 8}, "windows_per_epoch": 512, "epochs": 3,
    "features": [{"kind": "rolling_std", "window": 4, "normalization": "zscore"}],
}  # fmt: skip
FROZEN = "body.blocks.0.*"


def frames(scale: float = 1.0) -> list[Any]:
    """Twice as lively, the channel's statistics are other ones."""
    close = [autoregressive(600, seed=i) for i in range(2)]
    return [series(s, 100 * (c / 100) ** scale) for s, c in zip("AB", close, strict=True)]


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("parent")
    job(folder, frames(), **ORDER)
    return model_of(folder)


def prepared(folder: Path, parent: Path, *, scale: float = 1.0, **order: Any) -> FitOrder:
    job(folder, frames(scale), **{**ORDER, "epochs": 1, "windows_per_epoch": 64, **order})
    shutil.copytree(parent, folder / "start")
    return FitOrder.read(folder)


def begun(folder: Path, parent: Path, **order: Any) -> tuple[Any, Dataset, Begun, FitOrder]:
    """A net before its first step."""
    read = prepared(folder, parent, **order)
    found = read_parent(folder, read)
    assert found is not None
    made = completed(read, found)
    dataset = load_dataset(folder, made)
    net: Any = fit.build(made, dataset)
    return net, dataset, begin(net, found), made


def gone_on(folder: Path, parent: Path, **order: Any) -> tuple[Any, dict[str, Any]]:
    """A net after its fit, which is not exported, and what the card would say of that."""
    read = prepared(folder, parent, **order)
    dataset = load_dataset(folder, read)
    net: Any = fit.build(read, dataset)
    return net, fit._fit(net, dataset, FitJob(folder, read, read_parent(folder, read), Progress(), SystemClock()))


def loaded(parent: Path) -> Any:
    """The parent as a net."""
    card = open_model(parent).card
    net = fit.find("models", card.kind)(card)
    net.load(parent)
    return net


@pytest.mark.parametrize("mode", ["warm", "finetune"])
def test_it_begins_with_all_weights_and_the_parent_s_parameters(tmp_path: Path, parent: Path, mode: Any) -> None:
    net, _, told, order = begun(tmp_path, parent, start=WarmStart(mode=mode), model_params={}, seed=77)
    np.testing.assert_array_equal(weights(net), weights(loaded(parent)))
    assert order.model_params == {"hidden": 8}
    assert (told.mode, told.parent, told.frozen) == (mode, open_model(parent).card.digest, 0)
    assert told.loaded == told.of == len(weights(net))


@pytest.mark.parametrize(("mode", "keeps"), [("warm", False), ("finetune", True), ("transfer", False)])
def test_only_finetuning_keeps_the_old_statistics_of_the_channels(
    tmp_path: Path, parent: Path, mode: Any, keeps: bool
) -> None:
    net, figures = gone_on(tmp_path, parent, scale=2.0, start=WarmStart(mode=mode))
    assert torch.equal(net.module().center, loaded(parent).module().center) == keeps
    assert figures["start"]["loaded"] == figures["start"]["of"] == len(weights(net))


def test_a_warm_fit_begins_where_its_parent_ended(tmp_path: Path, parent: Path) -> None:
    _, figures = gone_on(tmp_path, parent, start=WarmStart(mode="warm"))
    before = open_model(parent).card.metrics["fit"]
    assert figures["fit"]["start_loss"] == pytest.approx(before["validation_loss"], rel=1e-6)
    assert before["validation_loss"] < before["start_loss"]


def test_the_card_names_the_parent(tmp_path: Path, parent: Path) -> None:
    prepared(tmp_path, parent, start=WarmStart(mode="finetune"))
    result = fit.run(tmp_path, Progress())
    card = open_model(tmp_path / result["model"]).card
    assert card.parent == card.metrics["start"]["parent"] == open_model(parent).card.digest
    assert card.metrics == result["metrics"]


def test_what_the_parent_saw_is_known_and_judges_nothing(tmp_path: Path, parent: Path) -> None:
    """Its data may end later than those before the hold-out: then only what comes after it is news."""
    later, seen = tmp_path / "later", 570 * EVERY_NS
    shutil.copytree(parent, later)
    card = msgspec.structs.replace(read_card(parent), trained_to_ns=seen)
    (later / CARD).write_bytes(msgspec.json.encode(msgspec.structs.replace(card, digest=digest(card))))
    prepared(tmp_path / "job", later, start=WarmStart(mode="warm"))
    fitted = open_model(model_of(tmp_path / "job")).card
    assert fitted.trained_to_ns == seen
    assert fitted.metrics["windows"] == 2 * (600 - 570 - 4)  # of both symbols, but for those whose targets are to come


def test_transfer_takes_what_fits_and_says_how_much(tmp_path: Path, parent: Path) -> None:
    net, dataset, told, order = begun(tmp_path, parent, start=WarmStart(mode="transfer"), horizon=6)
    own, theirs = (dict(n.module().named_parameters()) for n in (net, loaded(parent)))
    same = {name for name in own if own[name].shape == theirs[name].shape}
    assert 0 < len(same) < len(own), "a longer horizon has other last layers"
    assert all(torch.equal(own[name], theirs[name]) for name in same)
    unloaded: Any = fit.build(order, dataset)
    fresh = dict(unloaded.module().named_parameters())
    assert all(torch.equal(own[name], fresh[name]) for name in set(own) - same)
    assert told.loaded == sum(own[name].numel() for name in same)
    assert told.of == len(weights(net))


@pytest.mark.parametrize("mode", ["finetune", "transfer"])
def test_frozen_layers_stay_as_they_are_to_the_bit(tmp_path: Path, parent: Path, mode: Any) -> None:
    start = WarmStart(mode=mode, freeze=[FROZEN])
    net, figures = gone_on(tmp_path, parent, scale=2.0, start=start, weight_decay=0.5, learning_rate=0.01)
    old, new = (dict(one.module().named_parameters()) for one in (loaded(parent), net))
    frozen = {name for name in old if name.startswith("body.blocks.0.")}
    assert {name for name in old if torch.equal(old[name], new[name])} == frozen
    assert figures["start"]["frozen"] == sum(old[name].numel() for name in frozen)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ({"start": WarmStart(mode="warm"), "kind": "gru"}, "another kind than this fit"),
        ({"start": WarmStart(mode="warm"), "horizon": 6}, "another horizon than this fit"),
        ({"start": WarmStart(mode="finetune"), "lookback": 30, "levels": [0.1, 0.5, 0.9]}, "another lookback, levels"),
        ({"start": WarmStart(mode="finetune"), "features": []}, "another features than this fit"),
        ({"start": WarmStart(mode="warm"), "model_params": {"hidden": 16}}, "another hidden"),
        ({"start": WarmStart(mode="transfer"), "kind": "gru"}, "no weight of the model"),
        ({"start": WarmStart(mode="warm", freeze=["body.nothing*"])}, "no weight is named body.nothing"),
        ({"start": WarmStart(mode="warm", freeze=["*"])}, "leaves no weight to train"),
        ({"start": WarmStart(mode="transfer", freeze=["*forecast*"]), "horizon": 6}, "the start gives no body"),
    ],
)  # fmt: skip
def test_a_start_that_does_not_fit_is_refused(
    tmp_path: Path, parent: Path, order: dict[str, Any], message: str
) -> None:
    with pytest.raises((BadModel, BadSettings), match=message):
        begun(tmp_path, parent, **order)


def test_a_damaged_or_missing_start_is_refused(tmp_path: Path, parent: Path) -> None:
    order = prepared(tmp_path, parent, start=WarmStart(mode="warm"))
    file = tmp_path / "start" / "weights.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(BadModel, match=r"weights\.safetensors is damaged"):
        read_parent(tmp_path, order)
    shutil.rmtree(tmp_path / "start")
    with pytest.raises(BadModel, match="cannot read"):
        read_parent(tmp_path, order)


def test_a_model_that_fits_itself_takes_no_start(tmp_path: Path, parent: Path) -> None:
    class Itself:
        kind = "itself"

    order = prepared(tmp_path, parent, start=WarmStart(mode="transfer"))
    found = FitJob(tmp_path, order, read_parent(tmp_path, order), Progress(), SystemClock())
    with pytest.raises(BadSettings, match="fits itself"):
        fit._fit(Itself(), load_dataset(tmp_path, order), found)  # type: ignore[arg-type]


@pytest.mark.parametrize("folder", ["../model", "/model", "a/b", "", ".."])
def test_a_start_outside_the_job_folder_cannot_be_ordered(tmp_path: Path, folder: str) -> None:
    made = job(tmp_path, frames(), **{**ORDER, "start": WarmStart(mode="warm")})
    text = (tmp_path / "order.json").read_text()
    assert made.start is not None
    (tmp_path / "order.json").write_text(text.replace('"start"', f'"{folder}"').replace(f'"{folder}":', '"start":'))
    with pytest.raises(BadSettings, match="folder"):
        FitOrder.read(tmp_path)
