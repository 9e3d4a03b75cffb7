"""Kafka as the daemon's bus: take what is ours, find the way back to where it was, and commit unit by unit.

The one opening is here, and what is a static slot's own; `kafka_group.py` has what is a group member's.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import structlog

from tickcast.clock import Clock
from tickcast.columns import Source
from tickcast.errors import BadBroker, BrokerAway, StoreStalled
from tickcast.io.control_messages import Message
from tickcast.io.kafka import client
from tickcast.io.kafka.client import Committed
from tickcast.io.kafka.compacted import CompactedTopic
from tickcast.io.kafka.consumer import Bounds
from tickcast.io.kafka.control import ControlReader
from tickcast.io.kafka.delivery import CommitOffsets, Delivery
from tickcast.io.kafka.events import BlobOpening
from tickcast.io.kafka.reader import KafkaReader
from tickcast.io.kafka.topics import most_bytes, partitions_of
from tickcast.io.store import snapshot
from tickcast.io.store.store import Commit, Store
from tickcast.live import recovery
from tickcast.live.buses.bus import OpenAgain, OpenBus
from tickcast.live.buses.kafka_edges import KafkaSink, KafkaSource, within
from tickcast.live.buses.kafka_topics import wanted
from tickcast.live.recovery import Placement
from tickcast.live.restore import recover, snapshot_folder
from tickcast.live.suspects import SuspectSource
from tickcast.loop.build import Serving
from tickcast.loop.last_turn import LastTurn
from tickcast.settings import Settings
from tickcast.state import State
from tickcast.topics import CONTROL, MODELS


class Assignment(NamedTuple):
    """The partitions that are ours, a slot's until it is fenced. A group commits, ends and goes on in its own way."""

    sources: list[Source]
    commit_by: CommitOffsets | None = None
    is_over: Callable[[], Awaitable[bool]] | None = None
    goes_on: Callable[["Commits"], Awaitable[bool]] | None = None


