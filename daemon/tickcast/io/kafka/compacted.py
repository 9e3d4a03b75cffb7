"""A topic of keyed records of which the last of each key counts: reads all of it, and writes to it.

It knows no record, keeps no position, and stays out of every transaction.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition

from tickcast.errors import BrokerAway, TickcastError
from tickcast.io.kafka import client
from tickcast.io.kafka.topics import Topic, partitions_of
from tickcast.settings.buses import KafkaSettings

SETTING = "topics.prefix"
LOOK_MS = 500

Send = Callable[[str, bytes | None], Awaitable[None]]


class CompactedTopic:
    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings, self._topic = settings, topic

    async def read(self, take: Callable[[str, bytes | None], None]) -> None:
        """Key and value of all that it holds as of now, those of a key in their order. What is no text in a key is
        replaced; a record without a key comes with an empty one.
        """
        counts = await partitions_of(self._settings, [Topic(self._topic, SETTING)])
        wanted = [TopicPartition(self._topic, number) for number in range(counts[self._topic])]
        consumer = client.consumer(self._settings)
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                await consumer.start()
                consumer.assign(wanted)
                low, high = await consumer.beginning_offsets(wanted), await consumer.end_offsets(wanted)
            for at, first in low.items():
                consumer.seek(at, first)
            await self._read_to(consumer, high, take)
        except client.FAILURES as error:
            raise self._in_our_words(error, "reading") from None
        finally:
            await client.stop_consumer(consumer)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Send]:
        """What it yields sends one record, and returns when the broker holds it; no value takes the key back."""
        producer = client.producer(self._settings)

        async def send(key: str, value: bytes | None) -> None:
            async with asyncio.timeout(self._settings.call_timeout_s):
                await producer.send_and_wait(self._topic, value, key=key.encode())

        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                await producer.start()
            yield send
        except client.FAILURES as error:
            raise self._in_our_words(error, "writing") from None
        finally:
            await client.stop(producer.stop())

    async def _read_to(
        self, consumer: AIOKafkaConsumer, high: dict[TopicPartition, int], take: Callable[[str, bytes | None], None]
    ) -> None:
        """Each partition to its end; TimeoutError where nothing moves for `kafka.call_timeout_s`."""
        clock, before = asyncio.get_running_loop().time, -1
        moved = clock()
        while True:
            position = {at: await consumer.position(at) for at in high}  # past what compaction or a transaction left
            behind = [at for at, end in high.items() if position[at] < end]
            if not behind:
                return
            if sum(position.values()) != before:
                before, moved = sum(position.values()), clock()
            elif clock() - moved > self._settings.call_timeout_s:
                raise TimeoutError(f"nothing came for {self._settings.call_timeout_s} s")
            for records in (await consumer.getmany(*behind, timeout_ms=LOOK_MS)).values():
                for record in records:
                    take((record.key or b"").decode(errors="replace"), record.value)

    def _in_our_words(self, error: Exception, doing: str) -> TickcastError:
        if isinstance(error, client.NO_RIGHTS):
            return client.in_our_words(error, f"{doing} {self._topic}")
        return BrokerAway(f"{doing} {self._topic}: {error!r}")
