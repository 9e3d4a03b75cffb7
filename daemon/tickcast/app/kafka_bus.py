"""Kafka as the daemon's bus: take the slot, find the way back to where it was, and commit unit by unit."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import structlog

from tickcast.app import recovery
from tickcast.app.bus import Opened
from tickcast.app.kafka_edges import KafkaSink, KafkaSource
from tickcast.app.restore import restore
from tickcast.app.wiring import Serving, build
from tickcast.clock import Clock
from tickcast.columns import BarBatch
from tickcast.edges.kafka import client
from tickcast.edges.kafka.delivery import Delivery, Sealed
from tickcast.edges.kafka.reader import Bounds, Reader
from tickcast.errors import BadStore, StoreStalled
from tickcast.registry import snapshot
from tickcast.registry.history import Part
from tickcast.registry.store import Store, Unit
from tickcast.settings import Settings
from tickcast.state import State

Source = tuple[str, int]


class KafkaBus:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = structlog.get_logger()

    @asynccontextmanager
    async def open(self, serving: Serving, store: Store, clock: Clock) -> AsyncIterator[Opened]:
        settings, kafka = self._settings, self._settings.kafka
        await client.reach(kafka, max_wait_s=settings.runtime.max_wait_s, waiting=self._note_waiting)
        ticks = await client.partitions_of(kafka, settings.topics.ticks, setting="topics.ticks")
        outputs = await client.partitions_of(kafka, self._outputs(), setting="topics.prefix")
        own = recovery.own_partitions(kafka, ticks)
        async with AsyncExitStack() as stack:
            delivery = await stack.enter_async_context(
                Delivery.open(kafka, max_away_s=settings.runtime.max_wait_s)  # fence first, then read
            )
            found = await client.committed(kafka, own)
            recovery.refuse_changed_layout(kafka, ticks, found)
            reader = await stack.enter_async_context(Reader.open(kafka, own))
            bounds = await reader.bounds()
            committed = recovery.committed_positions(kafka, own, found, bounds)
            since = {at: recovery.since(found.get(at), ticks[at[0]]) for at in own}
            resumed = await self._resume(serving, committed, bounds)
            if resumed is None:
                resumed = await recover(serving, store, clock, committed, bounds, since)
            begin = committed | resumed
            reader.begin(begin)
            beats = {at: int(found[at].note.get("beat", 0)) if at in found else 0 for at in own}
            source = KafkaSource(reader, settings, clock, committed=committed, beats=beats)
            sink = KafkaSink(delivery, source, reader, serving, partitions=outputs, published=committed)
            commits = Commits(delivery, source, settings, clock, partitions=ticks, committed=committed, since=since)
            if any(at not in found for at in own):
                await commits.commit(commits.seal(), committed)  # what `start` meant is decided once
            self._log.info("slot_taken", slot=kafka.slot, slots=kafka.slots, partitions=len(own), begin=begin)
            yield Opened(
                source, sink, delivery, commits, to_repeat=lambda: source.to_repeat(serving.engine.positions),
                lag=reader.lag, lag_s=source.lag_s, jobs=[self._watch_partitions(reader, ticks)],
            )  # fmt: skip

    async def _resume(
        self, serving: Serving, committed: Mapping[Source, int], bounds: Mapping[Source, Bounds]
    ) -> dict[Source, int] | None:
        """The engine as the newest usable snapshot has it, and where its ticks end; None = there is none."""
        folder = snapshot_folder(self._settings)
        state, refused = await asyncio.to_thread(snapshot.newest_valid, folder, self._settings, not_beyond=committed)
        for problem in refused:
            self._log.warning("snapshot_refused", reason=problem)
        if state is None:
            return None
        if problem := recovery.usable(state.positions, committed, bounds):
            self._log.warning("snapshot_refused", reason=problem)
            return None
        try:
            await asyncio.to_thread(lambda: build(self._settings).engine.resume(state))
        except BadStore as problem:  # half filled, that engine could not begin without a snapshot either
            self._log.warning("snapshot_refused", reason=str(problem))
            return None
        serving.engine.resume(state)
        self._log.info("snapshot_resumed", symbols=len(serving.symbols), positions=state.positions)
        return state.positions

    async def _watch_partitions(self, reader: Reader, counts: Mapping[str, int]) -> None:
        """New partitions hold ticks that nobody reads, and move keys: only a reshard puts that right."""
        while (now := reader.partition_counts()) == counts:
            await asyncio.sleep(client.METADATA_MS / 1000)
        self._log.error("partitions_changed", were=dict(counts), are=now, remedy="stop all slots: tickcast reshard")

    def _outputs(self) -> list[str]:
        names = ["forecasts", "dlq", *(["features"] if self._settings.features.publish else [])]
        return [self._settings.topics.prefix + name for name in names]

    def _note_waiting(self, problem: str, pause_s: float) -> None:
        self._log.warning("broker_away", reason=problem, retry_s=pause_s)


class SealedUnit(NamedTuple):
    published: Sealed
    beats: dict[Source, int]  # last heartbeat of each partition up to the unit's end


class Commits:
    """Publish, store, commit, save: what a unit goes through after its turn. It is `Committing` over a Delivery."""

    def __init__(
        self, delivery: Delivery, source: KafkaSource, settings: Settings, clock: Clock, *,
        partitions: Mapping[str, int], committed: Mapping[Source, int], since: Mapping[Source, int],
    ) -> None:  # fmt: skip
        self._delivery, self._source, self._settings, self._clock = delivery, source, settings, clock
        self._partitions, self._committed, self._since = partitions, dict(committed), since
        self._saved_ns = clock.monotonic_ns()

    def seal(self) -> SealedUnit:
        return SealedUnit(self._delivery.seal(), dict(self._source.beats))

    async def settle(self, sealed: SealedUnit) -> None:
        await self._delivery.settle(sealed.published)

    async def commit(self, sealed: SealedUnit, offsets: Mapping[Source, int]) -> None:
        """Positions never go back: what is read once more after a restart was committed before it."""
        ahead = {source: offset for source, offset in offsets.items() if offset >= self._committed[source]}
        kafka = self._settings.kafka
        notes = {at: recovery.note(kafka, self._partitions[at[0]], sealed.beats[at], self._since[at]) for at in ahead}
        await self._delivery.commit(sealed.published, ahead, notes)
        self._committed |= ahead

    def snapshot_due(self, *, last: bool) -> bool:
        age_s = (self._clock.monotonic_ns() - self._saved_ns) / 1e9
        return last or age_s >= self._settings.snapshot.every_s

    async def save(self, state: State) -> None:
        """A disk that takes no snapshot stops nothing: a restart goes on from the one before."""
        self._saved_ns = self._clock.monotonic_ns()
        try:
            await asyncio.to_thread(snapshot.write, snapshot_folder(self._settings), state, self._settings)
        except StoreStalled as stalled:
            structlog.get_logger().warning("snapshot_not_written", reason=str(stalled))


def snapshot_folder(settings: Settings) -> Path:
    return settings.snapshot.folder or settings.store.path.parent / "snapshots"


async def recover(
    serving: Serving, store: Store, clock: Clock, committed: Mapping[Source, int], bounds: Mapping[Source, Bounds],
    since: Mapping[Source, int], *, reread: int = 0,
) -> dict[Source, int]:  # fmt: skip
    """Without a snapshot: fill the windows from the store, and say where each partition is read from.

    With `reread` so many records fill the windows where the store has no bars, or is further behind.
    """
    settings, engine = serving.settings, serving.engine
    kept = await asyncio.to_thread(store.kept, committed)
    starts = {}
    for at, offset in committed.items():
        low = max(bounds[at].low, since[at])  # below it, symbols lay in other partitions
        start = recovery.start(settings, kept[at], bars_needed=engine.bars_needed(), committed=offset, low=low)
        starts[at] = recovery.reread(settings, start, committed=offset, low=low, most=reread) if reread else start
    bars = await restore(serving, store, clock, {at: Part(s.below, s.upto_ns) for at, s in starts.items()})
    _take_up(serving, starts, bars, since)
    engine.positions = {at: start.offset for at, start in starts.items()}
    unseen = {at: offset for at, offset in engine.positions.items() if at not in store.positions()}
    if unseen:
        await store.write(Unit(offsets=unseen))  # a later restart can begin where this one did
    _tell(starts, committed)
    return dict(engine.positions)


def _take_up(
    serving: Serving, starts: Mapping[Source, recovery.Start], bars: BarBatch, since: Mapping[Source, int]
) -> None:
    """Event time and the home of each symbol are what they were when the restored bars had closed."""
    folder = serving.engine.folder
    number = np.array([folder.partition(*source) for source in starts], np.int32)
    earliest = np.array([since[source] for source in starts] or [0], np.int64)
    known = (bars.partition >= 0) & (bars.offset >= earliest[bars.partition])
    folder.settle_in(bars.symbol[known], number[bars.partition[known]])
    for source, start in starts.items():
        if start.newest_ns is not None:
            folder.begin(source, newest_ns=start.newest_ns, closed_to_ns=start.upto_ns)


def _tell(starts: Mapping[Source, recovery.Start], committed: Mapping[Source, int]) -> None:
    log = structlog.get_logger()
    if again := sum(committed[source] - start.offset for source, start in starts.items()):
        log.info("reading_again", records=again)
    if cut := [source for source, start in starts.items() if start.lacks == "open bars"]:
        log.warning("open_bars_cut", partitions=cut, reason="the first ticks of bars that were open are not read again")
    if cold := [source for source, start in starts.items() if start.lacks == "windows"]:
        log.warning("windows_cold", partitions=cold, reason="neither bars nor old enough watermarks are stored")
