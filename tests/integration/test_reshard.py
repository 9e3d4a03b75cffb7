"""`tickcast reshard` on a real broker: every tick is read once, and every row is in its owner's store."""

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import duckdb
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin.new_partitions import NewPartitions

from brokerkit import unique
from kafkanode import ask
from livekit import alive, until
from netkit import free_port
from tickcast.errors import EXIT_DIED, EXIT_OK, EXIT_REFUSED, BadPositions, BrokerAway, Fenced, TransactionLost
from tickcast.io.kafka import client
from tickcast.io.kafka.delivery import Delivery
from tickcast.live.buses.kafka import KafkaBus
from tickcast.live.daemon import Daemon
from tickcast.live.restore import snapshot_folder
from tickcast.settings import load
from tickcast.ui import cli, reshard

pytestmark = pytest.mark.timeout(300)
LIMIT_S = 90
SYMBOLS, START_NS, STEP_NS = 12, 1_700_000_000_000_000_000, 10_000_000
OUTPUTS = ("forecasts", "dlq", "accuracy", "drift", "health")
TABLES = ("bars", "forecasts", "watermarks")


class Deployment:
    """Static slots over one topic, whose symbols go by number modulo partitions."""

    def __init__(self, broker, folder, *, slots, partitions, delivery="at_least_once"):
        self.broker, self.folder, self.slots, self.partitions, self.sent = broker, folder, slots, partitions, 0
        self.topic, self.prefix = broker.create_topic(unique("ticks"), partitions), unique("reshard") + "."
        for name in OUTPUTS:
            broker.create_topic(self.prefix + name, 2)
        self.settings = {
            "bus.kind": "kafka", "kafka.bootstrap_servers": broker.bootstrap, "kafka.group": self.prefix,
            "kafka.delivery": delivery, "topics.prefix": self.prefix, "topics.ticks": f'["{self.topic}"]',
            "bars.kind": "tick", "window.lookback": "8", "forecast.horizon": "2", "quality.future_ms": "0",
            "store.path": str(folder / "{slot}" / "store.duckdb"), "runtime.folder": str(folder / "{slot}"),
        }  # fmt: skip

    def settings_of(self, slot, **other):
        place = {"kafka.slots": str(max(self.slots, slot + 1)), "kafka.slot": str(slot)}
        return load(overrides=self.settings | place | other, environ={})[0]

    async def reshard(self, slots, **other):
        """Its exit code."""
        given = self.settings | {"kafka.slots": str(self.slots)} | other
        arguments = [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
        code = await asyncio.to_thread(cli.main, ["reshard", "--slots", str(slots), *arguments])
        if code == EXIT_OK:
            self.slots = slots
        return code

    @asynccontextmanager
    async def running(self, *slots, **other):
        """These slots, or all, are live inside the block and have drained after it."""
        async with AsyncExitStack() as stack:
            chosen = slots or range(self.slots)
            daemons = [daemon_of(self.settings_of(slot, **other)) for slot in chosen]
            yield [await stack.enter_async_context(alive(daemon)) for daemon in daemons]

    async def run_to_the_end(self):
        async with self.running() as daemons:
            await until(self.is_caught_up, "all ticks to be committed")
            return [daemon.health().reasons for daemon in daemons]

    async def send(self, count):
        async with AIOKafkaProducer(bootstrap_servers=self.broker.bootstrap, acks="all") as producer:
            coming = []
            for number in range(self.sent, self.sent + count):
                symbol, at = number % SYMBOLS, START_NS + number * STEP_NS
                tick = {"symbol": f"S{symbol}", "ts": at, "price": 100 + number % 7, "size": 1}
                place = symbol % self.partitions
                coming.append(await producer.send(self.topic, json.dumps(tick).encode(), partition=place))
            await asyncio.gather(*coming)
        self.sent += count

    async def grow(self, partitions):
        await asyncio.to_thread(
            ask, self.broker.bootstrap, lambda admin: admin.create_partitions({self.topic: NewPartitions(partitions)})
        )
        self.partitions = partitions

    async def is_caught_up(self):
        async with AIOKafkaConsumer(bootstrap_servers=self.broker.bootstrap) as reader:
            ends = await reader.end_offsets([TopicPartition(self.topic, number) for number in range(self.partitions)])
        found = await self.committed()
        return all(at in found and found[at].offset >= end for at, end in ends.items())

    async def committed(self):
        sources = [(self.topic, number) for number in range(self.partitions)]
        return await client.committed(self.settings_of(0).kafka, sources)

    async def answered(self):
        """How often each tick was answered."""
        async with AIOKafkaConsumer(
            bootstrap_servers=self.broker.bootstrap, auto_offset_reset="earliest", isolation_level="read_committed"
        ) as reader:
            sources, times = [TopicPartition(self.prefix + "forecasts", number) for number in range(2)], Counter()
            reader.assign(sources)
            ends = await reader.end_offsets(sources)
            async with asyncio.timeout(LIMIT_S):
                while [at for at in sources if await reader.position(at) < ends[at]]:
                    for records in (await reader.getmany(timeout_ms=100)).values():
                        forecasts = [json.loads(record.value) for record in records]
                        times.update((f["source"]["partition"], f["source"]["offset"]) for f in forecasts)
        return times

    def stored(self, sql):
        """Rows by slot."""
        rows = {}
        for path in sorted(self.folder.glob("*/store.duckdb")):
            with duckdb.connect(str(path), read_only=True) as store:
                rows[int(path.parent.name)] = store.sql(sql).fetchall()
        return rows

    def strays(self):
        """Partitions by table and slot that are in a store which is not their owner's."""
        held = " UNION ".join(f"SELECT '{table}', source_partition FROM {table}" for table in (*TABLES, "offsets"))
        held += " UNION SELECT 'scores', f.source_partition FROM scores JOIN forecasts f USING (id)"
        return [(slot, *row) for slot, rows in self.stored(held).items() for row in rows if row[1] % self.slots != slot]


def daemon_of(settings):
    return Daemon(settings, KafkaBus(settings))


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 1)])
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_another_number_of_slots_reads_each_tick_once_and_has_its_rows(kafka, tmp_path, before, after, delivery):
    deployment = Deployment(kafka, tmp_path, slots=before, partitions=6, delivery=delivery)
    await deployment.send(600)
    await deployment.run_to_the_end()
    await deployment.send(300)
    assert await deployment.reshard(after) == EXIT_OK
    assert not [*tmp_path.glob("*/snapshots/*.snapshot")]
    assert not deployment.strays()
    await deployment.run_to_the_end()
    answered = await deployment.answered()
    assert len(answered) == deployment.sent - SYMBOLS
    assert set(answered.values()) == {1}
    assert not deployment.strays()
    ids = [row for rows in deployment.stored("SELECT id, model FROM forecasts JOIN models USING (model)").values()
           for row in rows]  # fmt: skip
    assert len(ids) == len({id for id, _ in ids}) == len(answered)
    scored = sum(rows[0][0] for rows in deployment.stored("SELECT count(*) FROM scores").values())
    assert scored > 0.9 * 600


