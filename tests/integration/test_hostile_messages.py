"""Messages that were made to end the daemon, or to fill its store: one dead letter each, and it goes on. The whole
daemon, on the memory bus and on a real broker."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cramjam
import duckdb
import numpy as np
import pyarrow as pa
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from brokerkit import KafkaBroker, unique
from livekit import WAIT_S, Live, alive, live_settings, running, until
from packing import pack
from tickcast.clock import SystemClock
from tickcast.io.kafka.client import committed
from tickcast.live.buses.kafka import KafkaBus
from tickcast.live.daemon import Daemon
from tickcast.records import Health
from tickcast.settings import Settings
from wirekit import BODY, ZSTD, Message, batch, framed

SECOND = 10**9
T0 = 1_700_000_000 * SECOND
SMALL = {"window__lookback": 6, "forecast__horizon": 3, "store__unit_ms": 50, "model__ladder": '["naive"]'}


def arrow(*tables: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, tables[0].schema) as stream:
        for table in tables:
            stream.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def arrow_tick(second: int) -> bytes:
    ts = pa.array([T0 + second * SECOND], pa.int64())
    return arrow(pa.table({"symbol": ["A"], "ts": ts, "price": [1.5 + second % 3]}))


def packed_tick(second: int) -> bytes:
    return bytes(pack([b"A"], [T0 + second * SECOND], price=[1.5 + second % 3], size=[1.0]).tobytes())


def unreadable() -> list[bytes]:
    table = pa.table({"symbol": ["A"], "ts": pa.array([T0], pa.int64()), "price": [1.0]})
    lists = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array([[1], [2]]))
    joined = pa.table({"symbol": lists, "ts": pa.array([T0, T0], pa.int64()), "price": [1.0, 2.0]})
    return [arrow(table, table).replace(b"price", b"\xffrice"), arrow(joined, joined)]


def letters(settings: Settings, columns: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(settings.store.path), read_only=True) as store:
        return store.execute(f"SELECT {columns} FROM dead_letters ORDER BY source_offset").fetchall()


def adds_up(health: Health) -> bool:
    return health.consumed == health.accepted + health.rejected + health.late + health.held


async def answers(live: Live, ticks: Sequence[bytes]) -> int:
    await live.send(ticks)
    return len(await live.forecasts())


async def test_an_arrow_message_that_raises_is_one_letter_and_the_ticks_around_it_are_answered(tmp_path: Path) -> None:
    settings = live_settings(tmp_path, **SMALL, codec__kind="arrow", bars__kind="tick")
    for start in (0, 100):  # the second run begins with what the first left
        async with running(settings) as live:
            assert await answers(live, [arrow_tick(start + n) for n in range(10)]) > 0
            await live.send([arrow_tick(start + 10), *unreadable(), arrow_tick(start + 11)])
            assert await answers(live, [arrow_tick(start + 12 + n) for n in range(5)]) >= 5
            health = live.daemon.health()
        assert (health.accepted, health.rejected) == (17, 3)  # of the first, its two rows lack a price
        assert adds_up(health)
    found = letters(settings, "value, reason, refused, ticks")
    assert [(bytes(value), *rest) for value, *rest in found[:2]] == [
        (unreadable()[0], "missing_field", 2, [0, 1]),
        (unreadable()[1], "malformed", 1, [0]),
    ]


@pytest.mark.parametrize("kind", ["packed", "arrow"])
async def test_a_message_of_thousands_of_bad_ticks_is_one_letter_with_their_numbers(tmp_path: Path, kind: str) -> None:
    settings = live_settings(tmp_path, **SMALL, codec__kind=kind, bars__kind="tick", store__memory_bytes=128 << 20)
    count, tick = 3125, packed_tick if kind == "packed" else arrow_tick
    ts, price = np.full(count, T0 + 2 * SECOND), np.full(count, -1.0)
    names = pack([b"A"] * count, ts, price=price, size=price)
    table = pa.table({"symbol": ["A"] * count, "ts": pa.array(ts), "price": price})
    bad = bytes(names.tobytes()) if kind == "packed" else arrow(table)
    async with running(settings) as live:
        await live.send([tick(0), tick(1)])
        before = live.daemon.health().consumed
        await live.bus.produce(live.topic, [bad] * 20)
        await until(lambda: live.daemon.health().consumed == before + 20 * count, "the bad ticks to be consumed")
        await live.bus.produce(live.topic, [tick(n) for n in range(3, 15)])
        await until(lambda: live.daemon.health().consumed == before + 20 * count + 12, "the good ones behind them")
        await until(lambda: not live.daemon.session.commits.behind, "all of it to be stored")
        health = live.daemon.health()
        assert health.state == "live"
        assert await live.forecasts()
    assert (health.accepted, health.rejected, adds_up(health)) == (14, 20 * count, True)
    found = letters(settings, "octet_length(value), original_bytes, refused, ticks, reasons")
    assert found == [(len(bad), len(bad), count, [*range(20)], f'{{"non_positive":{count}}}')] * 20


class Kafka:
    """A topic of one partition on the broker, a deployment that reads it, and what it wrote."""

    def __init__(self, broker: KafkaBroker, folder: Path, letters_take: int = 0, **overrides: object) -> None:
        self.broker, self.name = broker, unique("hostile")
        self.topic = broker.create_topic(self.name, 1, message_timestamp_after_max_ms=(1 << 63) - 1)
        for output in ("forecasts", "dlq", "accuracy", "drift", "health"):
            small = {"max_message_bytes": letters_take} if letters_take and output == "dlq" else {}
            broker.create_topic(f"{self.name}.{output}", 1, **small)
        self.settings = live_settings(folder, **{
            "bus__kind": "kafka", "kafka__bootstrap_servers": broker.bootstrap, "kafka__group": self.name,
            "topics__ticks": json.dumps([self.topic]), "topics__prefix": f"{self.name}.", "bars__kind": "tick",
        } | SMALL | overrides)  # fmt: skip

    async def send(self, *values: bytes | None) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.broker.bootstrap, acks="all") as producer:
            for value in values:
                await producer.send_and_wait(self.topic, value, key=b"k", partition=0)

    async def send_batch(self, made: bytes) -> None:
        """A record batch of our own making, instead of the client's."""
        async with AIOKafkaProducer(bootstrap_servers=self.broker.bootstrap, acks="all") as producer:
            built = producer.create_batch()
            built.append(key=None, value=b"", timestamp=None)
            built.close()
            built._buffer = bytearray(made)
            await (await producer.send_batch(built, self.topic, partition=0))

    async def committed(self, offset: int) -> None:
        at = (self.topic, 0)

        async def is_so() -> bool:
            return (await committed(self.settings.kafka, [at])).get(at, (0,))[0] == offset

        await until(is_so, f"offset {offset} to be committed")

    async def read(self, output: str) -> list[ConsumerRecord]:
        """All that the topic holds now."""
        at = TopicPartition(f"{self.name}.{output}", 0)
        async with AIOKafkaConsumer(bootstrap_servers=self.broker.bootstrap) as consumer, asyncio.timeout(WAIT_S):
            consumer.assign([at])
            end = (await consumer.end_offsets([at]))[at]
            consumer.seek(at, 0)
            records: list[ConsumerRecord] = []
            while await consumer.position(at) < end:
                records += (await consumer.getmany(at, timeout_ms=200)).get(at, [])
            return records

    def daemon(self) -> Daemon:
        return Daemon(self.settings, KafkaBus(self.settings), clock=SystemClock())


