"""Framing: partitions as every Kafka client chooses them, batches below the limit, lz4 that the broker takes."""

import cramjam
import numpy as np
import pytest
from aiokafka.partitioner import murmur2 as murmur2_of_aiokafka
from aiokafka.record.memory_records import MemoryRecords

from tickcast.columns import Encoded
from tickcast.io.kafka.framing import (
    LZ4_BLOCK,
    Framer,
    lz4_frame,
    murmur2,
    packed_room,
    plan_batches,
    record_bytes,
    write_records,
)
from tickcast.io.kafka.publish import HEADER_BYTES, ReadyBatch
from tickcast.symbols import SymbolTable

STAMP_MS = 1_700_000_000_123


def table(*names):
    symbols = SymbolTable(100)
    for name in names:
        symbols.code(name)
    return symbols


def encoded(values, symbol):
    """With a gap between values, as between messages that a buffer was grown for."""
    data = b"-".join([b"", *values, b""])
    lengths = np.fromiter(map(len, values), np.int64)
    ends = np.cumsum(lengths + 1)
    starts = ends - lengths
    return Encoded(np.frombuffer(bytearray(data), np.uint8), starts, ends, np.array(symbol, np.int32))


def records(batch):
    """Key, value and headers of each record, read by the client's own reader, which checks the sum."""
    built = MemoryRecords(bytes(batch._build())).next_batch()
    assert built.validate_crc()
    return [(record.key, record.value, record.headers) for record in built]


@pytest.mark.parametrize("name", ["a", "ab", "abc", "abcd", "abcde", "BTCUSDT", "Ü-Ä 😀", "x" * 48])
def test_the_hash_is_that_of_kafkas_clients(name):
    key = name.encode()
    padded = np.frombuffer(bytearray(key + b"\xff" * 4), np.uint8)
    assert murmur2(padded, np.int32(len(key))) == murmur2_of_aiokafka(key)


@pytest.mark.parametrize("compression", ["lz4", "none"])
def test_a_batch_holds_key_value_and_trace_of_its_partitions_rows(compression):
    symbols = table("BTC", "Ü")
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    data = np.frombuffer(b"..." + trace, np.uint8)
    framer = Framer(1, max_batch_bytes=10_000, compression=compression)
    values = [b'{"n":1}' * 90, b"", b"3" * 64]
    (batch,) = framer.frame(encoded(values, [0, 1, 0]), symbols, STAMP_MS, (data, np.array([-1, 3, -1])))
    assert records(batch) == [
        (b"BTC", values[0], []),
        ("Ü".encode(), b"", [("traceparent", trace)]),
        (b"BTC", values[2], []),
    ]
    assert (batch.partition, batch.record_count()) == (0, 3)
    assert bytes(batch._build())[22] == (3 if compression == "lz4" else 0)


def test_a_batch_that_compression_would_grow_is_sent_as_it_is():
    framer = Framer(1, max_batch_bytes=10_000, compression="lz4")
    (batch,) = framer.frame(encoded([b"a1"], [0]), table("BTC"), STAMP_MS)
    assert bytes(batch._build())[22] == 0
    assert records(batch) == [(b"BTC", b"a1", [])]


def test_batches_stay_below_the_limit_and_keep_each_partitions_order():
    symbols = table(*(f"SYM{k}" for k in range(20)))
    rng = np.random.default_rng(0)
    symbol = rng.integers(0, 20, 500)
    values = [b"%d:" % row + b"x" * int(rng.integers(0, 300)) for row in range(500)]
    framer = Framer(3, max_batch_bytes=2_000, compression="none")
    found = {0: [], 1: [], 2: []}
    for batch in framer.frame(encoded(values, symbol), symbols, STAMP_MS):
        assert batch.size() <= 2_000
        found[batch.partition] += records(batch)
    rows = {p: [int(value.split(b":")[0]) for _, value, _ in got] for p, got in found.items()}
    assert all(got == sorted(got) for got in rows.values())
    assert sorted(row for got in rows.values() for row in got) == list(range(500))
    for partition, got in rows.items():
        assert {murmur2_of_aiokafka(symbols.name(symbol[row]).encode()) % 2**31 % 3 for row in got} == {partition}


