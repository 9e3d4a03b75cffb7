"""An elastic group of daemons on a real broker: members come and go, and no tick goes unanswered."""

import asyncio
import json
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import duckdb
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.new_partitions import NewPartitions

from brokerkit import PASSWORD, USER, unique
from kafkanode import ask
from livekit import alive, live_settings, until
from netkit import Child
from tickcast.errors import BadBroker
from tickcast.io.kafka import client
from tickcast.io.kafka.group import Membership
from tickcast.live.buses.kafka_group import GroupBus
from tickcast.live.daemon import Daemon

pytestmark = pytest.mark.timeout(300)
LIMIT_S = 90
SYMBOLS, START_NS, STEP_NS = 12, 1_700_000_000_000_000_000, 10_000_000
OUTPUTS = ("forecasts", "dlq", "accuracy", "drift", "health")


class Group:
    """Topics and settings of one deployment, its members, and the ticks that flow."""

    def __init__(self, broker, folder, *, partitions=4, **settings):
        self.broker, self.folder, self.partitions, self.sent = broker, folder, partitions, 0
        self.topic = broker.create_topic(unique("ticks"), partitions)
        self.prefix = unique("group") + "."
        self.settings = settings
        for name in OUTPUTS:
            broker.create_topic(self.prefix + name, 2)

    def settings_of(self, name):
        return live_settings(self.folder / name, **self.overrides())

    def overrides(self):
        return {
            "bus__kind": "kafka", "kafka__bootstrap_servers": self.broker.bootstrap, "kafka__assignment": "group",
            "kafka__group": self.prefix, "topics__prefix": self.prefix, "topics__ticks": f'["{self.topic}"]',
            "bars__kind": "tick", "window__lookback": 8, "forecast__horizon": 2,
        } | self.settings  # fmt: skip

    def member(self, name):
        """It is in the group inside the block, and has left it after it."""
        settings = self.settings_of(name)
        return alive(Daemon(settings, GroupBus(settings)))

    @asynccontextmanager
    async def ticks(self, *, per_s=400):
        """They flow inside the block; a symbol stays in its partition."""
        stop = asyncio.Event()

        async def feed():
            async with AIOKafkaProducer(bootstrap_servers=self.broker.bootstrap, acks="all") as producer:
                while not stop.is_set():
                    await self.send(producer, per_s // 20)
                    await asyncio.sleep(0.05)

        task = asyncio.create_task(feed())
        yield
        stop.set()
        await task

    async def send_at_once(self, count, *, symbols=range(SYMBOLS)):
        async with AIOKafkaProducer(bootstrap_servers=self.broker.bootstrap, acks="all") as producer:
            await self.send(producer, count, symbols=symbols)

    async def send(self, producer, count, *, symbols=range(SYMBOLS)):
        coming = []
        for number in range(self.sent, self.sent + count):
            symbol = symbols[number % len(symbols)]
            tick = {"symbol": f"S{symbol}", "ts": START_NS + number * STEP_NS, "price": 100 + number % 7, "size": 1}
            place = symbol % self.partitions
            coming.append(await producer.send(self.topic, json.dumps(tick).encode(), partition=place))
        await asyncio.gather(*coming)
        self.sent += count

    async def is_caught_up(self):
        async with AIOKafkaConsumer(bootstrap_servers=self.broker.bootstrap) as reader:
            sources = [TopicPartition(self.topic, number) for number in range(self.partitions)]
            ends = await reader.end_offsets(sources)
        found = await client.committed(self.settings_of("anybody").kafka, [tuple(at) for at in sources])
        return all(at in found and found[at].offset >= ends[at] for at in sources)

    async def unanswered(self):
        """Ticks that have no forecast; a symbol's first has none."""
        ticks = await self.read(self.topic, self.partitions)
        forecasts = await self.read(self.prefix + "forecasts", 2)
        answered = {(f["source"]["partition"], f["source"]["offset"]) for _, f in forecasts}
        seen, missing = set(), []
        for place, tick in sorted(ticks, key=lambda item: item[1]["ts"]):
            if tick["symbol"] in seen and place not in answered:
                missing.append(place)
            seen.add(tick["symbol"])
        assert len(seen) > 1
        return missing

    async def read(self, topic, partitions):
        async with AIOKafkaConsumer(bootstrap_servers=self.broker.bootstrap, auto_offset_reset="earliest") as reader:
            sources = [TopicPartition(topic, number) for number in range(partitions)]
            reader.assign(sources)
            ends, found = await reader.end_offsets(sources), []
            async with asyncio.timeout(LIMIT_S):
                while [at for at in sources if await reader.position(at) < ends[at]]:
                    for records in (await reader.getmany(timeout_ms=100)).values():
                        found += [((r.partition, r.offset), json.loads(r.value)) for r in records]
        return found

    def stored_twice(self):
        twice = {}
        for path in self.folder.glob("*/store.duckdb"):
            with duckdb.connect(str(path), read_only=True) as store:
                rows, ids = store.sql("SELECT count(*), count(DISTINCT id) FROM forecasts").fetchall()[0]
            assert rows
            twice[path.parent.name] = rows - ids
        return twice

    def child(self, name):
        """A member in a process of its own."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        paths = {"store.path": folder / "store.duckdb", "runtime.folder": folder / "run", "quality.future_ms": 0}
        settings = {key.replace("__", "."): value for key, value in self.overrides().items()} | paths
        arguments = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        program = Path(sys.executable).parent / "tickcast"
        return Child([program, "run", *arguments, "--set", "log.format=json"], folder / "log")


def partitions_of(daemon):
    return len(daemon.session.bus.lag()) if daemon.state == "live" else None


async def test_no_tick_goes_unanswered_while_members_join_and_leave_in_a_loop(kafka, tmp_path):
    group = Group(kafka, tmp_path)
    async with group.member("a") as first:
        async with group.ticks():
            for _ in range(3):
                async with group.member("b") as second:
                    await until(lambda: partitions_of(first) == partitions_of(second) == 2, "two partitions for each")
                    await asyncio.sleep(1)
                await until(lambda: partitions_of(first) == 4, "all partitions for the one that is left")
        await until(group.is_caught_up, "all ticks to be committed")
    assert group.sent > 1000
    assert await group.unanswered() == []
    assert group.stored_twice() == {"a": 0, "b": 0}


async def test_a_member_more_than_there_are_partitions_waits_and_takes_over(kafka, tmp_path):
    group = Group(kafka, tmp_path, partitions=1)
    async with group.ticks():
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
        await until(group.is_caught_up, "all ticks to be committed")
    assert await group.unanswered() == []


async def test_what_a_member_did_that_was_stopped_or_killed_is_done_again_by_the_others(kafka, tmp_path):
    group = Group(kafka, tmp_path)
    async with group.member("a") as survivor:
        async with group.ticks():
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
        await until(group.is_caught_up, "all ticks to be committed")
    assert await group.unanswered() == []
    assert set(group.stored_twice().values()) == {0}


async def test_partitions_that_are_added_while_a_member_runs_are_read_from_their_beginning(
    kafka, tmp_path, monkeypatch
):
    monkeypatch.setattr(client, "METADATA_MS", 500)
    group = Group(kafka, tmp_path, partitions=2, kafka__start="latest")
    async with group.member("a") as member:
        await group.send_at_once(120)
        await until(group.is_caught_up, "all ticks to be committed")
        ask(kafka.bootstrap, lambda admin: grow(admin, group.topic, 3))
        group.partitions = 3
        await group.send_at_once(120, symbols=range(2, SYMBOLS, 3))  # those that lie in the new one now
        await until(lambda: partitions_of(member) == 3, "the new partition to be given out")
        await until(group.is_caught_up, "all ticks to be committed")
        await group.send_at_once(120)
        await until(group.is_caught_up, "all ticks to be committed")
        assert "symbol_in_two_partitions" not in member.health().reasons
    assert group.sent == 360
    assert await group.unanswered() == []


async def grow(admin: AIOKafkaAdminClient, topic, partitions):
    return await admin.create_partitions({topic: NewPartitions(partitions)})


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
