"""Kafka as an elastic consumer group: partitions come and go with the members. At least once, no fence, no snapshot.

What a member has between two rebalances is a session of the daemon: it begins at the committed offsets with windows
filled, and when the group wants the partitions back, all is settled and committed before others get them.
"""

from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog

from tickcast.clock import Clock
from tickcast.columns import Source
from tickcast.io.kafka import client
from tickcast.io.kafka.client import Committed
from tickcast.io.kafka.consumer import Bounds
from tickcast.io.kafka.group import Membership, Share
from tickcast.io.kafka.reader import KafkaReader
from tickcast.io.store.store import Store
from tickcast.live import recovery
from tickcast.live.buses.bus import OpenBus
from tickcast.live.buses.kafka import Assignment, Commits, KafkaBus
from tickcast.live.recovery import Placement
from tickcast.live.restore import refill
from tickcast.loop.build import Serving
from tickcast.settings import Settings
from tickcast.settings.buses import KafkaSettings

READ_AGAIN = 50_000  # records of each partition before the committed offset, which fill its windows


class GroupBus(KafkaBus):
    """OpenBus once for each session; the membership lasts from the first to the last."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._member: Membership | None = None
        self._turn: Turn | None = None

    @asynccontextmanager
    async def _session(self, serving: Serving, store: Store, clock: Clock) -> AsyncIterator[OpenBus]:
        self._turn = None
        try:
            async with super()._session(serving, store, clock) as opened:
                yield opened
        finally:
            await self._leave_unless_followed()

    @asynccontextmanager
    async def _take(self, ticks: Mapping[str, int]) -> AsyncIterator[Assignment]:
        member = await self._joined(list(ticks))
        self._turn = turn = Turn(self._settings.kafka, member, await member.next_share())
        try:
            yield Assignment(turn.share.sources, member.commit, turn.is_over, turn.goes_on)
        finally:
            turn.share.give_back()

    def _place(
        self, ticks: Mapping[str, int], found: Mapping[Source, Committed], bounds: Mapping[Source, Bounds]
    ) -> Placement:
        place = recovery.place(self._settings.kafka, ticks, found, bounds)
        added = {at: low for at, low in place.low.items() if recovery.was_added(at, found)}
        return place._replace(committed=place.committed | added)

    async def _recover(self, serving: Serving, store: Store, place: Placement) -> dict[Source, int]:
        return await refill(serving, store, place, reread=READ_AGAIN)

    async def _lacks(self, *_: Any) -> dict[str, int]:
        """Rows of what was another's are in the other's store."""
        return {}

    def _background(self, reader: KafkaReader, ticks: Mapping[str, int]) -> list[Coroutine[Any, Any, None]]:
        return []

    def _note_taken(self, begin: Mapping[Source, int]) -> None:
        self._log.info("share_taken", partitions=len(begin), begin=dict(begin))

    async def _joined(self, topics: list[str]) -> Membership:
        if self._member is None:
            runtime = self._settings.runtime
            self._member = await Membership.join(
                self._settings.kafka, topics, give_back_s=runtime.drain_s, max_away_s=runtime.max_wait_s
            )
        return self._member

    async def _leave_unless_followed(self) -> None:
        """The others need not find out by themselves that we are gone."""
        if self._member is not None and not (self._turn and self._turn.followed):
            await self._member.leave()
            self._member = None


class Turn:
    """The share that is worked on in a session, and whether another session follows it."""

    def __init__(self, settings: KafkaSettings, member: Membership, share: Share) -> None:
        self.share, self.followed = share, False
        self._settings, self._member = settings, member
        share.take()

    async def is_over(self) -> bool:
        """The group wants the partitions back."""
        await self._member.poll()
        return self.share.wanted_back

    async def goes_on(self, commits: Commits) -> bool:
        """Give the share back; where the group gives us the very same, and nobody had it meanwhile, go on with it."""
        self.share.give_back()
        fresh = await self._member.next_share()
        found = await client.committed(self._settings, fresh.sources)
        is_ours = fresh.sources == self.share.sources and commits.are(found) and not fresh.wanted_back
        structlog.get_logger().info("group_rebalanced", partitions=len(fresh.sources), goes_on=is_ours)
        if is_ours:
            fresh.take()
            self.share = fresh
        self.followed = not is_ours
        return is_ours
