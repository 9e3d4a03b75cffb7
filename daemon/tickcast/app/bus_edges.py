"""The memory bus as the pump's source and sink: what Kafka will be, without a broker."""

from typing import NamedTuple

from tickcast.app.wiring import Serving
from tickcast.clock import Clock
from tickcast.codec.forecasts import ForecastWriter
from tickcast.columns import Encoded
from tickcast.core.engine import Event, Heartbeat, Outcome
from tickcast.core.ladder import RUNGS
from tickcast.edges.memory_bus import MemoryBus
from tickcast.settings import Settings


class BusSource:
    """Ticks of the configured topics, and heartbeats of partitions that fell silent."""

    def __init__(self, bus: MemoryBus, settings: Settings, clock: Clock) -> None:
        self._bus = bus
        self._subscription = bus.subscribe(*settings.topics.ticks)
        self._idle_ns = settings.bars.idle_ms * 10**6
        self._clock = clock
        self._last_seen: dict[tuple[str, int], tuple[int, int]] = {}  # partition -> (when, next offset)

    async def next_events(self, max_wait_s: float) -> list[Event] | None:
        batches = await self._subscription.next_batches(max_wait_s)
        events: list[Event] = [*batches]
        if self._idle_ns:
            now = self._clock.now_ns()
            for batch in batches:
                self._last_seen[batch.topic, batch.partition] = now, int(batch.offsets[-1]) + 1
            events += self._heartbeats(now)
        return events

    @property
    def unread(self) -> int:
        return self._subscription.unread

    def close(self) -> None:
        self._bus.unsubscribe(self._subscription)

    def _heartbeats(self, now: int) -> list[Event]:
        """One for each partition that has been silent for bars.idle_ms; event time is taken to move with the clock."""
        beats: list[Event] = []
        for (topic, partition), (seen, offset) in self._last_seen.items():
            if now - seen >= self._idle_ns:
                beats.append(Heartbeat(topic, partition, ts=now, offset=offset))
                self._last_seen[topic, partition] = now, offset
        return beats


class Publication(NamedTuple):
    topic: str
    encoded: Encoded


class BusSink:
    """Forecasts and feature vectors as JSON, dead letters as they came."""

    def __init__(self, bus: MemoryBus, serving: Serving) -> None:
        self._bus = bus
        self._serving = serving
        prefix = serving.settings.topics.prefix
        self._forecasts, self._features, self._letters = (prefix + name for name in ("forecasts", "features", "dlq"))
        self._writer = ForecastWriter(serving.settings, serving.cards, list(RUNGS))

    def encode(self, outcome: Outcome, produced_ns: int) -> list[Publication]:
        symbols, source = self._serving.symbols, self._serving.engine.folder.sources()
        ready = [
            Publication(self._forecasts, self._writer.encode(part, symbols, produced_ns=produced_ns, sources=source))
            for part in outcome.forecasts
        ]
        names = self._serving.features.names
        ready += [
            Publication(self._features, self._writer.encode_features(rows, symbols, names=names, sources=source))
            for rows in outcome.vectors
        ]
        for raw, rejects in outcome.letters:
            rows = rejects.row
            ready.append(Publication(self._letters, Encoded(raw.data, raw.starts[rows], raw.ends[rows], rows)))
        return ready

    def publish(self, encoded: list[Publication]) -> None:
        for publication in encoded:
            self._bus.publish(publication.topic, publication.encoded)