def tick(second: int) -> bytes:
    return json.dumps({"symbol": "A", "ts": T0 + second * SECOND, "price": 1.5 + second % 3}).encode()


async def test_a_batch_of_a_few_kilobytes_that_would_become_millions_is_one_letter(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    feed = Kafka(kafka, tmp_path)
    bomb = framed(bytes(cramjam.zstd.compress(batch([Message(bytes(60 << 20))])[BODY:])), count=1, codec=ZSTD)
    assert len(bomb) < 8_000
    await feed.send(*map(tick, range(5)))
    await feed.send_batch(bomb)
    await feed.send(*map(tick, range(5, 10)))
    for end in (11, 16):
        async with alive(feed.daemon()) as daemon:
            await feed.committed(end)
            health = daemon.health()
            assert (health.state, health.rejected, adds_up(health)) == ("live", 1, True)
        assert len(await feed.read("forecasts")) == end - 2  # but for the first tick, and the batch
        (letter,) = await feed.read("dlq")
        headers = {name: text.decode() for name, text in letter.headers}
        assert (headers["reason"], headers["offset"], headers["refused"]) == ("too_large", "5", "1")
        assert (len(letter.value), headers["original_bytes"]) == (len(bomb), str(len(bomb)))
        if end == 11:
            await feed.send(*map(tick, range(10, 15)))
    assert letters(feed.settings, "source_offset, reason, octet_length(value)") == [(5, "too_large", len(bomb))]


async def test_tombstones_are_counted_and_neither_letters_nor_poison(kafka: KafkaBroker, tmp_path: Path) -> None:
    feed = Kafka(kafka, tmp_path, kafka__poison_run=50)
    await feed.send(*map(tick, range(3)))
    await feed.send_batch(batch([Message(None, b"k")] * 2000))
    await feed.send(*map(tick, range(3, 6)))
    async with alive(feed.daemon()) as daemon:
        await feed.committed(2006)
        health = daemon.health()
    assert (health.accepted, health.rejected, health.reasons["tombstone"]) == (6, 2000, 2000)
    assert len(await feed.read("forecasts")) == 5
    assert await feed.read("dlq") == []


async def test_what_no_broker_would_take_whole_is_cut_in_topic_and_store_and_its_length_told(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    feed = Kafka(kafka, tmp_path, kafka__batch_bytes=10_000)
    await feed.send(tick(0), b"x" * 30_000)
    async with alive(feed.daemon()):
        await feed.committed(2)
    (letter,) = await feed.read("dlq")
    assert (letter.key, letter.value) == (b"k", b"x" * 9_999)
    assert dict(letter.headers)["original_bytes"] == b"30000"
    assert letters(feed.settings, "octet_length(value), original_bytes") == [(9_999, 30_000)]


async def test_a_batch_beyond_the_bound_of_the_settings_is_refused_whole(kafka: KafkaBroker, tmp_path: Path) -> None:
    feed = Kafka(kafka, tmp_path, kafka__expanded_bytes=20_000)
    now_ms = SystemClock().now_ns() // 10**6  # a broker throws away what is too old
    messages = [Message(tick(second), ms=now_ms) for second in range(400)]
    fits, larger = (batch(messages[part], codec=ZSTD) for part in (slice(0, 200), slice(0, 400)))
    await feed.send_batch(fits)
    await feed.send_batch(larger)
    async with alive(feed.daemon()) as daemon:
        await feed.committed(600)
        health = daemon.health()
    assert (health.accepted, health.reasons["too_large"]) == (200, 1)


async def send_oddities(feed: Kafka) -> int:
    """Records that hold whatever a broker takes; returns how many."""
    far = (1 << 63) - 1
    records: list[tuple[bytes | None, bytes, list[tuple[str, bytes]], int]] = [
        (bytes(800_000), b"{", [], 0),
        (b"\xff\xfe\x00", b'{"symbol":"\\ud800","ts":1,"price":1}', [("\x00" * 50, b"\x00" * 50)], far),
        (None, b"", [], far),
        (b"k", b"\x00" * 900_000, [], 0),
        (b"k", b"\xed\xa0\x80" * 1000, [(f"h{n}", b"x" * 100) for n in range(5_000)], 1),
        (b"k", json.dumps({"symbol": "A", "ts": far, "price": 1}).encode(), [("traceparent", b"\xff" * 55)], 0),
        (b"k", b'{"symbol":"A","ts":-9223372036854775808,"price":1e999}', [("traceparent", b"")], far),
        (b"k", b'{"symbol":"A","ts":99999999999999999999999999,"price":1}', [], 0),
    ]
    async with AIOKafkaProducer(
        bootstrap_servers=feed.broker.bootstrap, acks="all", max_request_size=2 << 20
    ) as producer:
        for key, value, headers, stamp_ms in records:
            await producer.send_and_wait(
                feed.topic, value, key=key, partition=0, headers=headers, timestamp_ms=stamp_ms or None
            )
    return len(records)


@pytest.mark.parametrize(
    ("delivery", "most_bytes"), [("exactly_once", 1 << 20), ("exactly_once", 1_200), ("at_least_once", 200)]
)
async def test_a_letter_is_cut_to_what_its_topic_takes_and_never_stops_what_follows(
    kafka: KafkaBroker, tmp_path: Path, delivery: str, most_bytes: int
) -> None:
    feed = Kafka(kafka, tmp_path, kafka__delivery=delivery, letters_take=most_bytes)
    await feed.send(tick(0))
    odd = await send_oddities(feed)
    await feed.send(*map(tick, range(1, 4)), *[b"{"] * 40, tick(4))
    async with alive(feed.daemon()) as daemon:
        await feed.committed(odd + 45)
        health = daemon.health()
        assert (health.state, health.accepted, health.rejected) == ("live", 5, odd + 40)
    written = await feed.read("dlq")
    if most_bytes > 200:
        assert len(written) == odd + 40
        assert max(len(record.value) + len(record.key or b"") for record in written) < most_bytes
    else:  # not even the headers
        assert written == []
    assert len(letters(feed.settings, "value")) == odd + 40
    assert len(await feed.read("forecasts")) == (4 if most_bytes > 200 else 0)
