"""Finetuning on news beside old windows: what is drawn, what judges, and that little is forgotten."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from tickcast.batch.train import fit
from tickcast.batch.train.analysis import FitOutcome
from tickcast.batch.train.checkpoint import Checkpoints
from tickcast.batch.train.dataset import Dataset, load_dataset
from tickcast.batch.train.draws import draw, epoch_windows, remembered
from tickcast.batch.train.fit_job import Parent
from tickcast.batch.train.splits import OF_NEWS
from tickcast.batch.train.start import begin
from tickcast.batch.train.train import tensors, train
from tickcast.clock import SetClock
from tickcast.columns import F64
from tickcast.engine.inference.model_folder import read_card
from tickcast.errors import BadData, BadSettings
from tickcast.io.jobs.folder import START
from tickcast.io.jobs.orders import Against, FitOrder, WarmStart
from trainkit import EVERY_NS, Progress, autoregressive, job, model_of, series, weights

OLD, NEWS, HORIZON = 2000, 1000, 2
SEEN_NS = OLD * EVERY_NS
SMALL: dict[str, Any] = {"kind": "nlinear", "model_params": {}, "lookback": 8, "horizon": HORIZON, "batch_size": 128}
TUNED: dict[str, Any] = {"learning_rate": 0.01, "epochs": 12, "patience": 12, "schedule": "constant"}
MUCH = 1e9


def close(seed: int) -> F64:
    """Moves that turned back, and go on since then."""
    before, after = autoregressive(OLD, seed=seed), autoregressive(NEWS, seed=100 + seed, phi=0.6)
    return np.concatenate([before, before[-1] * after / 100])


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Parent:
    """A net that knows how they turned back."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("parent")
    order = job(folder, [series(name, close(seed)[:OLD]) for seed, name in enumerate("AB")], **SMALL, epochs=10)
    dataset = load_dataset(folder, order)
    net: Any = fit.build(order, dataset)
    train(net.module(), dataset, order, Progress(), SetClock())
    net.save(folder)
    return Parent(WarmStart(mode="finetune"), folder, net.card)


def prepared(folder: Path, *, old_share: float = 0.5, most_forgotten: float = MUCH, **order: Any) -> FitOrder:
    start = WarmStart(mode="finetune", old_share=old_share, most_forgotten=most_forgotten)
    frames = [series(name, close(seed)) for seed, name in enumerate("AB")]
    return job(folder, frames, **{**SMALL, **TUNED, "start": start, **order})


def data(folder: Path, order: FitOrder) -> Dataset:
    return load_dataset(folder, order, seen_to_ns=SEEN_NS)


def tuned(folder: Path, parent: Parent, report: Any = None, **given: Any) -> tuple[Any, FitOutcome]:
    order = prepared(folder, **given)
    dataset = data(folder, order)
    net: Any = fit.build(order, dataset)
    begin(net, parent)
    kept = Checkpoints(folder, {"order": order.digest})
    return net, train(net.module(), dataset, order, report or Progress(), SetClock(), checkpoints=kept)


def loss_of(net: Any, closes: list[F64], folder: Path) -> float:
    """In one-bar moves, over bars that no fit saw."""
    order = job(folder, [series(name, row) for name, row in zip("AB", closes, strict=True)], **SMALL)
    dataset = load_dataset(folder, order)
    parts, target, scale = tensors(dataset.batch(dataset.parts.train))
    with torch.inference_mode():
        error = (target / scale).unsqueeze(-1) - net.module()(*parts) / scale.unsqueeze(-1)
        level = torch.tensor(order.levels)
        return float(torch.maximum(level * error, (level - 1) * error).mean())


def test_only_news_stops_it_and_judges_it(tmp_path: Path) -> None:
    """And the cuts are those of the news: all that came before belongs to the training part."""
    dataset = data(tmp_path, prepared(tmp_path))
    as_of, parts = dataset.history.bars.as_of, dataset.parts
    old, news = dataset.training_windows()
    assert as_of[old].max() == SEEN_NS < as_of[news].min()
    cuts = [SEEN_NS + int(NEWS * EVERY_NS * share) for share in OF_NEWS]
    assert as_of[news + HORIZON].max() == cuts[0]
    for part, low in zip((parts.validation, parts.calibration, parts.holdout), cuts, strict=True):
        assert as_of[part].min() > low + HORIZON * EVERY_NS
    assert dataset.told()["rule"]["cut_from_ns"] == SEEN_NS  # type: ignore[index]
    whole = dataset.without_holdout()
    assert as_of[whole.training_windows()[1] + HORIZON].max() == SEEN_NS + int(NEWS * EVERY_NS * 0.8)
    assert as_of[whole.parts.calibration + HORIZON].max() == as_of.max()


@pytest.mark.parametrize("seen_ns", [0, (OLD + NEWS) * EVERY_NS, (OLD + NEWS - 1) * EVERY_NS])
def test_without_old_bars_or_without_news_there_is_nothing_to_tell_apart(tmp_path: Path, seen_ns: int) -> None:
    order = prepared(tmp_path)
    with pytest.raises(BadData):
        load_dataset(tmp_path, order, seen_to_ns=seen_ns)


