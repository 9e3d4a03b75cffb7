"""What comes on the control topic, one message at a time, in the same way from any bus. It understands none of it.

Asking for the next message says that the one before is needed no more.
"""

from collections.abc import AsyncIterator
from typing import NamedTuple

from tickcast.io.memory_bus import Subscription

LOOK_S = 1.0


class Message(NamedTuple):
    raw: bytes
    at: tuple[str, int, int]  # topic, partition, offset


async def from_memory(subscription: Subscription) -> AsyncIterator[Message]:
    """What `MemoryBus.subscribe` brings. A bus in memory remembers nothing, so there is no position to keep."""
    while True:
        for batch in await subscription.next_batches(LOOK_S):
            for row in range(len(batch)):
                yield Message(batch.message(row), (batch.topic, batch.partition, int(batch.offsets[row])))
