"""Sends encoded messages to one topic, for commands rather than the daemon: no slot, no fence, no transaction.

Nothing is doubled or lost while it runs; what was on its way when it fails may or may not have arrived.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tickcast.columns import Encoded
from tickcast.io.kafka import client
from tickcast.io.kafka.framing import framer
from tickcast.io.kafka.publish import Outbox
from tickcast.settings.buses import KafkaSettings
from tickcast.symbols import SymbolTable

MOST_AWAY_S = 60  # the client itself would try for ever


class TopicWriter:
    """Made by `open`."""

    def __init__(self, settings: KafkaSettings, topic: str, outbox: Outbox, *, partitions: int) -> None:
        self._topic, self._outbox = topic, outbox
        self._framer = framer(settings, partitions)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: KafkaSettings, topic: str, *, partitions: int) -> AsyncIterator["TopicWriter"]:
        doing, remedy = f"the broker does not take what goes to {topic}", "some of it may have arrived"
        async with client.producing(settings, doing, remedy=remedy) as producer:
            outbox = Outbox(producer, max_in_flight_bytes=settings.in_flight_bytes)
            try:
                yield cls(settings, topic, outbox, partitions=partitions)
                async with asyncio.timeout(settings.call_timeout_s):
                    await outbox.settle()
            finally:
                await outbox.close()

    async def send(self, messages: Encoded, symbols: SymbolTable, *, stamp_ms: int) -> None:
        """Each to the partition of its symbol; returns once more may be sent. Leaving the block waits for the rest."""
        self._outbox.post(self._topic, self._framer.frame(messages, symbols, stamp_ms))
        for too_large in self._framer.take_skipped():
            raise too_large
        async with asyncio.timeout(MOST_AWAY_S):
            await self._outbox.room()
