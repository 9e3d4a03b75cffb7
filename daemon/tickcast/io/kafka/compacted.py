"""A topic of keyed records of which the last of each key counts: reads all of it, and writes to it.

It knows no record, keeps no position, and stays out of every transaction.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tickcast.columns import Source
from tickcast.errors import BrokerAway
from tickcast.io.kafka import client
from tickcast.io.kafka.consumer import Consumer
from tickcast.io.kafka.topics import Topic, partitions_of
from tickcast.settings.buses import KafkaSettings

SETTING = "topics.prefix"
LOOK_S = 0.5

Send = Callable[[str, bytes | None], Awaitable[None]]


class CompactedTopic:
    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings, self._topic = settings, topic

    async def read(self, take: Callable[[str, bytes | None], None]) -> None:
        """Key and value of all that it holds as of now, those of a key in their order. What is no text in a key is
        replaced; a record without a key comes with an empty one.
        """
        counts = await partitions_of(self._settings, [Topic(self._topic, SETTING)])
        sources = [(self._topic, number) for number in range(counts[self._topic])]
        async with Consumer.open(self._settings, sources) as consumer:
            bounds = await consumer.bounds()
            consumer.seek({source: held.low for source, held in bounds.items()})
            await self._read_to(consumer, {source: held.high for source, held in bounds.items()}, take)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Send]:
        """What it yields sends one record, and returns when the broker holds it; no value takes the key back."""
        async with client.producing(self._settings, f"writing {self._topic}") as producer:

            async def send(key: str, value: bytes | None) -> None:
                async with asyncio.timeout(self._settings.call_timeout_s):
                    await producer.send_and_wait(self._topic, value, key=key.encode())

            yield send

    async def _read_to(
        self, consumer: Consumer, ends: dict[Source, int], take: Callable[[str, bytes | None], None]
    ) -> None:
        """Each partition to its end; BrokerAway where nothing moves for `kafka.call_timeout_s`."""
        clock, before = asyncio.get_running_loop().time, -1
        moved = clock()
        while True:
            positions = await consumer.positions()
            if all(positions[source] >= end for source, end in ends.items()):
                return
            if sum(positions.values()) != before:
                before, moved = sum(positions.values()), clock()
            elif clock() - moved > self._settings.call_timeout_s:
                raise BrokerAway(f"reading {self._topic}: nothing came for {self._settings.call_timeout_s} s")
            for records in (await consumer.fetch(LOOK_S)).values():
                for record in records:
                    take((record.key or b"").decode(errors="replace"), record.value)
