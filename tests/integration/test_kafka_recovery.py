"""A restart without a snapshot that it may use: what it forecasts and what it says. Real broker, whole daemon."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete
from structlog.testing import capture_logs

from brokerkit import KafkaBroker, unique
from kafkanode import ask
from livekit import live_settings
from storekit import bars_between
from tickcast.errors import BadPositions
from tickcast.io.kafka.client import committed
from tickcast.io.store import snapshot
from tickcast.io.store.store import Store
from tickcast.live.buses import kafka as kafka_bus
from tickcast.live.buses.kafka import KafkaBus
from tickcast.live.daemon import Daemon
from tickcast.live.restore import snapshot_folder
from tickcast.settings import Settings
from tickcast.symbols import SymbolTable

T0 = 1_700_000_000 * 10**9
MS, SECOND = 10**6, 10**9
PARTITIONS, SYMBOLS = 4, 8
OUTPUTS = ("forecasts", "dlq", "accuracy", "drift", "health")
LIMIT_S = 100
MIDDLE = 101.2, 120  # just after a minute of event time: the newest watermark that is kept is too new to begin at

TIME = {"bars__kind": "time", "bars__every_ms": 1000, "bars__lateness_ms": 1500}
TICK = {"bars__kind": "tick", "bars__lateness_ms": 1500}


class Tick(NamedTuple):
    symbol: int
    ts: int
    price: float

    @property
    def message(self) -> bytes:
        fields = {"symbol": f"S{self.symbol}", "ts": self.ts, "price": self.price, "size": 1 + self.ts // MS % 3}
        return json.dumps(fields).encode()


def tape(seconds: int, *, silence: bool = True) -> list[Tick]:
    """Walks with ties, late ticks, some of them too late, and symbols that are silent for seconds or minutes."""
    rng = np.random.default_rng(4)
    price, ticks = np.full(SYMBOLS, 100.0), []
    for ts in range(T0, T0 + seconds * SECOND, 60 * MS):
        symbol, second = int(rng.integers(SYMBOLS)), (ts - T0) // SECOND
        if silence and ((symbol >= 6 and 30 <= second % 180 < 90) or (symbol == 1 and second % 40 > 30)):
            if symbol == 7:
                ticks.append(Tick(7, ts - 8 * SECOND, 90.0))  # late, though no bar of its own says so
            continue
        price[symbol] *= np.exp(rng.normal(0, 1e-3))
        at = ts // (100 * MS) * 100 * MS - int(rng.choice([0, 0, 0, 400, 1200, 3000])) * MS
        ticks += [Tick(symbol, at, round(float(price[symbol]), 4))] * int(rng.choice([1, 1, 2]))
    return ticks


def parts(ticks: list[Tick], *seconds: float) -> list[list[Tick]]:
    """The tape cut where its ticks reach these times."""
    cuts = [next(i for i, tick in enumerate(ticks) if tick.ts >= T0 + second * SECOND) for second in seconds]
    return [ticks[first:end] for first, end in pairwise([0, *cuts, len(ticks)])]


class Stream:
    """A topic of ticks on the broker, filled bit by bit, and deployments that read it."""

    def __init__(self, broker: KafkaBroker, folder: Path) -> None:
        self.broker, self._folder = broker, folder
        self.topic = broker.create_topic(unique("ticks"), PARTITIONS)
        self.ends = {(self.topic, p): 0 for p in range(PARTITIONS)}

    def deployment(self, **overrides: object) -> Settings:
        name = unique("d")
        for output in OUTPUTS:
            self.broker.create_topic(f"{name}.{output}", 2)
        (self._folder / name).mkdir()
        plain = {
            "bus__kind": "kafka", "kafka__bootstrap_servers": self.broker.bootstrap, "kafka__group": name,
            "topics__ticks": json.dumps([self.topic]), "topics__prefix": f"{name}.", "snapshot__every_s": 1,
            "store__unit_ms": 50, "window__lookback": 6, "forecast__horizon": 3, "model__default": "holt",
            "model__season_bars": 4, "model__ladder": '["seasonal", "naive"]', "symbols__limit": 16,
            "features__set": '[{kind = "rolling_mean", window = 3}]',
        }  # fmt: skip
        return live_settings(self._folder / name, **plain | overrides)

    async def send(self, ticks: Sequence[Tick]) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.broker.bootstrap, acks="all") as producer:
            for tick in ticks:
                partition = tick.symbol % PARTITIONS
                await producer.send(self.topic, tick.message, partition=partition)
                self.ends[self.topic, partition] += 1

    async def all_committed(self, settings: Settings) -> None:
        async with asyncio.timeout(LIMIT_S):
            while {at: found.offset for at, found in (await committed(settings.kafka, self.ends)).items()} != self.ends:
                await asyncio.sleep(0.02)

    async def send_slowly(self, ticks: list[Tick], settings: Settings) -> None:
        """So that commit units, and with them the watermarks that are kept, lie seconds of event time apart."""
        for first in range(0, len(ticks), 150):
            await self.send(ticks[first : first + 150])
            await self.all_committed(settings)

    async def forecasts(self, settings: Settings) -> list[dict[str, Any]]:
        """All that is published and committed."""
        topic, found = settings.topics.prefix + "forecasts", []
        async with AIOKafkaConsumer(
            bootstrap_servers=self.broker.bootstrap, isolation_level="read_committed", group_id=None
        ) as consumer:
            places = [TopicPartition(topic, p) for p in range(2)]
            consumer.assign(places)
            await consumer.seek_to_beginning()
            ends = await consumer.end_offsets(places)
            async with asyncio.timeout(LIMIT_S):
                while any([await consumer.position(at) < ends[at] for at in places]):
                    for records in (await consumer.getmany(timeout_ms=200)).values():
                        found += [json.loads(record.value) for record in records]
        return found


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Daemon]:
    """The daemon is live inside the block; whoever does not drain it there stops it hard by leaving."""
    daemon = Daemon(settings, KafkaBus(settings))
    task, live = asyncio.create_task(daemon.run()), asyncio.create_task(daemon.live.wait())
    inside = asyncio.current_task()
    assert inside is not None
    try:
        async with asyncio.timeout(LIMIT_S):
            await asyncio.wait({task, live}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        task.add_done_callback(lambda ended: ended.cancelled() or (ended.exception() and inside.cancel()))
        yield daemon
    finally:
        live.cancel()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def drained(stream: Stream, settings: Settings, ticks: Sequence[Tick] = ()) -> list[dict[str, Any]]:
    """A daemon sends all that it makes of these ticks, and ends. Returns its log."""
    with capture_logs() as log:
        async with running(settings) as daemon:
            await stream.send(ticks)
            await stream.all_committed(settings)
            daemon.drain()
            async with asyncio.timeout(LIMIT_S):
                while daemon.state != "stopped":
                    await asyncio.sleep(0.02)
    return log


def asked(forecasts: list[dict[str, Any]]) -> dict[str, tuple[object, ...]]:
    """What each forecast was made from; forecasts of the same id must have been made from the same."""
    inputs: dict[str, tuple[object, ...]] = {}
    for one in forecasts:
        key = tuple(one[name] for name in ("symbol", "as_of_ns", "tie", "input_hash", "anchor", "model", "rung"))
        assert inputs.setdefault(one["id"], key) == key
    return inputs


async def stored(settings: Settings) -> list[Any]:
    """All bars, and what tells a forecast, in order."""
    store = Store.open(settings, symbols=SymbolTable(1), cards=[], at_ns=T0)
    bars = bars_between(store, 0, 2 * T0).drop_columns(["source_topic"]).to_pylist()
    _, forecasts = await store.query("SELECT id, symbol, as_of_ns, tie, input_hash, anchor FROM forecasts ORDER BY ALL")
    await store.close()
    return [*bars, *forecasts]


def said(log: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [line for line in log if line["event"] == event]


@pytest.fixture
def stream(kafka, tmp_path) -> Stream:
    return Stream(kafka, tmp_path)


async def stop_in_the_middle(stream: Stream, settings: Settings, ticks: list[list[Tick]], monkeypatch) -> None:
    """A daemon that is stopped hard with its store ahead of the commits, and whose snapshots are lost."""
    before, beyond = ticks
    async with running(settings) as daemon:
        await stream.send_slowly(before, settings)
        reached, commit = dict(stream.ends), kafka_bus.Commits.commit

        async def never_beyond(commits: kafka_bus.Commits, sealed: Any, offsets: dict[tuple[str, int], int]) -> None:
            if any(offset > reached[source] for source, offset in offsets.items()):
                await asyncio.Event().wait()
            await commit(commits, sealed, offsets)

        monkeypatch.setattr(kafka_bus.Commits, "commit", never_beyond)
        await stream.send(beyond)
        async with asyncio.timeout(LIMIT_S):
            while (await daemon.session.store.query("SELECT sum(next_offset) FROM offsets")).rows[0][0] <= sum(
                reached.values()
            ):
                await asyncio.sleep(0.02)
    monkeypatch.undo()
    shutil.rmtree(snapshot_folder(settings))


@pytest.mark.parametrize(
    "overrides",
    [
        TIME,
        TIME | {"kafka__delivery": "exactly_once"},
        TIME | {"bars__on_gap": "cold", "forecast__every_bars": 2},
        TICK,
        TICK | {"kafka__delivery": "exactly_once"},
    ],
    ids=["time", "time-once", "time-cold", "tick", "tick-once"],
)
async def test_without_a_snapshot_forecasts_are_made_from_what_they_would_have_been(stream, overrides, monkeypatch):
    settings, undisturbed = stream.deployment(**overrides), stream.deployment(**overrides)
    *first, last = parts(tape(180), *MIDDLE)
    await stop_in_the_middle(stream, settings, first, monkeypatch)
    committed_at = {at: found.offset for at, found in (await committed(settings.kafka, stream.ends)).items()}
    log = await drained(stream, settings, last)
    await drained(stream, undisturbed)

    (taken,) = said(log, "slot_taken")
    if overrides["bars__kind"] == "time":
        assert all(0 < taken["begin"][at] < committed_at[at] for at in committed_at)  # neither all nor nothing again
    else:
        assert taken["begin"] == committed_at
    assert not said(log, "open_bars_cut") + said(log, "windows_cold") + said(log, "snapshot_resumed")
    assert await stored(settings) == await stored(undisturbed)
    ours, theirs = await stream.forecasts(settings), await stream.forecasts(undisturbed)
    assert len(theirs) > 400
    assert asked(ours) == asked(theirs)
    if settings.kafka.delivery == "exactly_once":
        assert len(ours) == len(theirs)


async def test_without_stored_bars_it_reads_so_much_again_that_the_windows_are_full(stream, monkeypatch):
    overrides = TIME | {"store__bars": "none"}
    settings, undisturbed = stream.deployment(**overrides), stream.deployment(**overrides)
    *first, last = parts(tape(240, silence=False), 140, 160)
    await stop_in_the_middle(stream, settings, first, monkeypatch)
    log = await drained(stream, settings, last)
    await drained(stream, undisturbed)
    (again,) = said(log, "reading_again")
    assert 0 < again["records"] < len(first[0])
    assert not said(log, "windows_cold")
    assert asked(await stream.forecasts(settings)) == asked(await stream.forecasts(undisturbed))


async def test_with_the_store_lost_too_it_goes_on_cold_at_the_commit_and_says_so(stream):
    settings = stream.deployment(**TIME)
    first, last = parts(tape(60), 45)
    await drained(stream, settings, first)
    before = asked(await stream.forecasts(settings))
    shutil.rmtree(settings.store.path.parent)
    settings.store.path.parent.mkdir()
    reached = dict(stream.ends)
    log = await drained(stream, settings, last)
    (taken,), (cold,) = said(log, "slot_taken"), said(log, "windows_cold")
    assert taken["begin"] == reached
    assert cold["partitions"] == [*reached]
    assert len(asked(await stream.forecasts(settings))) > len(before)


async def test_open_bars_of_several_ticks_begin_anew_and_it_is_said(stream):
    settings = stream.deployment(**TICK | {"bars__every_ticks": 3})
    first, last = parts(tape(60), 30)
    await drained(stream, settings, first)
    shutil.rmtree(snapshot_folder(settings))
    log = await drained(stream, settings, last)
    assert said(log, "open_bars_cut")[0]["partitions"] == [*stream.ends]
    assert said(log, "windows_filled")[0]["symbols"] == SYMBOLS


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def of_another_version(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:8] + (snapshot.FORMAT + 1).to_bytes(4, "little") + data[12:])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (flip_a_byte, "torn or damaged"),
        (cut_short, "torn"),
        (of_another_version, f"has format {snapshot.FORMAT + 1}, this version reads {snapshot.FORMAT}"),
    ],
)
async def test_a_snapshot_that_cannot_be_read_is_refused_and_forecasts_stay_the_same(stream, spoil, reason):
    settings, undisturbed = stream.deployment(**TIME), stream.deployment(**TIME)
    first, last = parts(tape(60), 40)
    await drained(stream, settings, first)
    kept = [*snapshot_folder(settings).iterdir()]
    for path in kept:
        spoil(path)
    log = await drained(stream, settings, last)
    await drained(stream, undisturbed)
    refused = said(log, "snapshot_refused")
    assert len(refused) == len(kept) > 0
    assert all(reason in line["reason"] for line in refused)
    assert asked(await stream.forecasts(settings)) == asked(await stream.forecasts(undisturbed))


async def test_after_a_change_of_settings_the_log_says_what_changed_and_windows_come_from_the_store(stream):
    settings = stream.deployment(**TIME)
    first, last = parts(tape(60), 40)
    await drained(stream, settings, first)
    wider = settings.model_copy(update={"window": settings.window.model_copy(update={"lookback": 9})})
    before = asked(await stream.forecasts(settings))
    log = await drained(stream, wider, last)
    assert "window.lookback was 6, is 9" in said(log, "snapshot_refused")[0]["reason"]
    assert said(log, "windows_filled")[0]["symbols"] == SYMBOLS
    assert len(asked(await stream.forecasts(settings))) > len(before)


async def test_a_snapshot_from_before_another_split_is_refused_with_nothing_of_it_in_the_engine(stream, tmp_path):
    splits = tmp_path / "splits.csv"
    splits.write_text(f"symbol,ts,factor\nS0,{T0 - SECOND},2\n")
    settings = stream.deployment(**TIME | {"bars__adjustments": splits})
    first, last = parts(tape(60), 40)
    await drained(stream, settings, first)
    before = asked(await stream.forecasts(settings))
    splits.write_text(f"symbol,ts,factor\nS0,{T0 - SECOND},2\nS1,{T0 + SECOND},3\n")
    log = await drained(stream, settings, last)
    assert "splits or trading hours changed" in said(log, "snapshot_refused")[0]["reason"]
    assert said(log, "windows_filled")[0]["symbols"] == SYMBOLS
    assert len(asked(await stream.forecasts(settings))) > len(before)


@pytest.mark.parametrize("choice", ["fail", "earliest", "latest"])
async def test_when_the_broker_has_dropped_what_comes_next_the_setting_decides(stream, choice):
    settings = stream.deployment(**TIME | {"kafka__lost_offsets": choice})
    first, gone, last = parts(tape(90), 45, 60)
    await drained(stream, settings, first)
    before = asked(await stream.forecasts(settings))
    await stream.send(gone)
    low = {at: end - 3 for at, end in stream.ends.items()}
    await drop_records(stream.broker, low)
    high = dict(stream.ends)
    if choice == "fail":
        with pytest.raises(BadPositions, match=r"the broker holds .*kafka\.lost_offsets"):
            await drained(stream, settings)
        return
    log = await drained(stream, settings, last)
    assert said(log, "slot_taken")[0]["begin"] == (low if choice == "earliest" else high)
    assert "no longer kept by the broker" in said(log, "snapshot_refused")[0]["reason"]
    assert said(log, "open_bars_cut")[0]["partitions"] == [*high]
    after = asked(await stream.forecasts(settings))
    assert len(after) > len(before)


async def drop_records(broker: KafkaBroker, below: dict[tuple[str, int], int]) -> None:
    wanted = {TopicPartition(*at): RecordsToDelete(offset) for at, offset in below.items()}
    await asyncio.to_thread(ask, broker.bootstrap, lambda admin: admin.delete_records(wanted))
