"""`tickcast reshard` on a real broker: every tick is read once, and every row is in its owner's store."""

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import duckdb
import pytest

from kafkakit import Deployment, Message
from livekit import alive, until
from netkit import free_port
from tickcast.errors import EXIT_DIED, EXIT_OK, EXIT_REFUSED, BadPositions, BrokerAway, Fenced, TransactionLost
from tickcast.io.kafka import client
from tickcast.io.kafka.delivery import Delivery
from tickcast.live.buses.kafka import KafkaBus
from tickcast.live.daemon import Daemon
from tickcast.live.restore import snapshot_folder
from tickcast.ui import cli, reshard

pytestmark = pytest.mark.timeout(300)
LIMIT_S = 90
SYMBOLS, START_NS, STEP_NS = 12, 1_700_000_000_000_000_000, 10_000_000
TABLES = ("bars", "forecasts", "watermarks")


class Slots(Deployment):
    """Static slots over one topic, whose symbols go by number modulo partitions."""

    def __init__(self, broker, folder, *, slots, partitions, delivery="at_least_once"):
        own = {"store__path": folder / "{slot}" / "store.duckdb", "runtime__folder": folder / "{slot}"}
        super().__init__(
            broker, folder, partitions=partitions, kafka__delivery=delivery, bars__kind="tick", window__lookback=8,
            forecast__horizon=2, **own,
        )  # fmt: skip
        self.slots, self.sent = slots, 0

    def settings_of(self, slot, **other):
        return self.loaded(kafka__slots=max(self.slots, slot + 1), kafka__slot=slot, **other)

    async def reshard(self, slots, **other):
        """Its exit code."""
        flags = self.flags(kafka__slots=self.slots, **other)
        code = await asyncio.to_thread(cli.main, ["reshard", "--slots", str(slots), *flags])
        if code == EXIT_OK:
            self.slots = slots
        return code

    @asynccontextmanager
    async def running(self, *slots, **other):
        """These slots, or all, are live inside the block and have drained after it."""
        async with AsyncExitStack() as stack:
            daemons = [daemon_of(self.settings_of(slot, **other)) for slot in slots or range(self.slots)]
            yield await asyncio.gather(*(stack.enter_async_context(alive(daemon)) for daemon in daemons))

    async def run_to_the_end(self):
        async with self.running() as daemons:
            await self.caught_up()
            return [daemon.health().reasons for daemon in daemons]

    async def trade(self, count):
        await self.send(
            Message(number % SYMBOLS % self.partitions, None, tick_of(number))
            for number in range(self.sent, self.sent + count)
        )
        self.sent += count

    async def noted(self):
        """What was committed, with what stands beside it."""
        return await client.committed(self.settings_of(0).kafka, [(self.ticks, n) for n in range(self.partitions)])

    async def answered(self):
        """How often each tick was answered."""
        return Counter((f["source"]["partition"], f["source"]["offset"]) for f in await self.forecasts())

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


def tick_of(number):
    tick = {"symbol": f"S{number % SYMBOLS}", "ts": START_NS + number * STEP_NS, "price": 100 + number % 7, "size": 1}
    return json.dumps(tick).encode()


def daemon_of(settings):
    return Daemon(settings, KafkaBus(settings))


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_another_number_of_slots_reads_each_tick_once_and_has_its_rows(kafka, tmp_path, delivery):
    deployment = Slots(kafka, tmp_path, slots=2, partitions=6, delivery=delivery)
    await deployment.trade(600)
    await deployment.run_to_the_end()
    for after in (3, 1):
        await deployment.trade(300)
        assert await deployment.reshard(after) == EXIT_OK
        assert not [*tmp_path.glob("*/snapshots/*.snapshot")]
        assert not deployment.strays()
        await deployment.run_to_the_end()
        await each_tick_has_its_rows(deployment)


async def each_tick_has_its_rows(deployment):
    answered = await deployment.answered()
    assert len(answered) == deployment.sent - SYMBOLS
    assert set(answered.values()) == {1}
    assert not deployment.strays()
    ids = [row for rows in deployment.stored("SELECT id, model FROM forecasts JOIN models USING (model)").values()
           for row in rows]  # fmt: skip
    assert len(ids) == len({id for id, _ in ids}) == len(answered)
    scored = sum(rows[0][0] for rows in deployment.stored("SELECT count(*) FROM scores").values())
    assert scored > 0.9 * (deployment.sent - 300)


