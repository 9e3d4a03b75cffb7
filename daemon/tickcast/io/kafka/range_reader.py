"""Reads what a topic held between two times, once, in an order that the topic alone decides. It commits nothing.

The broker's stamps find the part of each partition that is read; event times are the caller's to look at. Each
partition has a reader of its own, so that one which is ahead of the others waits instead of filling the memory.
"""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

import numpy as np

from tickcast.columns import I64, RawBatch, Source
from tickcast.io.kafka.blob import Blob, Damaged, open_blob
from tickcast.io.kafka.consumer import Consumer
from tickcast.io.kafka.reader import KafkaReader
from tickcast.settings.buses import KafkaSettings

SPARE_MS = 3_600_000  # read before and after: stamps are not event times, and a broker takes them an hour ahead of it
SLICE_NS = 10**9  # how far a partition may get ahead of the others, by stamps
FETCHED_BYTES = 64 << 20  # of all partitions together that wait to be read
LEAST_FETCH_BYTES = 64 << 10
MAX_WAIT_S = 1.0
FOREVER_NS = 1 << 62

Item = RawBatch | Damaged


class TimeSpan(NamedTuple):
    first: int
    end: int  # the offset to stop before


class RangeReader:
    """Made by `open`."""

    def __init__(self, partitions: Sequence["_Partition"]) -> None:
        self._partitions = partitions
        self.offsets = sum(partition.span.end - partition.span.first for partition in partitions)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: KafkaSettings, topic: str, *, partitions: int, from_ns: int | None, to_ns: int | None
    ) -> AsyncIterator["RangeReader"]:
        """All that may hold a tick of these times, and an hour more on both sides; None = all there is, as of now."""
        spans = await _spans(settings, [(topic, number) for number in range(partitions)], from_ns, to_ns)
        most = max(FETCHED_BYTES // partitions, LEAST_FETCH_BYTES)
        bounded = settings.model_copy(update={"fetch_partition_bytes": min(most, settings.fetch_partition_bytes)})
        async with AsyncExitStack() as stack:
            opened = []
            for source, span in spans.items():
                if span.first < span.end:
                    reader = await stack.enter_async_context(KafkaReader.open(bounded, [source]))
                    reader.begin({source: span.first})
                    opened.append(_Partition(reader, source, span, settings.expanded_bytes))
            yield cls(opened)

    @property
    def passed(self) -> int:
        """How many of `offsets` were given."""
        return sum(partition.reached - partition.span.first for partition in self._partitions)

    async def turns(self, most: int) -> AsyncIterator[list[Item]]:
        """At most so many messages at a time: by partition in their order, over partitions by stamp, in slices."""
        for partition in self._partitions:
            await partition.fill()
        while any(partition.ready or partition.damaged for partition in self._partitions):
            yield await self._turn(most)

    async def _turn(self, most: int) -> list[Item]:
        turn: list[Item] = []
        while most and (live := [partition for partition in self._partitions if partition.ready]):
            oldest = min(live, key=lambda partition: partition.time_ns)
            others = (partition.time_ns for partition in live if partition is not oldest)
            until_ns = min(others, default=FOREVER_NS) + SLICE_NS
            while most and oldest.ready and oldest.time_ns <= until_ns:
                turn.append(part := oldest.take(most, until_ns))
                most -= len(part)
                await oldest.fill()
        for partition in self._partitions:
            turn += partition.damaged
            partition.damaged.clear()
        return turn


class _Partition:
    """One partition on its way through its span. Its time is the largest stamp so far: it never runs backwards."""

    def __init__(self, reader: KafkaReader, source: Source, span: TimeSpan, expanded_bytes: int) -> None:
        self.span = span
        self.ready: deque[tuple[RawBatch, I64]] = deque()  # what comes next, with the time at each message
        self.damaged: list[Damaged] = []
        self._reader, self._source, self._expanded_bytes = reader, source, expanded_bytes
        self._newest_ns = -FOREVER_NS

    @property
    def time_ns(self) -> int:
        return int(self.ready[0][1][0])

    @property
    def reached(self) -> int:
        return int(self.ready[0][0].offsets[0]) if self.ready else min(self._read_to, self.span.end)

    @property
    def _read_to(self) -> int:
        return self._reader.position[self._source]

    async def fill(self) -> None:
        """Returns once something is ready, or the span has ended."""
        while not self.ready and self._read_to < self.span.end:
            for blob in await self._reader.fetch(MAX_WAIT_S):
                self._keep(blob)

    def take(self, most: int, until_ns: int) -> RawBatch:
        """What is ready, up to a time."""
        raw, times = self.ready.popleft()
        count = min(most, int(np.searchsorted(times, until_ns, side="right")))
        if count < len(raw):
            self.ready.appendleft((raw.part(count, len(raw)), times[count:]))
        return raw.part(0, count)

    def _keep(self, blob: Blob) -> None:
        batches, damaged = open_blob(blob, most_bytes=self._expanded_bytes)
        self.damaged += [batch for batch in damaged if batch.first_offset < self.span.end]
        for batch in batches:
            raw = batch.part(0, int(np.searchsorted(batch.offsets, self.span.end)))
            if len(raw):
                times = np.maximum.accumulate(np.maximum(raw.stamps_ns, self._newest_ns))
                self._newest_ns = int(times[-1])
                self.ready.append((raw, times))


async def _spans(
    settings: KafkaSettings, sources: Sequence[Source], from_ns: int | None, to_ns: int | None
) -> dict[Source, TimeSpan]:
    """Where to begin and end. A partition in which nothing came between the times may have been filled later: all."""
    async with Consumer.open(settings, sources) as consumer:
        bounds = await consumer.bounds()
        low, high = ({source: held[at] for source, held in bounds.items()} for at in (0, 1))
        first = low if from_ns is None else await _first_since(consumer, high, from_ns // 10**6 - SPARE_MS)
        end = high if to_ns is None else await _first_since(consumer, high, to_ns // 10**6 + SPARE_MS)
    return {at: TimeSpan(first[at], end[at] if end[at] > first[at] else high[at]) for at in sources}


async def _first_since(consumer: Consumer, high: dict[Source, int], stamp_ms: int) -> dict[Source, int]:
    """Offset of the first message stamped then or later; where there is none, the end."""
    first = {at: offset for at, offset in (await consumer.first_since(stamp_ms)).items() if offset is not None}
    return {at: min(first.get(at, end), end) for at, end in high.items()}
