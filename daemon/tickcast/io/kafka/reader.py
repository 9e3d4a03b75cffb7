"""Reads some partitions from given offsets on, as blobs; knows the lag, and replaces a client that stands still.

It opens no blob and commits nothing. Where the client's internals are strange to us it reads plainly, and says so.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from tickcast.columns import RawBatch, Source
from tickcast.errors import BrokerAway, Fatal, NoProgress
from tickcast.io.kafka import client, fetch
from tickcast.io.kafka.blob import Blob
from tickcast.settings.buses import KafkaSettings

MOST_REBUILDS = 3
PLAIN_RECORDS = 2_000  # of one plain fetch: decoding more at once would hold the interpreter too long


class Bounds(NamedTuple):
    low: int  # oldest offset that the broker still holds
    high: int  # offset of the next record


class KafkaReader:
    """Made by `open`. One coroutine calls `fetch`."""

    def __init__(self, settings: KafkaSettings, sources: Sequence[Source]) -> None:
        self.columnar = fetch.install()
        self.rebuilds = 0  # without progress in between
        self._settings = settings
        self._partitions = {source: TopicPartition(*source) for source in sources}
        self.position: dict[Source, int] = {}  # next offset of each
        self.begun: dict[Source, int] = {}
        self._still_s = dict.fromkeys(sources, 0.0)  # waited for a partition that has more to give
        self.stopped: set[Source] = set()  # that are never read again
        self._consumer: AIOKafkaConsumer | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: KafkaSettings, sources: Sequence[Source]) -> AsyncIterator["KafkaReader"]:
        reader = cls(settings, sources)
        if not reader.columnar:
            structlog.get_logger().warning("reading_plainly", reason="aiokafka's fetcher is not the one we know")
        try:
            await reader._connect()
            yield reader
        finally:
            await reader._disconnect()

    async def bounds(self) -> dict[Source, Bounds]:
        """What the broker holds now."""
        assert self._consumer is not None
        wanted = list(self._partitions.values())
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                low = await self._consumer.beginning_offsets(wanted)
                high = await self._consumer.end_offsets(wanted)
        except client.FAILURES as error:
            raise BrokerAway(f"the broker does not say which offsets it holds: {error!r}") from None
        return {source: Bounds(low[at], high[at]) for source, at in self._partitions.items()}

    def begin(self, positions: Mapping[Source, int]) -> None:
        """Read each partition from its offset on."""
        assert self._consumer is not None
        self.position = dict(positions)
        self.begun = self.begun or dict(positions)
        for source, at in self._partitions.items():
            self._consumer.seek(at, positions[source])

    async def fetch(self, max_wait_s: float) -> list[Blob | RawBatch]:
        """All that the client has gathered; after so long an empty list."""
        assert self._consumer is not None
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            fetched = await self._consumer.getmany(
                timeout_ms=int(max_wait_s * 1000), **({} if self.columnar else {"max_records": PLAIN_RECORDS})
            )
        except OffsetOutOfRangeError as error:
            raise Fatal(
                f"the broker no longer holds what comes next: {error}",
                remedy="kafka.lost_offsets says what a restart does; raise the topic's retention",
            ) from None
        except client.FAILURES as error:
            raise client.in_our_words(error, "reading") from None
        items: list[Blob | RawBatch] = self._blobs(fetched) if self.columnar else [*fetch.plain_batches(fetched)]
        for item in items:
            source = (item.topic, item.partition)
            self.position[source] = item.next_offset if isinstance(item, Blob) else int(item.offsets[-1]) + 1
            self._still_s[source], self.rebuilds = 0.0, 0
        if not items:
            await self._note_stillness(clock() - began)
        return items

    def lag(self) -> dict[Source, int]:
        """Records that the broker held at the last fetch and we have not read."""
        assert self._consumer is not None
        high = {source: self._consumer.highwater(at) or 0 for source, at in self._partitions.items()}
        return {source: max(high[source] - position, 0) for source, position in self.position.items()}

    def stop_reading(self, source: Source) -> bool:
        """Never read the partition again; returns whether others are left."""
        assert self._consumer is not None
        self.stopped.add(source)
        self._consumer.pause(self._partitions[source])
        return len(self.stopped) < len(self._partitions)

    def partition_counts(self) -> dict[str, int]:
        """Partitions of our topics as the client's metadata, which it refreshes by itself, has them now."""
        assert self._consumer is not None
        topics = {topic for topic, _ in self._partitions}
        return {topic: len(self._consumer.partitions_for_topic(topic) or ()) for topic in topics}

    @staticmethod
    def _blobs(fetched: Mapping[TopicPartition, list[Any]]) -> list[Blob | RawBatch]:
        return [blob for blobs in fetched.values() for blob in blobs]

    async def _note_stillness(self, waited_s: float) -> None:
        """A client that brings nothing although there is more is replaced, and at last given up."""
        for source, behind in self.lag().items():
            self._still_s[source] = self._still_s[source] + waited_s if behind and source not in self.stopped else 0.0
        worst = max(self._still_s, key=self._still_s.__getitem__, default=None)
        is_deaf = client.is_deaf(self._consumer)
        if worst is None or not (is_deaf or self._still_s[worst] >= self._settings.watchdog_s):
            return
        self.rebuilds += 1
        if self.rebuilds > MOST_REBUILDS:
            raise NoProgress(f"{worst} stood still through {MOST_REBUILDS} new clients", remedy="see the broker's log")
        structlog.get_logger().warning(
            "client_rebuilt", partition=worst, lag=self.lag()[worst], time=self.rebuilds, is_deaf=is_deaf
        )
        self._still_s = dict.fromkeys(self._still_s, 0.0)
        await self._disconnect()
        await self._connect_again()
        self.begin(self.position)

    async def _connect_again(self) -> None:
        """What cost us the client may have been the broker's going away: it has as long to come back as a call."""
        clock = asyncio.get_running_loop().time
        until = clock() + self._settings.call_timeout_s
        while True:
            try:
                return await self._connect()
            except BrokerAway:
                if clock() >= until:
                    raise
            await asyncio.sleep(client.FIRST_PAUSE_S)

    async def _connect(self) -> None:
        consumer = client.consumer(self._settings, deserializer=fetch.BLOBS if self.columnar else None)
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                await consumer.start()
        except client.FAILURES as error:
            await client.stop_consumer(consumer)
            raise BrokerAway(f"the consumer cannot start: {error!r}") from None
        consumer.assign(list(self._partitions.values()))
        for source in self.stopped:
            consumer.pause(self._partitions[source])
        self._consumer = consumer

    async def _disconnect(self) -> None:
        if self._consumer is not None:
            await client.stop_consumer(self._consumer)
