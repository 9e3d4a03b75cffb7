"""What one fetch brought of one partition, as the broker sent it -> columns of its records. It does no input or output.

`Blob.scan` reads headers only and is cheap enough for the event loop; `open_blob` checks, decompresses and frames, on
the engine thread.
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

import cramjam
import numpy as np
import numpy.typing as npt

from tickcast.columns import I64, U8, RawBatch
from tickcast.io.kafka import wire
from tickcast.io.kafka.crc32c import TABLES
from tickcast.settings.buses import KafkaSettings

MOST_EXPANDED_BYTES = KafkaSettings().expanded_bytes
MOST_TIMES = 100  # larger than compressed: ticks, of which each says something new, reach some 20
ALWAYS_BYTES = 16 << 10  # may become of any batch
FIRST_GUESS = 4  # how many times larger records are than compressed; grows with what is seen
NO_ROOM = "failed to write whole buffer", "is smaller than required"  # what the codecs say of it
XERIAL = b"\x82SNAPPY\x00"  # the framing of Java's snappy
XERIAL_HEADER = 16
REASONS = {
    wire.BAD_CHECKSUM: "the checksum does not match the bytes",
    wire.BAD_HEADER: "the header of the batch makes no sense",
    wire.OTHER_FORMAT: "the message format is not 2",
    wire.UNKNOWN_CODEC: "the codec is unknown",
    wire.NOT_EXPANDED: "the compressed records are broken",
    wire.TOO_LARGE: "the records are larger, once decompressed, than this daemon allows",
    wire.BAD_RECORDS: "the records do not fit the batch",
}

Expand = Callable[[memoryview, memoryview], int]
Table = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Damaged:
    """A batch that cannot be read; its offsets are what its header says, which may be all that is wrong."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int
    reason: str
    data: bytes  # the whole batch as it came
    too_large: bool = False  # when decompressed; nothing else is wrong with it, as far as it was looked at


@dataclass(frozen=True, slots=True)
class Blob:
    """The batches that a fetch brought of a partition; those of control and of aborted transactions are marked."""

    topic: str
    partition: int
    data: bytes
    batches: Table  # wire.BATCH
    fetch_offset: int
    next_offset: int

    def __len__(self) -> int:
        """Records, as the headers tell it."""
        return max(int(self.batches["count"].sum()), 0)

    @classmethod
    def scan(
        cls, topic: str, partition: int, data: bytes, fetch_offset: int, aborted: Iterable[tuple[int, int]] = ()
    ) -> Self:
        """`aborted` names producer and first offset of each aborted transaction; empty where all is to be read."""
        view = np.frombuffer(data, np.uint8)
        batches = np.empty(int(wire.count_batches(view)), wire.BATCH)
        next_offset = int(wire.read_headers(view, fetch_offset, batches, TABLES))
        ended = np.array([*aborted], np.int64).reshape(-1, 2)
        if len(ended):
            wire.mark_aborted(view, batches, ended, np.zeros(len(ended), np.int64))
        return cls(topic, partition, data, batches, fetch_offset, next_offset)


def open_blob(blob: Blob, *, most_bytes: int = MOST_EXPANDED_BYTES) -> tuple[list[RawBatch], list[Damaged]]:
    """Its records in the order of their offsets, as one RawBatch or none, and what of it cannot be read.

    No batch becomes larger than `most_bytes`, nor than MOST_TIMES its own size, whatever its compressed bytes say.
    """
    batches = blob.batches.copy()
    wire.check_batches(np.frombuffer(blob.data, np.uint8), batches, TABLES)
    if (batches["attributes"][batches["state"] == wire.GOOD] & wire.CODEC_MASK).any():
        data = _expanded(blob.data, batches, most_bytes)
    else:
        data = np.frombuffer(bytearray(blob.data), np.uint8)  # kernels are compiled for arrays that may be written to
    raw = _frame(blob, data, batches)
    damaged = [_damaged(blob, batch) for batch in batches[batches["state"] >= wire.FIRST_DAMAGED]]
    return ([raw] if len(raw) else []), damaged


def _frame(blob: Blob, data: U8, batches: Table) -> RawBatch:
    good = batches["state"] == wire.GOOD
    too_many = batches["count"] * wire.LEAST_RECORD > batches["body_end"] - batches["body"]
    batches["state"][good & (too_many | (batches["count"] < 0))] = wire.BAD_RECORDS
    columns: I64 = np.empty((wire.COLUMNS, int(batches["count"][batches["state"] == wire.GOOD].sum())), np.int64)
    rows, traced = wire.frame_batches(data, batches, columns)
    starts, ends, offsets, stamps, key_starts, key_ends, trace = columns[:, :rows]
    return RawBatch(
        blob.topic, blob.partition, data, starts, ends, offsets, stamps_ns=stamps, keys=(key_starts, key_ends),
        trace=trace if traced else None,
    )  # fmt: skip


