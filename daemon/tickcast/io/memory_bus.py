"""The embedded bus: topics and partitions in memory, with the shape of a broker's batches. One process, one loop.

A topic keeps only what its subscribers have not read yet; a full subscriber makes producers wait, never drops.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterable

import numpy as np

from tickcast.clock import Clock
from tickcast.columns import Encoded, RawBatch

ROOM = 1_000_000  # unread messages of one subscriber at which producers wait


def raw_batch(topic: str, partition: int, messages: list[bytes], *, first_offset: int, stamp_ns: int) -> RawBatch:
    lengths = np.fromiter(map(len, messages), np.int64, len(messages))
    ends = np.cumsum(lengths)
    return RawBatch(
        topic=topic, partition=partition, data=np.frombuffer(bytearray().join(messages), np.uint8),
        starts=ends - lengths, ends=ends, offsets=first_offset + np.arange(len(messages)),
        stamps_ns=np.full(len(messages), stamp_ns),
    )  # fmt: skip


class Subscription:
    """One reader's view of some topics."""

    def __init__(self, topics: Iterable[str]) -> None:
        self.topics = frozenset(topics)
        self.unread = 0
        self._batches: deque[RawBatch] = deque()
        self._arrived = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    def take(self, batch: RawBatch) -> None:
        self._batches.append(batch)
        self.unread += len(batch)
        self._arrived.set()
        if self.unread >= ROOM:
            self._has_room.clear()

    async def room(self) -> None:
        await self._has_room.wait()

    async def next_batches(self, max_wait_s: float) -> list[RawBatch]:
        """All that is unread, in order; waits so long for a first batch, and then gives an empty list."""
        if not self._batches:
            self._arrived.clear()
            try:
                async with asyncio.timeout(max_wait_s):
                    await self._arrived.wait()
            except TimeoutError:
                return []
        batches = [*self._batches]
        self._batches.clear()
        self.unread = 0
        self._has_room.set()
        return batches


class MemoryBus:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next_offset: dict[tuple[str, int], int] = defaultdict(int)
        self._subscriptions: list[Subscription] = []

    def subscribe(self, *topics: str) -> Subscription:
        """From now on; what came before is gone."""
        subscription = Subscription(topics)
        self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.remove(subscription)

    async def produce(self, topic: str, messages: list[bytes], *, partition: int = 0) -> bool:
        """Append messages; waits while a subscriber is full."""
        for subscription in self._readers(topic):
            await subscription.room()
        first = self._claim(topic, partition, len(messages))
        self._deliver(raw_batch(topic, partition, messages, first_offset=first, stamp_ns=self._clock.now_ns()))
        return True

    def publish(self, topic: str, encoded: Encoded, *, partition: int = 0) -> None:
        """Append finished messages without copying them. A reader that is full keeps them all the same."""
        n = len(encoded.starts)
        first = self._claim(topic, partition, n)
        offsets, stamps = first + np.arange(n), np.full(n, self._clock.now_ns())
        self._deliver(RawBatch(
            topic=topic, partition=partition, data=encoded.data, starts=encoded.starts, ends=encoded.ends,
            offsets=offsets, stamps_ns=stamps,
        ))  # fmt: skip

    def _claim(self, topic: str, partition: int, count: int) -> int:
        first = self._next_offset[topic, partition]
        self._next_offset[topic, partition] = first + count
        return first

    def _deliver(self, batch: RawBatch) -> None:
        for subscription in self._readers(batch.topic):
            subscription.take(batch)

    def _readers(self, topic: str) -> list[Subscription]:
        return [s for s in self._subscriptions if topic in s.topics]
