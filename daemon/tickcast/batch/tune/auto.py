"""The body of a job `auto`: from a history to one candidate, or to the verdict that there is none.

Data check, baselines, a sweep over kinds, a search for each of the best two, one fit. All of these choose by the
validation part; the hold-out is looked at once, by the fit at the end, and says whether that is a candidate.
"""

import os
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch

from tickcast.batch.judge.data_check import check_history
from tickcast.batch.judge.metrics import last_value_pinball
from tickcast.batch.train.dataset import Dataset, load_dataset
from tickcast.batch.tune.sweep import Sweep, SweptKind, of_kind
from tickcast.batch.tune.tune import fit_best, search, take_model
from tickcast.clock import Clock, SystemClock
from tickcast.errors import BadData
from tickcast.io.jobs.folder import BARS, MODEL, ORDER
from tickcast.io.jobs.orders import AutoOrder, TuneOrder
from tickcast.io.jobs.past import NO_PAST, Past
from tickcast.loop.build import RUNGS
from tickcast.loop.recommend import measured, recommend, worth_a_sweep
from tickcast.plugin import Report, names

SWEEP_UNTIL, FIRST_UNTIL, SECOND_UNTIL = 0.3, 0.55, 0.8  # of the budget; what is left then is for the last fit
MOST_KINDS, MOST_TUNED = 8, 2
TRIALS = 50

Verdict = Literal["candidate", "not_told_apart", "no_better", "bad_data", "nothing_fitted"]


def run(folder: Path, report: Report, *, clock: Clock | None = None) -> dict[str, Any]:
    """`model` is the candidate, where there is one."""
    order = AutoOrder.read(folder)
    torch.set_num_threads(order.fit.threads)
    return AutoRun(folder, order, load_dataset(folder, order.fit), report, clock or SystemClock()).run()


class AutoRun:
    """What it does is noted in folders within its own, from where it goes on after a kill."""

    def __init__(self, folder: Path, order: AutoOrder, dataset: Dataset, report: Report, clock: Clock) -> None:
        self._folder, self._order, self._dataset = folder, order, dataset
        self._report, self._clock = report, clock
        self._began_ns = clock.monotonic_ns()
        self._is_stopped = False
        self._past = Past.read(folder)
        self._found: dict[str, Any] = {"metrics": {}, "dataset": dataset.told()}

    def run(self) -> dict[str, Any]:
        channels = ["target", *(spec.name for spec in self._dataset.specs)]
        checks = check_history(self._dataset.history, self._dataset.values, channels)
        self._found["findings"] = [check._asdict() for check in checks]
        if any(check.verdict == "bad" for check in checks):
            return self._ended("bad_data")
        baseline = self._found["last_value"] = last_value_pinball(self._dataset, self._order.fit)
        swept = self._found["swept"] = self._sweep()
        best = sorted((row for row in swept if row.value is not None), key=lambda row: row.value or 0.0)
        tuned = self._found["searches"] = {
            row.kind: self._search(row.kind, until) for row, until in zip(best, (FIRST_UNTIL, SECOND_UNTIL))
        }  # fmt: skip
        values = {kind: found["best"].value for kind, found in tuned.items() if "best" in found}
        if self._is_stopped:
            return self._told_all(status="stopped")
        if not values:
            return self._ended("nothing_fitted")
        won = self._found["won"] = min(values, key=values.__getitem__)
        return self._ended("no_better") if values[won] >= baseline else self._judged(won, tuned[won])

    def _judged(self, kind: str, found: dict[str, Any]) -> dict[str, Any]:
        """The one look at the hold-out."""
        place = self._folder / kind
        order, best = TuneOrder.read(place), found["best"]
        fit = msgspec.structs.replace(order.fit, time_budget_s=max(self._order.budget_s - self._took_s(), 1.0))
        made = fit_best(place, msgspec.structs.replace(order, fit=fit), best, self._told)
        self._found |= {"metrics": made["metrics"], "dataset": made["dataset"]}
        if made["status"] == "stopped":
            return self._told_all(status="stopped")
        low, high = made["metrics"]["skill_low"], made["metrics"]["skill_high"]
        if low is None or low <= 0:
            return self._ended("not_told_apart" if low is None or high > 0 else "no_better")
        take_model(place / made["model"], self._folder)
        self._found["model"] = MODEL
        return self._ended("candidate")

    def _ended(self, verdict: Verdict) -> dict[str, Any]:
        self._report(step=100, steps=100)
        return self._told_all(status="done", verdict=verdict)

    def _told_all(self, **ended: str) -> dict[str, Any]:
        return dict(msgspec.to_builtins({**self._found, **ended, "seconds": self._took_s()}))

    # ------------------------------------------------------------ its steps

    def _sweep(self) -> list[SweptKind]:
        kinds = [name for name in names("models") if name not in RUNGS]
        table = measured()
        found = recommend(self._dataset.signature(), self._past.trajectories, table, kinds=kinds)
        self._found["recommended"] = msgspec.to_builtins(found)
        chosen = self._order.kinds or worth_a_sweep(found, table, kinds=kinds)[:MOST_KINDS]
        place = self._place("sweep")
        sought = self._search_order(chosen[0], SWEEP_UNTIL)
        sought.write(place)
        sweep = Sweep(place, sought, chosen, self._told, self._clock)
        swept = sweep.run()
        self._is_stopped |= sweep.is_stopped
        return swept

    def _search(self, kind: str, until: float) -> dict[str, Any]:
        """`best` is in it, where a trial ended with a value."""
        if self._is_stopped:
            return {}
        place, order = self._place(kind), self._search_order(kind, until)
        if (place / ORDER).exists():  # its trials were fitted as this says
            order = msgspec.structs.replace(TuneOrder.read(place), seconds=order.seconds)
        order.write(place)
        if self._past != NO_PAST:
            self._past.write(place)
        try:
            found = search(place, order, self._dataset, self._told, self._clock)
        except BadData as nothing:
            return {"why": str(nothing)}
        self._is_stopped |= found["status"] == "stopped"
        return found

    def _search_order(self, kind: str, until: float) -> TuneOrder:
        seconds = max(until * self._order.budget_s - self._took_s(), 1.0)
        fit = msgspec.structs.replace(of_kind(self._order.fit, kind), time_budget_s=seconds)
        shared = {name: getattr(self._order, name) for name in ("workers", "seed", "past_searches")}
        return TuneOrder(fit=fit, trials=TRIALS, seconds=seconds, **shared)

    def _place(self, name: str) -> Path:
        """A folder of its own, with the bars of this job."""
        place = self._folder / name
        place.mkdir(exist_ok=True)
        if not (place / BARS).exists():
            (place / BARS).symlink_to(Path(os.pardir) / BARS)
        return place

    # ------------------------------------------------------------ how far it is

    def _took_s(self) -> float:
        return (self._clock.monotonic_ns() - self._began_ns) / 1e9

    def _told(self, *, step: int, steps: int, **figures: float) -> bool:
        """In shares of the budget: no step knows how many there will be."""
        share = min(int(100 * self._took_s() / self._order.budget_s), 99)
        return self._report(step=share, steps=100, **figures)
