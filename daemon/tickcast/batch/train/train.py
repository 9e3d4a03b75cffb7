"""The loop that fits a torch module: epochs of drawn windows, steps, early stop, checkpoints. It reads no hold-out.

A step depends on order, data, the step before and its own number alone, so a fit that goes on from a checkpoint ends
with the weights, to the bit, that it would have had without the interruption.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from tickcast.batch.train.analysis import EpochLosses, FitOutcome
from tickcast.batch.train.checkpoint import Checkpoints, Saved
from tickcast.batch.train.classes import training_moves
from tickcast.batch.train.dataset import Batch, Dataset
from tickcast.batch.train.draws import draw, epoch_windows, remembered
from tickcast.batch.train.losses import make_objective
from tickcast.batch.train.optimizers import load_state, make_optimizer, set_rate, state_tensors
from tickcast.batch.train.precision import forward_precision, recomputed
from tickcast.batch.train.schedules import WARM_UP, rate_share
from tickcast.clock import Clock
from tickcast.columns import I64
from tickcast.errors import BadData
from tickcast.figures import SCALE_FLOOR
from tickcast.io.jobs.orders import FitOrder
from tickcast.plugin import Report

REPORT_EVERY = 100  # steps
VALIDATION_BATCH = 1024


@dataclass(slots=True)
class FitPlace:
    """Where a fit stands: the next step begins with window `row` of the draw of `epoch`."""

    epoch: int = 1
    row: int = 0
    step: int = 0
    loss_sum: float = 0.0  # of this epoch
    windows: int = 0


def train(
    module: torch.nn.Module,
    dataset: Dataset,
    order: FitOrder,
    report: Report,
    clock: Clock,
    *,
    checkpoints: Checkpoints | None = None,
) -> FitOutcome:
    """Fit `module` in place; it ends with the weights of the best validation loss.

    What its classes are like it learns from the training part first, unless it is finetuned and keeps the old ones.
    """
    if hasattr(module, "learn_classes") and not order.finetunes:
        module.learn_classes(training_moves(dataset))  # type: ignore[operator]
    with recomputed(module, wanted=order.recompute):
        return _Fit(module, dataset, order, report, clock, checkpoints).run()


def tensors(batch: Batch) -> tuple[list[Tensor], Tensor, Tensor]:
    """Inputs, target and scale [B, 1] of a batch, without the windows that never moved: they have no unit."""
    moved = np.flatnonzero(batch.scale > SCALE_FLOOR)
    inputs, target, scale = batch.inputs, batch.target, batch.scale
    if len(moved) < len(scale):
        inputs, target, scale = inputs.take(moved), target[moved], scale[moved]
    parts = [torch.from_numpy(part) for part in (inputs.past, inputs.mask, inputs.future, inputs.static)]
    return parts, torch.from_numpy(target), torch.from_numpy(scale).to(torch.float32).unsqueeze(-1)


class _Fit:
    def __init__(
        self,
        module: torch.nn.Module,
        dataset: Dataset,
        order: FitOrder,
        report: Report,
        clock: Clock,
        checkpoints: Checkpoints | None,
    ) -> None:
        self.module, self.dataset, self.order, self.report, self.clock = module, dataset, order, report, clock
        self.checkpoints = checkpoints
        self.loss = make_objective(module, order.loss, order.levels)
        self.optimizer = make_optimizer(module, order)
        rows = dataset.parts.validation
        self.validation = rows[np.linspace(0, len(rows) - 1, min(order.validation_windows, len(rows))).astype(np.int64)]
        self.step_windows = order.batch_size * order.accumulate
        self.memory = remembered(dataset, order)
        self.steps = -(-sum(epoch_windows(dataset, order)) // self.step_windows) * order.epochs
        self.place, self.outcome, self.best = FitPlace(), FitOutcome(), dict[str, Tensor]()
        self.began_ns, self.saved_s = clock.monotonic_ns(), 0.0

    def run(self) -> FitOutcome:
        saved = self.checkpoints.last() if self.checkpoints else None
        if saved:
            self._restore(saved)
            if self.best and not self.place.row and self._is_out_of_time():
                self.outcome.status = "out_of_time"
        else:
            self._begin()
        while self.outcome.status == "done" and self.place.epoch <= self.order.epochs:
            self._epoch()
        if not self.best:
            raise BadData("the fit diverged: no epoch had a finite validation loss", remedy="lower learning_rate")
        self.module.load_state_dict(self.best)
        self.outcome.seconds = self._seconds()
        return self.outcome

    def _begin(self) -> None:
        """With what its weights are worth; those that know something stay, unless others are better and know it too."""
        self.outcome.start_loss = self._loss_over(self.validation)
        if len(self.memory):
            old_loss = self._loss_over(self.memory)
            self._keep(self.outcome.start_loss, epoch=0)
            self.outcome.old_losses = [old_loss, old_loss]

    def _epoch(self) -> None:
        whole = self._steps()
        if not whole:
            self._save()  # before this epoch is closed: going on from here is as if nobody had stopped it
        epoch, validation_loss = self.place.epoch, self._loss_over(self.validation)
        training_loss = self.place.loss_sum / max(self.place.windows, 1)
        self._close_epoch(training_loss, validation_loss)
        if whole:
            self._save()
        going = self.report(
            step=self.place.step, steps=self.steps, epoch=epoch, loss=training_loss, validation_loss=validation_loss,
            windows_per_s=self.outcome.windows / self._seconds(),
        )  # fmt: skip
        if not going:
            self.outcome.status = "stopped"
        if self.outcome.status == "done":
            self.outcome.status = "out_of_time" if self._is_out_of_time() else self._own_end()

    def _steps(self) -> bool:
        """Train to the end of the epoch; False where the fit must end before it."""
        self.module.train()
        rows, place = draw(self.dataset, self.order, self.place.epoch), self.place
        while place.row < len(rows):
            if self.outcome.status == "stopped" or (place.step and self._is_out_of_time()):
                return False
            loss = self._step(rows[place.row : place.row + self.step_windows])
            if place.step % REPORT_EVERY == 0 and not self.report(step=place.step, steps=self.steps, loss=loss):
                self.outcome.status = "stopped"
            if self.checkpoints and self._seconds() - self.saved_s >= self.order.checkpoint_s:
                self._save()
        return True

    def _step(self, rows: I64) -> float:
        """One change of the weights, by the mean gradient over all windows of its batches."""
        set_rate(self.optimizer, self._rate())
        self.place.step += 1
        self.place.row += self.step_windows
        _seed_dropout(self.order.seed, self.place.step)
        size = self.order.batch_size
        batches = [tensors(self.dataset.batch(rows[first : first + size])) for first in range(0, len(rows), size)]
        windows = sum(len(target) for _, target, _ in batches)
        if not windows:
            return 0.0
        self.optimizer.zero_grad(set_to_none=True)
        loss = sum(self._backward(*batch, of=windows) for batch in batches if len(batch[1]))
        if self.order.gradient_clip:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.order.gradient_clip)
        self.optimizer.step()
        self.place.loss_sum += loss * windows
        self.place.windows += windows
        return loss

    def _backward(self, parts: list[Tensor], target: Tensor, scale: Tensor, *, of: int) -> float:
        with forward_precision(self.order.precision):
            loss = self.loss(parts, target, scale) * (len(target) / of)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def _rate(self) -> float:
        """By the steps; a fit that is too slow for its budget follows the budget, and so anneals too."""
        progress, spent = self.place.step / self.steps, self._seconds() / self.order.time_budget_s
        if spent > WARM_UP:  # not sooner: a fit that keeps within its budget depends on order and bars alone
            progress = min(max(progress, spent), 1.0)
        losses = [epoch.validation_loss for epoch in self.outcome.curve]
        return self.order.rate * rate_share(self.order, progress=progress, epoch=self.place.epoch, losses=losses)

    def _close_epoch(self, training_loss: float, validation_loss: float) -> None:
        outcome, epoch = self.outcome, self.place.epoch
        outcome.epochs = epoch
        outcome.windows += self.place.windows
        outcome.curve.append(EpochLosses(training_loss, validation_loss))
        if validation_loss < outcome.validation_loss and self._still_knows():
            self._keep(validation_loss, epoch=epoch)
        self.place = FitPlace(epoch=epoch + 1, step=self.place.step)

    def _still_knows(self) -> bool:
        """What the weights knew that the fit began with, where it keeps an eye on that."""
        if not len(self.memory):
            return True
        before, now = self.outcome.old_losses[0], self._loss_over(self.memory)
        assert self.order.start is not None
        if now - before > self.order.start.most_forgotten * abs(before):
            return False
        self.outcome.old_losses[1] = now
        return True

    def _keep(self, validation_loss: float, *, epoch: int) -> None:
        """These weights, as the best so far."""
        outcome = self.outcome
        outcome.validation_loss, outcome.best_epoch, self.best = validation_loss, epoch, self._weights()
        if self.checkpoints:
            self.checkpoints.save_best(self.best)

    def _loss_over(self, rows: I64) -> float:
        self.module.eval()
        total, count = 0.0, 0
        with torch.inference_mode():
            for first in range(0, len(rows), VALIDATION_BATCH):
                batch = self.dataset.batch(rows[first : first + VALIDATION_BATCH])
                parts, target, scale = tensors(batch)
                if len(target):
                    loss = self.loss(parts, target, scale)
                    total, count = total + loss.item() * len(target), count + len(target)
        return total / count if count else math.inf

    def _save(self) -> None:
        if not self.checkpoints:
            return
        self.saved_s = self.outcome.seconds = self._seconds()
        outcome = {**asdict(self.outcome), "status": self._own_end()}  # an end from outside is none to one that goes on
        record = {"place": asdict(self.place), "outcome": outcome}
        named = {"module": self._weights(), "best": self.best, "optimizer": state_tensors(self.optimizer)}
        flat = {f"{group}/{name}": tensor for group, own in named.items() for name, tensor in own.items()}
        self.checkpoints.save(Saved(flat, record))

    def _restore(self, saved: Saved) -> None:
        self.place = FitPlace(**saved.record["place"])
        outcome = saved.record["outcome"]
        self.outcome = FitOutcome(**{**outcome, "curve": [EpochLosses(*epoch) for epoch in outcome["curve"]]})
        self.saved_s = self.outcome.seconds
        self.began_ns -= int(self.outcome.seconds * 1e9)  # the budget counts what was spent before
        self.module.load_state_dict(_under("module", saved.tensors))
        self.best = _under("best", saved.tensors)
        if self.checkpoints and self.best:  # the file may be of an epoch that was closed before its time
            self.checkpoints.save_best(self.best)
        load_state(self.optimizer, _under("optimizer", saved.tensors))

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}

    def _own_end(self) -> str:
        """What the closed epochs say, whatever came from outside; done, too, while there are more to come."""
        return "stopped_early" if self.outcome.epochs - self.outcome.best_epoch >= self.order.patience else "done"

    def _is_out_of_time(self) -> bool:
        return self._seconds() >= self.order.time_budget_s

    def _seconds(self) -> float:
        return (self.clock.monotonic_ns() - self.began_ns) / 1e9


def _under(group: str, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{group}/"): tensor for name, tensor in named.items() if name.startswith(f"{group}/")}


def _seed_dropout(seed: int, step: int) -> None:
    """What the nets draw in a step is a function of seed and step, not of the steps before it."""
    drawn = np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)
    torch.default_generator.manual_seed(int(drawn[0]))
