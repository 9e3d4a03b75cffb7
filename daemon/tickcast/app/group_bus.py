"""Kafka as an elastic consumer group: partitions come and go with the members. At least once, no fence, no snapshot.

What a member has between two rebalances is a session of the daemon: it begins at the committed offsets with windows
filled, and when the group wants the partitions back, all is settled and committed before others get them.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from tickcast.app import recovery
from tickcast.app.bus import Opened
from tickcast.app.kafka_bus import Commits, KafkaBus, recover
from tickcast.app.kafka_edges import Fetched, KafkaSink, KafkaSource
from tickcast.app.wiring import Serving
from tickcast.clock import Clock
from tickcast.edges.kafka import client
from tickcast.edges.kafka.client import Committed, Source
from tickcast.edges.kafka.delivery import Delivery
from tickcast.edges.kafka.group import Membership, Share
from tickcast.edges.kafka.reader import Reader
from tickcast.registry.store import Store
from tickcast.settings import Settings

READ_AGAIN = 50_000  # records of each partition before the committed offset, which fill its windows


class GroupBus(KafkaBus):
    """Opened once for each session; the membership lasts from the first to the last."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._member: Membership | None = None
        self._session: Session | None = None

    @asynccontextmanager
    async def open(self, serving: Serving, store: Store, clock: Clock) -> AsyncIterator[Opened]:
        settings, kafka = self._settings, self._settings.kafka
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._leave_unless_followed)
            self._session = None
            await client.reach(kafka, max_wait_s=settings.runtime.max_wait_s, waiting=self._note_waiting)
            ticks = await client.partitions_of(kafka, settings.topics.ticks, setting="topics.ticks")
            outputs = await client.partitions_of(kafka, self._outputs(), setting="topics.prefix")
            member = await self._joined(list(ticks))
            self._session = session = Session(settings, member, await member.next_share())
            stack.callback(session.end)
            own = session.share.sources
            delivery = await stack.enter_async_context(
                Delivery.open(kafka, max_away_s=settings.runtime.max_wait_s, commit_by=member.commit)
            )
            found = await client.committed(kafka, [(topic, p) for topic, count in ticks.items() for p in range(count)])
            reader = await stack.enter_async_context(Reader.open(kafka, own))
            bounds = await reader.bounds()
            committed = recovery.committed_positions(kafka, own, found, bounds)
            committed |= {at: bounds[at].low for at in own if recovery.was_added(at, found)}
            since = {at: recovery.since(found.get(at), ticks[at[0]]) for at in own}
            begin = await recover(serving, store, clock, committed, bounds, since, reread=READ_AGAIN)
            reader.begin(begin)
            beats = {at: int(found[at].note.get("beat", 0)) if at in found else 0 for at in own}
            source = GroupSource(session, reader, settings, clock, committed=committed, beats=beats)
            sink = KafkaSink(delivery, source, reader, serving, partitions=outputs, published=committed)
            session.commits = commits = GroupCommits(
                delivery, source, settings, clock, partitions=ticks, committed=committed, since=since
            )  # fmt: skip
            if any(at not in found for at in own):
                await commits.commit(commits.seal(), committed)  # what `start` meant is decided once
            structlog.get_logger().info("share_taken", partitions=len(own), begin=begin)
            yield Opened(
                source, sink, delivery, commits, to_repeat=lambda: source.to_repeat(serving.engine.positions),
                lag=reader.lag, lag_s=source.lag_s, goes_on=session.goes_on,
            )  # fmt: skip

    async def _joined(self, topics: list[str]) -> Membership:
        if self._member is None:
            runtime = self._settings.runtime
            self._member = await Membership.join(
                self._settings.kafka, topics, give_back_s=runtime.drain_s, max_away_s=runtime.max_wait_s
            )
        return self._member

    async def _leave_unless_followed(self) -> None:
        """The others need not find out by themselves that we are gone."""
        if self._member is not None and not (self._session and self._session.followed):
            await self._member.leave()
            self._member = None


class Session:
    """The share that is worked on, and whether another session follows it."""

    def __init__(self, settings: Settings, member: Membership, share: Share) -> None:
        self.member = member
        self.share = share
        self.followed = False
        self.commits: GroupCommits | None = None
        self._settings = settings
        share.take()

    def end(self) -> None:
        self.share.give_back()

    async def goes_on(self) -> bool:
        """Give the share back; where the group gives us the very same, and nobody had it meanwhile, go on with it."""
        assert self.commits is not None
        self.share.give_back()
        fresh = await self.member.next_share()
        found = await client.committed(self._settings.kafka, fresh.sources)
        is_ours = fresh.sources == self.share.sources and self.commits.are(found) and not fresh.wanted_back
        structlog.get_logger().info("group_rebalanced", partitions=len(fresh.sources), goes_on=is_ours)
        if is_ours:
            fresh.take()
            self.share = fresh
        self.followed = not is_ours
        return is_ours


class GroupSource(KafkaSource):
    """Ends when the group wants the partitions back."""

    def __init__(
        self, session: Session, reader: Reader, settings: Settings, clock: Clock, *, committed: Mapping[Source, int],
        beats: Mapping[Source, int],
    ) -> None:  # fmt: skip
        super().__init__(reader, settings, clock, committed=committed, beats=beats)
        self._session = session

    async def next_fetched(self, max_wait_s: float) -> list[Fetched] | None:
        await self._session.member.poll()
        return None if self._session.share.wanted_back else await super().next_fetched(max_wait_s)


class GroupCommits(Commits):
    """A snapshot is of partitions that a restart may not get again: there are none."""

    def are(self, found: Mapping[Source, Committed]) -> bool:
        """Whether these are the positions that we committed last."""
        return self._committed == {source: committed.offset for source, committed in found.items()}

    def snapshot_due(self, *, last: bool) -> bool:
        return False
