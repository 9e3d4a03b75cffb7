"""Encoded messages as finished Kafka record sections, one kernel pass per batch. It sends nothing.

Rows are keyed by their symbol's name and go to the partition that Kafka's default partitioner would choose. It runs on
the engine thread; kernels and compression leave the interpreter lock to the event loop.
"""

from typing import Any, Literal, NamedTuple

import cramjam
import numpy as np

from tickcast.columns import I32, I64, U8, Encoded
from tickcast.compiled import lean_njit
from tickcast.errors import BadOutput
from tickcast.io.kafka.publish import HEADER_BYTES, TRACE_BYTES, TRACE_NAME, ReadyBatch, Trace, too_large
from tickcast.settings.buses import KafkaSettings
from tickcast.symbols import SymbolTable

PLAIN, LZ4 = 0, 3  # codecs of a batch
NO_PARTITION, NO_BATCH = -1, -1
TRACE_HEADER = np.frombuffer(bytearray([2, 2 * len(TRACE_NAME), *TRACE_NAME, 2 * TRACE_BYTES]), np.uint8)
MIX, SEED = np.uint64(0x5BD1E995), np.uint64(0x9747B28C)
LOW_32, POSITIVE = np.uint64(0xFFFFFFFF), np.uint64(0x7FFFFFFF)
LZ4_HEAD = bytes.fromhex("04224d18604082")  # a frame of independent blocks of at most 64 kB, without checksums
LZ4_END = bytes(4)
LZ4_BLOCK = 1 << 16
LZ4_ROOM = 4 + int(cramjam.lz4.compress_block_bound(bytes(LZ4_BLOCK)))
LZ4_STORED = 1 << 31  # set in the size of a block that is not compressed


class Messages(NamedTuple):
    """Encoded messages as the kernels see them."""

    data: U8
    starts: I64
    ends: I64
    symbol: I32
    names: U8
    lengths: I32
    trace: U8
    trace_starts: I64


class FramePlan(NamedTuple):
    """Which rows make which batch: batch b has the rows order[first[b]:first[b] + records[b]], `size[b]` bytes."""

    batch: I32  # of each row; NO_BATCH = too large for any
    order: I64
    partition: I32
    first: I64
    records: I64
    size: I64


class Framer:
    """Frames what goes to one topic. It keeps the partition of each symbol, so it serves one SymbolTable."""

    def __init__(self, partitions: int, *, max_batch_bytes: int, compression: Literal["lz4", "none"]) -> None:
        self._partitions = partitions
        self._most = max_batch_bytes - HEADER_BYTES
        self._partition_of = np.empty(0, np.int32)
        self._reused = 0
        self._records = np.empty(self._most, np.uint8)
        self._packed = np.empty(packed_room(self._most), np.uint8) if compression == "lz4" else None
        self._skipped: list[BadOutput] = []

    def frame(
        self, encoded: Encoded, symbols: SymbolTable, stamp_ms: int, trace: Trace | None = None
    ) -> list[ReadyBatch]:
        """Batches that keep the order of the rows within each partition.

        `stamp_ms` is the wall clock's: by the stamps of its records a broker deletes them, and forgets the producer
        whose retries it would recognise.
        """
        messages = _messages(encoded, symbols, trace)
        if len(self._partition_of) < symbols.limit or self._reused != symbols.reused:
            self._reused = symbols.reused
            self._partition_of = np.full(symbols.limit, NO_PARTITION, np.int32)
        plan = _empty_plan(len(messages.starts))
        batches = plan_batches(messages, plan, self._partition_of, np.full(self._partitions, NO_BATCH), self._most)
        for row in np.flatnonzero(plan.batch == NO_BATCH):
            name, size = symbols.name(int(messages.symbol[row])), int(messages.ends[row] - messages.starts[row])
            self._skipped.append(too_large(name, size, self._most + HEADER_BYTES))
        return [self._batch(messages, plan, batch, stamp_ms) for batch in range(batches)]

    def take_skipped(self) -> list[BadOutput]:
        """What was left out since the last call because no batch may be so large; the caller counts and reports it."""
        skipped, self._skipped = self._skipped, []
        return skipped

    def _batch(self, messages: Messages, plan: FramePlan, batch: int, stamp_ms: int) -> ReadyBatch:
        first, count = int(plan.first[batch]), int(plan.records[batch])
        size = write_records(messages, plan.order, first, first + count, self._records)
        body, codec = self._records[:size], PLAIN
        if self._packed is not None:
            packed = lz4_frame(body, self._packed)
            if packed < size:
                body, codec = self._packed[:packed], LZ4
        buffer = bytearray(HEADER_BYTES)
        buffer += body.data
        return ReadyBatch(int(plan.partition[batch]), buffer, count=count, stamp_ms=stamp_ms, codec=codec)