class KafkaBus:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._patience = Patience(settings.runtime.max_wait_s)
        self._log = structlog.get_logger()
        self._last_turn: LastTurn  # of the session

    @asynccontextmanager
    async def open(self, serving: Serving, store: Store, clock: Clock) -> AsyncIterator[OpenBus]:
        runtime, topics = self._settings.runtime, self._settings.topics.ticks
        try:
            with LastTurn.open(runtime.folder, topics, limit_s=runtime.turn_limit_s) as self._last_turn:
                async with self._session(serving, store, clock) as opened:
                    yield opened
        except BadBroker as refused:
            await self._patience.bear(refused)
            raise

    @asynccontextmanager
    async def _session(self, serving: Serving, store: Store, clock: Clock) -> AsyncIterator[OpenBus]:
        settings, kafka, max_away_s = self._settings, self._settings.kafka, self._settings.runtime.max_wait_s
        await client.reach(kafka, max_wait_s=max_away_s, waiting=self._note_waiting)
        counts = await partitions_of(kafka, wanted(settings))
        ticks = {name: counts.pop(name) for name in dict.fromkeys(settings.topics.ticks)}
        most = await self._most_bytes(counts)
        async with (
            self._take(ticks) as taken,
            Delivery.open(
                within(kafka, most), max_away_s=max_away_s, commit_by=taken.commit_by
            ) as delivery,  # fence, then read
            KafkaReader.open(kafka, taken.sources) as reader,
        ):
            found = await client.committed(kafka, recovery.all_partitions(ticks))
            place = self._place(ticks, found, await reader.bounds())
            begin = await self._recover(serving, store, place)
            lacks = await self._lacks(store, place, begin, found)
            reader.begin(begin)
            source = KafkaSource(reader, settings, clock, place, taken.is_over)
            sink = KafkaSink(
                delivery, source, reader, serving, partitions=counts, published=place.committed, most_bytes=most
            )
            commits = Commits(
                delivery, source, settings, clock, place, store_id=store.mark().id, on_progress=self._patience.reset
            )
            if place.is_new:
                await commits.commit(commits.seal(), place.committed)  # what `start` meant is decided once
            self._note_taken(begin)
            self._last_turn.starts_at(begin)
            yield OpenBus(
                SuspectSource(source, self._last_turn, BlobOpening(kafka.expanded_bytes)), sink, delivery, commits,
                last_turn=self._last_turn, store_lacks=lacks,
                to_repeat=lambda: source.to_repeat(serving.engine.positions),
                lag=reader.lag, lag_s=source.lag_s, stopped=lambda: reader.stopped,
                away_s=lambda: {"kafka": delivery.away_s()}, rebuilt=lambda: reader.replaced,
                background=self._background(reader, ticks),
                goes_on=taken.goes_on and partial(taken.goes_on, commits), control=self._commands,
                models=self._models(),
            )  # fmt: skip

    async def _most_bytes(self, topics: Iterable[str]) -> int:
        most, ours = await most_bytes(self._settings.kafka, topics), self._settings.kafka.batch_bytes
        if most < ours:
            remedy = "raise max.message.bytes of the topics, or lower kafka.batch_bytes"
            self._log.warning("batches_smaller", bytes=most, batch_bytes=ours, remedy=remedy)
        return most

    async def _lacks(
        self, store: Store, place: Placement, begin: Mapping[Source, int], found: Mapping[Source, Committed]
    ) -> dict[str, int]:
        """Committed records whose rows the store has lost, of those that will not be read again; by partition."""
        stored = store.positions()
        committed = {at: end for at, end in place.committed.items() if at not in place.decided}
        if behind := {at: end - stored[at] for at, end in committed.items() if end > stored.get(at, end)}:
            self._log.warning("store_behind", records=behind, reason="it has lost rows that were committed")
        lost = {at: start - stored.get(at, 0) for at, start in begin.items() if at in found}
        lost = {at: count for at, count in lost.items() if count > 0}
        if lost:
            self._log.error("store_lacks_rows", records=lost, remedy="put a backup in its place, or go on without")
            await store.write(Commit(offsets={at: begin[at] for at in lost}))  # said once
        return {f"{topic}/{partition}": count for (topic, partition), count in lost.items()}

    def _take(self, ticks: Mapping[str, int]) -> AbstractAsyncContextManager[Assignment]:
        return nullcontext(Assignment(recovery.own_partitions(self._settings.kafka, ticks)))

    def _place(
        self, ticks: Mapping[str, int], found: Mapping[Source, Committed], bounds: Mapping[Source, Bounds]
    ) -> Placement:
        own = {at: found[at] for at in bounds if at in found}
        recovery.refuse_changed_layout(self._settings.kafka, ticks, own)
        return recovery.place(self._settings.kafka, ticks, found, bounds)

    async def _recover(self, serving: Serving, store: Store, place: Placement) -> dict[Source, int]:
        return await recover(serving, store, place)

    @asynccontextmanager
    async def _commands(self) -> AsyncIterator[AsyncIterator[Message]]:
        async with ControlReader.open(self._settings.kafka, self._settings.topics.prefix + CONTROL) as reader:
            yield reader.messages()

    def _models(self) -> CompactedTopic | None:
        kafka = self._settings.kafka
        return None if kafka.models == "none" else CompactedTopic(kafka, self._settings.topics.prefix + MODELS)

    def _background(self, reader: KafkaReader, ticks: Mapping[str, int]) -> list[Coroutine[Any, Any, None]]:
        return [self._watch_partitions(reader, ticks)]

    def _note_taken(self, begin: Mapping[Source, int]) -> None:
        kafka = self._settings.kafka
        self._log.info("slot_taken", slot=kafka.slot, slots=kafka.slots, partitions=len(begin), begin=dict(begin))

    async def _watch_partitions(self, reader: KafkaReader, counts: Mapping[str, int]) -> None:
        """New partitions hold ticks that nobody reads, and move keys: only a reshard puts that right."""
        while (now := reader.partition_counts()) == counts:
            await asyncio.sleep(client.METADATA_MS / 1000)
        self._log.error("partitions_changed", were=dict(counts), are=now, remedy="stop all slots: tickcast reshard")

    def _note_waiting(self, problem: str, pause_s: float) -> None:
        self._log.warning("broker_away", reason=problem, retry_s=pause_s)