async def test_a_topic_that_has_grown_is_refused_until_it_is_shared_out(kafka, tmp_path):
    deployment = Slots(kafka, tmp_path, slots=2, partitions=4)
    await deployment.trade(480)
    await deployment.run_to_the_end()
    deployment.settings["kafka.start"] = "latest"  # it is not asked for partitions that were added
    deployment.grow(6)
    await deployment.trade(480)
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
    deployment = Slots(kafka, tmp_path, slots=2, partitions=6)
    await deployment.trade(300)
    await deployment.run_to_the_end()

    async def no_commit(*_):
        raise TransactionLost("the power is gone")

    with monkeypatch.context() as patched:
        patched.setattr(Delivery, "commit", no_commit)
        assert await deployment.reshard(3) == TransactionLost.exit_code
    await deployment.trade(300)
    await deployment.run_to_the_end()
    assert await deployment.reshard(3) == EXIT_OK
    await deployment.trade(300)
    await deployment.run_to_the_end()
    answered = await deployment.answered()
    assert len(answered) == deployment.sent - SYMBOLS
    assert set(answered.values()) == {1}
    assert not deployment.strays()
    bars = sum(rows[0][0] for rows in deployment.stored("SELECT count(*) FROM bars").values())
    assert bars == deployment.sent


async def test_a_slot_that_runs_on_this_machine_is_refused_and_one_elsewhere_is_fenced(kafka, tmp_path, capsys):
    deployment = Slots(kafka, tmp_path, slots=2, partitions=4)
    await deployment.trade(120)
    await deployment.run_to_the_end()
    async with deployment.running(1):
        assert await deployment.reshard(1) == EXIT_REFUSED
    assert "is open in this process" in capsys.readouterr().err
    settings = deployment.settings_of(1, store__path=tmp_path / "else{slot}where" / "s.duckdb")
    elsewhere = daemon_of(settings)
    task = asyncio.create_task(elsewhere.run())
    await until(elsewhere.live.is_set, "the slot to be live")
    assert await deployment.reshard(1) == EXIT_OK
    await deployment.trade(120)
    with pytest.raises(Fenced):
        await asyncio.wait_for(task, LIMIT_S)
    await deployment.run_to_the_end()
    answered = await deployment.answered()
    assert len(answered) == deployment.sent - SYMBOLS


async def test_what_cannot_be_shared_out_is_refused_and_says_why(kafka, tmp_path, capsys):
    deployment = Slots(kafka, tmp_path, slots=2, partitions=4)
    refusals = [(2, {}, "has committed nothing"), (5, {}, "slot 4 of 5 owns no partition")]
    refusals += [(2, {"kafka.assignment": "group"}, "a group shares out by itself")]
    for slots, other, why in refusals:
        assert await deployment.reshard(slots, **other) == EXIT_REFUSED
        assert why in capsys.readouterr().err
    await deployment.trade(120)
    await deployment.run_to_the_end()
    snapshots = [*snapshot_folder(deployment.settings_of(0)).glob("*.snapshot")]
    (tmp_path / "1" / "store.duckdb").rename(tmp_path / "aside")
    before = await deployment.noted()
    assert await deployment.reshard(1) == EXIT_REFUSED
    assert "slot 1 had a store" in capsys.readouterr().err
    assert await deployment.noted() == before
    assert snapshots
    assert [*snapshot_folder(deployment.settings_of(0)).glob("*.snapshot")] == snapshots


async def test_a_broker_that_is_away_and_a_folder_that_cannot_be_used_are_said(kafka, tmp_path, capsys):
    deployment = Slots(kafka, tmp_path, slots=1, partitions=2)
    await deployment.trade(60)
    await deployment.run_to_the_end()
    before = await deployment.noted()
    nobody = {"kafka.bootstrap_servers": f"127.0.0.1:{free_port()}"}
    assert await deployment.reshard(2, **nobody) == EXIT_DIED
    assert "see kafka.bootstrap_servers" in capsys.readouterr().err
    (tmp_path / "1").write_text("where the folder of slot 1 would be")
    assert await deployment.reshard(2) == EXIT_REFUSED
    assert "see store.path" in capsys.readouterr().err
    assert await deployment.noted() == before


async def test_commits_that_the_broker_does_not_show_end_it_with_what_to_do(kafka, tmp_path):
    deployment = Slots(kafka, tmp_path, slots=1, partitions=1)
    settings = deployment.settings_of(0, kafka__call_timeout_s=1)
    with pytest.raises(BrokerAway, match=f"commits of kafka.group '{deployment.group}'.*run it again"):
        await reshard._until_seen(settings, {(deployment.ticks, 0): {"slots": 1}})


def test_slots_that_share_a_store_are_told_so(tmp_path, capsys):
    assert cli.main(["reshard", "--slots", "2", "--set", f"store.path={tmp_path / 'store.duckdb'}"]) == EXIT_REFUSED
    said = capsys.readouterr().err
    assert "share one store.path" in said
    assert "{slot}" in said