def framer(kafka: KafkaSettings, partitions: int) -> Framer:
    """For a topic of so many partitions."""
    return Framer(partitions, max_batch_bytes=kafka.batch_bytes, compression=kafka.compression)


def _messages(encoded: Encoded, symbols: SymbolTable, trace: Trace | None) -> Messages:
    data, starts = trace or (np.empty(0, np.uint8), np.empty(0, np.int64))
    return Messages(
        data=_read_only(encoded.data), starts=_read_only(encoded.starts), ends=_read_only(encoded.ends),
        symbol=_read_only(encoded.symbol), names=symbols.arrays.names, lengths=symbols.arrays.lengths,
        trace=_read_only(data), trace_starts=_read_only(starts),
    )  # fmt: skip


def partitions_of(symbol: I32, symbols: SymbolTable, *, partitions: int) -> I32:
    """Where the records of each of these symbols go."""
    places = np.empty(len(symbol), np.int32)
    place(_read_only(symbol), symbols.arrays.names, symbols.arrays.lengths, partitions, places)
    return places


def _read_only(column: Any) -> Any:
    """One type for the kernels, whether or not a column lies in received bytes: each type is a compilation."""
    view = np.ascontiguousarray(column).view()
    view.flags.writeable = False
    return view


def _empty_plan(rows: int) -> FramePlan:
    return FramePlan(
        np.empty(rows, np.int32), np.empty(rows, np.int64), np.empty(rows, np.int32), np.empty(rows, np.int64),
        np.empty(rows, np.int64), np.empty(rows, np.int64),
    )  # fmt: skip


