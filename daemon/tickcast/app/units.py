"""Commit units: results gather for a moment, then go to the store as one transaction, in order, behind the loop.

The loop never waits for the store; when too many units are open, fetching stops until one is through.
"""

import asyncio

import structlog

from tickcast.clock import Clock
from tickcast.core.engine import Engine, Letters, Outcome
from tickcast.errors import Reason, StoreStalled
from tickcast.records import Accuracy, DeadLetter
from tickcast.registry.store import Store, Unit
from tickcast.settings import Settings

RETRY_FIRST_S, RETRY_MOST_S = 0.1, 5.0


class CommitUnits:
    def __init__(self, store: Store, engine: Engine, settings: Settings, clock: Clock) -> None:
        self.stalled = False
        self._store = store
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._unit = Unit()
        self._unit_bytes = 0
        self._opened_ns = clock.monotonic_ns()
        self._queue: asyncio.Queue[Unit] = asyncio.Queue()
        self._open = 0
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def behind(self) -> int:
        return self._open

    async def room(self) -> None:
        """Returns once another unit may be opened."""
        await self._room.wait()

    def stop_waiting(self) -> None:
        """Nothing more will be fetched: whoever waits for room may go on."""
        self._room.set()

    def add(self, outcome: Outcome) -> None:
        unit = self._unit
        unit.bars += outcome.bars
        unit.forecasts += outcome.forecasts
        unit.scores += outcome.scores
        unit.dead_letters += [letter for letters in outcome.letters for letter in dead_letters(letters)]
        unit.offsets |= outcome.positions
        self._unit_bytes += sum(f.quantiles.nbytes for f in outcome.forecasts) + 100 * sum(map(len, outcome.bars))

    def add_accuracy(self, accuracy: list[Accuracy]) -> None:
        self._unit.accuracy += accuracy

    def close_when_due(self, *, now: bool = False) -> None:
        """Hand the unit over when it is old or large enough, or at once."""
        age_ms = (self._clock.monotonic_ns() - self._opened_ns) / 1e6
        if not (now or age_ms >= self._settings.store.unit_ms or self._unit_bytes >= self._settings.store.unit_bytes):
            return
        unit, self._unit, self._unit_bytes = self._unit, Unit(), 0
        unit.sources = self._engine.folder.sources()
        unit.watermarks = {source: self._engine.folder.newest_of(source) for source in unit.offsets}
        self._opened_ns = self._clock.monotonic_ns()
        if not (unit.offsets or unit.accuracy or unit.bars or unit.forecasts or unit.scores):
            return
        self._open += 1
        self._idle.clear()
        if self._open >= self._settings.store.max_units_behind:
            self._room.clear()
        self._queue.put_nowait(unit)

    async def write_all(self) -> None:
        """The background chain: one unit after the other, for ever."""
        while True:
            unit = await self._queue.get()
            await self._write(unit)
            self._open -= 1
            self._room.set()
            if not self._open:
                self._idle.set()

    async def flush(self) -> None:
        """Close the unit and wait until all are stored."""
        self.close_when_due(now=True)
        await self._idle.wait()

    async def _write(self, unit: Unit) -> None:
        """A full disk is a waiting state: the unit is kept and tried again, up to runtime.max_wait_s."""
        delay, deadline = RETRY_FIRST_S, self._clock.monotonic_ns() + self._settings.runtime.max_wait_s * 10**9
        while True:
            try:
                await self._store.write(unit)
            except StoreStalled as stalled:
                if self._clock.monotonic_ns() > deadline:
                    raise
                self.stalled = True
                structlog.get_logger().warning("store_stalled", reason=str(stalled), retry_s=delay)
                await asyncio.sleep(delay)
                delay = min(2 * delay, RETRY_MOST_S)
            else:
                self.stalled = False
                return


def dead_letters(letters: Letters) -> list[DeadLetter]:
    """One record for each refused message, with its original bytes."""
    raw, rejects = letters.raw, letters.rejects
    return [
        DeadLetter(
            topic=raw.topic, partition=raw.partition, offset=int(raw.offsets[row]), value=raw.message(int(row)),
            reason=Reason(reason).name.lower(), stage="codec" if reason < Reason.LATE else "quality",
        )
        for row, reason in zip(rejects.row, rejects.reason, strict=True)
    ]  # fmt: skip
