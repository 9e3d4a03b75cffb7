"""Sends encoded messages to one topic, for commands rather than the daemon: no slot, no fence, no transaction.

Nothing is doubled or lost while it runs; what was on its way when it fails may or may not have arrived.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tickcast.columns import Encoded
from tickcast.errors import BrokerAway, TickcastError
from tickcast.io.kafka import client
from tickcast.io.kafka.framing import framer
from tickcast.io.kafka.publish import Outbox
from tickcast.settings.buses import KafkaSettings
from tickcast.symbols import SymbolTable

MOST_AWAY_S = 60  # the client itself would try for ever


class TopicWriter:
    """Made by `open`."""

    def __init__(self, settings: KafkaSettings, topic: str, outbox: Outbox, *, partitions: int) -> None:
        self._settings, self._topic, self._outbox = settings, topic, outbox
        self._framer = framer(settings, partitions)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: KafkaSettings, topic: str, *, partitions: int) -> AsyncIterator["TopicWriter"]:
        producer = client.producer(settings)
        outbox = Outbox(producer, max_in_flight_bytes=settings.in_flight_bytes)
        try:
            async with asyncio.timeout(settings.call_timeout_s):
                await producer.start()
            yield cls(settings, topic, outbox, partitions=partitions)
            async with asyncio.timeout(settings.call_timeout_s):
                await outbox.settle()
        except client.FAILURES as error:
            raise _in_our_words(error, topic) from None
        finally:
            await outbox.close()
            await client.stop(producer.stop())

    async def send(self, messages: Encoded, symbols: SymbolTable, *, stamp_ms: int) -> None:
        """Each to the partition of its symbol; returns once more may be sent. Leaving the block waits for the rest."""
        self._outbox.post(self._topic, self._framer.frame(messages, symbols, stamp_ms))
        for too_large in self._framer.take_skipped():
            raise too_large
        async with asyncio.timeout(MOST_AWAY_S):
            await self._outbox.room()


def _in_our_words(error: Exception, topic: str) -> TickcastError:
    if isinstance(error, client.NO_RIGHTS):
        return client.in_our_words(error, f"writing to {topic}")
    return BrokerAway(f"the broker does not take what goes to {topic}: {error!r}", remedy="some of it may have arrived")