def packed_room(size: int) -> int:
    """More than `lz4_frame` writes for so many bytes."""
    return len(LZ4_HEAD) + (size // LZ4_BLOCK + 1) * LZ4_ROOM + len(LZ4_END)


def lz4_frame(body: U8, out: U8) -> int:
    """Compress into `out`, and return the length; cramjam's own writer of frames keeps the interpreter lock."""
    view, o = memoryview(out), len(LZ4_HEAD)  # type: ignore[arg-type]
    view[:o] = LZ4_HEAD
    for at in range(0, len(body), LZ4_BLOCK):
        block = body[at : at + LZ4_BLOCK].data
        start = o + 4
        size = mark = cramjam.lz4.compress_block_into(block, view[start:], store_size=False)
        if size >= len(block):
            size, mark = len(block), len(block) | LZ4_STORED
            view[start : start + size] = block
        view[o:start] = mark.to_bytes(4, "little")
        o = start + size
    view[o : o + 4] = LZ4_END
    return o + 4


@lean_njit
def plan_batches(messages, plan, partition_of, open_batch, limit):  # type: ignore[no-untyped-def]
    """Fill the plan and return its number of batches; a partition's next batch begins where `limit` would be passed."""
    batches = 0
    for row in range(len(messages.starts)):
        plan.batch[row] = NO_BATCH
        partition = _partition(messages, row, partition_of, len(open_batch))
        batch = open_batch[partition]
        size = record_bytes(messages, row, plan.records[batch]) if batch >= 0 else limit
        if batch < 0 or plan.size[batch] + size > limit:
            size = record_bytes(messages, row, 0)
            if size > limit:
                continue
            batch = batches
            plan.partition[batch], plan.records[batch], plan.size[batch] = partition, 0, 0
            open_batch[partition] = batch
            batches += 1
        plan.batch[row] = batch
        plan.records[batch] += 1
        plan.size[batch] += size
    _put_in_order(plan, batches)
    return batches


@lean_njit
def _put_in_order(plan, batches):  # type: ignore[no-untyped-def]
    at = 0
    for batch in range(batches):
        plan.first[batch] = at
        at += plan.records[batch]
        plan.records[batch] = 0
    for row in range(len(plan.batch)):
        batch = plan.batch[row]
        if batch >= 0:
            plan.order[plan.first[batch] + plan.records[batch]] = row
            plan.records[batch] += 1


@lean_njit
def _partition(messages, row, partition_of, partitions):  # type: ignore[no-untyped-def]
    symbol = messages.symbol[row]
    if partition_of[symbol] < 0:
        partition_of[symbol] = _place(messages.names[symbol], messages.lengths[symbol], partitions)
    return partition_of[symbol]


@lean_njit
def place(symbol, names, lengths, partitions, out):  # type: ignore[no-untyped-def]
    for row in range(len(symbol)):
        out[row] = _place(names[symbol[row]], lengths[symbol[row]], partitions)


@lean_njit
def _place(name, length, partitions):  # type: ignore[no-untyped-def]
    return np.int64(murmur2(name, length) & POSITIVE) % partitions


@lean_njit
def murmur2(name, length):  # type: ignore[no-untyped-def]
    """The hash of name[:length] that Kafka's clients choose partitions by, in the low 32 bits."""
    h = SEED ^ np.uint64(length)
    whole = length - length % 4
    for at in range(0, whole, 4):
        k = np.uint64(0)
        for i in range(4):
            k |= np.uint64(name[at + i]) << np.uint64(8 * i)
        k = (k * MIX) & LOW_32
        k = ((k ^ (k >> np.uint64(24))) * MIX) & LOW_32
        h = ((h * MIX) & LOW_32) ^ k
    if whole < length:
        for at in range(whole, length):
            h ^= np.uint64(name[at]) << np.uint64(8 * (at - whole))
        h = (h * MIX) & LOW_32
    h = ((h ^ (h >> np.uint64(13))) * MIX) & LOW_32
    return h ^ (h >> np.uint64(15))


@lean_njit
def _varint_bytes(value):  # type: ignore[no-untyped-def]
    count = 1
    while value >= 64:
        value >>= 7
        count += 1
    return count


@lean_njit
def _body_bytes(messages, row, ordinal):  # type: ignore[no-untyped-def]
    """What follows a record's length: attributes, times, ordinal, key, value, headers."""
    key, value = messages.lengths[messages.symbol[row]], messages.ends[row] - messages.starts[row]
    body = 2 + _varint_bytes(ordinal) + _varint_bytes(key) + key + _varint_bytes(value) + value
    return body + (len(TRACE_HEADER) + TRACE_BYTES if _is_traced(messages, row) else 1)


@lean_njit
def _is_traced(messages, row):  # type: ignore[no-untyped-def]
    return len(messages.trace_starts) > 0 and messages.trace_starts[row] >= 0


@lean_njit
def record_bytes(messages, row, ordinal):  # type: ignore[no-untyped-def]
    """What a message takes as record `ordinal` of its batch."""
    body = _body_bytes(messages, row, ordinal)
    return _varint_bytes(body) + body


@lean_njit
def write_records(messages, order, first, last, out):  # type: ignore[no-untyped-def]
    """Write rows order[first:last] as the records of one batch, and return their bytes."""
    o = 0
    for at in range(first, last):
        row = order[at]
        symbol = messages.symbol[row]
        key, value = messages.lengths[symbol], messages.ends[row] - messages.starts[row]
        o = _put_varint(out, o, _body_bytes(messages, row, at - first))
        out[o], out[o + 1] = 0, 0  # attributes, time since the batch's timestamp
        o = _put_varint(out, o + 2, at - first)
        o = _put_bytes(out, _put_varint(out, o, key), messages.names[symbol], 0, key)
        o = _put_bytes(out, _put_varint(out, o, value), messages.data, messages.starts[row], value)
        if _is_traced(messages, row):
            o = _put_bytes(out, o, TRACE_HEADER, 0, len(TRACE_HEADER))
            o = _put_bytes(out, o, messages.trace, messages.trace_starts[row], TRACE_BYTES)
        else:
            out[o] = 0
            o += 1
    return o


@lean_njit
def _put_varint(out, o, value):  # type: ignore[no-untyped-def]
    """A whole number from 0 on, zigzag."""
    left = np.uint64(value) << np.uint64(1)
    while left >= np.uint64(128):
        out[o] = np.uint8((left & np.uint64(127)) | np.uint64(128))
        left >>= np.uint64(7)
        o += 1
    out[o] = np.uint8(left)
    return o + 1


@lean_njit
def _put_bytes(out, o, text, first, count):  # type: ignore[no-untyped-def]
    to, start = np.uint64(o), np.uint64(first)
    for k in range(np.uint64(count)):
        out[to + k] = text[start + k]
    return o + count
