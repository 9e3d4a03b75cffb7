"""What tests of the Kafka wire share: record batches by the client's own builder, bent on purpose, and its reading."""

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from tickcast.columns import RawBatch
from tickcast.io.kafka.blob import Blob, Damaged, open_blob
from tickcast.io.kafka.wire import MOST_MS, TRACE_LENGTH, TRACEPARENT

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
CODECS = (NONE, GZIP, SNAPPY, LZ4, ZSTD)
TRANSACTIONAL, CONTROL, LOG_APPEND = 16, 32, 8
ABORT, COMMIT = 0, 1
T0_MS = 1_700_000_000_000
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LEADER_EPOCH, MAGIC, CRC, ATTRIBUTES, LAST_DELTA, MAX_MS, COUNT, BODY = 12, 16, 17, 21, 23, 35, 57, 61

Header = tuple[str, bytes | None]


class Message(NamedTuple):
    value: bytes | None = b"{}"
    key: bytes | None = None
    headers: Sequence[Header] = ()
    ms: int = T0_MS
    delta: int | None = None  # its offset, counted from the batch's first; None = the next one


class Row(NamedTuple):
    offset: int
    stamp_ns: int
    key: bytes | None
    value: bytes | None
    trace: bytes | None


def batch(
    messages: Iterable[Message], *, base: int = 0, codec: int = NONE, producer: int = -1, extra: int = 0
) -> bytes:
    """One record batch; `extra` are bits for its attributes. It is compressed only where that makes it smaller."""
    builder = DefaultRecordBatchBuilder(2, codec, False, producer, 0, 0, 1 << 30)
    at = -1
    for message in messages:
        at = at + 1 if message.delta is None else message.delta
        builder.append(at, message.ms, message.key, message.value, [*message.headers])
    made = bytearray(builder.build())
    attributes = struct.unpack_from(">h", made, ATTRIBUTES)[0] | extra
    return bent(bytes(made), (0, ">q", base), (ATTRIBUTES, ">h", attributes))


def framed(body: bytes, *, count: int, base: int = 0, codec: int = NONE, last: int | None = None) -> bytes:
    """A batch with this body, whatever it is, and a checksum that matches it."""
    header = struct.pack(
        ">qiibIhiqqqhii", base, 49 + len(body), 0, 2, 0, codec, count - 1 if last is None else last, T0_MS, T0_MS,
        -1, -1, -1, count,
    )  # fmt: skip
    return bent(header + body)


def bent(made: bytes, *places: tuple[int, str, int]) -> bytes:
    """With other numbers at some places, and a checksum that matches them."""
    data = bytearray(made)
    for at, form, number in places:
        struct.pack_into(form, data, at, number)
    struct.pack_into(">I", data, CRC, calc_crc32c(bytes(data[ATTRIBUTES:])))
    return bytes(data)


def marker(kind: int, *, producer: int, base: int) -> bytes:
    """The control batch that ends a transaction."""
    end = Message(struct.pack(">hi", 0, 0), struct.pack(">hh", 0, kind))
    return batch([end], base=base, producer=producer, extra=TRANSACTIONAL | CONTROL)


def rows(batches: Iterable[RawBatch]) -> list[Row]:
    return [_row(raw, i) for raw in batches for i in range(len(raw))]


def _row(raw: RawBatch, i: int) -> Row:
    key = trace = None
    assert raw.keys is not None
    if raw.keys[0][i] >= 0:
        key = raw.data[raw.keys[0][i] : raw.keys[1][i]].tobytes()
    if raw.trace is not None and raw.trace[i] >= 0:
        trace = raw.data[raw.trace[i] : raw.trace[i] + len(TRACE)].tobytes()
    value = None if raw.is_null(i) else raw.message(i)
    return Row(int(raw.offsets[i]), int(raw.stamps_ns[i]), key, value, trace)


