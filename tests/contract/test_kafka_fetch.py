"""On a real broker: blobs give the very rows that the client's own records give, and nobody else notices them."""

import asyncio
import itertools
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.consumer import fetcher

from brokerkit import unique
from tickcast.io.kafka import fetch
from tickcast.io.kafka.blob import open_blob
from wirekit import T0_MS, TRACE, Message, plain_batches, rows

CODECS = (None, "gzip", "snappy", "lz4", "zstd")
ISOLATIONS = ("read_committed", "read_uncommitted")
LIMIT_S = 60
MIXED = [
    Message(b"plain", b"A"),
    Message(None, b"A", ms=T0_MS + 5),
    Message(b"", None, [("traceparent", TRACE), ("x", None)]),
    Message(b"z" * 5000, b"", [("", b"y")], ms=T0_MS - 99),
]


@pytest.fixture(autouse=True)
def _installed(monkeypatch):
    """Both names are put back after the test."""
    for name in ("MemoryRecords", "PartitionRecords"):
        monkeypatch.setattr(fetcher, name, getattr(fetcher, name))
    fetch.install()


def new_topic(kafka, name, partitions=1, **config):
    """Kept for ever: the stamps of these messages lie far back, and retention would delete them in between."""
    return kafka.create_topic(unique(name), partitions, retention_ms=-1, **config)


@asynccontextmanager
async def producer(kafka, **given):
    made = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all", **given)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


@asynccontextmanager
async def consumer(kafka, topic, *, offset=0, **given):
    """A consumer of all partitions, from an offset on."""
    made = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=None, auto_offset_reset="none",
                            enable_auto_commit=False, fetch_max_wait_ms=100, **given)  # fmt: skip
    await made.start()
    try:
        parts = [TopicPartition(topic, p) for p in sorted(await _partitions(made, topic))]
        made.assign(parts)
        for tp in parts:
            made.seek(tp, offset)
        yield made
    finally:
        await made.stop()


async def _partitions(made, topic):
    await made._client._wait_on_metadata(topic)
    return made.partitions_for_topic(topic)


async def send(made, topic, messages, *, partition=0):
    """One batch."""
    builder = made.create_batch()
    for message in messages:
        headers = [*message.headers]
        assert builder.append(key=message.key, value=message.value, timestamp=message.ms, headers=headers) is not None
    await (await made.send_batch(builder, topic, partition=partition))


async def read(kafka, topic, *, blobs, **given):
    """All rows by partition and offset, the damage, and how many fetches brought something."""
    found, damaged, fetches = [], [], 0
    deserializer = {"value_deserializer": fetch.BLOBS} if blobs else {}
    async with asyncio.timeout(LIMIT_S), consumer(kafka, topic, **deserializer, **given) as made:
        ends = await made.end_offsets(list(made.assignment()))
        while any([await made.position(tp) < end for tp, end in ends.items()]):
            fetched = await made.getmany(timeout_ms=200)
            fetches += bool(fetched)
            if blobs:
                opened = [open_blob(blob) for items in fetched.values() for blob in items]
                batches = [raw for batches, _ in opened for raw in batches]
                damaged += [d for _, some in opened for d in some]
            else:
                batches = plain_batches(fetched)
            found += [(raw.topic, raw.partition, row) for raw in batches for row in rows([raw])]
    return sorted(found, key=lambda at: (*at[:2], at[2].offset)), damaged, fetches


async def same(kafka, topic, **given):
    """Both ways; returns the rows, which are equal, and the number of fetches."""
    ours, damaged, fetches = await read(kafka, topic, blobs=True, **given)
    theirs, _, _ = await read(kafka, topic, blobs=False, **given)
    assert damaged == []
    assert ours == theirs
    return [row for _, _, row in ours], fetches


async def decided(kafka, topic):
    """Until no transaction is open: the broker writes a marker after it has told the producer."""
    ends = []
    async with asyncio.timeout(LIMIT_S):
        while len({*ends}) != 1:
            ends = []
            for isolation in ISOLATIONS:
                async with consumer(kafka, topic, isolation_level=isolation) as made:
                    ends += (await made.end_offsets([TopicPartition(topic, 0)])).values()


