"""Reads the control topic beside the ticks, with a consumer and a committed position of its own.

A position is committed once the message before it is needed no more; one that is read twice is the inbox's to know.
While no broker answers it waits, and goes on where it was.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from aiokafka import ConsumerRecord
from aiokafka.errors import OffsetOutOfRangeError

from tickcast.columns import Source
from tickcast.errors import BrokerAway, TickcastError
from tickcast.io.control_messages import Message
from tickcast.io.kafka import client
from tickcast.io.kafka.consumer import Consumer
from tickcast.io.kafka.topics import Topic, partitions_of
from tickcast.settings.buses import KafkaSettings

SETTING = "topics.prefix"
LOOK_S = 0.5
RECORDS = 100  # taken from the client at once, and between two commits
FETCHED_BYTES = 4 << 20


def control_group(settings: KafkaSettings) -> str | None:
    """Names the committed position. Members of an elastic group have no slot: each begins at the end."""
    return None if settings.assignment == "group" else f"{settings.group}-control-{settings.slot}"


class ControlReader:
    """Made by `open`. One coroutine reads `messages`."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings, self._topic, self._group = settings, topic, control_group(settings)
        self._position: dict[Source, int] = {}
        self._committed: dict[Source, int] = {}
        self._consumer: Consumer | None = None
        self._log = structlog.get_logger()

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: KafkaSettings, topic: str) -> AsyncIterator["ControlReader"]:
        """A missing topic or right is refused; the position is the committed one, else the topic's end as of now."""
        reader = cls(settings, topic)
        try:
            await reader._commit(await reader._connect())  # what the end meant is decided once
            yield reader
        finally:
            await reader._disconnect()

    async def messages(self) -> AsyncIterator[Message]:
        pause = client.FIRST_PAUSE_S
        while True:
            try:
                records = await self._next_records()
                pause = client.FIRST_PAUSE_S
            except TickcastError as problem:
                self._log.warning("control_interrupted", reason=str(problem), retry_s=pause)
                await self._disconnect()
                await asyncio.sleep(pause)
                pause = min(2 * pause, client.LONGEST_PAUSE_S)
                continue
            for source, record in records:
                if record.value is not None:
                    yield Message(record.value, (*source, record.offset))
                self._position[source] = record.offset + 1

    async def _next_records(self) -> list[tuple[Source, ConsumerRecord]]:
        """In the order of each partition; empty when for a while nothing came."""
        consumer = self._consumer or await self._connect()
        await self._commit(consumer)
        try:
            fetched = await consumer.fetch(LOOK_S, most=RECORDS)
        except OffsetOutOfRangeError:
            await self._skip_what_is_gone(consumer)
            return []
        if not fetched:
            await self._look_for_stillness(consumer)
        return [(source, record) for source, records in fetched.items() for record in records]

    async def _commit(self, consumer: Consumer) -> None:
        """What cannot be committed now is with the next; until then a restart would read it again."""
        due = {at: offset for at, offset in self._position.items() if self._committed.get(at) != offset}
        if self._group is None or not due:
            return
        try:
            await consumer.commit(due)
        except TickcastError as problem:
            self._log.warning("control_not_committed", reason=str(problem))
        else:
            self._committed |= due

    async def _look_for_stillness(self, consumer: Consumer) -> None:
        """A client that brings nothing although there is more is replaced."""
        if still := await consumer.stillness():
            why = "has failed" if still.is_deaf else "brings nothing although there is more"
            raise BrokerAway(f"the client that reads '{self._topic}' {why}")
        if consumer.partition_counts()[self._topic] > len(self._position):
            raise BrokerAway(f"the topic '{self._topic}' has more partitions now")

    async def _skip_what_is_gone(self, consumer: Consumer) -> None:
        """The broker no longer holds what comes next: whoever sent that has long had no answer."""
        for source, held in (await consumer.bounds()).items():
            position = self._position[source]
            if not held.low <= position <= held.high:
                self._log.warning("control_lost", partition=source[1], position=position, first=held.low)
                self._position[source] = held.low
        consumer.seek(self._position)

    async def _connect(self) -> Consumer:
        counts = await partitions_of(self._settings, [Topic(self._topic, SETTING)])
        sources = [(self._topic, number) for number in range(counts[self._topic])]
        if self._group is not None and not self._position:
            of_group = self._settings.model_copy(update={"group": self._group})
            found = await client.committed(of_group, sources)
            self._committed = {source: entry.offset for source, entry in found.items()}
        self._consumer = consumer = await Consumer(
            self._settings, sources, group_id=self._group, fetch_max_bytes=FETCHED_BYTES,
            max_partition_fetch_bytes=FETCHED_BYTES,
        ).start()  # fmt: skip
        # a partition that is new while we run is read from its beginning
        first = {at: held.low if self._position else held.high for at, held in (await consumer.bounds()).items()}
        self._position = {at: self._position.get(at, self._committed.get(at, first[at])) for at in sources}
        consumer.seek(self._position)
        return consumer

    async def _disconnect(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()
