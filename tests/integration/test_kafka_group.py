"""An elastic group of daemons on a real broker: members come and go, and no tick goes unanswered."""

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager

import duckdb
import pytest

from brokerkit import PASSWORD, USER, unique
from kafkakit import Deployment, Message, read
from livekit import alive, live_settings, until
from netkit import Child
from nursery import Warm
from tickcast.errors import BadBroker
from tickcast.io.kafka import client
from tickcast.io.kafka import group as group_module
from tickcast.io.kafka.group import Membership
from tickcast.live.process import drain_on_signals

pytestmark = pytest.mark.timeout(300)
LIMIT_S = 90
SYMBOLS, START_NS, STEP_NS = 12, 1_700_000_000_000_000_000, 10_000_000
SOON_MISSED = """
import sys
from tickcast.io.kafka.group import Consumer
from tickcast.ui.cli import main
start = Consumer.__init__
def soon_missed(self, *given, **named):
    start(self, *given, **named | ({"session_timeout_ms": 2000} if "group_id" in named else {}))
Consumer.__init__ = soon_missed
sys.exit(main())
"""


@pytest.fixture(autouse=True)
def soon_told(monkeypatch):
    """A member hears sooner that the group shares out anew."""
    monkeypatch.setattr(group_module, "HEARTBEAT_MS", 200)


class Forked(Child):
    popen = Warm