@pytest.mark.parametrize("codec", CODECS)
async def test_both_paths_yield_equal_rows_for_every_codec(kafka, codec):
    topic = new_topic(kafka, "codec", 2)
    async with producer(kafka, compression_type=codec) as made:
        for k in range(6):
            await send(made, topic, [*MIXED, *(Message(b"%d" % i, b"k") for i in range(50))], partition=k % 2)
    found, fetches = await same(kafka, topic)
    assert len(found) == 6 * 54
    assert fetches <= 3
    assert [row.trace for row in found[:4]] == [None, None, TRACE, None]
    assert (found[0].key, found[1].value, found[2].key, found[3].key) == (b"A", None, None, b"")


@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_transactions_are_seen_as_the_client_sees_them(kafka, isolation):
    topic = new_topic(kafka, "transactions")
    async with (
        producer(kafka) as plain,
        producer(kafka, transactional_id=unique("a")) as first,
        producer(kafka, transactional_id=unique("b"), compression_type="lz4") as second,
    ):
        for k in range(6):
            await first.begin_transaction()
            await second.begin_transaction()
            for made in (first, second, plain, first):
                await send(made, topic, [Message(b"%d" % k), Message(b"more")])
            await (first.abort_transaction() if k % 2 else first.commit_transaction())
            await send(plain, topic, [Message(b"between")])
            await (second.abort_transaction() if k % 3 else second.commit_transaction())
    await decided(kafka, topic)
    found, _ = await same(kafka, topic, isolation_level=isolation)
    aborted = 3 * 4 + 4 * 2 if isolation == "read_committed" else 0
    assert len(found) == 6 * 9 - aborted


async def test_an_open_transaction_holds_back_what_comes_after_it(kafka):
    topic = new_topic(kafka, "open")
    async with producer(kafka) as plain, producer(kafka, transactional_id=unique("a")) as made:
        await send(plain, topic, [Message(b"before")])
        await made.begin_transaction()
        await send(made, topic, [Message(b"undecided")])
        await send(plain, topic, [Message(b"behind")])
        assert [row.value for row in (await same(kafka, topic, isolation_level="read_committed"))[0]] == [b"before"]
        assert len((await same(kafka, topic, isolation_level="read_uncommitted"))[0]) == 3
        await made.abort_transaction()
    await decided(kafka, topic)
    assert len((await same(kafka, topic, isolation_level="read_committed"))[0]) == 2


async def test_aborted_transactions_alone_move_the_position_to_the_end(kafka):
    topic = new_topic(kafka, "aborted")
    async with producer(kafka, transactional_id=unique("a")) as made:
        for _ in range(3):
            await made.begin_transaction()
            await send(made, topic, [Message()])
            await made.abort_transaction()
    await decided(kafka, topic)
    assert (await same(kafka, topic, isolation_level="read_committed"))[0] == []


async def test_what_compaction_left_keeps_its_offsets(kafka):
    topic = new_topic(kafka, "compact", cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio=0.01)
    async with producer(kafka, compression_type="lz4") as made:
        for k in range(20):
            keys = [b"key-%d" % (i * (k + 1) % 23) for i in range(10)]
            await send(made, topic, [Message(b"%d" % k, key, ms=T0_MS + k) for key in keys])
        async with asyncio.timeout(LIMIT_S):
            for minute in itertools.count(1):
                if len(await offsets(kafka, topic)) < 150:
                    break
                await asyncio.sleep(0.2)  # only a closed segment is cleaned, and it is closed by later stamps
                await send(made, topic, [Message(b"roll", b"roll", ms=T0_MS + 60_000 * minute)])
    async with asyncio.timeout(LIMIT_S):
        while True:  # the cleaner may come by between two reads
            before, _, _ = await read(kafka, topic, blobs=False)
            ours, damaged, _ = await read(kafka, topic, blobs=True)
            if (await read(kafka, topic, blobs=False))[0] == before:
                break
    assert (ours, damaged) == (before, [])
    last = ours[-1][2].offset
    assert last - len(ours) > 50


async def offsets(kafka, topic):
    return [row.offset for _, _, row in (await read(kafka, topic, blobs=False))[0]]


