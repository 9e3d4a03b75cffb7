"""Fits again and again within a replay, each time on the bars closed so far; the new model then serves in the stream.

A fit's budget is steps, never seconds, so that a walk over the same history ends the same on any machine.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tickcast.batch.bars_so_far import BarsSoFar
from tickcast.batch.by_hand.fit import job_folder, train
from tickcast.batch.out_folder import drop_models, install_model
from tickcast.engine.core.events import Outcome
from tickcast.engine.inference.load import open_model
from tickcast.errors import BadModel
from tickcast.io.jobs.folder import BARS
from tickcast.io.jobs.orders import FitOrder, Retrain
from tickcast.io.jobs.prepare import fit_order
from tickcast.loop.build import Serving
from tickcast.plugin import Report
from tickcast.progress import Shown, unshown
from tickcast.records import Command
from tickcast.settings import Settings

NO_LIMIT_S = 1e9
BEAT_S = 10.0
MS = 10**6


@dataclass(frozen=True, slots=True)
class Fit:
    """What became of one of them."""

    at_ns: int  # no bar that it saw is newer
    bars: int
    serves_from_ns: int = -1  # -1 = never
    version: str = ""
    trained_to_ns: int = 0
    error: str = ""


class Walking:
    """A replay's companion: it tells how far it is, and retrains where that is asked for."""

    serving: Serving  # of the replay; there once it has begun

    def __init__(
        self, settings: Settings, plan: Retrain | None, folder: Path, report: Report, *, shown: Shown = unshown
    ) -> None:
        drop_models(folder)
        self.fits: list[Fit] = []
        self.stopped = False
        self._settings, self._plan, self._folder, self._report = settings, plan, folder, report
        self._shown = shown
        self._bars = BarsSoFar(settings.symbols.limit)
        self._fitted_at = 0
        self._waiting: Command | None = None
        self._rows = 0
        self._of: int | None = None
        self._next_beat_s = 0.0

    def begin(self, serving: Serving, rows: int | None) -> None:
        self.serving, self._of = serving, rows

    def saw(self, outcome: Outcome) -> None:
        if self._plan:
            self._bars.add(outcome, self.serving)

    def before(self, rows: int) -> list[Command] | None:
        """One fit at most is due at a time; its model enters once event time has come so far."""
        self._tell()
        self._rows += rows
        if self.stopped:
            return None
        if self._plan and self._waiting is None and self._bars.busiest() - self._fitted_at >= self._plan.every_bars:
            self._fitted_at = self._bars.busiest()
            self._fit(self._plan)
        return self._due()

    def _tell(self) -> None:
        self.stopped |= not self._report(step=self._rows, steps=self._of or self._rows, fits=float(len(self.fits)))

    def _due(self) -> list[Command]:
        command, now = self._waiting, self.serving.engine.newest_ns()
        if command is None or now < self.fits[-1].serves_from_ns:
            return []
        self._waiting = None
        return [command]

    def _fit(self, plan: Retrain) -> None:
        """In a child process. One that fails, for want of bars perhaps, leaves the model that serves."""
        engine, bars = self.serving.engine, self._bars.newest(plan.keep_bars)
        at, model = engine.newest_ns(), self._folder / f"fit-{len(self.fits) + 1}"
        try:
            self._train(plan, bars, model)
            runner = open_model(model, tile=self._settings.inference.tile)
        except BadModel as failed:
            self.fits.append(Fit(at, bars.num_rows, error=str(failed)))
            return
        engine.install(runner)
        card = runner.card
        self._waiting = Command(id=card.digest[:32], command="use_model", args={"model": card.digest})
        self.fits.append(Fit(at, bars.num_rows, at + plan.takes_ms * MS, card.version, card.trained_to_ns))

    def _train(self, plan: Retrain, bars: pa.Table, model: Path) -> None:
        """Whoever waits for the walk hears of it while a fit takes long."""
        order = within_steps(self._order(plan), plan.steps)
        with job_folder(self._settings, order, lambda folder: pq.write_table(bars, folder / BARS)) as job:
            result = train(job, shown=self._shown, meanwhile=self._beat)
            install_model(job / result.model, model)

    def _beat(self) -> None:
        if time.monotonic() > self._next_beat_s:
            self._next_beat_s = time.monotonic() + BEAT_S
            self._tell()

    def _order(self, plan: Retrain) -> FitOrder:
        name = f"{plan.params.get('name', plan.kind)}-{len(self.fits) + 1}"
        params = {key: value for key, value in plan.params.items() if key != "name"}
        return fit_order(self._settings, kind=plan.kind, name=name, params=params)


def within_steps(order: FitOrder, steps: int) -> FitOrder:
    """The same fit with at most so many steps in all, and no limit of time."""
    epochs = min(order.epochs, steps)
    windows = min(order.windows_per_epoch, steps // epochs * order.batch_size * order.accumulate)
    return msgspec.structs.replace(order, epochs=epochs, windows_per_epoch=windows, time_budget_s=NO_LIMIT_S)
