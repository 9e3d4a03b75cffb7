"""Fetched bytes to columns, against the client's own reading, and what damaged bytes end as."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from aiokafka.codec import snappy_encode
from aiokafka.consumer import fetcher
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.util import calc_crc32c, encode_varint

from tickcast.columns import RawBatch
from tickcast.io.kafka import fetch, wire
from tickcast.io.kafka.blob import Blob, open_blob
from tickcast.io.kafka.crc32c import HAS_INSTRUCTION, TABLES, by_instruction, by_tables, crc32c
from wirekit import (
    ABORT,
    ATTRIBUTES,
    BODY,
    CODECS,
    COMMIT,
    COUNT,
    CRC,
    LAST_DELTA,
    LOG_APPEND,
    MAGIC,
    MAX_MS,
    SNAPPY,
    T0_MS,
    TRACE,
    TRANSACTIONAL,
    ZSTD,
    Message,
    batch,
    bent,
    by_client,
    framed,
    marker,
    opened,
    rows,
)

MIXED = [
    Message(b'{"symbol":"A","price":1.5}', b"A", ms=T0_MS + 5),
    Message(None, b"A", ms=T0_MS - 7),
    Message(b"", b"", [("x", None), ("traceparent", TRACE), ("traceparent", TRACE[::-1])]),
    Message(b"z" * 3000, None, [("traceparent", b"short"), ("Traceparent", TRACE), ("", b"y" * 200)]),
    Message(b"last", "ключ".encode(), [("traceparent", None)], ms=T0_MS + 10**10),
]
PLAIN = [Message(b"%d" % i, b"k", ms=T0_MS + i) for i in range(40)]


def array(data):
    return np.frombuffer(bytearray(data), np.uint8)


@pytest.mark.parametrize("codec", CODECS)
def test_records_of_every_codec_are_those_the_client_reads(codec):
    data = batch(MIXED, base=7, codec=codec) + batch(PLAIN, base=12, codec=codec) + batch(PLAIN, base=90, codec=codec)
    assert bool(struct.unpack_from(">h", data, ATTRIBUTES)[0] & 7) == bool(codec)
    found, damaged, position = opened(data, fetch_offset=7)
    assert (found, position) == by_client(data, fetch_offset=7)
    assert position == 130
    assert not damaged
    assert [row.trace for row in found[:5]] == [None, None, TRACE, None, None]


def test_a_blob_may_mix_codecs():
    data = b"".join(batch(PLAIN, base=40 * codec, codec=codec) for codec in CODECS)
    found, damaged, _ = opened(data)
    assert (found, damaged) == (by_client(data)[0], [])


def test_snappy_is_read_with_and_without_the_framing_of_java():
    body = batch(PLAIN)[BODY:]
    for packed in (snappy_encode(body, xerial_blocksize=64), snappy_encode(body, xerial_compatible=False)):
        assert opened(framed(packed, count=len(PLAIN), codec=SNAPPY))[0][7].value == b"7"


def test_records_below_the_fetch_offset_are_left_out_and_gaps_keep_their_offsets():
    kept = [Message(b"%d" % delta, delta=delta) for delta in (2, 5, 6, 9)]
    data = bent(batch(kept, base=100), (LAST_DELTA, ">i", 19))  # compaction keeps the last offset, not the record
    found, damaged, position = opened(data, fetch_offset=104)
    assert [(row.offset, row.value) for row in found] == [(105, b"5"), (106, b"6"), (109, b"9")]
    assert (found, position) == by_client(data, fetch_offset=104)
    assert position == 120
    assert not damaged


def test_a_batch_that_compaction_emptied_moves_the_position():
    data = framed(b"", count=0, base=10, last=4)
    assert opened(data, fetch_offset=10) == ([], [], 15)


def test_the_brokers_time_of_appending_counts_where_the_topic_says_so():
    data = bent(batch(PLAIN, extra=LOG_APPEND), (MAX_MS, ">q", T0_MS + 999))
    found, _, _ = opened(data)
    assert {row.stamp_ns for row in found} == {(T0_MS + 999) * 10**6}
    assert found == by_client(data)[0]


@pytest.mark.parametrize("ms", [-1, (1 << 63) // 10**6 + 1])
def test_a_record_without_a_time_that_fits_has_no_stamp(ms):
    assert opened(batch([Message(ms=ms)]))[0][0].stamp_ns == -1


def transactions():
    """Two producers: 5 aborts, then commits; 6 commits; a record without a transaction between."""
    return b"".join([
        batch(PLAIN[:3], base=0, producer=5, extra=TRANSACTIONAL),
        batch(PLAIN[:2], base=3, producer=6, extra=TRANSACTIONAL),
        batch(PLAIN[:1], base=5),
        marker(ABORT, producer=5, base=6),
        batch(PLAIN[:2], base=7, producer=5, extra=TRANSACTIONAL),
        marker(COMMIT, producer=6, base=9),
        marker(COMMIT, producer=5, base=10),
    ])  # fmt: skip


def test_control_batches_are_left_out_and_aborted_ones_where_only_committed_ones_are_read():
    data, aborted = transactions(), [(5, 0)]
    committed, everything = opened(data, aborted=aborted), opened(data)
    assert [row.offset for row in committed[0]] == [3, 4, 5, 7, 8]
    assert [row.offset for row in everything[0]] == [0, 1, 2, 3, 4, 5, 7, 8]
    assert committed[0::2] == by_client(data, aborted=aborted)
    assert everything[0::2] == by_client(data, aborted=aborted, committed=False)
    assert committed[2] == everything[2] == 11


def test_a_blob_of_control_batches_alone_moves_the_position():
    assert opened(marker(ABORT, producer=1, base=8) + marker(COMMIT, producer=2, base=9), fetch_offset=8) == (
        [],
        [],
        10,
    )


@pytest.mark.parametrize("cut", [1, 11, 12, 60, 61, 100])
def test_an_incomplete_batch_at_the_end_waits_for_the_next_fetch(cut):
    whole = batch(PLAIN)
    found, damaged, position = opened(whole + batch(PLAIN, base=40)[:cut])
    assert (len(found), damaged, position) == (40, [], 40)


DAMAGE = {
    "the checksum": lambda made: made[:-1] + bytes([made[-1] ^ 1]),
    "the message format": lambda made: made[:MAGIC] + b"\x03" + made[MAGIC + 1 :],
    "the header": lambda made: made[:8] + struct.pack(">i", 20) + made[12:32],
    "the codec": lambda made: bent(made, (ATTRIBUTES, ">h", 5)),
    "the compressed records": lambda made: bent(made, (ATTRIBUTES, ">h", ZSTD)),
    "the records": lambda made: bent(made, (COUNT, ">i", 39)),
}


@pytest.mark.parametrize("reason", DAMAGE)
def test_a_damaged_batch_is_handed_over_as_it_came_and_its_neighbours_are_read(reason):
    bad = DAMAGE[reason](batch(PLAIN, base=40))
    found, damaged, position = opened(batch(PLAIN) + bad + batch(PLAIN, base=80))
    assert [row.offset for row in found] == [*range(40), *range(80, 120)]
    assert [(d.first_offset, d.data, d.topic, d.partition) for d in damaged] == [(40, bad, "t", 0)]
    assert damaged[0].reason.startswith(reason)
    assert position == 120


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_broken_compressed_records_are_damage(codec):
    made = batch(PLAIN, codec=codec)
    for body in (b"", b"\x00", made[BODY:-4], made[BODY:][::-1], b"\x82SNAPPY\x00" + bytes(9)):
        _, damaged, position = opened(framed(body, count=40, codec=codec))
        assert [(d.first_offset, d.last_offset) for d in damaged] == [(0, 39)]
        assert position == 40


BAD_BODIES = {
    "a record longer than the batch": (b"\x7e" + bytes(9), 1),
    "a negative length": (b"\x01" + bytes(9), 1),
    "a varint without an end": (b"\xff" * 30, 1),
    "a key longer than the record": (b"\x0e\x00\x00\x00\x7e\x00\x00\x00", 1),
    "a key of length -2": (b"\x0e\x00\x00\x00\x03\x00\x00\x00", 1),
    "a value longer than the record": (b"\x0e\x00\x00\x00\x01\x7e\x00\x00", 1),
    "more headers than bytes": (b"\x0c\x00\x00\x00\x01\x01\x7e", 1),
    "a negative number of headers": (b"\x0c\x00\x00\x00\x01\x01\x01", 1),
    "a header without a name": (b"\x10\x00\x00\x00\x01\x01\x02\x01\x01", 1),
    "bytes behind the headers": (b"\x0e\x00\x00\x00\x01\x01\x00\x00", 1),
    "bytes behind the records": (b"\x0c\x00\x00\x00\x01\x01\x00\x00", 1),
    "fewer records than stated": (b"\x0c\x00\x00\x00\x01\x01\x00", 2),
    "far more records than stated bytes": (b"\x0c\x00\x00\x00\x01\x01\x00", (1 << 31) - 1),
    "a negative number of records": (b"\x0c\x00\x00\x00\x01\x01\x00", -5),
    "an offset before the batch": (b"\x0c\x00\x00\x01\x01\x01\x00", 1),
    "an offset behind the batch": (b"\x0c\x00\x00\x08\x01\x01\x00", 1),
    "an offset twice": (b"\x0c\x00\x00\x00\x01\x01\x00" * 2, 2),
}


@pytest.mark.parametrize("what", BAD_BODIES)
def test_records_that_do_not_add_up_are_damage_and_leave_no_row(what):
    body, count = BAD_BODIES[what]
    found, damaged, position = opened(framed(body, count=count, base=5, last=2) + batch(PLAIN, base=8), fetch_offset=5)
    assert [row.offset for row in found] == [*range(8, 48)]
    assert [(d.first_offset, d.last_offset) for d in damaged] == [(5, 7)]
    assert damaged[0].reason.startswith("the records")
    assert position == 48


def test_a_message_of_an_old_format_is_damage_with_its_own_offset():
    builder = LegacyRecordBatchBuilder(1, 0, 1 << 20)
    builder.append(0, T0_MS, b"k", b"old")
    old = struct.pack(">q", 9) + bytes(builder.build())[8:]
    found, damaged, position = opened(old + batch(PLAIN, base=10), fetch_offset=9)
    assert [(d.first_offset, d.last_offset, d.data) for d in damaged] == [(9, 9, old)]
    assert (len(found), position) == (40, 50)


def test_a_length_that_makes_no_sense_costs_one_offset_and_the_rest_comes_with_the_next_fetch():
    bad = struct.pack(">qi", 3, -1) + bytes(200)
    found, damaged, position = opened(batch(PLAIN[:3]) + bad)
    assert (len(found), position) == (3, 4)
    assert [(d.first_offset, d.last_offset, d.data) for d in damaged] == [(3, 3, bad)]


def test_a_damaged_header_at_the_end_does_not_carry_the_position_past_what_follows():
    made = bytearray(batch(PLAIN))
    struct.pack_into(">i", made, LAST_DELTA, 1 << 30)
    found, damaged, position = opened(bytes(made))
    assert (found, [d.last_offset for d in damaged], position) == ([], [39], 40)


def test_a_batch_whose_offsets_lie_behind_the_position_is_damage_and_moves_it():
    found, damaged, position = opened(batch(PLAIN), fetch_offset=40)
    assert (found, [(d.first_offset, d.last_offset) for d in damaged], position) == ([], [(40, 40)], 41)


def test_the_checksum_is_the_clients():
    data = np.random.default_rng(0).integers(0, 256, 300, dtype=np.uint8)
    for end in range(0, 300, 7):
        for start in (0, 1, 3):
            assert crc32c(data, start, max(end, start), TABLES) == calc_crc32c(data[start : max(end, start)].tobytes())


@pytest.mark.skipif(not HAS_INSTRUCTION, reason="needs a processor with SSE 4.2, whose instruction it compares")
def test_the_checksum_by_instruction_is_that_by_tables():
    """A machine without the instruction goes by the tables; none of ours lacks it."""
    data = np.random.default_rng(1).integers(0, 256, 300, dtype=np.uint8)
    for start in range(9):
        for words in range(0, 32, 2):
            span = data, start, start + 8 * words, TABLES
            assert by_tables(*span) == by_instruction(*span)


BY_TABLES = """
from aiokafka.record.util import calc_crc32c
import numpy as np
from tickcast.io.kafka.crc32c import HAS_INSTRUCTION, TABLES, crc32c
data = np.arange(203, dtype=np.uint8)
assert not HAS_INSTRUCTION
assert crc32c(data, 3, 203, TABLES) == calc_crc32c(data[3:].tobytes())
"""


@pytest.mark.slow
def test_compiled_for_any_processor_the_checksum_goes_by_tables():
    env = os.environ | {"NUMBA_CPU_NAME": "generic"}
    subprocess.run([sys.executable, "-c", BY_TABLES], env=env, check=True, timeout=120)


@pytest.mark.parametrize("number", [0, 1, -1, 63, -64, 64, 300, -(1 << 31), (1 << 40) + 3, (1 << 63) - 1, -(1 << 63)])
def test_a_varint_is_read_as_the_client_writes_it_and_never_beyond_the_end(number):
    coded = bytearray()
    encode_varint(number, coded.append)
    data = array(bytes(coded) + b"\x00")
    assert wire.varint(data, 0, len(data)) == (number, len(coded))
    for end in range(len(coded)):
        assert wire.varint(data, 0, end)[1] == end + 1
    assert wire.varint(data, len(data) + 5, len(data))[1] == len(data) + 1


@pytest.mark.parametrize(("size", "number"), [(1, -2), (2, 300), (4, -5), (8, 1 << 60), (8, -1)])
def test_numbers_of_the_header_are_signed_and_big_end_first(size, number):
    assert wire.big_endian(array(b"\x07" + number.to_bytes(size, "big", signed=True)), 1, size) == number


@pytest.mark.slow
def test_the_kernels_go_over_a_blob_step_by_step():
    data, batches = array(transactions() + b"\x00" * 7), np.zeros(7, wire.BATCH)
    assert wire.count_batches(data) == 7
    assert wire.read_headers(data, 1, batches, TABLES) == 11
    assert batches["base"].tolist() == [0, 3, 5, 6, 7, 9, 10]
    assert batches["floor"].tolist() == [1, 3, 5, 6, 7, 9, 10]
    wire.mark_aborted(data, batches, np.array([[5, 0]]), np.zeros(1, np.int64))
    control, aborted = wire.CONTROL, wire.ABORTED
    assert batches["state"].tolist() == [aborted, wire.GOOD, wire.GOOD, control, wire.GOOD, control, control]
    data[batches["position"][2] + CRC] ^= 1
    wire.check_batches(data, batches, TABLES)
    assert batches["state"][2] == wire.BAD_CHECKSUM
    columns = np.empty((wire.COLUMNS, 4), np.int64)
    assert wire.frame_batches(data, batches, columns) == (4, 0)
    assert columns[wire.OFFSET].tolist() == [3, 4, 7, 8]


def test_a_part_keeps_keys_and_traces():
    (raw,), _ = open_blob(Blob.scan("t", 3, batch(MIXED), 0))
    assert rows([raw.part(1, 4)]) == rows([raw])[1:4]
    bare = RawBatch("t", 0, raw.data, raw.starts, raw.ends, raw.offsets, raw.stamps_ns)
    assert (bare.part(0, 2).keys, bare.part(0, 2).trace) == (None, None)


def test_no_column_of_traces_is_made_where_no_message_has_one():
    (raw,), _ = open_blob(Blob.scan("t", 0, batch(PLAIN), 0))
    assert raw.trace is None


@pytest.fixture
def names(monkeypatch):
    """The client's two names as it has them itself, whichever test ran before; put back after this one."""
    swapped = getattr(fetcher.MemoryRecords, "__self__", None)
    plain = (swapped._plain_records, swapped._plain_partition) if isinstance(swapped, fetch._Dispatch) else None
    for name, own in zip(("MemoryRecords", "PartitionRecords"), plain or (None, None), strict=True):
        monkeypatch.setattr(fetcher, name, own or getattr(fetcher, name))