class Group(Deployment):
    """Members in folders of their own, and ticks that flow."""

    def __init__(self, broker, folder, *, partitions=4, **settings):
        plain = {
            "kafka__assignment": "group", "bars__kind": "tick", "window__lookback": 8, "forecast__horizon": 2,
            "log__format": "json",
        }  # fmt: skip
        super().__init__(broker, folder, partitions=partitions, **plain | settings)
        self.sent = 0

    def place_of(self, name):
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return {"store__path": folder / "store.duckdb", "runtime__folder": folder / "run"}

    def member(self, name):
        """It is in the group inside the block, and has left it after it."""
        return alive(self.daemon(**self.place_of(name)))

    def child(self, name):
        """A member in a process of its own, which the group misses soon."""
        flags = self.flags(**self.place_of(name))
        return Forked([sys.executable, "-c", SOON_MISSED, "run", *flags], self.folder / name / "log")

    @asynccontextmanager
    async def flowing(self, *, per_s=400):
        """Ticks, inside the block; a symbol stays in its partition."""
        stop = asyncio.Event()

        async def feed():
            async with self.sending() as send:
                while not stop.is_set():
                    await send(self.next_ticks(per_s // 20))
                    await asyncio.sleep(0.05)

        task = asyncio.create_task(feed())
        yield
        stop.set()
        await task

    def next_ticks(self, count, *, symbols=range(SYMBOLS)):
        for number in range(self.sent, self.sent + count):
            symbol = symbols[number % len(symbols)]
            tick = {"symbol": f"S{symbol}", "ts": START_NS + number * STEP_NS, "price": 100 + number % 7, "size": 1}
            yield Message(symbol % self.partitions, None, json.dumps(tick).encode())
        self.sent += count

    async def unanswered(self):
        """Ticks that have no forecast; a symbol's first has none."""
        ticks = await read(self.broker, self.ticks, self.partitions)
        answered = {(f["source"]["partition"], f["source"]["offset"]) for f in await self.forecasts()}
        seen, missing = set(), []
        told = [((record.partition, record.offset), json.loads(record.value)) for record in ticks]
        for place, tick in sorted(told, key=lambda item: item[1]["ts"]):
            if tick["symbol"] in seen and place not in answered:
                missing.append(place)
            seen.add(tick["symbol"])
        assert len(seen) > 1
        return missing

    def stored_twice(self):
        twice = {}
        for path in self.folder.glob("*/store.duckdb"):
            with duckdb.connect(str(path), read_only=True) as store:
                rows, ids = store.sql("SELECT count(*), count(DISTINCT id) FROM forecasts").fetchall()[0]
            assert rows
            twice[path.parent.name] = rows - ids
        return twice


def partitions_of(daemon):
    return len(daemon.session.bus.lag()) if daemon.state == "live" else None


async def test_no_tick_goes_unanswered_while_members_join_and_leave_in_a_loop(kafka, tmp_path):
    group = Group(kafka, tmp_path)
    async with group.member("a") as first:
        async with group.flowing():
            for _ in range(3):
                async with group.member("b") as second:
                    await until(lambda: partitions_of(first) == partitions_of(second) == 2, "two partitions for each")
                    await until(lambda second=second: second.health().forecasts > 50, "the second to answer")
                await until(lambda: partitions_of(first) == 4, "all partitions for the one that is left")
            await until(lambda: group.sent > 1000, "ticks")
        await group.caught_up()
    assert await group.unanswered() == []
    assert group.stored_twice() == {"a": 0, "b": 0}


async def test_a_member_more_than_there_are_partitions_waits_and_takes_over(kafka, tmp_path):
    group = Group(kafka, tmp_path, partitions=1)
    async with group.flowing():
        async with group.member("a") as first:
            serving = first.session.serving
            async with group.member("b") as second:
                await until(lambda: (partitions_of(first), partitions_of(second)) == (1, 0), "one with, one without")
                consumed = first.health().consumed
                await until(lambda: first.health().consumed > consumed, "the first to go on")
                assert first.session.serving is serving  # it has kept its partition, so it has kept its windows
                first.drain()
                await until(lambda: partitions_of(second) == 1, "the other to take over")
                await until(lambda: second.health().consumed, "it to read")
    async with group.member("c"):
        await group.caught_up()
    assert await group.unanswered() == []


async def test_what_a_member_did_that_was_stopped_or_killed_is_done_again_by_the_others(kafka, tmp_path):
    group = Group(kafka, tmp_path)
    async with group.member("a") as survivor:
        async with group.flowing():
            child = group.child("b")
            await until(lambda: partitions_of(survivor) == 2, "two partitions for each")
            await until(lambda: '"daemon_started"' in child.log(), "the child to be live")
            child.signal(signal.SIGSTOP)
            await until(lambda: partitions_of(survivor) == 4, "the group to miss the one that is stopped")
            child.signal(signal.SIGCONT)
            await until(lambda: partitions_of(survivor) == 2, "the one that was stopped to be a member again")
            await until(lambda: child.log().count('"share_taken"') == 2, "it to go on")
            child.kill()
            await until(lambda: partitions_of(survivor) == 4, "the group to miss the one that was killed")
        await group.caught_up()
    assert await group.unanswered() == []
    assert set(group.stored_twice().values()) == {0}


@asynccontextmanager
async def holding(group):
    """A member of the group that has a share and does not give it back inside the block: all others wait for it."""
    async with asyncio.timeout(LIMIT_S):
        member = await Membership.join(group.loaded().kafka, [group.ticks], give_back_s=LIMIT_S, max_away_s=LIMIT_S)
        share = await member.next_share()
    share.take()
    try:
        yield share
    finally:
        share.give_back()
        await member.leave()


@asynccontextmanager
async def rebalancing(group, daemon):
    """Inside the block the group cannot share out anew, for which it has asked the daemon to give back its share."""
    async with holding(group):
        await until(lambda: partitions_of(daemon) == group.partitions // 2, "half of them for each")
        async with asyncio.timeout(LIMIT_S):
            third = await Membership.join(group.loaded().kafka, [group.ticks], give_back_s=5, max_away_s=LIMIT_S)
        try:
            await until(lambda: daemon.state == "rebalancing", "the group to share out anew")
            yield
        finally:
            await third.leave()


async def test_while_the_group_shares_out_commands_are_answered_and_a_signal_drains_without_waiting_for_it(
    kafka, tmp_path
):
    group = Group(kafka, tmp_path)
    daemon = group.daemon(**group.place_of("a"))
    async with heeding_signals(daemon), alive(daemon):
        await group.send(group.next_ticks(120))
        await group.caught_up()
        async with rebalancing(group, daemon):
            status = await daemon.command("status")
            asked = await daemon.command("forecast", symbols=["S0"])
            assert status.result["health"]["state"] == "rebalancing"
            assert asked.ok, asked.error
            assert len(asked.result["forecasts"]) == 1
            os.kill(os.getpid(), signal.SIGTERM)
            await until(lambda: daemon.state == "stopped", "its end")
    assert not daemon.gave_up
    assert group.is_caught_up()
    assert await group.unanswered() == []


async def test_a_signal_while_it_waits_for_its_first_share_ends_it_at_once(kafka, tmp_path):
    group = Group(kafka, tmp_path)
    daemon = group.daemon(**group.place_of("a"))
    async with holding(group) as share, heeding_signals(daemon):
        task = asyncio.create_task(daemon.run())
        await until(lambda: share.wanted_back, "it to ask the group for a share")
        os.kill(os.getpid(), signal.SIGINT)
        async with asyncio.timeout(LIMIT_S / 3):
            await task
    assert daemon.gave_up


@asynccontextmanager
async def heeding_signals(daemon):
    drain_on_signals(daemon.drain)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().remove_signal_handler(number)


async def test_partitions_that_are_added_while_a_member_runs_are_read_from_their_beginning(
    kafka, tmp_path, monkeypatch
):
    monkeypatch.setattr(client, "METADATA_MS", 500)
    group = Group(kafka, tmp_path, partitions=2, kafka__start="latest")
    async with group.member("a") as member:
        await group.send(group.next_ticks(120))
        await group.caught_up()
        group.grow(3)
        await group.send(group.next_ticks(120, symbols=range(2, SYMBOLS, 3)))  # those that lie in the new one now
        await until(lambda: partitions_of(member) == 3, "the new partition to be given out")
        await group.caught_up()
        await group.send(group.next_ticks(120))
        await group.caught_up()
        assert "symbol_in_two_partitions" not in member.health().reasons
    assert group.sent == 360
    assert await group.unanswered() == []


async def test_a_member_without_the_right_to_its_group_is_refused_with_what_to_look_at(secure_kafka, tmp_path):
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    topic = secure_kafka.create_topic(unique("ticks"), 1)
    secure_kafka.allow("topic", topic, "read", "describe")
    ca = secure_kafka.certificates.ca
    security = {"protocol": "SASL_SSL", "username": USER, "password_file": password, "ca_file": ca}
    kafka = live_settings(
        tmp_path, kafka__bootstrap_servers=secure_kafka.address("SASL_SSL"), kafka__group=unique("group"),
        **{f"kafka__security__{key}": value for key, value in security.items()},
    ).kafka  # fmt: skip
    member = await Membership.join(kafka, [topic], give_back_s=5, max_away_s=LIMIT_S)
    try:
        with pytest.raises(BadBroker, match=f"as a member of kafka.group '{kafka.group}'.*ACL"):
            await member.next_share()
    finally:
        await member.leave()
