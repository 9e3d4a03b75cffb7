"""Finished batches on their way into aiokafka's producer, a bounded number at a time. Nothing is framed here.

A ReadyBatch stands in for aiokafka's own BatchBuilder, so that sequence numbers, transactions and retries stay the
client's; `known_client.py` sees to it that the installed one lets it.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from tickcast.columns import I64, U8
from tickcast.errors import BadOutput

HEADER = struct.Struct(">qiibIhiqqqhii")
HEADER_BYTES = HEADER.size
AFTER_LENGTH, CRC_AT, CHECKED_FROM = 12, 17, 21
TRANSACTIONAL = 16  # bit of a batch's attributes
TRACE_NAME, TRACE_BYTES = b"traceparent", 55  # W3C
MOST_UNDER_WAY = 1  # batches of a partition; more would each wait for a round trip of their own, fewer idle the broker

Trace = tuple[U8, I64]  # the traceparent of row i is the 55 bytes from data[starts[i]] on; -1 = none
Delivery = Awaitable[Any]
Message = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]  # key, value, headers


class ReadyBatch:
    """A finished batch of one partition, with what aiokafka asks a BatchBuilder for."""

    __slots__ = ("_buffer", "_codec", "_count", "_is_built", "_stamp_ms", "_state", "partition", "transactional")

    def __init__(self, partition: int, buffer: bytearray, *, count: int, stamp_ms: int, codec: int) -> None:
        """`buffer` holds the records, compressed by `codec`, behind HEADER_BYTES of room."""
        self.partition = partition
        self.transactional = False
        self._buffer = buffer
        self._count, self._stamp_ms, self._codec = count, stamp_ms, codec
        self._state = (-1, -1, 0)
        self._is_built = False

    async def offer(self, producer: AIOKafkaProducer, topic: str) -> Delivery:
        self.transactional = _is_transactional(producer)
        return await _until_taken(partial(producer.send_batch, self, topic, partition=self.partition))

    def append(self, *, timestamp: Any, key: Any, value: Any, headers: Any = ()) -> None:
        """Always full."""

    def close(self) -> None:
        """Always closed."""

    def closed(self) -> bool:
        return True

    def record_count(self) -> int:
        return self._count

    def size(self) -> int:
        return len(self._buffer)

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._state = producer_id, producer_epoch, base_sequence

    def _build(self) -> bytearray:
        """Called for every attempt to send; what is sent again must be what was sent before."""
        if not self._is_built:
            self._is_built = True
            attributes = self._codec | (TRANSACTIONAL if self.transactional else 0)
            HEADER.pack_into(
                self._buffer, 0, 0, len(self._buffer) - AFTER_LENGTH, -1, 2, 0, attributes, self._count - 1,
                self._stamp_ms, self._stamp_ms, *self._state, self._count,
            )  # fmt: skip
            struct.pack_into(">I", self._buffer, CRC_AT, calc_crc32c(memoryview(self._buffer)[CHECKED_FROM:]))
        return self._buffer


class PlainBatch:
    """Messages that the client frames and partitions itself, in order."""

    partition = -1

    def __init__(self, messages: Sequence[Message], stamp_ms: int) -> None:
        self._messages, self._stamp_ms = messages, stamp_ms

    async def offer(self, producer: AIOKafkaProducer, topic: str) -> Delivery:
        deliveries = []
        for key, value, headers in self._messages:
            send = partial(producer.send, topic, value, key=key, timestamp_ms=self._stamp_ms, headers=headers)
            deliveries.append(await _until_taken(send))
        return asyncio.gather(*deliveries)

    def size(self) -> int:
        return sum(len(key or b"") + len(value or b"") for key, value, _ in self._messages)


def cut_to(message: Message, most_bytes: int) -> Message | None:
    """Without so much of its value, and then its key, as no batch may hold; None where its headers alone are too much.
    A broker that refuses a record would do so for ever.
    """
    key, value, headers = message
    size = DefaultRecordBatchBuilder.estimate_size_in_bytes
    if (excess := size(key, value, headers) - most_bytes) <= 0:
        return message
    value = (value or b"")[: max(0, len(value or b"") - excess)]
    if size(key, value, headers) > most_bytes:
        key, value = None, b""
    return (key, value, headers) if size(key, value, headers) <= most_bytes else None


def too_large(symbol: str, size: int, most: int) -> BadOutput:
    return BadOutput(
        f"a message of {size} bytes for {symbol} does not fit into a batch of {most} bytes",
        remedy="raise kafka.batch_bytes and the broker's message.max.bytes, or lower forecast.horizon",
    )


async def _until_taken(offer: Callable[[], Awaitable[Delivery]]) -> Delivery:
    while True:
        try:
            return await offer()
        except KafkaTimeoutError:
            continue  # nothing was taken: the broker is away, and how long that may last is the caller's to say


def _is_transactional(producer: AIOKafkaProducer) -> bool:
    manager = producer._txn_manager
    return manager is not None and manager.transactional_id is not None


@dataclass(slots=True, eq=False)
class Lane:
    """The batches of one partition, in order."""

    topic: str
    waiting: deque[ReadyBatch | PlainBatch] = field(default_factory=deque)
    posted: int = 0
    acknowledged: int = 0
    task: asyncio.Task[None] | None = None


class Outbox:
    """Hands batches to a producer, those of a partition in order, and knows when all of them are acknowledged.

    The first error ends it: what follows a lost batch must not overtake it, so the caller starts anew.
    """

    def __init__(self, producer: AIOKafkaProducer, *, max_in_flight_bytes: int) -> None:
        self.in_flight_bytes = 0
        self._producer = producer
        self._most = max_in_flight_bytes
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._error: BaseException | None = None
        self._changed = asyncio.Event()

    def post(self, topic: str, batches: Sequence[ReadyBatch | PlainBatch]) -> None:
        """Take them without waiting. The bounds are kept by whoever awaits `room` before the next turn."""
        self._raise_error()
        for batch in batches:
            lane = self._lanes.setdefault((topic, batch.partition), Lane(topic))
            lane.waiting.append(batch)
            lane.posted += 1
            self.in_flight_bytes += batch.size()
            if lane.task is None or lane.task.done():
                lane.task = asyncio.create_task(self._hand_over(lane))

    async def room(self) -> None:
        """Wait while too many bytes, or too many batches of some partition, are on their way."""
        await self._wait_while(self._is_full)

    async def settle(self) -> None:
        """Wait until all that was posted before this call is acknowledged."""
        marks = [(lane, lane.posted) for lane in self._lanes.values()]
        await self._wait_while(lambda: any(lane.acknowledged < posted for lane, posted in marks))

    async def close(self) -> None:
        """Drop what the client has not taken; whoever wants it delivered settles first."""
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_full(self) -> bool:
        crowded = any(lane.posted - lane.acknowledged > MOST_UNDER_WAY for lane in self._lanes.values())
        return crowded or self.in_flight_bytes >= self._most

    async def _wait_while(self, condition: Callable[[], bool]) -> None:
        while self._error is None and condition():
            self._changed.clear()
            await self._changed.wait()
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    async def _hand_over(self, lane: Lane) -> None:
        while lane.waiting and self._error is None:
            batch = lane.waiting.popleft()
            self._changed.set()
            try:
                delivery = asyncio.ensure_future(await batch.offer(self._producer, lane.topic))
            except Exception as error:
                self._fail(error)
                return
            delivery.add_done_callback(partial(self._delivered, lane, batch.size()))

    def _delivered(self, lane: Lane, size: int, delivery: asyncio.Future[Any]) -> None:
        self.in_flight_bytes -= size
        lane.acknowledged += 1
        error = asyncio.CancelledError() if delivery.cancelled() else delivery.exception()
        if error is not None:
            self._fail(error)
        self._changed.set()

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        for lane in self._lanes.values():
            lane.waiting.clear()
        self._changed.set()
