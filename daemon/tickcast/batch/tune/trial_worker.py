"""The body of a process that fits trials: `python -m tickcast.batch.tune.trial_worker JOB_FOLDER`.

It reads tasks from its stdin and answers on its stdout, each a line of JSON. It holds the data set and the libraries
from trial to trial, decides nothing, writes no file, and dies with the search that started it.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import torch

from tickcast.batch.judge.hold_out import residual_gaps
from tickcast.batch.judge.metrics import Metric, validation_value
from tickcast.batch.train import fit
from tickcast.batch.train.dataset import Dataset, load_dataset
from tickcast.batch.train.losses import POINT_LOSSES
from tickcast.batch.train.train import train
from tickcast.batch.tune.order import read_tune_order
from tickcast.batch.tune.trial_messages import Ended, EpochReport, Failed, Task, Told, Verdict
from tickcast.clock import Clock, SystemClock
from tickcast.errors import BadOutput, TickcastError
from tickcast.io.jobs.limits import die_with
from tickcast.plugin import Net


def main(arguments: list[str]) -> int:
    die_with(os.getppid())
    for number in (signal.SIGTERM, signal.SIGINT):  # meant for the search, which ends its workers itself
        signal.signal(number, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a plugin prints must not stand among the answers
    folder = Path(arguments[0])
    asked = read_tune_order(folder)
    order = asked.fit
    torch.set_num_threads(order.threads)
    work(load_dataset(folder, order), asked.metric, sys.stdin.buffer, answers, SystemClock())
    return 0


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
