"""What happened in a moment is published, stored and committed as one, behind the loop, which never waits for it: when
too many commits are open, fetching stops until one is through.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import structlog

from tickcast.clock import Clock
from tickcast.columns import Source
from tickcast.engine.core.engine import Engine
from tickcast.engine.core.events import Outcome
from tickcast.errors import StoreStalled
from tickcast.io.store.store import Commit, Store
from tickcast.records import Accuracy, Alert, DeadLetter, Drift
from tickcast.settings import Settings

RETRY_FIRST_S, RETRY_MOST_S = 0.1, 5.0


class Committing(Protocol):
    """A bus on which a commit counts only once it is committed; its part in the stages. `seal` never waits."""

    def seal(self) -> Any: ...  # 2: what was published since the last one
    async def settle(self) -> None: ...  # 3
    async def commit(self, sealed: Any, offsets: Mapping[Source, int]) -> None: ...  # 5
    def snapshot_due(self, *, last: bool) -> bool: ...  # at 2; `last`: no other commit follows
    async def save(self, state: Any) -> None: ...  # 6


class ClosedCommit(NamedTuple):
    unit: Commit
    sealed: Any
    state: Any  # of the engine after it; None = not to be saved
    saving: asyncio.Future[None] | None  # somebody waits for that


class CommitQueue:
    """A commit goes through six stages, each after the one before it, and overtakes no other:

    1. gathered (`add`): outcomes of `store.unit_ms`, whose publications were handed over as they came;
    2. closed (`close`), between two turns: the bus seals what was published, and a snapshot that is due is taken;
    3. settled: the broker holds all that was published;
    4. stored: rows, positions and watermarks are in the store, as one transaction;
    5. committed: its positions are where a restart goes on; one that comes before reads it all again;
    6. saved: the snapshot is written, which is so never ahead of the commits.
    """

    def __init__(
        self, store: Store, engine: Engine, settings: Settings, clock: Clock, *, bus: Committing | None = None
    ) -> None:
        self.stalled = False
        self._bus, self._store, self._engine = bus, store, engine
        self._settings, self._clock = settings, clock
        self._unit, self._unit_bytes = Commit(), 0
        self._opened_ns = clock.monotonic_ns()
        self._queue: asyncio.Queue[ClosedCommit] = asyncio.Queue()
        self.behind = 0  # closed, and not through
        self._saving: asyncio.Future[None] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def room(self) -> None:
        """Returns once another unit may be opened."""
        await self._room.wait()

    def stop_waiting(self) -> None:
        """Nothing more will be fetched: whoever waits for room may go on."""
        self._room.set()

    def add(self, outcome: Outcome, letters: Sequence[DeadLetter]) -> None:
        unit = self._unit
        unit.bars += outcome.bars
        unit.forecasts += outcome.forecasts
        unit.scores += outcome.scores
        unit.blocks += outcome.blocks
        unit.drift += outcome.drift
        unit.dead_letters += letters
        unit.offsets |= outcome.positions
        self._unit_bytes += sum(f.quantiles.nbytes for f in outcome.forecasts) + 100 * sum(map(len, outcome.bars))
        self._unit_bytes += sum(len(letter.value) for letter in letters)

    def add_figures(self, accuracy: list[Accuracy], drift: list[Drift]) -> None:
        self._unit.accuracy += accuracy
        self._unit.drift += drift

    def add_alerts(self, alerts: list[Alert]) -> None:
        self._unit.alerts += alerts

    @property
    def due(self) -> bool:
        """Whether the open unit is old or large enough to be closed."""
        age_ms = (self._clock.monotonic_ns() - self._opened_ns) / 1e6
        return age_ms >= self._settings.store.unit_ms or self._unit_bytes >= self._settings.store.unit_bytes

    def snapshot_due(self, *, last: bool) -> bool:
        return self._bus is not None and self._bus.snapshot_due(last=last or self._saving is not None)

    async def saved(self) -> None:
        """Returns once the engine's state of now, or a later one, is where a restart finds it; at once where the bus
        has no place for it."""
        if self.snapshot_due(last=True):
            self._saving = self._saving or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._saving)

    def close(self, state: Any = None) -> None:
        """Hand the unit over, with the engine's state after it where that is to be saved."""
        unit, self._unit, self._unit_bytes = self._unit, Commit(), 0
        unit.sources = self._engine.builder.sources()
        unit.watermarks = {source: self._engine.builder.newest_of(source) for source in unit.offsets}
        self._opened_ns = self._clock.monotonic_ns()
        figures = unit.accuracy, unit.alerts, unit.drift, unit.blocks
        if not (unit.offsets or unit.bars or unit.forecasts or unit.scores or any(figures) or state):
            return
        self.behind += 1
        self._idle.clear()
        if self.behind >= self._settings.store.max_units_behind:
            self._room.clear()
        saving, self._saving = (None, self._saving) if state is None else (self._saving, None)
        self._queue.put_nowait(ClosedCommit(unit, self._bus.seal() if self._bus else None, state, saving))

    async def write_all(self) -> None:
        """The background chain: one unit after the other, for ever. What is committed is published and stored."""
        while True:
            unit, sealed, state, saving = await self._queue.get()
            if self._bus:
                await self._bus.settle()
            await self._write(unit)
            if self._bus:
                await self._bus.commit(sealed, unit.offsets)
                if state is not None:
                    await self._bus.save(state)
            if saving is not None and not saving.done():
                saving.set_result(None)
            self.behind -= 1
            self._room.set()
            if not self.behind:
                self._idle.set()

    async def idle(self) -> None:
        """Returns once all closed units are through."""
        await self._idle.wait()

    async def _write(self, unit: Commit) -> None:
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
