"""Kafka as the pump's source and sink: blobs are opened, and records finished, on the engine thread."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import structlog

from tickcast import __version__
from tickcast.clock import Clock
from tickcast.columns import Encoded, FeatureRows, Forecasts, RawBatch, Source
from tickcast.engine.core.events import Event, Heartbeat, Outcome
from tickcast.engine.core.ladder import RUNGS
from tickcast.errors import NoProgress
from tickcast.io.kafka.blob import Blob
from tickcast.io.kafka.delivery import Delivery, Parcel
from tickcast.io.kafka.events import opened
from tickcast.io.kafka.framing import framer, partitions_of
from tickcast.io.kafka.publish import TRACE_BYTES, Message, PlainBatch, Trace, cut_to
from tickcast.io.kafka.reader import KafkaReader
from tickcast.live.buses.memory import Silence
from tickcast.live.recovery import Placement
from tickcast.loop.build import Serving
from tickcast.loop.publications import Publications
from tickcast.records import DeadLetter
from tickcast.settings import Settings
from tickcast.settings.buses import KafkaSettings

if TYPE_CHECKING:
    from tickcast.engine.records.as_arrow import ArrowWriter

Fetched = Blob | RawBatch | Heartbeat
Rows = TypeVar("Rows", Forecasts, FeatureRows)
Bool = npt.NDArray[np.bool_]
NS_PER_MS = 10**6


class KafkaSource:
    """Blobs as events, in order, and heartbeats of silent partitions; it ends when `is_over` says so.

    A heartbeat is no record, so the last one of each partition stands beside its committed offset; after a restart it
    comes again at just that place, before any record that followed it.
    """

    def __init__(
        self, reader: KafkaReader, settings: Settings, clock: Clock, place: Placement,
        is_over: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:  # fmt: skip
        self.traced: list[RawBatch] = []  # batches of this turn that hold trace headers
        self.beats = dict(place.beats)  # event time of the last heartbeat of each partition
        self._reader = reader
        self._silence = Silence(settings)
        self._expanded_bytes = settings.kafka.expanded_bytes
        self._clock = clock
        self._is_over = is_over
        self._committed = dict(place.committed)
        self._repeated = {source: ts for source, ts in place.beats.items() if ts}  # yet to come again
        self._newest_stamp_ns = 0
        for source, offset in place.committed.items():
            if offset:
                self._silence.heard(*source, offset - 1, clock.now_ns())

    async def next_fetched(self, max_wait_s: float) -> list[Fetched] | None:
        if self._is_over and await self._is_over():
            return None
        items: list[Fetched] = [*await self._reader.fetch(max_wait_s)]
        now = self._clock.now_ns()
        for source in {(item.topic, item.partition) for item in items}:
            self._silence.heard(*source, self._reader.position[source] - 1, now)
        silent = self._silence.heartbeats(now)
        self.beats |= {(beat.topic, beat.partition): beat.ts for beat in silent}
        return [*self._overdue(), *items, *silent]

    def events(self, fetched: Sequence[Fetched]) -> Sequence[Event]:
        events: list[Event] = []
        for item in fetched:
            for event in opened(item, self._expanded_bytes) if isinstance(item, Blob) else [item]:
                events += self._with_its_beat(event) if self._repeated else [event]
        batches = [event for event in events if isinstance(event, RawBatch) and len(event)]
        self.traced = [batch for batch in batches if batch.trace is not None]
        self._newest_stamp_ns = max([self._newest_stamp_ns, *(int(batch.stamps_ns[-1]) for batch in batches)])
        return events

    def to_repeat(self, positions: Mapping[Source, int]) -> int:
        """Records that were committed before the restart and are yet to be read again."""
        return sum(max(end - positions.get(source, 0), 0) for source, end in self._committed.items())

    def repeats(self, source: Source, position: int) -> bool:
        """Whether what comes of the partition is still what was published before the restart."""
        return position < self._committed.get(source, 0) or source in self._repeated

    def lag_s(self) -> float:
        """How old the newest record is that we have read, while others wait."""
        waiting = self._newest_stamp_ns and any(self._reader.lag().values())
        return (self._clock.now_ns() - self._newest_stamp_ns) / 1e9 if waiting else 0.0

    def _overdue(self) -> list[Heartbeat]:
        """Where reading begins at the committed offset, the heartbeat comes first of all."""
        due = [at for at in self._repeated if self._reader.begun[at] >= self._committed[at]]
        return [self._repeat(source) for source in due]

    def _with_its_beat(self, event: Event) -> list[Event]:
        """The batch in two where the committed offset lies within it, with the heartbeat in between."""
        if not isinstance(event, RawBatch) or (event.topic, event.partition) not in self._repeated:
            return [event]
        source = (event.topic, event.partition)
        before = int(np.searchsorted(event.offsets, self._committed[source]))
        if before == len(event):
            return [event]
        return [event.part(0, before), self._repeat(source), event.part(before, len(event))]

    def _repeat(self, source: Source) -> Heartbeat:
        return Heartbeat(*source, ts=self._repeated.pop(source), offset=self._committed[source] - 1)


class KafkaPublication(NamedTuple):
    """What a turn publishes, what of it does not fit, and how many bad messages in a row each partition brought."""

    parcels: list[Parcel]
    skipped: list[str]
    poison: dict[Source, int]


class KafkaSink:
    """Forecasts, feature vectors and dead letters as finished records; what was published before is left out."""

    def __init__(
        self, delivery: Delivery, source: KafkaSource, reader: KafkaReader, serving: Serving, *,
        partitions: Mapping[str, int], published: Mapping[Source, int], most_bytes: int,
    ) -> None:  # fmt: skip
        """No topic of `partitions` takes a batch of more than `most_bytes`."""
        self._delivery, self._source, self._reader, self._serving = delivery, source, reader, serving
        begun = serving.engine.positions
        self._published = {  # offset below which all of a partition was published before the restart
            at: offset for at, offset in published.items() if source.repeats(at, begun.get(at, offset))
        }
        self._most_bytes, self._skipped = most_bytes, list[str]()
        kafka = within(serving.settings.kafka, most_bytes)
        self._framers = {topic: framer(kafka, count) for topic, count in partitions.items()}
        prefix = serving.settings.topics.prefix
        self._forecasts, self._shadow, self._features, self._letters = (
            prefix + name for name in ("forecasts", "shadow", "features", "dlq")
        )
        self._arrow = _arrow_writers(serving, partitions) if serving.settings.kafka.encoding == "arrow" else {}
        self._poison: dict[Source, int] = {}

    def encode(self, publications: Publications) -> KafkaPublication:
        outcome, produced_ns = publications.outcome, publications.produced_ns
        written = self._as_arrow if self._arrow else self._as_json
        parcels = [self._framed(topic, rows, text, produced_ns) for topic, rows, text in written(publications)]
        if messages := self._messages(publications.dead_letters):
            parcels.append(Parcel(self._letters, [PlainBatch(messages, produced_ns // NS_PER_MS)]))
        self._end_repeats(outcome)
        skipped, self._skipped = self._skipped, []
        skipped += [str(bad) for framer in self._framers.values() for bad in framer.take_skipped()]
        return KafkaPublication(parcels, skipped, self._poison_of(outcome))

    def publish(self, encoded: KafkaPublication) -> None:
        self._delivery.post(encoded.parcels)
        for message in encoded.skipped:
            structlog.get_logger().warning("message_left_out", reason=message)
        for source, run in encoded.poison.items():
            self._stop_when_poisoned(source, run)

    async def room(self) -> None:
        await self._delivery.room()

    def _end_repeats(self, outcome: Outcome) -> None:
        """After it a heartbeat, which has the offset of the record before it, brings forecasts that are new."""
        for source, position in outcome.positions.items():
            if source in self._published and not self._source.repeats(source, position):
                del self._published[source]

    def _floor(self, source: Source) -> int:
        return self._published.get(source, 0)

    def _as_json(self, publications: Publications) -> Iterator[tuple[str, Forecasts | FeatureRows, Encoded]]:
        """Topic, rows and messages of what was not published before the restart; all has been written, or nothing."""
        outcome = publications.outcome
        for at, forecasts in enumerate(outcome.forecasts):
            if (fresh := self._fresh(forecasts)).any():
                yield self._forecasts, *_only(forecasts, publications.forecasts[at], fresh)
        for at, said in enumerate(self._shadows_of(outcome)):
            if (fresh := self._fresh(said)).any():
                yield self._shadow, *_only(said, publications.shadows[at], fresh)
        for at, vectors in enumerate(outcome.vectors):
            if (fresh := self._fresh(vectors)).any():
                yield self._features, *_only(vectors, publications.features[at], fresh)

    def _as_arrow(self, publications: Publications) -> Iterator[tuple[str, Forecasts | FeatureRows, Encoded]]:
        """The same; a message holds many rows, so those that were published before are left out of the writing."""
        outcome, symbols, names = publications.outcome, self._serving.symbols, self._serving.features.names
        sources = self._serving.engine.builder.sources()
        parts = [(self._forecasts, one) for one in outcome.forecasts] + [
            (self._shadow, one) for one in self._shadows_of(outcome)
        ]
        for topic, one in parts:
            if len(forecasts := one.take(self._fresh(one))):
                write, produced_ns = self._arrow[topic].encode, publications.produced_ns
                yield topic, forecasts, write(forecasts, symbols, produced_ns=produced_ns, sources=sources)
        for each in outcome.vectors:
            if len(vectors := each.take(self._fresh(each))):
                text = self._arrow[self._features].encode_features(vectors, symbols, names=names, sources=sources)
                yield self._features, vectors, text

    def _shadows_of(self, outcome: Outcome) -> list[Forecasts]:
        """Where they have a topic: one that a person had begin needs none."""
        return outcome.shadows if self._shadow in self._framers else []

    def _fresh(self, rows: Forecasts | FeatureRows) -> Bool:
        floors = np.array([self._floor(source) for source in self._serving.engine.builder.sources()], np.int64)
        return rows.offset >= floors[rows.partition]

    def _framed(self, topic: str, rows: Forecasts | FeatureRows, text: Encoded, produced_ns: int) -> Parcel:
        leading = rows if text.first is None else rows.take(text.first)
        sources = self._serving.engine.builder.sources()
        trace = _traces(leading, sources, self._source.traced) if self._source.traced else None
        return Parcel(topic, self._framers[topic].frame(text, self._serving.symbols, produced_ns // NS_PER_MS, trace))

    def _messages(self, letters: Sequence[DeadLetter]) -> list[Message]:
        messages = [_message(one) for one in letters if one.offset >= self._floor((one.topic, one.partition))]
        fitting = [fits for message in messages if (fits := cut_to(message, self._most_bytes)) is not None]
        if left_out := len(messages) - len(fitting):
            self._skipped.append(f"{left_out} dead letters: their topic takes {self._most_bytes} bytes at most")
        return fitting

    def _poison_of(self, outcome: Outcome) -> dict[Source, int]:
        """A batch of which anything else came ends the run of its partition."""
        bad: dict[Source, int | None] = dict.fromkeys(outcome.positions)  # None = something else came
        for raw, _, whole in outcome.letters:
            source = (raw.topic, raw.partition)
            bad[source] = (bad.get(source) or 0) + len(raw) if whole else None
        for source, count in bad.items():
            self._poison[source] = 0 if count is None else self._poison.get(source, 0) + count
        return {source: self._poison[source] for source, count in bad.items() if count}

    def _stop_when_poisoned(self, source: Source, run: int) -> None:
        most = self._serving.settings.kafka.poison_run
        if not most or run < most:
            return
        structlog.get_logger().error(
            "partition_poisoned", partition=source, bad_messages_in_a_row=run,
            remedy="compare codec.* with what is in the topic, see the dead letters; a restart reads it again",
        )  # fmt: skip
        if not self._reader.stop_reading(source):
            raise NoProgress(
                f"every partition brought {most} bad messages in a row, {source} at last",
                remedy="compare codec.* with what is in the topic; see the dead letters",
            )


def within(kafka: KafkaSettings, most_bytes: int) -> KafkaSettings:
    """As long as a topic takes less than `kafka.batch_bytes`, so much is a batch."""
    return kafka if most_bytes >= kafka.batch_bytes else kafka.model_copy(update={"batch_bytes": most_bytes})


def _arrow_writers(serving: Serving, partitions: Mapping[str, int]) -> "dict[str, ArrowWriter]":
    from tickcast.engine.records.as_arrow import ArrowWriter  # some 15 ms that only such a deployment spends

    return {
        topic: ArrowWriter(serving.settings, serving.cards, list(RUNGS), partial(partitions_of, partitions=count))
        for topic, count in partitions.items()
    }


def _only(rows: Rows, text: Encoded, fresh: Bool) -> tuple[Rows, Encoded]:
    """One message a row."""
    if fresh.all():
        return rows, text
    return rows.take(fresh), Encoded(text.data, text.starts[fresh], text.ends[fresh], text.symbol[fresh])


def _traces(rows: Forecasts | FeatureRows, sources: list[Source], traced: list[RawBatch]) -> Trace:
    """The trace header of each row's closing record, copied into one buffer."""
    text, starts = np.zeros((len(rows), TRACE_BYTES), np.uint8), np.full(len(rows), -1, np.int64)
    for raw in traced:
        assert raw.trace is not None
        mine = np.flatnonzero(rows.partition == sources.index((raw.topic, raw.partition)))
        at = np.minimum(np.searchsorted(raw.offsets, rows.offset[mine]), len(raw) - 1)
        found = (raw.offsets[at] == rows.offset[mine]) & (raw.trace[at] >= 0)
        rows_found, places = mine[found], raw.trace[at[found]]
        text[rows_found] = raw.data[places[:, None] + np.arange(TRACE_BYTES)]
        starts[rows_found] = rows_found * TRACE_BYTES
    return text.reshape(-1), starts


def _message(letter: DeadLetter) -> Message:
    """As it came, with where from and why in the headers."""
    headers = {
        "topic": letter.topic, "partition": letter.partition, "offset": letter.offset, "reason": letter.reason,
        "stage": letter.stage, "version": __version__, "original_bytes": letter.original_bytes,
        "refused": letter.refused, "ticks": letter.ticks, "reasons": msgspec.json.encode(letter.reasons).decode(),
    }  # fmt: skip
    return letter.key, letter.value, [(name, str(text).encode()) for name, text in headers.items()]