def test_only_the_sentinel_gets_blobs_and_installing_twice_swaps_once(names):
    data = batch(PLAIN)
    plainly = by_client(data)
    fetch.install()
    swapped = fetcher.PartitionRecords
    fetch.install()
    assert fetcher.PartitionRecords == swapped
    assert by_client(data) == plainly
    tp = fetch.TopicPartition("t", 2)
    records = fetcher.MemoryRecords(data + data[:20])
    assert (records.has_next(), records.size_in_bytes()) == (True, len(data) + 20)
    waiting = fetcher.PartitionRecords(tp, records, None, 3, None, fetch.BLOBS, True, 1)
    assert waiting.next_fetch_offset == 3
    (blob,) = waiting
    assert (blob.topic, blob.partition, blob.fetch_offset, blob.next_offset) == ("t", 2, 3, 40)
    assert waiting.next_fetch_offset == 40
    assert not fetcher.MemoryRecords(data[:50]).has_next()


WARMED = """
from tickcast.io.kafka import crc32c
from tickcast.io.kafka import fetch
from tickcast.io.kafka import wire
from wirekit import *
kernels = [crc32c.crc32c, *(k for k in vars(wire).values() if hasattr(k, "signatures"))]
fetch.warm_up()
compiled = [len(kernel.signatures) for kernel in kernels]
for codec in CODECS:
    opened(batch([Message(b"x" * 500)], codec=codec) + marker(ABORT, producer=1, base=1), aborted=[(1, 0)])
assert compiled == [len(kernel.signatures) for kernel in kernels]
assert sum(compiled) >= 5
"""


@pytest.mark.slow
def test_after_the_warm_up_nothing_is_compiled_any_more():
    subprocess.run([sys.executable, "-c", WARMED], cwd=Path(__file__).parents[1], check=True, timeout=120)


def test_no_base_offset_leads_back():
    """Neither checksum nor length cover it: beyond the last there is none, and the next position would be negative."""
    old = bytearray(batch(PLAIN[:3], base=(1 << 63) - 2))
    old[16] = 1  # another format: its last offset is not read
    _, damaged, position = opened(bytes(old) + batch(PLAIN[:1], base=-5), fetch_offset=9)
    assert [bad.first_offset for bad in damaged] == [9, 10]
    assert position == 11