async def test_the_brokers_stamp_counts_where_the_topic_has_log_append_time(kafka):
    topic = new_topic(kafka, "append", message_timestamp_type="LogAppendTime")
    async with producer(kafka) as made:
        for _ in range(3):
            await send(made, topic, [Message(ms=T0_MS + i) for i in range(5)])
    found, _ = await same(kafka, topic)
    assert all(row.stamp_ns > (T0_MS + 10**9) * 10**6 for row in found)


@pytest.mark.parametrize("offset", [1, 49, 50, 99, 120])
async def test_reading_begins_in_the_middle_of_a_batch(kafka, offset):
    topic = new_topic(kafka, "middle")
    async with producer(kafka, compression_type="lz4") as made:
        for _ in range(3):
            await send(made, topic, [Message(b"%d" % i) for i in range(50)])
    found, _ = await same(kafka, topic, offset=offset)
    assert [row.offset for row in found] == [*range(offset, 150)]


@pytest.mark.parametrize("fetch_bytes", [1, 3000, 1 << 20])
async def test_random_batches_in_fetches_of_any_size(kafka, fetch_bytes):
    """Batches larger than the fetch come whole, and those cut off at its end come again."""
    rng = np.random.default_rng(fetch_bytes)
    topic = new_topic(kafka, "random", 3)
    sent = 0
    for codec in CODECS:
        async with producer(kafka, compression_type=codec, max_batch_size=1 << 19) as made:
            for _ in range(8):
                messages = [anything(rng) for _ in range(rng.integers(1, 60))]
                await send(made, topic, messages, partition=int(rng.integers(3)))
                sent += len(messages)
    found, fetches = await same(kafka, topic, max_partition_fetch_bytes=fetch_bytes)
    assert len(found) == sent
    assert fetches >= 8 or fetch_bytes > 1


def anything(rng):
    def data(most):
        return None if rng.random() < 0.1 else rng.integers(97, 101, rng.integers(most), dtype=np.uint8).tobytes()

    names = ["traceparent", "x", "a long name " * 9]
    headers = [(names[rng.integers(3)], TRACE if rng.random() < 0.5 else data(30)) for _ in range(rng.integers(3))]
    return Message(data(900), data(30), headers, T0_MS + int(rng.integers(-(10**6), 10**6)))


async def test_every_other_consumer_of_the_process_keeps_the_clients_own_records(kafka):
    topic = new_topic(kafka, "both")
    async with producer(kafka) as made:
        await send(made, topic, [Message(b"%d" % i) for i in range(100)])
    seen, given = [], {"value_deserializer": int, "max_poll_records": 7}
    async with asyncio.timeout(LIMIT_S), consumer(kafka, topic, **given) as other, consumer(
        kafka, topic, value_deserializer=fetch.BLOBS
    ) as ours:  # fmt: skip
        ((blob,),) = (await ours.getmany(timeout_ms=10_000)).values()
        while len(seen) < 100:
            seen.append((await other.getone()).value)
            seen += [record.value for batch in (await other.getmany(timeout_ms=200)).values() for record in batch]
        assert await ours.position(TopicPartition(topic, 0)) == blob.next_offset == 100
    assert seen == [*range(100)]
    assert len(open_blob(blob)[0][0]) == 100


async def test_a_batch_that_rotted_on_the_brokers_disk_is_handed_over_once_and_its_neighbours_are_read(kafka):
    topic = new_topic(kafka, "rotten")
    async with producer(kafka) as made:
        for k in range(3):
            await send(made, topic, [Message(b"batch %d" % k) for _ in range(10)])
    rot(log_of(kafka, topic), b"batch 1")
    found, damaged, _ = await read(kafka, topic, blobs=True)
    assert [row.offset for _, _, row in found] == [*range(10), *range(20, 30)]
    assert [(d.topic, d.partition, d.first_offset, d.last_offset) for d in damaged] == [(topic, 0, 10, 19)]
    assert b"Xatch 1" in damaged[0].data


def log_of(kafka, topic) -> Path:
    return kafka.nodes[0].data / f"{topic}-0" / f"{0:020}.log"


def rot(path, text):
    with path.open("r+b") as file:
        file.seek(path.read_bytes().index(text))
        file.write(b"X")
