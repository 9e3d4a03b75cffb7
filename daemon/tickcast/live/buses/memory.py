"""The embedded bus as the daemon's: what Kafka is, without a broker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import groupby
from typing import Protocol

import numpy as np

from tickcast.clock import Clock
from tickcast.columns import Encoded, RawBatch, Rejects, Source
from tickcast.engine.core.events import Event, Heartbeat
from tickcast.io.control_messages import Message, from_memory
from tickcast.io.memory_bus import MemoryBus
from tickcast.io.store.store import Store
from tickcast.live.buses.bus import OpenBus
from tickcast.live.restore import fill_windows
from tickcast.loop.build import Serving
from tickcast.loop.publications import Publications
from tickcast.settings import Settings
from tickcast.topics import CONTROL


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


class BusSink:
    """Forecasts and feature vectors as JSON, dead letters as they came."""

    def __init__(self, bus: MemoryBus, settings: Settings) -> None:
        self._bus = bus
        self._prefix, self._letter_bytes = settings.topics.prefix, settings.kafka.batch_bytes

    def encode(self, publications: Publications) -> list[tuple[str, Encoded]]:
        letters = [self._cut(raw, rejects) for raw, rejects, _ in publications.outcome.letters]
        topics = {
            "forecasts": publications.forecasts, "shadow": publications.shadows, "features": publications.features,
            "dlq": letters,
        }  # fmt: skip
        return [(self._prefix + name, part) for name, parts in topics.items() for part in parts]

    def publish(self, encoded: list[tuple[str, Encoded]]) -> None:
        for topic, part in encoded:
            self._bus.publish(topic, part)

    async def room(self) -> None:
        """Memory always takes more; a reader that is full makes producers wait."""

    def _cut(self, raw: RawBatch, rejects: Rejects) -> Encoded:
        rows = np.unique(rejects.row)
        starts = raw.starts[rows]
        return Encoded(raw.data, starts, np.minimum(raw.ends[rows], starts + self._letter_bytes), rows)


class EmbeddedBus:
    """A MemoryBus that others in this process produce to and read from."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus

    @asynccontextmanager
    async def open(self, serving: Serving, store: Store, clock: Clock) -> AsyncIterator[OpenBus]:
        await fill_windows(serving, store)
        topics = serving.settings.topics.ticks
        subscription = self._bus.subscribe(*topics)
        source = BatchSource(subscription, topics[0], serving.settings, clock)
        try:
            yield OpenBus(
                source, BusSink(self._bus, serving.settings), self._bus, lag=source.lag,
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