def test_a_message_too_large_for_any_batch_is_left_out_and_reported():
    framer = Framer(1, max_batch_bytes=700, compression="lz4")
    values, symbols = [b"before", b"x" * 1_000, b"after"], table("BTC")  # that lz4 would shrink it does not count
    (batch,) = framer.frame(encoded(values, [0, 0, 0]), symbols, STAMP_MS)
    (skipped,) = framer.take_skipped()
    assert "1000 bytes for BTC" in str(skipped)
    assert "700" in str(skipped)
    assert "kafka.batch_bytes" in str(skipped)
    assert framer.take_skipped() == []
    assert framer.frame(encoded([b"x" * 1_000], [0]), symbols, STAMP_MS) == []
    assert [value for _, value, _ in records(batch)] == [b"before", b"after"]


@pytest.mark.parametrize("count", [1, 2])
def test_messages_may_fill_a_batch_to_the_last_byte(count):
    symbols, messages = table("BTC"), encoded([b"x" * 500] * count, [0] * count)
    (whole,) = Framer(1, max_batch_bytes=10_000, compression="none").frame(messages, symbols, STAMP_MS)
    for most, batches in ((whole.size(), 1), (whole.size() - 1, count if count > 1 else 0)):
        framer = Framer(1, max_batch_bytes=most, compression="none")
        assert len(framer.frame(messages, symbols, STAMP_MS)) == batches


def test_nothing_makes_no_batch():
    framer = Framer(4, max_batch_bytes=10_000, compression="lz4")
    assert framer.frame(encoded([], []), table("BTC"), STAMP_MS) == []
    assert framer.take_skipped() == []


def test_a_batch_does_not_change_when_the_next_one_is_framed():
    symbols = table("BTC")
    for compression in ("lz4", "none"):
        framer = Framer(1, max_batch_bytes=10_000, compression=compression)
        (first,) = framer.frame(encoded([b"1" * 900], [0]), symbols, STAMP_MS)
        framer.frame(encoded([b"2" * 950], [0]), symbols, STAMP_MS)
        assert records(first) == [(b"BTC", b"1" * 900, [])]


@pytest.mark.slow
def test_symbols_that_appear_later_and_columns_of_received_bytes_are_served():
    symbols = table("BTC")
    framer = Framer(4, max_batch_bytes=10_000, compression="none")
    framer.frame(encoded([b"1"], [0]), symbols, STAMP_MS)
    late = symbols.code("ETH")
    received = Encoded(np.frombuffer(b"12345", np.uint8), np.arange(6)[:5:2], np.arange(1, 7)[:5:2], np.full(3, late))
    (batch,) = framer.frame(received, symbols, STAMP_MS)
    assert records(batch) == [(b"ETH", value, []) for value in (b"1", b"3", b"5")]


@pytest.mark.parametrize("size", [1, 100, LZ4_BLOCK - 1, LZ4_BLOCK, LZ4_BLOCK + 1, 5 * LZ4_BLOCK + 7])
@pytest.mark.parametrize("letters", [1, 4, 256])
def test_an_lz4_frame_is_read_back_by_an_independent_reader(size, letters):
    body = np.random.default_rng(size).integers(0, letters, size).astype(np.uint8)
    out = np.empty(packed_room(size), np.uint8)
    length = lz4_frame(body, out)
    assert bytes(cramjam.lz4.decompress(out[:length].tobytes())) == body.tobytes()


def test_a_batch_is_built_once_so_that_a_retry_sends_the_same():
    batch = ReadyBatch(0, bytearray(HEADER_BYTES + 10), count=1, stamp_ms=1, codec=0)
    batch._set_producer_state(7, 1, 3)
    first = bytes(batch._build())
    batch.transactional = True
    assert bytes(batch._build()) == first


def test_a_batch_takes_no_messages_of_others():
    batch = ReadyBatch(0, bytearray(HEADER_BYTES + 10), count=1, stamp_ms=1, codec=0)
    assert batch.append(timestamp=None, key=None, value=b"1") is None
    assert batch.closed()


def test_the_framers_kernels_release_the_interpreter_lock():
    assert all(kernel.targetoptions["nogil"] for kernel in (murmur2, plan_batches, record_bytes, write_records))