def opened(
    data: bytes, *, fetch_offset: int = 0, aborted: Iterable[tuple[int, int]] = (), most_bytes: int = 1 << 24
) -> tuple[list[Row], list[Damaged], int]:
    """Rows, damage and next position, by our way."""
    blob = Blob.scan("t", 0, data, fetch_offset, aborted)
    batches, damaged = open_blob(blob, most_bytes=most_bytes)
    return rows(batches), damaged, blob.next_offset


def by_client(
    data: bytes, *, fetch_offset: int = 0, aborted: Iterable[tuple[int, int]] = (), committed: bool = True
) -> tuple[list[Row], int]:
    """Rows and next position, as the client itself reads them."""
    tp = TopicPartition("t", 0)
    records = fetcher.PartitionRecords(
        tp, fetcher.MemoryRecords(data), [*aborted], fetch_offset, None, None, True, int(committed)
    )
    read = [*records]
    return rows(plain_batches({tp: read})), records.next_fetch_offset


def plain_batches(fetched: dict[TopicPartition, list[ConsumerRecord]]) -> list[RawBatch]:
    """What `getmany` of an ordinary consumer of raw bytes gives, in our columns: as the client itself reads it."""
    return [_plain_batch(tp, records) for tp, records in fetched.items() if records]


def _plain_batch(tp: TopicPartition, records: list[ConsumerRecord]) -> RawBatch:
    pieces = [piece for record in records for piece in (record.value, record.key, _traceparent(record.headers))]
    lengths = np.fromiter((0 if piece is None else len(piece) for piece in pieces), np.int64, len(pieces))
    ends = np.cumsum(lengths)
    starts = ends - lengths
    missing = np.fromiter((piece is None for piece in pieces), bool, len(pieces))
    trace = np.where(missing[2::3], -1, starts[2::3])
    return RawBatch(
        tp.topic, tp.partition, np.frombuffer(bytearray().join(piece for piece in pieces if piece), np.uint8),
        np.where(missing[::3], -1, starts[::3]), np.where(missing[::3], -1, ends[::3]),
        np.fromiter((r.offset for r in records), np.int64, len(records)),
        np.fromiter((_ns(r.timestamp) for r in records), np.int64, len(records)),
        (np.where(missing[1::3], -1, starts[1::3]), np.where(missing[1::3], -1, ends[1::3])),
        None if missing[2::3].all() else trace,
    )  # fmt: skip


def _ns(ms: int) -> int:
    return ms * 10**6 if 0 <= ms <= MOST_MS else -1


def _traceparent(headers: Iterable[tuple[str, bytes | None]]) -> bytes | None:
    name = TRACEPARENT.decode()
    return next((v for k, v in headers if k == name and v is not None and len(v) == TRACE_LENGTH), None)


def judge(data: bytes, fetch_offset: int, aborted: Iterable[tuple[int, int]]) -> tuple[list[Row], list[Damaged]]:
    """What must hold of any bytes whatever; returns rows and damage."""
    blob = Blob.scan("t", 0, data, fetch_offset, aborted)
    batches, damaged = open_blob(blob, most_bytes=1 << 20)
    if len(blob.batches):
        assert blob.next_offset > fetch_offset
    for raw in batches:
        assert (raw.starts >= -1).all()
        assert (raw.ends[raw.starts < 0] == -1).all()
        assert (raw.starts <= raw.ends).all()
        assert (raw.ends <= len(raw.data)).all()
        assert raw.keys is not None
        assert (raw.keys[0] <= raw.keys[1]).all()
        assert (raw.keys[1] <= len(raw.data)).all()
        assert raw.trace is None or (raw.trace + len(TRACE) <= len(raw.data)).all()
        assert (np.diff(raw.offsets) > 0).all()
        assert (raw.offsets >= fetch_offset).all()
        assert (raw.offsets < blob.next_offset).all()
    for d in damaged:
        assert d.data in data
        assert fetch_offset < blob.next_offset
        assert d.first_offset <= d.last_offset < blob.next_offset
    return rows(batches), damaged
