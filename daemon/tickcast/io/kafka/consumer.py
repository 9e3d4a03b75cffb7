"""One client that reads: opened within a deadline, sought, asked what it fetched, found deaf, stopped whatever happens.

Whoever reads Kafka has one, and decides what follows from what it says. It opens no record, commits nothing unasked and
never jumps to another offset by itself.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.structs import OffsetAndMetadata

from tickcast.columns import Source
from tickcast.io.kafka import client
from tickcast.settings.buses import KafkaSettings

T = TypeVar("T")


class Bounds(NamedTuple):
    low: int  # oldest offset that the broker still holds
    high: int  # offset of the next record


class Stillness(NamedTuple):
    """A partition of which nothing comes any more."""

    source: Source
    lag: int
    is_deaf: bool  # the client's fetching ended by an error that it only logs; else: too long, although there is more


class Consumer:
    """Made by `open`, or by `start`, whose caller calls `stop`. One coroutine calls `fetch`."""

    def __init__(self, settings: KafkaSettings, sources: Iterable[Source] = (), **arguments: Any) -> None:
        """`arguments` are the client's, for those that differ. With a strategy to share partitions out among them it
        is a group that gives them, once its caller has subscribed."""
        self._settings = settings
        self._is_given = "partition_assignment_strategy" in arguments
        self._partitions = {source: TopicPartition(*source) for source in sources}
        self._still_s: dict[Source, float] = dict.fromkeys(self._partitions, 0.0)  # waited where there is more to give
        self._paused: set[Source] = set()
        usual = {
            "bootstrap_servers": settings.bootstrap_servers, "client_id": client.CLIENT, "group_id": None,
            "enable_auto_commit": False, "auto_offset_reset": "none", "isolation_level": "read_committed",
            "fetch_max_wait_ms": client.FETCH_WAIT_MS, "fetch_max_bytes": settings.fetch_max_bytes,
            "max_partition_fetch_bytes": settings.fetch_partition_bytes, "request_timeout_ms": client.REQUEST_MS,
            "metadata_max_age_ms": client.METADATA_MS, "check_crcs": True,
        }  # fmt: skip
        self.client = AIOKafkaConsumer(**usual | client.security(settings.security) | arguments)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: KafkaSettings, sources: Iterable[Source], **arguments: Any
    ) -> AsyncIterator["Consumer"]:
        consumer = await cls(settings, sources, **arguments).start()
        try:
            yield consumer
        finally:
            await consumer.stop()

    async def start(self) -> Self:
        try:
            await self._within("the consumer cannot start", self.client.start())
        except BaseException:
            await self.stop()
            raise
        if not self._is_given:
            self.client.assign([*self._partitions.values()])  # none, too: without it a fetch would wait for ever
        return self

    async def stop(self) -> None:
        """Where its own stop breaks off, as on a connection that was cut, the rest of it is still open."""
        if not await client.stop(self.client.stop()):
            for part in filter(None, (self.client._fetcher, self.client._client)):
                await client.stop(part.close())

    async def bounds(self) -> dict[Source, Bounds]:
        """What the broker holds now."""
        wanted, doing = [*self._partitions.values()], "the broker does not say which offsets it holds"
        low = await self._within(doing, self.client.beginning_offsets(wanted))
        high = await self._within(doing, self.client.end_offsets(wanted))
        return {source: Bounds(low[at], high[at]) for source, at in self._partitions.items()}

    async def first_since(self, stamp_ms: int) -> dict[Source, int | None]:
        """Offset of the first record that was stamped then or later; None where there is none."""
        wanted = dict.fromkeys(self._partitions.values(), max(stamp_ms, 0))
        answer = await self._within(
            "the broker does not say which offsets it holds", self.client.offsets_for_times(wanted)
        )
        return {source: answer[at] and answer[at].offset for source, at in self._partitions.items()}

    def seek(self, positions: Mapping[Source, int]) -> None:
        """Read each partition from its offset on."""
        for source, offset in positions.items():
            self.client.seek(self._partitions[source], offset)

    def pause(self, source: Source) -> None:
        """Read no more of it."""
        self._paused.add(source)
        self.client.pause(self._partitions[source])

    async def fetch(self, max_wait_s: float, *, most: int | None = None) -> dict[Source, list[Any]]:
        """What has arrived of each partition, in order, at most so many; after so long nothing. OffsetOutOfRangeError:
        the broker no longer holds what comes next. The keys are aiokafka's, which are equal to ours."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            fetched: dict[Source, list[Any]] = await self.client.getmany(
                timeout_ms=int(max_wait_s * 1000), max_records=most
            )
        except OffsetOutOfRangeError:
            raise
        except client.FAILURES as error:
            topics = sorted({topic for topic, _ in self._partitions})
            raise client.away(error, f"reading {', '.join(topics)}") from None
        for source in fetched:
            self._still_s[source] = 0.0
        if not fetched:
            await self._wait_on(clock() - began)
        return fetched

    async def positions(self) -> dict[Source, int]:
        """Where each partition goes on, behind what a transaction or compaction left."""
        return {source: await self.client.position(at) for source, at in self._partitions.items()}

    def lag(self, positions: Mapping[Source, int]) -> dict[Source, int]:
        """Records that the broker held at the last fetch, from these positions on."""
        return {
            source: max((self.client.highwater(self._partitions[source]) or 0) - position, 0)
            for source, position in positions.items()
        }

    async def stillness(self) -> Stillness | None:
        """Asked after a fetch that brought nothing. Such a client is to be replaced."""
        worst = max(self._still_s, key=self._still_s.__getitem__, default=None)
        if worst is None or not (self._is_deaf() or self._still_s[worst] >= self._settings.watchdog_s):
            return None
        return Stillness(worst, self.lag(await self.positions())[worst], self._is_deaf())

    def partition_counts(self) -> dict[str, int]:
        """Partitions of our topics as the client's metadata, which it refreshes by itself, has them now."""
        topics = {topic for topic, _ in self._partitions}
        return {topic: len(self.client.partitions_for_topic(topic) or ()) for topic in topics}

    async def commit(self, offsets: Mapping[Source, int]) -> None:
        """Of the group in the arguments."""
        at = {TopicPartition(*source): OffsetAndMetadata(offset, "") for source, offset in offsets.items()}
        await self._within("committing", self.client.commit(at))

    async def _wait_on(self, waited_s: float) -> None:
        for source, lag in self.lag(await self.positions()).items():
            is_still = lag and source not in self._paused
            self._still_s[source] = self._still_s[source] + waited_s if is_still else 0.0

    def _is_deaf(self) -> bool:
        """A connection that was cut at a bad moment can end its fetching: nothing will come, and nobody is told."""
        return bool(self.client._fetcher.error_future.done())

    async def _within(self, doing: str, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                return await call
        except client.FAILURES as error:
            raise client.away(error, doing) from None
