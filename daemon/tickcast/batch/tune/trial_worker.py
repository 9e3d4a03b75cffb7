"""The body of a job `trials`: it fits what a search tells it, and says what came of that, each in a line of JSON.

It holds the data set and the libraries from trial to trial, decides nothing, writes no file, and dies with the search
that started it.
"""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import torch

from tickcast.batch.judge.hold_out import residual_gaps
from tickcast.batch.judge.metrics import validation_value
from tickcast.batch.train import fit
from tickcast.batch.train.dataset import Dataset, load_dataset
from tickcast.batch.train.losses import POINT_LOSSES
from tickcast.batch.train.train import train
from tickcast.clock import Clock, SystemClock
from tickcast.errors import BadOutput, TickcastError
from tickcast.io.jobs.limits import die_with
from tickcast.io.jobs.orders import FitOrder, Metric, TuneOrder
from tickcast.plugin import Net, Report


class Task(msgspec.Struct, frozen=True):
    """To the worker: fit this."""

    number: int
    order: FitOrder


class Verdict(msgspec.Struct, frozen=True):
    """To the worker, after each `Epoch`."""

    go_on: bool


class EpochReport(msgspec.Struct, frozen=True, tag=True):
    """From the worker, which then waits for the verdict."""

    number: int
    epoch: int
    loss: float


class Ended(msgspec.Struct, frozen=True, tag=True):
    number: int
    value: float | None  # None: the verdict ended it
    epochs: int
    seconds: float


class Failed(msgspec.Struct, frozen=True, tag=True):
    """`hung` and `worker_died` are what the search itself says of a worker that it lost."""

    number: int
    error_code: str
    error: str
    seconds: float


Told = EpochReport | Ended | Failed


def run(folder: Path, report: Report) -> dict[str, Any]:
    die_with(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the search, which ends its workers itself
    search = folder.parents[1]
    asked = TuneOrder.read(search)
    torch.set_num_threads(asked.fit.threads)
    dataset = load_dataset(search, asked.fit)
    line = socket.socket(fileno=os.dup(0))
    with line, line.makefile("rb") as tasks, line.makefile("wb", buffering=0) as answers:
        work(dataset, asked.metric, tasks, answers, SystemClock())
    return {"status": "done"}


def work(dataset: Dataset, metric: Metric, tasks: BinaryIO, answers: Any, clock: Clock) -> None:
    """Until there are no more tasks."""

    def tell(message: Told) -> None:
        answers.write(msgspec.json.encode(message) + b"\n")

    def is_worth_going_on(epoch: EpochReport) -> bool:
        tell(epoch)
        return msgspec.json.decode(tasks.readline(), type=Verdict).go_on

    while line := tasks.readline():
        task = msgspec.json.decode(line, type=Task)
        began_ns = clock.monotonic_ns()
        trial = Trial(task, metric, is_worth_going_on)
        try:
            value = trial.run(dataset, clock)
            seconds = (clock.monotonic_ns() - began_ns) / 1e9
            tell(Ended(task.number, value, trial.epochs, seconds))
        except Exception as error:  # a plugin may raise anything
            code = error.code if isinstance(error, TickcastError) else "fit_failed"
            said = str(error) if isinstance(error, TickcastError) else f"{type(error).__name__}: {error}"
            tell(Failed(task.number, code, said[:1000], (clock.monotonic_ns() - began_ns) / 1e9))


class Trial:
    """One fit; it is the plugin.Report of its own fit."""

    def __init__(self, task: Task, metric: Metric, ask: Callable[[EpochReport], bool]) -> None:
        self.task, self.metric, self.ask = task, metric, ask
        self.epochs, self.given_up = 0, False

    def run(self, dataset: Dataset, clock: Clock) -> float | None:
        """The metric over the validation part; None when the verdict ended it."""
        order = self.task.order
        model = fit.build(order, dataset)
        if hasattr(model, "module"):
            self._train(model, dataset, clock)  # type: ignore[arg-type]
        else:
            model.fit(dataset, self)
        if self.given_up:
            return None
        value = validation_value(self.metric, model.predict, dataset, order)
        if not np.isfinite(value):
            raise BadOutput("the fitted model's answers are not finite")
        return value

    def _train(self, net: Net, dataset: Dataset, clock: Clock) -> None:
        """As `fit` does it, but with no checkpoints and no start."""
        order = self.task.order
        net.set_channels(*dataset.channel_statistics())
        train(net.module(), dataset, order, self, clock)
        if order.loss in POINT_LOSSES and not self.given_up:
            net.set_gaps(residual_gaps(net.predict, dataset, order.levels))

    def __call__(self, *, step: int, steps: int, **figures: float) -> bool:
        """A kind that knows no epochs is never given up: its figures are not those of one fit that gets better."""
        if "epoch" in figures and "validation_loss" in figures:
            self.epochs = int(figures["epoch"])
            if not self.given_up:
                self.given_up = not self.ask(EpochReport(self.task.number, self.epochs, figures["validation_loss"]))
        return not self.given_up