@pytest.mark.parametrize("old_share", [0.0, 0.25, 0.5, 0.9])
def test_an_epoch_passes_all_news_once_and_so_many_old_windows_beside_it(tmp_path: Path, old_share: float) -> None:
    order = prepared(tmp_path, old_share=old_share, windows_per_epoch=10**6)
    dataset = data(tmp_path, order)
    old, news = dataset.training_windows()
    rows = draw(dataset, order, 1)
    assert sorted(rows[np.isin(rows, news)]) == sorted(news)
    wanted = round(len(news) * old_share / (1 - old_share))
    assert np.isin(rows, old).sum() == min(wanted, len(old) - len(remembered(dataset, order)))
    assert len(rows) == sum(epoch_windows(dataset, order))
    np.testing.assert_array_equal(rows, draw(dataset, order, 1))
    assert not np.array_equal(rows, draw(dataset, order, 2))
    assert not np.isin(rows, remembered(dataset, order)).any()


def test_an_epoch_of_fewer_windows_has_the_same_shares(tmp_path: Path) -> None:
    order = prepared(tmp_path, old_share=0.75, windows_per_epoch=100)
    dataset = data(tmp_path, order)
    rows = draw(dataset, order, 3)
    assert len(rows) == 100
    assert np.isin(rows, dataset.training_windows()[0]).sum() == 75


def test_old_windows_keep_what_the_model_knew_and_news_alone_does_not(tmp_path: Path, parent: Parent) -> None:
    """By bars of both laws that no fit saw, without any bound."""
    before = [autoregressive(1500, seed=200 + i) for i in range(2)]
    after = [autoregressive(1500, seed=300 + i, phi=0.6) for i in range(2)]
    nets = {share: tuned(tmp_path / str(share), parent, old_share=share)[0] for share in (0.0, 0.8)}
    knew, learnt = ({s: loss_of(net, law, tmp_path / "l") for s, net in nets.items()} for law in (before, after))
    assert knew[0.8] < 0.95 * knew[0.0]
    assert learnt[0.0] < learnt[0.8]


def test_what_is_forgotten_stays_within_the_bound(tmp_path: Path, parent: Parent) -> None:
    """Of two laws that contradict each other only a little of the second can be learnt then."""
    fits = {bound: tuned(tmp_path / str(bound), parent, most_forgotten=bound) for bound in (0.0, 0.02, MUCH)}
    for bound, (_, outcome) in fits.items():
        before, now = outcome.old_losses
        assert now <= before * (1 + bound)
    (_, none), (_, little), (_, much) = fits.values()
    assert much.old_losses[1] > 1.02 * much.old_losses[0]  # the bound is what holds it
    assert much.validation_loss < little.validation_loss <= none.validation_loss


def test_where_no_epoch_is_better_its_weights_stay(tmp_path: Path, parent: Parent) -> None:
    net, outcome = tuned(tmp_path, parent, learning_rate=5.0, epochs=2)
    assert (outcome.best_epoch, outcome.validation_loss) == (0, outcome.start_loss)
    assert outcome.old_losses[0] == outcome.old_losses[1]
    given: Any = fit.find("models", "nlinear")(parent.card)
    given.load(parent.folder)
    np.testing.assert_array_equal(weights(net), weights(given))


def test_one_that_was_interrupted_ends_as_one_that_was_not(tmp_path: Path, parent: Parent) -> None:
    whole = tuned(tmp_path / "whole", parent, most_forgotten=0.05)
    tuned(tmp_path / "cut", parent, Progress(enough=3), most_forgotten=0.05)
    again = tuned(tmp_path / "cut", parent, most_forgotten=0.05)
    np.testing.assert_array_equal(weights(again[0]), weights(whole[0]))
    assert again[1].old_losses == whole[1].old_losses


@pytest.mark.slow
def test_a_candidate_that_is_tuned_knows_its_parent_and_its_news_up_to_the_last_bar(tmp_path: Path) -> None:
    """From job folder to model folder, with the final fit: each begins with the parent and cuts the news."""
    frames = [series(name, autoregressive(OLD + NEWS, seed=seed)) for seed, name in enumerate("AB")]
    job(tmp_path / "parent", [frame[:OLD] for frame in frames], **SMALL, epochs=4)
    folder = tmp_path / "job"
    start, against = WarmStart(mode="finetune", old_share=0.5), Against(alpha=0.05, most_bars=10**6)
    job(folder, frames, **{**SMALL, **TUNED, "epochs": 2, "start": start, "against": against})
    shutil.copytree(model_of(tmp_path / "parent"), folder / START)
    parent = read_card(folder / START)
    found = fit.run(folder, Progress())
    card = read_card(folder / found["model"])
    assert not found["against"]["terms"]["refusal"]
    assert found["dataset"]["rule"]["cut_from_ns"] == parent.trained_to_ns
    assert (card.parent, card.metrics["start"]["mode"]) == (parent.digest, "finetune")
    assert card.trained_to_ns == (OLD + NEWS) * EVERY_NS
    news_ns = card.trained_to_ns - parent.trained_to_ns
    assert card.metrics["judged"]["trained_to_ns"] == parent.trained_to_ns + int(0.6 * news_ns / EVERY_NS) * EVERY_NS
    assert [len(fitted["old_losses"]) for fitted in (card.metrics["fit"], card.metrics["judged"]["fit"])] == [2, 2]


@pytest.mark.parametrize("mode", ["warm", "transfer"])
def test_only_finetuning_tells_news_apart(tmp_path: Path, mode: str) -> None:
    order = {"job": "train", "start": {"mode": mode, "old_share": 0.5}}
    (tmp_path / "order.json").write_bytes(msgspec.json.encode(order))
    with pytest.raises(BadSettings, match="draws from all bars alike"):
        FitOrder.read(tmp_path)
