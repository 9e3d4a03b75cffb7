"""The body of a job `optimize`: which parameters make a kind of model forecast best, and the model fitted with them.

The search sees the training part, and is judged by the validation part; what the result is worth is told by the
hold-out, which it never looked at. Worker processes fit the trials; this one owns the study.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import torch

from tickcast.batch.train import fit
from tickcast.batch.train.dataset import Dataset, load_dataset
from tickcast.batch.tune.spaces import INTERRUPTED, space_of
from tickcast.batch.tune.starts import starts_of, still_alike
from tickcast.batch.tune.study import Study
from tickcast.batch.tune.trial_worker import Ended, EpochReport, Told
from tickcast.batch.tune.trial_workers import TrialWorkers
from tickcast.clock import Clock, SystemClock
from tickcast.errors import BadSettings
from tickcast.io.jobs.folder import BARS, CHAMPION, MODEL, TRIALS, write_whole
from tickcast.io.jobs.orders import TuneOrder, with_params
from tickcast.io.jobs.past import Past
from tickcast.plugin import Report
from tickcast.records import TrialRow

POLL_S = 1.0


def run(folder: Path, report: Report, *, clock: Clock | None = None) -> dict[str, Any]:
    """Search as `order.json` asks, from where `study.sqlite` was left; then fit `model` with the best parameters."""
    clock, order = clock or SystemClock(), TuneOrder.read(folder)
    if order.fit.start is not None:
        raise BadSettings("fit.start: a search begins with weights by seed", remedy="leave it out")
    torch.set_num_threads(order.fit.threads)
    dataset = load_dataset(folder, order.fit)
    found = search(folder, order, dataset, report, clock)
    if found["status"] == "stopped":
        return found
    fitted = fit_best(folder, order, found["best"], report)
    report(step=order.trials + 1, steps=order.trials + 1)
    status = fitted["status"] if fitted["status"] == "stopped" else found["status"]
    return {**fitted, **msgspec.to_builtins(found), "status": status}


def search(folder: Path, order: TuneOrder, dataset: Dataset, report: Report, clock: Clock) -> dict[str, Any]:
    """What the search found, from where it was left; `best` unless it was stopped."""
    space, first = space_of(order, lambda wanted: fit.build(wanted, dataset))
    past, signature = Past.read(folder), dataset.signature()
    begins: dict[str, Any] = {
        "starts": starts_of(past.trajectories, signature, order, space, first),
        "earlier": still_alike(past.earlier, signature),
    }  # fmt: skip
    with Study(folder, order, space, first, fingerprint=order.fingerprint(dataset.digest), **begins) as study:
        began_ns = clock.monotonic_ns()
        status = Search(folder, order, study, report, clock).run()
        told: dict[str, Any] = {
            "status": status, "space": space, "trials": study.counts(),
            "seconds": (clock.monotonic_ns() - began_ns) / 1e9,
            "past": {start.origin: start.distance for start in begins["starts"]},
            "earlier": {search.job: len(search.trials) for search in begins["earlier"]},
        }  # fmt: skip
        if status != "stopped":
            told |= {"importance": study.importance(), "best": study.best(), "first": study.first()}
            told["metric"] = order.metric
        return told


class Search:
    """Hands trials to the workers and hears how they end, until there have been enough, or no more time."""

    def __init__(self, folder: Path, order: TuneOrder, study: Study, report: Report, clock: Clock) -> None:
        self.folder, self.order, self.study, self.report, self.clock = folder, order, study, report, clock
        self.status, self.ended = "done", 0
        self.began_ns = clock.monotonic_ns()

    def run(self) -> str:
        """`done`, `out_of_time` or `stopped`."""
        rows = self.study.rows()  # what a kill kept from the file
        write_whole(self.folder / TRIALS, b"".join(map(_line, rows)))
        self.ended = sum(row.why != INTERRUPTED for row in rows)
        limits = {"budget_s": self.order.fit.time_budget_s, "clock": self.clock}
        with TrialWorkers(self.folder, self.order.workers, **limits) as workers:  # type: ignore[arg-type]
            while self._give_out(workers):
                for told in workers.told(POLL_S):
                    self._hear(told, workers)
                if self.status == "done" and self._seconds() > self.order.seconds:
                    self.status = "out_of_time"
        for row in self.study.give_up():
            self._write(row)
        return self.status

    def _give_out(self, workers: TrialWorkers) -> bool:
        """Whether there is anything to hear."""
        while self.status == "done" and workers.has_room and (asked := self.study.ask()) is not None:
            number, params = asked
            workers.give(number, with_params(self.order.fit, params))
        return self.status == "done" and workers.is_busy

    def _hear(self, told: Told, workers: TrialWorkers) -> None:
        if isinstance(told, EpochReport):
            workers.answer(told.number, go_on=self.study.epoch(told.number, told.epoch, told.loss))
            self._report(trial=told.number, epoch=told.epoch, validation_loss=told.loss)
            return
        if isinstance(told, Ended):
            row = self.study.end(told.number, told.value, epochs=told.epochs, seconds=told.seconds)
        else:
            row = self.study.fail(told.number, f"{told.error_code}: {told.error}", seconds=told.seconds)
        self._write(row)
        self.ended += 1
        if row.state == "complete" and row.value is not None:
            self._report(trial=told.number, value=row.value)
        else:
            self._report(trial=told.number)

    def _report(self, **figures: float) -> None:
        if not self.report(step=min(self.ended, self.order.trials), steps=self.order.trials + 1, **figures):
            self.status = "stopped"

    def _write(self, row: TrialRow) -> None:
        with (self.folder / TRIALS).open("ab") as file:
            file.write(_line(row))

    def _seconds(self) -> float:
        return (self.clock.monotonic_ns() - self.began_ns) / 1e9


def fit_best(folder: Path, order: TuneOrder, best: TrialRow, report: Report) -> dict[str, Any]:
    """The fit of the best trial once more, this time to its end as a model folder; it has a job folder of its own."""
    own = folder / f"best-{best.number}"  # where a fit that was killed goes on
    for other in set(folder.glob("best-[0-9]*")) - {own}:
        shutil.rmtree(other)
    own.mkdir(exist_ok=True)
    with_params(order.fit, best.params).write(own)
    for name in (BARS, CHAMPION):
        if (folder / name).exists() and not (own / name).exists():
            (own / name).symlink_to(Path(os.pardir) / name)

    def told(*, step: int, steps: int, **figures: float) -> bool:
        return report(step=order.trials, steps=order.trials + 1, **figures)

    fitted = fit.run(own, told)
    take_model(own / fitted["model"], folder)
    shutil.rmtree(own)
    return fitted | {"model": MODEL}


def take_model(made: Path, folder: Path) -> None:
    """As the model of this folder, whole or not at all."""
    model, partial = folder / MODEL, folder / f".{MODEL}"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(made, partial)  # a sandbox may forbid moves between folders
    shutil.rmtree(model, ignore_errors=True)
    partial.replace(model)


def _line(row: TrialRow) -> bytes:
    return msgspec.json.encode(row) + b"\n"
