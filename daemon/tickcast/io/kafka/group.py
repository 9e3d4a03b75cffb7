"""One member of an elastic consumer group: which partitions are ours, until when, and commits on their behalf.

It reads no record: its client is paused for good, and a Reader reads what the group gives. So a client that is
replaced while reading does not make the whole group share out anew.
"""

import asyncio
from collections.abc import Mapping, Sequence

import structlog
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import CommitFailedError, IllegalStateError
from aiokafka.structs import OffsetAndMetadata

from tickcast.columns import Source
from tickcast.errors import BrokerAway
from tickcast.io.kafka import client
from tickcast.io.kafka.consumer import Consumer
from tickcast.settings.buses import KafkaSettings

HEARTBEAT_MS = 1000  # how soon a member hears that the group wants to share out anew
SPARE_S = 15  # the group waits so much longer for us than we take to give back
POLL_S = 1.0  # how often the client is looked at; one that nobody looks at leaves the group after some minutes
LOOK_S = 0.01


class Share:
    """The partitions that are this member's, from `take` until they are `wanted_back` and `given_back`."""

    def __init__(self, sources: list[Source]) -> None:
        self.sources = sources
        self.taken = False
        self.wanted_back = False
        self._given_back = asyncio.Event()

    def take(self) -> None:
        """From here on nobody else gets these partitions before `give_back`."""
        self.taken = True

    def give_back(self) -> None:
        """All that came of their ticks is committed, or never will be by us."""
        self._given_back.set()

    async def given_back(self) -> None:
        await self._given_back.wait()


class Membership(ConsumerRebalanceListener):  # type: ignore[misc]
    """Made by `join`. One share at a time is ours."""

    def __init__(self, settings: KafkaSettings, *, give_back_s: float, max_away_s: float) -> None:
        self._settings = settings
        self._give_back_s, self._max_away_s = give_back_s, max_away_s
        self._share: Share | None = None
        self._failed: Exception | None = None  # the client swallows what its listener raises
        self._polled = 0.0
        rebalance_ms = int((give_back_s + SPARE_S) * 1000)
        assignor = type("Assignor", (StickyPartitionAssignor,), {})  # it remembers in its class what it was given
        self._consumer = Consumer(  # what it would reset offsets to never matters: it reads nothing
            settings, group_id=settings.group, auto_offset_reset="latest", partition_assignment_strategy=[assignor],
            heartbeat_interval_ms=HEARTBEAT_MS, rebalance_timeout_ms=rebalance_ms,
        )  # fmt: skip

    @classmethod
    async def join(
        cls, settings: KafkaSettings, topics: Sequence[str], *, give_back_s: float, max_away_s: float
    ) -> "Membership":
        """`give_back_s` = how long it may take from `wanted_back` to `give_back`."""
        member = cls(settings, give_back_s=give_back_s, max_away_s=max_away_s)
        await member._consumer.start()
        member._consumer.client.subscribe(topics, listener=member)
        return member

    async def leave(self) -> None:
        """The others get our partitions at once."""
        await self._consumer.stop()

    async def next_share(self) -> Share:
        """What the group gives us now; it may be nothing, where there are more members than partitions."""
        try:
            async with asyncio.timeout(self._max_away_s):
                while self._share is None:
                    await self._look()  # returns when the group has shared out
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise BrokerAway(
                f"kafka.group '{self._settings.group}' gave no partitions within {self._max_away_s} s",
                remedy="see the broker's log; runtime.max_wait_s is the limit",
            ) from None
        return self._share

    async def poll(self) -> None:
        """Called while ticks are read: tells the client that we get on, and raises what went wrong in it."""
        now = asyncio.get_running_loop().time()
        if self._share is not None and now >= self._polled + POLL_S:
            self._polled = now
            await self._look()

    async def _look(self) -> None:
        if self._failed:
            raise client.in_our_words(self._failed, "sharing out partitions")
        try:
            await self._consumer.client.getmany(timeout_ms=0)
        except client.FAILURES as error:
            raise client.in_our_words(error, f"as a member of kafka.group '{self._settings.group}'") from error

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Where the group has gone on without us, whoever has the partitions now reads these ticks again."""
        if not offsets:
            return
        try:
            await self._consumer.client.commit(dict(offsets))
        except (CommitFailedError, IllegalStateError) as refused:
            structlog.get_logger().warning("commit_refused", reason=str(refused), partitions=len(offsets))

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        """The group goes on when this returns."""
        share, self._share = self._share, None
        if share is None:
            return
        share.wanted_back = True
        if not share.taken:
            return
        try:
            async with asyncio.timeout(self._give_back_s):
                await share.given_back()
        except TimeoutError:
            structlog.get_logger().error("share_not_given_back", partitions=len(share.sources))

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        try:
            self._consumer.client.pause(*assigned)
        except Exception as error:
            self._failed = error
        self._share = Share(sorted((at.topic, at.partition) for at in assigned))
