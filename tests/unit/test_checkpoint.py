"""A fit that was interrupted ends as one that was not, to the bit; tests/chaos/test_fit_kills.py kills it for real."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tickcast.batch.train import train
from tickcast.batch.train.checkpoint import BEST, CHECKPOINT, LAST, RECORD
from tickcast.errors import BadData
from trainkit import Progress, Ticking, fitted, weights

ORDER: dict[str, Any] = {"model_params": {"hidden": 8}, "windows_per_epoch": 160, "batch_size": 32, "epochs": 4}
EVERY_STEP = {"checkpoint_s": 1e-9, "checkpoints": True}


class Interrupted(Exception):
    pass


class CutOff(Progress):
    """Ends the fit at its n-th report, and not in its own way."""

    def __call__(self, *, step: int, steps: int, **figures: float) -> bool:
        if not super().__call__(step=step, steps=steps, **figures):
            raise Interrupted
        return True


class Dropout(nn.Module):
    """Before a body, so that a step depends on what is drawn in it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.dropout = body, nn.Dropout(0.3)

    def forward(self, window: Tensor, extra: Tensor) -> Tensor:
        answer: Tensor = self.body(self.dropout(window), extra)
        return answer


def with_dropout(net: Any) -> None:
    net.module().body = Dropout(net.module().body)


@pytest.fixture(autouse=True)
def _every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(train, "REPORT_EVERY", 1)


def same(one: Any, other: Any) -> None:
    """Weights to the bit, and all that is told but the time it took."""
    np.testing.assert_array_equal(weights(one[0]), weights(other[0]))
    assert {**as_dict(one[1]), "seconds": 0} == {**as_dict(other[1]), "seconds": 0}


def as_dict(outcome: Any) -> dict[str, Any]:
    return {name: getattr(outcome, name) for name in outcome.__slots__}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop"])
def test_going_on_from_the_middle_of_an_epoch_gives_what_no_interruption_gives(tmp_path: Path, optimizer: str) -> None:
    order = {**ORDER, "optimizer": optimizer, "schedule": "plateau", "learning_rate": 0.02, "change": with_dropout}
    whole = fitted(tmp_path / "whole", **order)
    with pytest.raises(Interrupted):
        fitted(tmp_path / "cut", CutOff(9), **EVERY_STEP, **order)  # a report per step and one per epoch of 5
    report = Progress()
    order["checkpoint_s"] = 1e-9
    same(fitted(tmp_path / "cut", report, checkpoints=True, **order), whole)
    assert report.lines[0]["step"] == 8, "the step that nobody saved is done again, and none before it"


def test_what_a_net_draws_in_a_step_matters_and_comes_from_seed_and_step(tmp_path: Path) -> None:
    one, other, plain = (
        fitted(tmp_path / name, change=change, **ORDER)
        for name, change in (("a", with_dropout), ("b", with_dropout), ("c", lambda _: None))
    )
    same(one, other)
    assert not np.array_equal(weights(one[0]), weights(plain[0]))


def test_a_stopped_fit_goes_on_as_if_nobody_had_stopped_it(tmp_path: Path) -> None:
    whole = fitted(tmp_path / "whole", **ORDER)
    _, stopped = fitted(tmp_path / "cut", Progress(enough=9), checkpoints=True, **ORDER)
    assert (stopped.status, stopped.epochs) == ("stopped", 2)
    same(fitted(tmp_path / "cut", checkpoints=True, **ORDER), whole)


@pytest.mark.parametrize("over", [{}, {"patience": 1, "learning_rate": 0.3, "epochs": 40}])
def test_a_fit_that_ended_by_itself_ends_there_again_at_once(tmp_path: Path, over: dict[str, Any]) -> None:
    first = fitted(tmp_path, checkpoints=True, **{**ORDER, **over})
    report = Progress()
    same(fitted(tmp_path, report, checkpoints=True, **{**ORDER, **over}), first)
    assert first[1].status == ("stopped_early" if over else "done")
    assert not report.lines


def test_the_time_budget_counts_what_was_spent_before(tmp_path: Path) -> None:
    order = {**ORDER, "epochs": 1000, "time_budget_s": 100, "clock": Ticking()}
    with pytest.raises(Interrupted):
        fitted(tmp_path, CutOff(10), **EVERY_STEP, **order)
    spent = Progress()
    _, outcome = fitted(tmp_path, spent, checkpoints=True, **{**order, "checkpoint_s": 1e-9, "clock": Ticking()})
    whole = Progress()
    fitted(tmp_path / "whole", whole, **EVERY_STEP, **{**order, "clock": Ticking()})
    assert outcome.status == "out_of_time"
    assert 0 < len(spent.lines) < len(whole.lines) - 5
    assert outcome.seconds == pytest.approx(100, abs=10)


def test_best_and_last_are_there_from_the_first_epoch_on(tmp_path: Path) -> None:
    net, _ = fitted(tmp_path, checkpoints=True, **ORDER)
    folder = tmp_path / CHECKPOINT
    assert {file.name for file in folder.iterdir()} == {BEST, LAST, RECORD}
    best, own = load_file(folder / BEST), net.module().state_dict()
    assert set(best) == set(own)
    assert all(torch.equal(best[name], own[name]) for name in own)


@pytest.mark.parametrize(("change", "what"), [({"seed": 8}, "order"), ({"lookback": 20}, "order, data")])
def test_a_checkpoint_of_another_fit_is_refused(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    fitted(tmp_path, checkpoints=True, **ORDER)
    with pytest.raises(BadData, match=f"another fit: its {what} differs .remove"):
        fitted(tmp_path, checkpoints=True, **{**ORDER, **change})
    shutil.rmtree(tmp_path / CHECKPOINT)
    fitted(tmp_path, checkpoints=True, **{**ORDER, **change})


@pytest.mark.parametrize("damage", ["cut", "empty", "rubbish", "foreign"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    fitted(tmp_path, checkpoints=True, **ORDER)
    path = tmp_path / CHECKPOINT / LAST
    raw = path.read_bytes()
    foreign = (tmp_path / CHECKPOINT / BEST).read_bytes()  # safetensors, but no checkpoint
    path.write_bytes({"cut": raw[:-10], "empty": b"", "rubbish": b"x" * 99, "foreign": foreign}[damage])
    with pytest.raises(BadData, match=r"last\.safetensors cannot be read"):
        fitted(tmp_path, checkpoints=True, **ORDER)