async def test_a_topic_that_has_grown_is_refused_until_it_is_shared_out(kafka, tmp_path):
    deployment = Deployment(kafka, tmp_path, slots=2, partitions=4)
    await deployment.send(480)
    await deployment.run_to_the_end()
    deployment.settings["kafka.start"] = "latest"  # it is not asked for partitions that were added
    await deployment.grow(6)
    await deployment.send(480)
    for slot in range(2):
        with pytest.raises(BadPositions, match=r"4 partitions .* 6 now.*tickcast reshard") as refused:
            async with deployment.running(slot):
                pass
        assert refused.value.exit_code == EXIT_REFUSED
    assert await deployment.reshard(2) == EXIT_OK
    reasons = await deployment.run_to_the_end()
    assert not [one for one in reasons if "symbol_in_two_partitions" in one]
    answered = await deployment.answered()
    assert len(answered) == deployment.sent - SYMBOLS  # every symbol has stayed in its slot, so its window is warm
    assert set(answered.values()) == {1}
    assert not deployment.strays()


async def test_a_crash_before_the_commit_leaves_the_old_slots_as_they_were(kafka, tmp_path, monkeypatch):
    deployment = Deployment(kafka, tmp_path, slots=2, partitions=6)
    await deployment.send(300)
    await deployment.run_to_the_end()

    async def no_commit(*_):
        raise TransactionLost("the power is gone")

    with monkeypatch.context() as patched:
        patched.setattr(Delivery, "commit", no_commit)
        assert await deployment.reshard(3) == TransactionLost.exit_code
    await deployment.send(300)
    await deployment.run_to_the_end()
    assert await deployment.reshard(3) == EXIT_OK
    await deployment.send(300)
    await deployment.run_to_the_end()
    answered = await deployment.answered()
    assert len(answered) == deployment.sent - SYMBOLS
    assert set(answered.values()) == {1}
    assert not deployment.strays()
    bars = sum(rows[0][0] for rows in deployment.stored("SELECT count(*) FROM bars").values())
    assert bars == deployment.sent


