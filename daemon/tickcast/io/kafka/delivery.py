"""What was published counts once its unit is committed: at least once, or exactly once in one transaction per unit.

In both modes a transactional producer commits the offsets. Its id is the slot's, so that whoever starts later fences
whoever ran before, and a zombie fails at its next commit. A member of a group has no slot: there `commit_by` commits.
It decides nothing about what is published.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import msgspec
import structlog
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata

from tickcast.columns import Source
from tickcast.errors import BrokerAway, Fenced, TickcastError, TransactionLost
from tickcast.io.kafka import client
from tickcast.io.kafka.publish import Outbox, PlainBatch, ReadyBatch
from tickcast.settings.buses import KafkaSettings

JSON = msgspec.json.Encoder()
SLICE_S = 0.1
CLIENTS = (*client.FAILURES, AssertionError)  # a transaction asserts where its states are broken
CommitOffsets = Callable[[Mapping[TopicPartition, OffsetAndMetadata]], Awaitable[None]]


class Parcel(NamedTuple):
    """Finished batches of a topic."""

    topic: str
    batches: Sequence[ReadyBatch | PlainBatch]


class Delivery:
    """Made by `open`. `post` and `seal` never wait; `settle` and `commit` are called unit by unit, in order.

    Publishing fails in `settle` and nowhere else: after an error of the client nothing more is sent, `post` drops,
    `room` returns, and the unit that is settled next raises it in our words.
    """

    def __init__(self, settings: KafkaSettings, *, max_away_s: float, commit_by: CommitOffsets | None = None) -> None:
        self._settings = settings
        self._commit_by = commit_by or self._transaction
        self._max_away_s = max_away_s
        self._heard = self._begun = asyncio.get_running_loop().time()
        self._owed: float | None = None  # since when a broker owes us an answer to a rare record
        self._committed: dict[Source, int] = {}  # by us
        self._exactly_once = settings.delivery == "exactly_once"
        self._fence: Any = None
        if commit_by is None:
            self._fence = client.producer(settings, transactional_id=client.transactional_id(settings, settings.slot))
        self._plain = client.producer(settings)
        self._units: deque[list[Parcel]] = deque([[]])  # what each holds back until the transaction before it closes
        self._outbox = Outbox(
            self._fence if self._exactly_once else self._plain, max_in_flight_bytes=settings.in_flight_bytes
        )

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: KafkaSettings, *, max_away_s: float, commit_by: CommitOffsets | None = None
    ) -> AsyncIterator["Delivery"]:
        """Fences the slot; from here on the committed positions are final."""
        delivery = cls(settings, max_away_s=max_away_s, commit_by=commit_by)
        try:
            if delivery._fence:
                await delivery._within(
                    delivery._fence.start(), f"taking slot {settings.slot} of kafka.group {settings.group}"
                )
            await delivery._within(delivery._plain.start(), "starting the producer")
            if delivery._exactly_once:
                await delivery._within(delivery._begin(), "opening a transaction")
            yield delivery
        finally:
            await delivery._outbox.close()
            for producer in filter(None, (delivery._fence, delivery._plain)):
                await client.stop(producer.stop())

    async def room(self) -> None:
        """Returns once more may be posted."""
        with suppress(*CLIENTS):
            await self._outbox.room()

    def post(self, parcels: list[Parcel]) -> None:
        """Publish as part of the unit that is being filled."""
        if self._exactly_once and len(self._units) > 1:
            self._units[-1] += parcels
        else:
            self._send(parcels)

    def seal(self) -> None:
        """What was posted since the last seal is one unit."""
        self._units.append([])

    async def settle(self) -> None:
        """Until the broker holds all that the oldest unit published; what went wrong with any of it is raised here."""
        await self._within(self._outbox.settle(), "publishing", patient=True)

    async def commit(self, offsets: Mapping[Source, int], notes: Mapping[Source, dict[str, Any]]) -> None:
        """The oldest unit counts from here on; what the next one held back begins to flow."""
        at = {
            TopicPartition(*source): OffsetAndMetadata(offset, JSON.encode(notes[source]).decode())
            for source, offset in offsets.items()
        }
        await self._within(self._commit_by(at), f"committing {_topics(offsets) or 'no position'}")
        self._committed |= offsets
        self._units.popleft()
        if self._exactly_once:
            self._send(self._units[0])
            self._units[0] = []

    async def produce(self, topic: str, messages: list[bytes]) -> bool:
        """Rare records outside every transaction: health, accuracy, jobs, replies. They come again, so while no broker
        answers they are dropped, up to `max_away_s`; returns whether the broker has them."""
        clock = asyncio.get_running_loop().time
        self._owed = clock() if self._owed is None else self._owed
        try:
            async with asyncio.timeout(self._settings.call_timeout_s):
                await asyncio.gather(*[await self._plain.send(topic, message) for message in messages])
        except client.FAILURES as error:
            if clock() - self._heard > self._max_away_s:
                raise BrokerAway(f"no broker has answered for {self._max_away_s} s: {error!r}") from None
            structlog.get_logger().warning("broker_away", reason=repr(error), topic=topic)
            return False
        self._heard, self._owed = clock(), None
        return True

    def away_s(self) -> float:
        """How long no broker has answered `produce`; 0 where none owes an answer."""
        return 0.0 if self._owed is None else asyncio.get_running_loop().time() - self._owed

    async def _transaction(self, at: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        if not self._exactly_once:
            await self._begin()
        if at:
            await self._fence.send_offsets_to_transaction(at, self._settings.group)
        await self._fence.commit_transaction()
        if self._exactly_once:
            await self._begin()

    async def _begin(self) -> None:
        self._begun = asyncio.get_running_loop().time()
        await self._fence.begin_transaction()

    def _send(self, parcels: list[Parcel]) -> None:
        with suppress(*CLIENTS):
            for parcel in parcels:
                self._outbox.post(parcel.topic, parcel.batches)

    async def _within(self, call: Any, doing: str, *, patient: bool = False) -> None:
        """Every call has a deadline: a transaction whose end is unknown is lost, and only recovery knows."""
        deadline = self._settings.transaction_timeout_s if patient else self._settings.call_timeout_s
        try:
            await _while_awake(call, deadline)
        except CLIENTS as error:
            known = client.in_our_words(self._what_broke_it() or error, doing)
            if isinstance(known, Fenced) and await self._was_alone():
                limit = self._settings.transaction_timeout_s
                raise TransactionLost(
                    f"{doing}: the broker gave up a transaction that was open for more than {limit} s",
                    remedy="if it happens again, raise kafka.transaction_timeout_s",
                ) from error
            raise known from error

    def _what_broke_it(self) -> BaseException | None:
        """Why the transaction under way has failed: what comes after it, the client meets with bare assertions."""
        waiter = self._fence and self._fence._txn_manager.wait_for_transaction_end()
        return waiter.exception() if waiter and waiter.done() and not waiter.cancelled() else None

    async def _was_alone(self) -> bool:
        """A broker fences whoever leaves a transaction open too long, too. Then nobody has gone on where we were.

        It may be behind for a moment: it answers a commit before it has written the positions, and a broker that
        stopped in between goes on with that. One that cannot tell leaves it to the next start, which takes the slot.
        """
        clock = asyncio.get_running_loop().time
        if clock() - self._begun < self._settings.transaction_timeout_s:
            return False
        deadline = clock() + self._settings.call_timeout_s
        while True:
            try:
                found = await client.committed(self._settings, self._committed)
            except TickcastError:
                return True
            positions = {source: at.offset for source, at in found.items()}
            if positions == self._committed:
                return True
            gone_on = any(positions.get(source, 0) > offset for source, offset in self._committed.items())
            if gone_on or clock() > deadline:
                return False
            await asyncio.sleep(SLICE_S)


def _topics(sources: Iterable[Source]) -> str:
    return ", ".join(sorted({topic for topic, _ in sources}))


async def _while_awake(call: Any, within_s: float) -> None:
    """Await it for so long, in slices: a process that was stopped hears first that its slot is taken."""
    task, left = asyncio.ensure_future(call), within_s
    try:
        while not task.done():
            if left <= 0:
                raise TimeoutError(f"no answer within {within_s} s")
            await asyncio.wait([task], timeout=SLICE_S)
            left -= SLICE_S
        task.result()
    finally:
        task.cancel()
