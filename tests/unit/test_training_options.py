"""Each option of a fit does what it says, and something."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tickcast.batch.train import fit, precision, train
from tickcast.batch.train.dataset import load_dataset
from tickcast.batch.train.draws import draw
from tickcast.batch.train.losses import make_objective
from tickcast.batch.train.schedules import LAST_RATE, plateaus
from tickcast.batch.train.train import tensors
from tickcast.columns import F64
from tickcast.errors import BadSettings
from tickcast.io.jobs.orders import FINETUNE_RATE, RATE, FitOrder, WarmStart
from trainkit import Progress, fitted, job, series, walk, weights

TINY: dict[str, Any] = {"model_params": {"hidden": 8}, "windows_per_epoch": 128, "batch_size": 32, "epochs": 2}
ONE_STEP: dict[str, Any] = {**TINY, "windows_per_epoch": 32, "epochs": 1, "schedule": "constant", "weight_decay": 0.0}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def first_step(folder: Path, **order: Any) -> tuple[F64, F64]:
    """Weights before and after one step."""
    before: list[F64] = []
    net, _ = fitted(folder, change=lambda net: before.append(weights(net)), **{**ONE_STEP, **order})
    return before[0], weights(net)


def first_gradient(folder: Path) -> F64:
    """Of the fit that was made in `folder`, computed without it."""
    order = FitOrder.read(folder)
    dataset = load_dataset(folder, order)
    net: Any = fit.build(order, dataset)
    loss = make_objective(net.module(), order.loss, order.levels)
    loss(*tensors(dataset.batch(draw(dataset, order, 1)))).backward()  # type: ignore[no-untyped-call]
    found: F64 = torch.cat([weight.grad.flatten() for weight in net.module().parameters()]).numpy()
    return found


def test_sgd_goes_down_the_gradient(tmp_path: Path) -> None:
    before, after = first_step(tmp_path, optimizer="sgd", learning_rate=0.1, gradient_clip=0.0)
    np.testing.assert_allclose(after - before, -0.1 * first_gradient(tmp_path), atol=2e-8)


def test_the_gradient_is_cut_to_its_longest(tmp_path: Path) -> None:
    order: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.5}
    lengths = []
    for name, clip in (("none", 0.0), ("short", 0.001), ("long", 1e6)):
        before, after = first_step(tmp_path / name, gradient_clip=clip, **order)
        lengths.append(float(np.linalg.norm(after - before)))
    assert lengths[1] == pytest.approx(0.5 * 0.001, rel=1e-3)
    assert lengths[0] == lengths[2] > 10 * lengths[1]


def test_every_optimizer_goes_its_own_way(tmp_path: Path) -> None:
    options = ({"optimizer": "adamw"}, {"optimizer": "adam"}, {"optimizer": "rmsprop"}, {"optimizer": "sgd"},
               {"optimizer": "sgd", "momentum": 0.0})  # fmt: skip
    found = [weights(fitted(tmp_path / str(i), **TINY, weight_decay=0.3, **o)[0]) for i, o in enumerate(options)]
    for i, one in enumerate(found):
        assert not any(np.array_equal(one, other) for other in found[:i])


def test_accumulated_batches_are_one_bigger_batch(tmp_path: Path) -> None:
    order = {**TINY, "windows_per_epoch": 100, "optimizer": "sgd", "learning_rate": 0.1, "gradient_clip": 0.0}
    order["schedule"] = "constant"
    found = {}
    for name, batch, accumulate in (("big", 64, 1), ("gathered", 32, 2), ("small", 32, 1)):
        report = Progress()
        net, outcome = fitted(tmp_path / name, report, **{**order, "batch_size": batch, "accumulate": accumulate})
        found[name] = weights(net)
        assert report.lines[-1]["step"] == report.lines[-1]["steps"] == (8 if name == "small" else 4)
        assert outcome.windows == 200
    np.testing.assert_allclose(found["gathered"], found["big"], atol=1e-6)
    assert np.abs(found["small"] - found["big"]).max() > 1e-4


def rates(folder: Path, monkeypatch: pytest.MonkeyPatch, **order: Any) -> tuple[list[float], Any]:
    """The share of the rate at every step."""
    seen: list[float] = []
    monkeypatch.setattr(train, "set_rate", lambda _, rate: seen.append(rate))
    _, outcome = fitted(folder, **{**TINY, "learning_rate": 0.3, "epochs": 4, "windows_per_epoch": 160, **order})
    return [rate / 0.3 for rate in seen], outcome


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1.0] * 20),
        ("step", [1.0] * 10 + [0.25] * 10),
        ("cosine", [LAST_RATE + (1 - LAST_RATE) * (1 + np.cos(np.pi * i / 20)) / 2 for i in range(20)]),
        ("one_cycle", [LAST_RATE, (1 + LAST_RATE) / 2]
         + [LAST_RATE + (1 - LAST_RATE) * (1 + np.cos(np.pi * (i - 2) / 18)) / 2 for i in range(2, 20)]),
    ],
)  # fmt: skip
def test_a_schedule_gives_its_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str, expected: list[float]
) -> None:
    found, _ = rates(tmp_path, monkeypatch, schedule=schedule, rate_epochs=2, rate_factor=0.25)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_on_a_plateau_the_rate_drops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, outcome = rates(tmp_path, monkeypatch, schedule="plateau", rate_epochs=1, rate_factor=0.5, epochs=6)
    losses = [epoch.validation_loss for epoch in outcome.curve]
    assert found == [0.5 ** plateaus(losses[: i // 5], 1) for i in range(len(found))]
    assert min(found) < 1.0


def test_a_plateau_is_counted_anew_after_each_drop() -> None:
    assert [plateaus([5, 4, 4, 4, 4, 4, 3, 3, 3][:n], 2) for n in range(10)] == [0, 0, 0, 0, 1, 1, 2, 2, 2, 3]


def test_finetuning_is_ten_times_slower_unless_a_rate_is_given() -> None:
    tune = WarmStart(mode="finetune")
    assert (FitOrder().rate, FitOrder(start=tune).rate) == (RATE, FINETUNE_RATE) == (1e-3, 1e-4)
    assert FitOrder(start=tune, learning_rate=0.2).rate == 0.2
    assert FitOrder(start=WarmStart(mode="warm")).rate == RATE


def test_in_bfloat16_it_learns_nearly_the_same_and_is_judged_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: True)  # imitated where the processor has none: slow, but equal
    (plain, one), (rounded, other) = (
        fitted(tmp_path / name, **{**TINY, "epochs": 4, "precision": name}) for name in ("fp32", "bf16")
    )
    assert not np.array_equal(weights(plain), weights(rounded))
    assert other.start_loss == one.start_loss
    assert other.validation_loss == pytest.approx(one.validation_loss, rel=0.02)
    assert other.validation_loss < other.start_loss


def test_bfloat16_is_refused_where_the_processor_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: False)
    with pytest.raises(BadSettings, match="set precision = fp32"):
        fitted(tmp_path, precision="bf16", **TINY)


def test_recomputed_activations_give_the_same_weights_and_are_not_kept(tmp_path: Path) -> None:
    nets = [fitted(tmp_path / str(wanted), recompute=wanted, **TINY)[0] for wanted in (False, True)]
    np.testing.assert_array_equal(weights(nets[0]), weights(nets[1]))
    kept = []
    order = job(tmp_path, [series("A", walk(400, seed=0))], **TINY)
    batch = tensors(load_dataset(tmp_path, order).batch(np.arange(50, 114)))
    for wanted in (False, True):
        module, held = nets[0].module(), 0

        def hold(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal held
            held += tensor.nbytes
            return tensor

        with precision.recomputed(module, wanted=wanted):
            with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
                make_objective(module, "quantile", order.levels)(*batch)
        kept.append(held)
    assert kept[1] < 0.9 * kept[0]
    assert "forward" not in vars(module.body.blocks[0]), "the export must not see it"


def test_recomputing_is_refused_where_there_are_no_blocks(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="set recompute = false"):
        fitted(tmp_path, kind="gru", recompute=True, **TINY)


def test_a_window_a_half_life_older_is_drawn_half_as_often(tmp_path: Path) -> None:
    frames = [series("A", walk(4000, seed=1)), series("B", walk(2000, seed=2), start=2000)]
    order = job(tmp_path, frames, half_life_bars=100.0, windows_per_epoch=100_000, symbol_weight=0.0, lookback=24)
    dataset = load_dataset(tmp_path, order)
    rows = np.concatenate([draw(dataset, order, epoch) for epoch in range(1, 21)])
    symbol = dataset.history.symbol
    for code in (0, 1):
        own = rows[symbol[rows] == code]
        assert len(own) / len(rows) == pytest.approx(0.5, abs=0.02)
        age = dataset.parts.train[symbol[dataset.parts.train] == code].max() - own
        share = np.array([(age // 100 == n).mean() for n in range(3)])
        np.testing.assert_allclose(share, [0.5, 0.25, 0.125], atol=0.02)
    np.testing.assert_array_equal(draw(dataset, order, 3), draw(dataset, order, 3))
