"""The embedded bus as the daemon's: what Kafka is, without a broker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import groupby
from typing import NamedTuple, Protocol

import numpy as np

from tickcast.clock import Clock
from tickcast.columns import Encoded, RawBatch, Source
from tickcast.engine.core.events import Event, Heartbeat, Outcome
from tickcast.engine.core.ladder import RUNGS
from tickcast.engine.records.as_json import JsonWriter
from tickcast.io.control_messages import CONTROL, Message, from_memory
from tickcast.io.memory_bus import MemoryBus
from tickcast.io.store.store import Store
from tickcast.live.buses.bus import Opened
from tickcast.live.restore import restore
from tickcast.loop.build import Serving
from tickcast.settings import Settings


class Silence:
    """Which partitions have said nothing for `bars.idle_ms`; their event time is taken to move with the clock."""

    def __init__(self, settings: Settings) -> None:
        self._idle_ns = settings.bars.idle_ms * 10**6
        self._last_seen: dict[Source, tuple[int, int]] = {}  # partition -> (when, offset of its last record)

    def heard(self, topic: str, partition: int, last_offset: int, now: int) -> None:
        self._last_seen[topic, partition] = now, last_offset

    def heartbeats(self, now: int) -> list[Heartbeat]:
        """One for each silent partition, which then counts as heard."""
        if not self._idle_ns:
            return []
        silent = [(at, offset) for at, (seen, offset) in self._last_seen.items() if now - seen >= self._idle_ns]
        for (topic, partition), offset in silent:
            self.heard(topic, partition, offset, now)
        return [Heartbeat(topic, partition, ts=now, offset=offset) for (topic, partition), offset in silent]


class Batches(Protocol):
    """A reader that gathers what arrives."""

    @property
    def unread(self) -> int: ...

    async def next_batches(self, max_wait_s: float) -> list[RawBatch]: ...


class BatchSource:
    """Batches as they come, and heartbeats of partitions that fell silent."""

    def __init__(self, batches: Batches, topic: str, settings: Settings, clock: Clock) -> None:
        self._batches = batches
        self._topic = topic
        self._silence = Silence(settings)
        self._clock = clock

    async def next_fetched(self, max_wait_s: float) -> list[RawBatch | Heartbeat]:
        batches = await self._batches.next_batches(max_wait_s)
        now = self._clock.now_ns()
        batches = [batch for batch in batches if len(batch)]
        for batch in batches:
            self._silence.heard(batch.topic, batch.partition, int(batch.offsets[-1]), now)
        return [*batches, *self._silence.heartbeats(now)]

    def events(self, fetched: list[Event]) -> list[Event]:
        """What came in many small batches is taken as one: a turn costs by the batch, not by the tick."""
        events: list[Event] = []
        for _, run in groupby(fetched, _kind_of):
            together = [*run]
            batches = [event for event in together if isinstance(event, RawBatch)]
            events += [RawBatch.join(batches)] if len(batches) > 1 else together
        return events

    def lag(self) -> dict[Source, int]:
        return {(self._topic, 0): self._batches.unread}


def _kind_of(event: Event) -> tuple[object, ...]:
    """What follows each other and is equal in this may be taken as one, where it is batches."""
    return (type(event), event.topic, event.partition) if isinstance(event, RawBatch) else (type(event),)


class MemoryPublication(NamedTuple):
    topic: str
    encoded: Encoded


class BusSink:
    """Forecasts and feature vectors as JSON, dead letters as they came."""

    def __init__(self, bus: MemoryBus, serving: Serving) -> None:
        self._bus = bus
        self._serving = serving
        prefix = serving.settings.topics.prefix
        self._forecasts, self._features, self._letters = (prefix + name for name in ("forecasts", "features", "dlq"))
        self._writer = JsonWriter(serving.settings, serving.cards, list(RUNGS))

    def encode(self, outcome: Outcome, produced_ns: int) -> list[MemoryPublication]:
        symbols, source = self._serving.symbols, self._serving.engine.builder.sources()
        ready = [
            MemoryPublication(
                self._forecasts, self._writer.encode(part, symbols, produced_ns=produced_ns, sources=source)
            )
            for part in outcome.forecasts
        ]
        names = self._serving.features.names
        ready += [
            MemoryPublication(self._features, self._writer.encode_features(rows, symbols, names=names, sources=source))
            for rows in outcome.vectors
        ]
        for raw, rejects, _ in outcome.letters:
            rows = np.unique(rejects.row)
            starts = raw.starts[rows]
            ends = np.minimum(raw.ends[rows], starts + self._serving.settings.kafka.batch_bytes)
            ready.append(MemoryPublication(self._letters, Encoded(raw.data, starts, ends, rows)))
        return ready

    def publish(self, encoded: list[MemoryPublication]) -> None:
        for publication in encoded:
            self._bus.publish(publication.topic, publication.encoded)

    async def room(self) -> None:
        """Memory always takes more; a reader that is full makes producers wait."""


class EmbeddedBus:
    """A MemoryBus that others in this process produce to and read from."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus

    @asynccontextmanager
    async def open(self, serving: Serving, store: Store, clock: Clock) -> AsyncIterator[Opened]:
        await restore(serving, store, clock)
        topics = serving.settings.topics.ticks
        subscription = self._bus.subscribe(*topics)
        source = BatchSource(subscription, topics[0], serving.settings, clock)
        try:
            yield Opened(
                source, BusSink(self._bus, serving), self._bus, lag=source.lag,
                control=lambda: self._commands(serving.settings.topics.prefix + CONTROL),
            )  # fmt: skip
        finally:
            self._bus.unsubscribe(subscription)

    @asynccontextmanager
    async def _commands(self, topic: str) -> AsyncIterator[AsyncIterator[Message]]:
        subscription = self._bus.subscribe(topic)
        try:
            yield from_memory(subscription)
        finally:
            self._bus.unsubscribe(subscription)
