"""Reads the control topic beside the ticks, with a consumer and a committed position of its own.

A position is committed once the message before it is needed no more; one that is read twice is the inbox's to know.
While no broker answers it waits, and goes on where it was.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.structs import OffsetAndMetadata

from tickcast.errors import BrokerAway, TickcastError
from tickcast.io.control_messages import Message
from tickcast.io.kafka import client
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
        self._position: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._still_s = 0.0  # since something came although there is more
        self._log = structlog.get_logger()

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: KafkaSettings, topic: str) -> AsyncIterator["ControlReader"]:
        """A missing topic or right is refused; the position is the committed one, else the topic's end as of now."""
        reader = cls(settings, topic)
        try:
            await reader._connect()
            await reader._commit()  # what the end meant is decided once
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
            for at, record in records:
                if record.value is not None:
                    yield Message(record.value, (at.topic, at.partition, record.offset))
                self._position[at] = record.offset + 1

    async def _next_records(self) -> list[tuple[TopicPartition, ConsumerRecord]]:
        """In the order of each partition; empty when for a while nothing came."""
        if self._consumer is None:
            await self._connect()
        assert self._consumer is not None
        await self._commit()
        try:
            fetched = await self._consumer.getmany(timeout_ms=int(LOOK_S * 1000), max_records=RECORDS)
        except OffsetOutOfRangeError:
            await self._skip_what_is_gone()
            return []
        except client.FAILURES as error:
            raise client.in_our_words(error, f"reading {self._topic}") from None
        if not fetched:
            await self._look_for_stillness()
        return [(at, record) for at, records in fetched.items() for record in records]

    async def _commit(self) -> None:
        """What cannot be committed now is with the next; until then a restart would read it again."""
        due = {at: offset for at, offset in self._position.items() if self._committed.get(at) != offset}
        if self._group is None or not due:
            return
        assert self._consumer is not None
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                await self._consumer.commit({at: OffsetAndMetadata(offset, "") for at, offset in due.items()})
        except client.FAILURES as error:
            self._log.warning("control_not_committed", reason=repr(error))
        else:
            self._committed |= due

    async def _look_for_stillness(self) -> None:
        """A client that brings nothing although there is more is replaced."""
        assert self._consumer is not None
        if client.is_deaf(self._consumer):
            raise BrokerAway(f"the client that reads '{self._topic}' has failed")
        if len(self._consumer.partitions_for_topic(self._topic) or ()) > len(self._position):
            raise BrokerAway(f"the topic '{self._topic}' has more partitions now")
        read = {at: await self._consumer.position(at) for at in self._position}  # beyond what a transaction leaves
        behind = any((self._consumer.highwater(at) or 0) > offset for at, offset in read.items())
        self._still_s = self._still_s + LOOK_S if behind else 0.0
        if self._still_s >= self._settings.watchdog_s:
            raise BrokerAway(f"nothing of '{self._topic}' came for {self._still_s:.0f} s although there is more")

    async def _skip_what_is_gone(self) -> None:
        """The broker no longer holds what comes next: whoever sent that has long had no answer."""
        assert self._consumer is not None
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                low = await self._consumer.beginning_offsets([*self._position])
                high = await self._consumer.end_offsets([*self._position])
        except client.FAILURES as error:
            raise BrokerAway(f"the broker does not say which offsets it holds: {error!r}") from None
        for at, first in low.items():
            if not first <= self._position[at] <= high[at]:
                self._log.warning("control_lost", partition=at.partition, position=self._position[at], first=first)
                self._position[at] = first
            self._consumer.seek(at, self._position[at])

    async def _connect(self) -> None:
        counts = await partitions_of(self._settings, [Topic(self._topic, SETTING)])
        wanted = [TopicPartition(self._topic, number) for number in range(counts[self._topic])]
        if self._group is not None and not self._position:
            of_group = self._settings.model_copy(update={"group": self._group})
            found = await client.committed(of_group, [(at.topic, at.partition) for at in wanted])
            self._committed = {TopicPartition(*source): entry.offset for source, entry in found.items()}
        self._consumer = consumer = _consumer(self._settings, self._group)
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                await consumer.start()
                consumer.assign(wanted)
                # a partition that is new while we run is read from its beginning
                first = await (consumer.beginning_offsets if self._position else consumer.end_offsets)(wanted)
        except client.FAILURES as error:
            raise BrokerAway(f"the consumer of '{self._topic}' cannot start: {error!r}") from None
        self._position = {at: self._position.get(at, self._committed.get(at, first[at])) for at in wanted}
        self._still_s = 0.0
        for at, offset in self._position.items():
            consumer.seek(at, offset)

    async def _disconnect(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await client.stop_consumer(consumer)


def _consumer(settings: KafkaSettings, group: str | None) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=settings.bootstrap_servers, client_id=client.CLIENT, group_id=group,
        enable_auto_commit=False, auto_offset_reset="none", isolation_level="read_committed",
        fetch_max_wait_ms=client.FETCH_WAIT_MS, fetch_max_bytes=FETCHED_BYTES,
        max_partition_fetch_bytes=FETCHED_BYTES, request_timeout_ms=client.REQUEST_MS,
        metadata_max_age_ms=client.METADATA_MS, check_crcs=True, **client.security(settings.security),
    )  # fmt: skip
