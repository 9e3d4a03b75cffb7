"""Publishing to a real broker: what is read back, its order and its partitions, over restarts, aborts and limits."""

import asyncio
import json
from contextlib import asynccontextmanager

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError, ProducerFenced
from aiokafka.partitioner import DefaultPartitioner

from brokerkit import unique
from tickcast.clock import SystemClock
from tickcast.columns import Encoded, FeatureRows, Forecasts
from tickcast.engine.records.as_json import JsonWriter
from tickcast.io.kafka.framing import Framer
from tickcast.io.kafka.publish import Outbox, PlainBatch
from tickcast.records import ModelCard
from tickcast.settings import Settings
from tickcast.symbols import SymbolTable

NAMES = ["BTCUSDT", 'q"uote\\', "tab\tÜ😀", *(f"SYM{k:03d}" for k in range(40))]
AS_OF = 1_700_000_000_000_000_000
STAMP_MS = SystemClock().now_ns() // 10**6  # a broker forgets a producer, and deletes records, by their stamps
LIMIT_S = 60
BATCH_BYTES = 900_000
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FRAMERS = {
    "lz4": lambda partitions: Framer(partitions, max_batch_bytes=BATCH_BYTES, compression="lz4"),
    "none": lambda partitions: Framer(partitions, max_batch_bytes=BATCH_BYTES, compression="none"),
}


def symbol_table():
    symbols = SymbolTable(100)
    for name in NAMES:
        symbols.code(name)
    return symbols


SYMBOLS = symbol_table()


def numbered(first, last, *, size=0):
    """Messages that say their number, of some symbol or other."""
    values = [b"%d%s" % (k, b" " * size) for k in range(first, last)]
    ends = np.cumsum([len(value) for value in values])
    symbol = np.arange(first, last, dtype=np.int32) * 7 % len(NAMES)
    return Encoded(np.frombuffer(b"".join(values), np.uint8), ends - list(map(len, values)), ends, symbol)


@asynccontextmanager
async def producing(broker, **settings):
    settings = {"acks": "all", "enable_idempotence": True, "linger_ms": 0, "max_request_size": 1 << 20} | settings
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, **settings)
    await producer.start()
    outbox = Outbox(producer, max_in_flight_bytes=8 << 20)
    try:
        yield producer, outbox
    finally:
        await outbox.close()
        await asyncio.wait_for(producer.stop(), LIMIT_S)