class Patience:
    """A broker that refuses the start is obeyed. One that has let us work is asked again, up to a limit."""

    def __init__(self, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._has_worked = False
        self._refused_at: float | None = None  # the first time since the last progress
        self._pause_s = client.FIRST_PAUSE_S

    def reset(self) -> None:
        self._has_worked, self._refused_at, self._pause_s = True, None, client.FIRST_PAUSE_S

    async def bear(self, refused: BadBroker) -> None:
        """Returns where the refusal counts; else raises what is to be done, after a pause."""
        if not self._has_worked:
            return
        now = asyncio.get_running_loop().time()
        if self._refused_at is None:
            self._refused_at = now
        reason = BrokerAway(f"what the broker allowed before it refuses now: {refused}")
        if now + self._pause_s > self._refused_at + self._max_wait_s:
            raise reason from refused
        structlog.get_logger().warning("broker_refuses", reason=str(refused), retry_s=self._pause_s)
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, client.LONGEST_PAUSE_S)
        raise OpenAgain(reason) from refused


class Commits:
    """Publish, store, commit, save: what a unit goes through after its turn. It is `Committing` over a Delivery."""

    def __init__(
        self, delivery: Delivery, source: KafkaSource, settings: Settings, clock: Clock, place: Placement, *,
        store_id: str, on_progress: Callable[[], None],
    ) -> None:  # fmt: skip
        self._delivery, self._source, self._settings, self._clock = delivery, source, settings, clock
        self._place, self._committed = place, dict(place.committed)
        self._store_id, self._on_progress = store_id, on_progress
        self._saved_ns = clock.monotonic_ns()

    def are(self, found: Mapping[Source, Committed]) -> bool:
        """Whether these are the positions that we committed last."""
        return self._committed == {source: committed.offset for source, committed in found.items()}

    def seal(self) -> dict[Source, int]:
        """The last heartbeat of each partition up to the unit's end."""
        self._delivery.seal()
        return dict(self._source.beats)

    async def settle(self) -> None:
        await self._delivery.settle()

    async def commit(self, beats: dict[Source, int], offsets: Mapping[Source, int]) -> None:
        """Positions never go back: what is read once more after a restart was committed before it."""
        before, place = self._committed, self._place
        ahead = {source: offset for source, offset in offsets.items() if offset >= before[source]}
        notes = {
            at: recovery.note(self._settings.kafka, place.partitions[at[0]], beats[at], place.since[at]) for at in ahead
        }
        await self._delivery.commit(ahead, notes)
        self._committed = before | ahead
        if self._committed != before:
            self._on_progress()

    def snapshot_due(self, *, last: bool) -> bool:
        """Never in a group: it would be of partitions that a restart may not get again."""
        if self._settings.kafka.assignment == "group":
            return False
        age_s = (self._clock.monotonic_ns() - self._saved_ns) / 1e9
        return last or age_s >= self._settings.snapshot.every_s

    async def save(self, state: State) -> None:
        """A disk that takes no snapshot stops nothing: a restart goes on from the one before."""
        self._saved_ns = self._clock.monotonic_ns()
        try:
            await asyncio.to_thread(
                snapshot.write, snapshot_folder(self._settings), state, self._settings, store=self._store_id
            )
        except StoreStalled as stalled:
            structlog.get_logger().warning("snapshot_not_written", reason=str(stalled))