async def test_a_slot_that_runs_on_this_machine_is_refused_and_one_elsewhere_is_fenced(kafka, tmp_path, capsys):
    deployment = Deployment(kafka, tmp_path, slots=2, partitions=4)
    await deployment.send(120)
    await deployment.run_to_the_end()
    async with deployment.running(1):
        assert await deployment.reshard(1) == EXIT_REFUSED
    assert "is open in this process" in capsys.readouterr().err
    settings = deployment.settings_of(1, **{"store.path": str(tmp_path / "else{slot}where" / "s.duckdb")})
    elsewhere = daemon_of(settings)
    task = asyncio.create_task(elsewhere.run())
    await until(elsewhere.live.is_set, "the slot to be live")
    assert await deployment.reshard(1) == EXIT_OK
    await deployment.send(120)
    with pytest.raises(Fenced):
        await asyncio.wait_for(task, LIMIT_S)
    await deployment.run_to_the_end()
    answered = await deployment.answered()
    assert len(answered) == deployment.sent - SYMBOLS


async def test_what_cannot_be_shared_out_is_refused_and_says_why(kafka, tmp_path, capsys):
    deployment = Deployment(kafka, tmp_path, slots=2, partitions=4)
    refusals = [(2, {}, "has committed nothing"), (5, {}, "slot 4 of 5 owns no partition")]
    refusals += [(2, {"kafka.assignment": "group"}, "a group shares out by itself")]
    for slots, other, why in refusals:
        assert await deployment.reshard(slots, **other) == EXIT_REFUSED
        assert why in capsys.readouterr().err
    await deployment.send(120)
    await deployment.run_to_the_end()
    snapshots = [*snapshot_folder(deployment.settings_of(0)).glob("*.snapshot")]
    (tmp_path / "1" / "store.duckdb").rename(tmp_path / "aside")
    before = await deployment.committed()
    assert await deployment.reshard(1) == EXIT_REFUSED
    assert "slot 1 had a store" in capsys.readouterr().err
    assert await deployment.committed() == before
    assert snapshots
    assert [*snapshot_folder(deployment.settings_of(0)).glob("*.snapshot")] == snapshots


async def test_a_broker_that_is_away_and_a_folder_that_cannot_be_used_are_said(kafka, tmp_path, capsys):
    deployment = Deployment(kafka, tmp_path, slots=1, partitions=2)
    await deployment.send(60)
    await deployment.run_to_the_end()
    before = await deployment.committed()
    nobody = {"kafka.bootstrap_servers": f"127.0.0.1:{free_port()}"}
    assert await deployment.reshard(2, **nobody) == EXIT_DIED
    assert "see kafka.bootstrap_servers" in capsys.readouterr().err
    (tmp_path / "1").write_text("where the folder of slot 1 would be")
    assert await deployment.reshard(2) == EXIT_REFUSED
    assert "see store.path" in capsys.readouterr().err
    assert await deployment.committed() == before


async def test_commits_that_the_broker_does_not_show_end_it_with_what_to_do(kafka, tmp_path):
    deployment = Deployment(kafka, tmp_path, slots=1, partitions=1)
    settings = deployment.settings_of(0, **{"kafka.call_timeout_s": "1"})
    with pytest.raises(BrokerAway, match=f"commits of kafka.group '{deployment.prefix}'.*run it again"):
        await reshard._until_seen(settings, {(deployment.topic, 0): {"slots": 1}})


def test_slots_that_share_a_store_are_told_so(tmp_path, capsys):
    assert cli.main(["reshard", "--slots", "2", "--set", f"store.path={tmp_path / 'store.duckdb'}"]) == EXIT_REFUSED
    said = capsys.readouterr().err
    assert "share one store.path" in said
    assert "{slot}" in said
