"""What was published counts once its unit is committed: at least once, or exactly once in one transaction per unit.

In both modes a transactional producer commits the offsets. Its id is the slot's, so that whoever starts later fences
whoever ran before, and a zombie fails at its next commit. It decides nothing about what is published.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from tickcast.bus_settings import Kafka
from tickcast.edges.kafka import client
from tickcast.edges.kafka.client import Source
from tickcast.edges.kafka.publish import Outbox, PlainBatch, ReadyBatch
from tickcast.errors import BrokerAway

JSON = msgspec.json.Encoder()


class Parcel(NamedTuple):
    """Finished batches of a topic."""

    topic: str
    batches: Sequence[ReadyBatch | PlainBatch]


@dataclass(slots=True, eq=False)
class Sealed:
    """The publications of one commit unit; `held` waits for the transaction of the unit before it to close."""

    held: list[Parcel] = field(default_factory=list)


class Delivery:
    """Made by `open`. `post` and `seal` never wait; `settle` and `commit` are called unit by unit, in order."""

    def __init__(self, settings: Kafka, *, max_away_s: float) -> None:
        self._settings = settings
        self._max_away_s = max_away_s
        self._heard = asyncio.get_running_loop().time()
        self._exactly_once = settings.delivery == "exactly_once"
        self._fence = client.producer(settings, transactional_id=client.transactional_id(settings, settings.slot))
        self._plain = client.producer(settings)
        self._units: deque[Sealed] = deque([Sealed()])  # the first may flow, the last is being filled
        self._outbox = Outbox(
            self._fence if self._exactly_once else self._plain, max_in_flight_bytes=settings.in_flight_bytes
        )

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Kafka, *, max_away_s: float) -> AsyncIterator["Delivery"]:
        """Fences the slot; from here on the committed positions are final."""
        delivery = cls(settings, max_away_s=max_away_s)
        try:
            await delivery._within(delivery._fence.start(), "taking the slot")
            await delivery._within(delivery._plain.start(), "starting the producer")
            if delivery._exactly_once:
                await delivery._within(delivery._fence.begin_transaction(), "opening a transaction")
            yield delivery
        finally:
            await client.stop(delivery._fence.stop())
            await client.stop(delivery._plain.stop())

    async def room(self) -> None:
        """Returns once more may be posted."""
        await self._outbox.room()

    def post(self, parcels: list[Parcel]) -> None:
        """Publish as part of the unit that is being filled."""
        if self._exactly_once and len(self._units) > 1:
            self._units[-1].held += parcels
        else:
            self._send(parcels)

    def seal(self) -> Sealed:
        """What was posted since the last seal is one unit."""
        sealed = self._units[-1]
        self._units.append(Sealed())
        return sealed

    async def settle(self, sealed: Sealed) -> None:
        """Until the broker holds all that the unit published."""
        assert sealed is self._units[0]
        await self._within(self._outbox.settle(), "publishing", patient=True)

    async def commit(
        self, sealed: Sealed, offsets: Mapping[Source, int], notes: Mapping[Source, dict[str, Any]]
    ) -> None:
        """The unit counts from here on; what the next one held back begins to flow."""
        assert sealed is self._units[0]
        at = {
            TopicPartition(*source): OffsetAndMetadata(offset, JSON.encode(notes[source]).decode())
            for source, offset in offsets.items()
        }
        await self._within(self._commit(at), "committing")
        self._units.popleft()
        if self._exactly_once:
            self._send(self._units[0].held)
            self._units[0].held = []

    async def produce(self, topic: str, messages: list[bytes]) -> None:
        """Rare records outside every transaction: health, accuracy, jobs, replies. They come again, so while no broker
        answers they are dropped, up to `max_away_s`."""
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                await asyncio.gather(*[await self._plain.send(topic, message) for message in messages])
        except (TimeoutError, KafkaError) as error:
            if clock() - self._heard > self._max_away_s:
                raise BrokerAway(f"no broker has answered for {self._max_away_s} s: {error!r}") from None
            structlog.get_logger().warning("broker_away", reason=repr(error), topic=topic)
        else:
            self._heard = clock()

    async def _commit(self, at: dict[TopicPartition, OffsetAndMetadata]) -> None:
        if not self._exactly_once:
            await self._fence.begin_transaction()
        if at:
            await self._fence.send_offsets_to_transaction(at, self._settings.group)
        await self._fence.commit_transaction()
        if self._exactly_once:
            await self._fence.begin_transaction()

    def _send(self, parcels: list[Parcel]) -> None:
        for parcel in parcels:
            self._outbox.post(parcel.topic, parcel.batches)

    async def _within(self, call: Any, doing: str, *, patient: bool = False) -> None:
        """Every call has a deadline: a transaction whose end is unknown is lost, and only recovery knows."""
        deadline = self._settings.transaction_timeout_s if patient else self._settings.call_timeout_s
        try:
            async with asyncio.timeout(deadline):
                await call
        except TimeoutError:
            raise client.in_our_words(TimeoutError(f"no answer within {deadline} s"), doing) from None
        except (KafkaError, AssertionError) as error:  # the client asserts where its state machine is broken
            raise client.in_our_words(error, doing) from error
