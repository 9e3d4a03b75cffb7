"""Reads some partitions from given offsets on, as blobs; knows the lag, and replaces a client that stands still.

It opens no blob and commits nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import structlog
from aiokafka.errors import OffsetOutOfRangeError

from tickcast.columns import Source
from tickcast.errors import BrokerAway, Fatal, NoProgress
from tickcast.io.kafka import client, fetch
from tickcast.io.kafka.blob import Blob
from tickcast.io.kafka.consumer import Bounds, Consumer
from tickcast.settings.buses import KafkaSettings

MOST_REBUILDS = 3


class KafkaReader:
    """Made by `open`. One coroutine calls `fetch`."""

    def __init__(self, settings: KafkaSettings, sources: Sequence[Source], consumer: Consumer) -> None:
        self.rebuilds = 0  # without progress in between
        self.replaced = 0  # clients in all
        self.position: dict[Source, int] = {}  # next offset of each
        self.begun: dict[Source, int] = {}
        self.stopped: set[Source] = set()  # that are never read again
        self._settings, self._sources = settings, sources
        self._consumer = consumer

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: KafkaSettings, sources: Sequence[Source]) -> AsyncIterator["KafkaReader"]:
        fetch.install()
        reader = cls(settings, sources, await _blob_consumer(settings, sources).start())
        try:
            yield reader
        finally:
            await reader._consumer.stop()

    async def bounds(self) -> dict[Source, Bounds]:
        """What the broker holds now."""
        return await self._consumer.bounds()

    def begin(self, positions: Mapping[Source, int]) -> None:
        """Read each partition from its offset on."""
        self.position = {source: positions[source] for source in self._sources}
        self.begun = self.begun or dict(self.position)
        self._consumer.seek(self.position)

    async def fetch(self, max_wait_s: float) -> list[Blob]:
        """All that the client has gathered; after so long an empty list."""
        try:
            fetched = await self._consumer.fetch(max_wait_s)
        except OffsetOutOfRangeError as error:
            raise Fatal(
                f"the broker no longer holds what comes next: {error}",
                remedy="kafka.lost_offsets says what a restart does; raise the topic's retention",
            ) from None
        blobs: list[Blob] = [blob for blobs in fetched.values() for blob in blobs]
        for blob in blobs:
            self.position[blob.topic, blob.partition] = blob.next_offset
            self.rebuilds = 0
        if not blobs:
            await self._look_for_stillness()
        return blobs

    def lag(self) -> dict[Source, int]:
        """Records that the broker held at the last fetch and we have not read."""
        return self._consumer.lag(self.position)

    def stop_reading(self, source: Source) -> bool:
        """Never read the partition again; returns whether others are left."""
        self.stopped.add(source)
        self._consumer.pause(source)
        return len(self.stopped) < len(self._sources)

    def partition_counts(self) -> dict[str, int]:
        return self._consumer.partition_counts()

    async def _look_for_stillness(self) -> None:
        """A client that brings nothing although there is more is replaced, and at last given up."""
        still = await self._consumer.stillness()
        if still is None:
            return
        self.rebuilds += 1
        self.replaced += 1
        if self.rebuilds > MOST_REBUILDS:
            raise NoProgress(
                f"{still.source} stood still through {MOST_REBUILDS} new clients", remedy="see the broker's log"
            )
        structlog.get_logger().warning(
            "client_rebuilt", partition=still.source, lag=still.lag, time=self.rebuilds, is_deaf=still.is_deaf
        )
        await self._consumer.stop()
        self._consumer = await self._another()
        for source in self.stopped:
            self._consumer.pause(source)
        self.begin(self.position)

    async def _another(self) -> Consumer:
        """What cost us the client may have been the broker's going away: it has as long to come back as a call."""
        clock = asyncio.get_running_loop().time
        until = clock() + self._settings.call_timeout_s
        while True:
            try:
                return await _blob_consumer(self._settings, self._sources).start()
            except BrokerAway:
                if clock() >= until:
                    raise
            await asyncio.sleep(client.FIRST_PAUSE_S)


def _blob_consumer(settings: KafkaSettings, sources: Sequence[Source]) -> Consumer:
    return Consumer(settings, sources, value_deserializer=fetch.BLOBS)
