"""Many kinds of model, each fitted once by its defaults, and what each is worth over the validation part.

It uses the workers of a search, ends at its deadline whatever runs then, and goes on from what it noted.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from tickcast.batch.tune.trial_worker import Ended, EpochReport, Told
from tickcast.batch.tune.trial_workers import TrialWorkers
from tickcast.clock import Clock
from tickcast.io.jobs.orders import FitOrder, TuneOrder
from tickcast.plugin import Report

NOTED = "sweep.jsonl"
POLL_S = 1.0


class SweptKind(msgspec.Struct, frozen=True):
    """A line of `sweep.jsonl`."""

    kind: str
    value: float | None  # pinball over the validation part, in one-bar moves
    seconds: float
    why: str = ""  # there is none


def of_kind(fit: FitOrder, kind: str) -> FitOrder:
    return msgspec.structs.replace(fit, kind=kind)


class Sweep:
    def __init__(self, folder: Path, order: TuneOrder, kinds: Sequence[str], report: Report, clock: Clock) -> None:
        """`order.seconds` is how long it may take; its fit is what all kinds share."""
        self._folder, self._order, self._report, self._clock = folder, order, report, clock
        self._noted = folder / NOTED
        self.rows = self._read()
        self._left = [kind for kind in kinds if kind not in {row.kind for row in self.rows}]
        self._running: dict[int, str] = {}
        self._all = len(kinds)
        self.is_stopped = False

    def run(self) -> list[SweptKind]:
        """In the order in which they ended. Those that the deadline cut off have no value, and are not noted."""
        began_ns = self._clock.monotonic_ns()
        each_s = self._order.seconds * self._order.workers / max(len(self._left), 1)
        with TrialWorkers(self._folder, self._order.workers, budget_s=each_s, clock=self._clock) as workers:
            while self._give_out(workers, each_s) and not self.is_stopped:
                for told in workers.told(POLL_S):
                    self._hear(told, workers)
                self.is_stopped = not self._report(step=len(self.rows), steps=self._all)
                if (self._clock.monotonic_ns() - began_ns) / 1e9 > self._order.seconds:
                    break
        cut = [*self._running.values(), *self._left]
        return [*self.rows, *(SweptKind(kind, None, 0.0, "there was no time for it") for kind in cut)]

    def _hear(self, told: Told, workers: TrialWorkers) -> None:
        if isinstance(told, EpochReport):
            workers.answer(told.number, go_on=True)
        elif isinstance(told, Ended):
            self._note(SweptKind(self._running.pop(told.number), told.value, told.seconds))
        else:
            why = f"{told.error_code}: {told.error}"
            self._note(SweptKind(self._running.pop(told.number), None, told.seconds, why))

    def _give_out(self, workers: TrialWorkers, each_s: float) -> bool:
        while self._left and workers.has_room:
            number, kind = len(self.rows) + len(self._running), self._left.pop(0)
            self._running[number] = kind
            fit = msgspec.structs.replace(of_kind(self._order.fit, kind), time_budget_s=each_s)
            workers.give(number, fit)
        return workers.is_busy

    def _note(self, row: SweptKind) -> None:
        self.rows.append(row)
        with self._noted.open("ab") as file:
            file.write(msgspec.json.encode(row) + b"\n")

    def _read(self) -> list[SweptKind]:
        """Whole lines: a kill may have left a part of one."""
        lines = self._noted.read_bytes().splitlines(keepends=True) if self._noted.exists() else []
        return [msgspec.json.decode(line, type=SweptKind) for line in lines if line.endswith(b"\n")]