def _damaged(blob: Blob, batch: Any) -> Damaged:
    return Damaged(
        blob.topic, blob.partition, first_offset=int(batch["base"]), last_offset=int(batch["last"]),
        reason=REASONS[int(batch["state"])], data=blob.data[int(batch["position"]) : int(batch["end"])],
        too_large=bool(batch["state"] == wire.TOO_LARGE),
    )  # fmt: skip


def _expanded(data: bytes, batches: Table, most_bytes: int) -> U8:
    """The records of all good batches in one buffer, and in the table where they lie there."""
    arena, whole = _Arena(len(data)), memoryview(data)
    rows = np.flatnonzero(batches["state"] == wire.GOOD)
    codecs = (batches["attributes"][rows] & wire.CODEC_MASK).tolist()
    packed = zip(batches["body"][rows].tolist(), batches["body_end"][rows].tolist(), strict=True)
    states, bounds = [], []
    for codec, (start, end) in zip(codecs, packed, strict=True):
        state, found = wire.GOOD, (0, 0)
        if codec not in EXPAND:
            state = wire.UNKNOWN_CODEC
        else:
            try:
                most = min(max(MOST_TIMES * (end - start), ALWAYS_BYTES), most_bytes) if codec else end - start
                found = arena.add(EXPAND[codec], whole[start:end], most)
            except (cramjam.DecompressionError, struct.error) as error:
                state = wire.TOO_LARGE if any(said in str(error) for said in NO_ROOM) else wire.NOT_EXPANDED
        states.append(state)
        bounds.append(found)
    batches["state"][rows] = states
    batches["body"][rows], batches["body_end"][rows] = np.array(bounds, np.int64).T
    return arena.data


class _Arena:
    """A buffer that grows; a batch is expanded right into it, with more room from try to try, up to its bound."""

    def __init__(self, packed_bytes: int) -> None:
        self._used = 0
        self._times = FIRST_GUESS
        self.data: U8 = np.empty(FIRST_GUESS * packed_bytes, np.uint8)
        self._view = memoryview(self.data)  # type: ignore[arg-type]

    def add(self, expand: Expand, packed: memoryview, most_bytes: int) -> tuple[int, int]:
        """Where the records lie now."""
        start = self._used
        room = min(max(self._times * len(packed), ALWAYS_BYTES), most_bytes)
        while True:
            if start + room > len(self.data):
                self._resize(max(2 * len(self.data), start + room))
            try:
                size = expand(packed, self._view[start : start + room])
                break
            except cramjam.DecompressionError:  # too little room, or broken: the codecs do not say it in one way
                if room == most_bytes:
                    raise
                room = min(4 * room, most_bytes)
        self._used += size
        if size > self._times * len(packed):
            self._times = size // len(packed) + 1
        return start, self._used

    def _resize(self, size: int) -> None:
        data: U8 = np.empty(size, np.uint8)
        data[: self._used] = self.data[: self._used]
        self.data = data
        self._view = memoryview(data)  # type: ignore[arg-type]


def _copy(packed: memoryview, room: memoryview) -> int:
    if len(packed) > len(room):
        raise cramjam.DecompressionError("no room")
    room[: len(packed)] = packed
    return len(packed)


def _expand_snappy(packed: memoryview, room: memoryview) -> int:
    """Java frames blocks of it, others write one block without a frame."""
    if packed[: len(XERIAL)] != XERIAL:
        return int(cramjam.snappy.decompress_raw_into(packed, room))
    at, used = XERIAL_HEADER, 0
    while at < len(packed):
        (length,) = struct.unpack_from(">i", packed, at)
        at += 4
        if not 0 < length <= len(packed) - at:
            raise struct.error("a snappy block does not fit")
        used += int(cramjam.snappy.decompress_raw_into(packed[at : at + length], room[used:]))
        at += length
    return used


EXPAND: dict[int, Expand] = {
    0: _copy,
    1: cramjam.gzip.decompress_into,
    2: _expand_snappy,
    3: cramjam.lz4.decompress_into,
    4: cramjam.zstd.decompress_into,
}
