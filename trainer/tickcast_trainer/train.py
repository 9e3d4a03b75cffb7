"""The loop that fits a torch module: seeded draws, AdamW, one cycle of the rate, early stop. It reads no hold-out."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tickcast.clock import Clock
from tickcast.columns import I64
from tickcast.core.windows import SCALE_FLOOR
from tickcast.errors import BadData
from tickcast.plugin import Report
from tickcast_trainer.dataset import Batch, Dataset
from tickcast_trainer.losses import make_objective
from tickcast_trainer.order import FitOrder

WARM_UP, LAST_RATE = 0.1, 0.01  # share of the cycle that climbs; share of the rate that is left at its end
MAX_GRADIENT = 1.0
REPORT_EVERY = 100  # steps


@dataclass(slots=True)
class Outcome:
    """How a fit went. `done`, `stopped_early`, `out_of_time` and `stopped` (from outside) are all normal ends."""

    status: str = "done"
    epochs: int = 0
    best_epoch: int = 0
    validation_loss: float = math.inf
    windows: int = 0
    seconds: float = 0.0


def train(module: torch.nn.Module, dataset: Dataset, order: FitOrder, report: Report, clock: Clock) -> Outcome:
    """Fit `module` in place; it ends with the weights of the best validation loss."""
    return _Fit(module, dataset, order, report, clock).run()


def draw(dataset: Dataset, order: FitOrder, epoch: int) -> I64:
    """The epoch's windows: a function of seed and epoch alone. Symbols of n windows weigh n ** symbol_weight."""
    rows = dataset.parts.train
    rng = np.random.Generator(np.random.Philox(key=np.array([order.seed, epoch], np.uint64)))
    count = min(order.windows_per_epoch, len(rows))
    _, start, windows = np.unique(dataset.history.symbol[rows], return_index=True, return_counts=True)
    if len(windows) == 1 or len(np.unique(windows)) == 1:
        shuffled: I64 = rows[rng.permutation(len(rows))[:count]]
        return shuffled
    share = np.cumsum(windows.astype(np.float64) ** order.symbol_weight)
    symbol = np.searchsorted(share, rng.random(count) * share[-1], side="right")
    drawn: I64 = rows[start[symbol] + (rng.random(count) * windows[symbol]).astype(np.int64)]
    return drawn


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
        self, module: torch.nn.Module, dataset: Dataset, order: FitOrder, report: Report, clock: Clock
    ) -> None:
        self.module, self.dataset, self.order, self.report, self.clock = module, dataset, order, report, clock
        self.loss = make_objective(module, order.loss, order.levels)
        self.optimizer = torch.optim.AdamW(module.parameters(), lr=order.learning_rate, weight_decay=order.weight_decay)
        rows = dataset.parts.validation
        self.validation = rows[np.linspace(0, len(rows) - 1, min(order.validation_windows, len(rows))).astype(np.int64)]
        self.steps_per_epoch = -(-min(order.windows_per_epoch, len(dataset.parts.train)) // order.batch_size)
        self.steps = self.steps_per_epoch * order.epochs
        self.step = 0
        self.outcome = Outcome()
        self.began_ns = clock.monotonic_ns()

    def run(self) -> Outcome:
        best = self._weights()
        for epoch in range(1, self.order.epochs + 1):
            training_loss = self._epoch(epoch)
            loss = self._validate()
            self.outcome.epochs = epoch
            if loss < self.outcome.validation_loss:
                self.outcome.validation_loss, self.outcome.best_epoch, best = loss, epoch, self._weights()
            going = self.report(
                step=self.step, steps=self.steps, epoch=epoch, loss=training_loss, validation_loss=loss,
                windows_per_s=self.outcome.windows / self._seconds(),
            )  # fmt: skip
            self._judge(going, epoch)
            if self.outcome.status != "done":
                break
        if not math.isfinite(self.outcome.validation_loss):
            raise BadData("the fit diverged: no epoch had a finite validation loss", remedy="lower learning_rate")
        self.module.load_state_dict(best)
        self.outcome.seconds = self._seconds()
        return self.outcome

    def _judge(self, going: bool, epoch: int) -> None:
        if self.outcome.status == "done" and not going:
            self.outcome.status = "stopped"
        elif self.outcome.status == "done" and self._seconds() >= self.order.time_budget_s:
            self.outcome.status = "out_of_time"
        elif epoch - self.outcome.best_epoch >= self.order.patience:
            self.outcome.status = "stopped_early"

    def _epoch(self, epoch: int) -> float:
        self.module.train()
        rows = draw(self.dataset, self.order, epoch)
        total, count = 0.0, 0
        for first in range(0, len(rows), self.order.batch_size):
            loss, windows = self._train_on(rows[first : first + self.order.batch_size])
            total, count = total + loss * windows, count + windows
            if self.step % REPORT_EVERY == 0 and not self.report(step=self.step, steps=self.steps, loss=loss):
                self.outcome.status = "stopped"
            if self.outcome.status == "stopped" or self._seconds() >= self.order.time_budget_s:
                break
        self.outcome.windows += count
        return total / max(count, 1)

    def _train_on(self, rows: I64) -> tuple[float, int]:
        self._set_rate()
        self.step += 1
        parts, target, scale = tensors(self.dataset.batch(rows))
        if not len(target):
            return 0.0, 0
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(parts, target, scale)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), MAX_GRADIENT)
        self.optimizer.step()
        return loss.item(), len(target)

    def _set_rate(self) -> None:
        """One cycle over the steps; a fit that is too slow for its budget follows the budget, and so anneals too."""
        progress, spent = self.step / self.steps, self._seconds() / self.order.time_budget_s
        if spent > WARM_UP:  # not sooner: a fit that keeps within its budget depends on order and bars alone
            progress = min(max(progress, spent), 1.0)
        if progress < WARM_UP:
            share = LAST_RATE + (1 - LAST_RATE) * progress / WARM_UP
        else:
            falling = (progress - WARM_UP) / (1 - WARM_UP)
            share = LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * falling))
        for group in self.optimizer.param_groups:
            group["lr"] = self.order.learning_rate * share

    def _validate(self) -> float:
        self.module.eval()
        total, count = 0.0, 0
        with torch.inference_mode():
            for first in range(0, len(self.validation), 1024):
                parts, target, scale = tensors(self.dataset.batch(self.validation[first : first + 1024]))
                if len(target):
                    loss = self.loss(parts, target, scale)
                    total, count = total + loss.item() * len(target), count + len(target)
        return total / count if count else math.inf

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}

    def _seconds(self) -> float:
        return (self.clock.monotonic_ns() - self.began_ns) / 1e9