async def read(broker, topic, *, isolation="read_committed"):
    """All records per partition, read by the client's own consumer."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap, isolation_level=isolation, auto_offset_reset="earliest",
        enable_auto_commit=False,
    )  # fmt: skip
    await consumer.start()
    try:
        async with asyncio.timeout(LIMIT_S):
            partitions = [TopicPartition(topic, p) for p in await consumer._client._wait_on_metadata(topic)]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            found = {p.partition: [] for p in partitions}
            while any([await consumer.position(p) < ends[p] for p in partitions]):
                for p, records in (await consumer.getmany(timeout_ms=200)).items():
                    found[p.partition] += records
            return found
    finally:
        await consumer.stop()


def numbers(found):
    return {partition: [int(record.value) for record in records] for partition, records in found.items()}


def expected(last, partitions):
    """Numbers of `numbered(0, last)` per partition, in order."""
    wanted = {partition: [] for partition in range(partitions)}
    for number in range(last):
        key = NAMES[number * 7 % len(NAMES)].encode()
        wanted[DefaultPartitioner()(key, list(range(partitions)), [])].append(number)
    return wanted


def forecasts(count):
    rng = np.random.default_rng(0)
    small = np.arange(count, dtype=np.int32)
    zeros, wide = np.zeros(count, np.uint8), np.arange(count, dtype=np.uint64)
    quantiles = 27_000 + np.sort(rng.normal(size=(count, 12, 5)), axis=2)
    targets = AS_OF + np.arange(1, 13) * 10**9 + np.zeros((count, 1), np.int64)
    return Forecasts(
        small % len(NAMES), small + 5, np.full(count, AS_OF), small, small * 0, small + 9, np.full(count, 27_000.0),
        np.full(count, 1e-4), zeros, small * 0, zeros, wide, wide, wide, targets, quantiles, np.ptp(quantiles, axis=2),
        np.ones(count, np.float32), np.full((count, 3), np.nan, np.float32), np.full(count, AS_OF),
    )  # fmt: skip


def writer():
    card = ModelCard(
        name="naive", kind="k", version="1", digest="d", framework="f", bars={}, transform="log_return", lookback=1,
        horizon=12, levels=[0.5], features=[],
    )  # fmt: skip
    return JsonWriter(Settings(), [card], ["naive"])


@pytest.fixture(params=FRAMERS)
def framer_of(request):
    return FRAMERS[request.param]


async def test_forecasts_and_features_are_read_back_as_they_were(kafka, framer_of):
    topic = kafka.create_topic(unique("forecasts"), 5)
    asked, framer = forecasts(500), framer_of(5)
    rows = FeatureRows(*(getattr(asked, name) for name in FeatureRows.__slots__[:-1]), asked.quantiles[:, 0])
    encoded = writer().encode(asked, SYMBOLS, produced_ns=AS_OF, sources=[("ticks", 0)])
    vectors = writer().encode_features(rows, SYMBOLS, names=list("abcde"), sources=[("ticks", 0)])
    starts = np.where(np.arange(500) % 3 == 0, 4, -1)
    async with producing(kafka) as (_, outbox), asyncio.timeout(LIMIT_S):
        outbox.post(topic, framer.frame(encoded, SYMBOLS, STAMP_MS, (np.frombuffer(b"1234" + TRACE, np.uint8), starts)))
        outbox.post(topic, framer.frame(vectors, SYMBOLS, STAMP_MS))
        await outbox.settle()
    seen = set()
    for partition, records in (await read(kafka, topic)).items():
        for record in records:
            value = json.loads(record.value)
            row = value["tie"]
            assert record.key.decode() == value["symbol"] == NAMES[row % len(NAMES)]
            assert partition == DefaultPartitioner()(record.key, list(range(5)), [])
            assert record.timestamp == STAMP_MS
            is_forecast = "quantiles" in value
            assert list(record.headers) == ([("traceparent", TRACE)] if is_forecast and row % 3 == 0 else [])
            wanted = asked.quantiles[row] if is_forecast else rows.values[row]
            assert np.allclose(value["quantiles" if is_forecast else "values"], wanted, rtol=1e-7, atol=0)
            seen.add((is_forecast, row))
    assert len(seen) == 1_000


async def test_a_message_without_a_key_keeps_its_headers(kafka):
    topic = kafka.create_topic(unique("letters"), 2)
    headers = [("reason", b"malformed")]
    async with producing(kafka) as (_, outbox), asyncio.timeout(LIMIT_S):
        outbox.post(topic, [PlainBatch([(None, b"", headers), (b"k", b"{", headers)], STAMP_MS)])
        await outbox.settle()
    found = [(r.key, r.value, list(r.headers)) for records in (await read(kafka, topic)).values() for r in records]
    assert sorted(found, key=str) == sorted([(None, b"", headers), (b"k", b"{", headers)], key=str)


async def test_each_partition_keeps_the_order_of_many_posts(kafka, framer_of):
    topic = kafka.create_topic(unique("order"), 3)
    framer = framer_of(3)
    async with producing(kafka) as (_, outbox), asyncio.timeout(LIMIT_S):
        for first in range(0, 3_000, 30):
            await outbox.room()
            outbox.post(topic, framer.frame(numbered(first, first + 30), SYMBOLS, STAMP_MS))
        await outbox.settle()
        assert outbox.in_flight_bytes == 0
    assert numbers(await read(kafka, topic)) == expected(3_000, 3)


async def test_a_turn_above_the_brokers_limit_is_split(kafka):
    topic = kafka.create_topic(unique("large"), 1, max_message_bytes=BATCH_BYTES)
    framer = FRAMERS["none"](1)
    batches = framer.frame(numbered(0, 3_000, size=1_000), SYMBOLS, STAMP_MS)
    assert sum(batch.size() for batch in batches) > 3 * BATCH_BYTES
    async with producing(kafka) as (_, outbox), asyncio.timeout(LIMIT_S):
        outbox.post(topic, batches)
        await outbox.settle()
    assert numbers(await read(kafka, topic)) == expected(3_000, 1)


async def test_a_batch_that_the_broker_refuses_ends_the_outbox(kafka):
    topic = kafka.create_topic(unique("refused"), 1, max_message_bytes=1_000)
    framer = FRAMERS["none"](1)
    async with producing(kafka) as (_, outbox), asyncio.timeout(LIMIT_S):
        outbox.post(topic, framer.frame(numbered(0, 10, size=1_000), SYMBOLS, STAMP_MS))
        with pytest.raises(MessageSizeTooLargeError):
            await outbox.settle()
        with pytest.raises(MessageSizeTooLargeError):
            outbox.post(topic, framer.frame(numbered(10, 11), SYMBOLS, STAMP_MS))
        with pytest.raises(MessageSizeTooLargeError):
            await outbox.room()
    assert numbers(await read(kafka, topic)) == {0: []}


async def test_committed_batches_are_seen_and_aborted_ones_are_not(kafka):
    topic = kafka.create_topic(unique("transactions"), 2)
    framer = FRAMERS["lz4"](2)
    async with producing(kafka, transactional_id=unique("t")) as (producer, outbox), asyncio.timeout(LIMIT_S):
        for first in range(0, 600, 100):
            await producer.begin_transaction()
            for part in range(first, first + 100, 20):
                outbox.post(topic, framer.frame(numbered(part, part + 20), SYMBOLS, STAMP_MS))
            await outbox.settle()
            await (producer.abort_transaction() if first % 200 else producer.commit_transaction())
    wanted = {p: [n for n in got if n // 100 % 2 == 0] for p, got in expected(600, 2).items()}
    assert numbers(await read(kafka, topic)) == wanted
    assert numbers(await read(kafka, topic, isolation="read_uncommitted")) == expected(600, 2)


async def test_a_producer_that_was_fenced_says_so(kafka):
    topic, name = kafka.create_topic(unique("fenced"), 1), unique("t")
    framer = FRAMERS["lz4"](1)
    async with producing(kafka, transactional_id=name) as (old, outbox), asyncio.timeout(LIMIT_S):
        await old.begin_transaction()
        async with producing(kafka, transactional_id=name):
            outbox.post(topic, framer.frame(numbered(0, 10), SYMBOLS, STAMP_MS))
            with pytest.raises(ProducerFenced):
                await outbox.settle()
    assert numbers(await read(kafka, topic)) == {0: []}


async def test_nothing_is_lost_doubled_or_overtaken_when_the_broker_is_killed(own_kafka):
    topic = own_kafka.create_topic(unique("killed"), 3)
    framer = FRAMERS["lz4"](3)
    async with producing(own_kafka, request_timeout_ms=3_000) as (_, outbox), asyncio.timeout(2 * LIMIT_S):
        restart = None
        for first in range(0, 6_000, 20):
            if first == 2_000:
                own_kafka.kill()
                restart = asyncio.create_task(asyncio.to_thread(own_kafka.restart))
            await outbox.room()
            outbox.post(topic, framer.frame(numbered(first, first + 20), SYMBOLS, STAMP_MS))
            await asyncio.sleep(0)
        await restart
        await outbox.settle()
    assert numbers(await read(own_kafka, topic)) == expected(6_000, 3)


async def test_a_broker_that_stands_still_closes_the_room_until_it_answers(own_kafka):
    topic = own_kafka.create_topic(unique("paused"), 1)
    framer = FRAMERS["none"](1)
    async with producing(own_kafka) as (producer, _), asyncio.timeout(LIMIT_S):
        await producer.partitions_for(topic)
        outbox = Outbox(producer, max_in_flight_bytes=5_000)
        own_kafka.pause()
        outbox.post(topic, framer.frame(numbered(0, 10, size=1_000), SYMBOLS, STAMP_MS))
        for waiting in (outbox.room(), outbox.settle()):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(waiting, 0.5)
        assert outbox.in_flight_bytes > 5_000
        own_kafka.resume()
        await outbox.room()
        await outbox.settle()
    assert numbers(await read(own_kafka, topic)) == expected(10, 1)


async def test_many_small_batches_of_one_partition_close_the_room_too(own_kafka):
    topic = own_kafka.create_topic(unique("crowded"), 1)
    framer = FRAMERS["none"](1)
    async with producing(own_kafka) as (producer, outbox), asyncio.timeout(LIMIT_S):
        await producer.partitions_for(topic)
        own_kafka.pause()
        for first in range(8):
            outbox.post(topic, framer.frame(numbered(first, first + 1), SYMBOLS, STAMP_MS))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(outbox.room(), 0.5)
        own_kafka.resume()
        await outbox.room()
        await outbox.settle()
    assert numbers(await read(own_kafka, topic)) == expected(8, 1)
