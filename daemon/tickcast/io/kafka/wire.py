"""Kernels over fetched bytes: Kafka's record batches -> a table of their headers, their checksums, columns of records.

They read message format 2, never beyond a batch's end whatever the bytes are, and decide nothing: what is damaged is
marked as such in the table.
"""

import numpy as np

from tickcast.compiled import inlined_njit, lean_njit
from tickcast.io.kafka.crc32c import crc32c

BATCH = np.dtype(
    [("position", "i8"), ("end", "i8"), ("base", "i8"), ("last", "i8"), ("floor", "i8"), ("attributes", "i8"),
     ("count", "i8"), ("first_ms", "i8"), ("max_ms", "i8"), ("producer", "i8"), ("body", "i8"), ("body_end", "i8"),
     ("state", "i8")]
)  # fmt: skip
"""One record batch: its bytes are `data[position:end]`, its records (decompressed) `body` to `body_end` of theirs;
it has the offsets `base` to `last`, of which those from `floor` on are wanted."""

GOOD, CONTROL, ABORTED, BAD_CHECKSUM, BAD_HEADER, OTHER_FORMAT, UNKNOWN_CODEC, NOT_EXPANDED, BAD_RECORDS, TOO_LARGE = (
    range(10)
)
FIRST_DAMAGED = BAD_CHECKSUM  # the states of a batch from here on
START, END, OFFSET, STAMP, KEY_START, KEY_END, TRACE = range(7)  # rows of what `frame_batches` fills
COLUMNS = 7
OVERHEAD = 12  # of a batch: base offset and length
HEADER = 61  # of a batch of format 2
LEAST_LENGTH = 14  # of any format's
LEAST_RECORD = 7  # bytes
CODEC_MASK, LOG_APPEND, TRANSACTIONAL, IS_CONTROL = 7, 8, 16, 32
MOST_MS = (1 << 63) // 10**6 - 1
MOST_OFFSET = (1 << 63) - (1 << 40)  # no topic comes so far; and the offsets after it still fit
TRACEPARENT = b"traceparent"
NAME_LENGTH, TRACE_LENGTH = len(TRACEPARENT), 55
NAME_HEAD, NAME_TAIL = (int.from_bytes(part, "big") for part in (TRACEPARENT[:8], TRACEPARENT[8:]))


@lean_njit
def big_endian(data, p, size):  # type: ignore[no-untyped-def]
    """A signed number of `size` bytes."""
    number = np.int64(np.int8(data[p]))
    for at in range(p + 1, p + size):
        number = (number << 8) | np.int64(data[at])
    return number


@lean_njit
def varint(data, p, end):  # type: ignore[no-untyped-def]
    """A zigzag number and the position behind it, which is beyond `end` where the bytes are none; and stays so."""
    number, shift = np.uint64(0), np.uint64(0)
    while p < end and shift < np.uint64(70):
        byte = np.uint64(data[p])
        p += 1
        number |= (byte & np.uint64(127)) << shift
        if byte < np.uint64(128):
            return np.int64(number >> np.uint64(1)) ^ -np.int64(number & np.uint64(1)), p
        shift += np.uint64(7)
    return np.int64(0), end + 1


@inlined_njit
def _behind(p, length, end):  # type: ignore[no-untyped-def]
    """The position behind so many bytes; a length of -1 stands for null, which has none."""
    if length == -1:
        return p
    return p + length if 0 <= length <= end - p else end + 1


@lean_njit
def count_batches(data):  # type: ignore[no-untyped-def]
    """How many batches lie in the blob from its start; an incomplete one at the end is none, the broker cuts there."""
    count, p = 0, 0
    while p + OVERHEAD <= len(data):
        length = big_endian(data, p + 8, 4)
        if length < LEAST_LENGTH:
            return count + 1
        p += OVERHEAD + length
        if p > len(data):
            break
        count += 1
    return count


@lean_njit
def read_headers(data, fetch_offset, batches, tables):  # type: ignore[no-untyped-def]
    """Fill the table; returns the offset to fetch next, which lies beyond `fetch_offset` if there is any batch."""
    p, expected = 0, fetch_offset
    for i in range(len(batches)):
        batch = batches[i]
        _read_header(data, p, batch, tables)
        batch.floor = expected
        if not max(expected, batch.base) <= batch.last < MOST_OFFSET:  # the checksum does not cover the base offset
            batch.base, batch.last = expected, expected
            if batch.state < FIRST_DAMAGED:
                batch.state = BAD_HEADER
        expected = batch.last + 1
        p = batch.end
    return expected


@lean_njit
def _read_header(data, p, batch, tables):  # type: ignore[no-untyped-def]
    length = big_endian(data, p + 8, 4)
    batch.position, batch.end = p, p + OVERHEAD + length
    batch.base = big_endian(data, p, 8)
    batch.last = batch.base
    batch.attributes, batch.count, batch.body, batch.body_end = 0, 0, 0, 0
    if length < LEAST_LENGTH:
        batch.end, batch.last, batch.state = len(data), -1, BAD_HEADER  # nobody knows where the next one begins
    elif data[p + 16] != 2:
        batch.state = OTHER_FORMAT
    elif batch.end < p + HEADER:
        batch.state = BAD_HEADER
    else:
        batch.attributes = big_endian(data, p + 21, 2)
        batch.first_ms = big_endian(data, p + 27, 8)
        batch.max_ms = big_endian(data, p + 35, 8)
        batch.producer = big_endian(data, p + 43, 8)
        batch.count = big_endian(data, p + 57, 4)
        batch.body, batch.body_end = p + HEADER, batch.end
        batch.state = CONTROL if batch.attributes & IS_CONTROL else GOOD
        _find_last(data, batch, tables)


@lean_njit
def _find_last(data, batch, tables):  # type: ignore[no-untyped-def]
    """The next position hangs on this: where compaction left a gap, or damage looks like one, the checksum decides."""
    batch.last = batch.base + big_endian(data, batch.position + 23, 4)
    if batch.last != batch.base + batch.count - 1 and not _checks(data, batch, tables):
        batch.last = batch.base + max(min(batch.count - 1, batch.last - batch.base), 0)
        batch.state = BAD_CHECKSUM


@lean_njit
def _checks(data, batch, tables):  # type: ignore[no-untyped-def]
    stated = big_endian(data, batch.position + 17, 4) & 0xFFFFFFFF
    return crc32c(data, batch.position + 21, batch.end, tables) == stated


@lean_njit
def mark_aborted(data, batches, aborted, state):  # type: ignore[no-untyped-def]
    """Mark the batches of aborted transactions: `aborted` holds (producer, first offset), `state` a zero for each."""
    waiting, open_, over = 0, 1, 2
    for i in range(len(batches)):
        batch = batches[i]
        for j in range(len(aborted)):
            if state[j] == waiting and aborted[j, 1] <= batch.base:
                state[j] = open_
            if state[j] != open_ or aborted[j, 0] != batch.producer:
                continue
            if batch.state == CONTROL and _is_abort(data, batch):
                state[j] = over
            elif batch.state == GOOD and batch.attributes & TRANSACTIONAL:
                batch.state = ABORTED


@lean_njit
def _is_abort(data, batch):  # type: ignore[no-untyped-def]
    """The key of a control batch's one record is a version and a kind; 0 = abort, 1 = commit."""
    p, end = batch.body, batch.body_end
    _, p = varint(data, p, end)
    _, p = varint(data, p + 1, end)
    _, p = varint(data, p, end)
    length, p = varint(data, p, end)
    return length >= 4 and length <= end - p and big_endian(data, p + 2, 2) == 0


@lean_njit
def check_batches(data, batches, tables):  # type: ignore[no-untyped-def]
    for i in range(len(batches)):
        if batches[i].state < FIRST_DAMAGED and not _checks(data, batches[i], tables):
            batches[i].state = BAD_CHECKSUM


@lean_njit
def frame_batches(data, batches, out):  # type: ignore[no-untyped-def]
    """Fill the columns with the records of the good batches; returns how many, and how many have a traceparent."""
    row, traced = 0, 0
    for i in range(len(batches)):
        if batches[i].state == GOOD:
            framed, found = _frame_batch(data, batches[i], out, row)
            if framed < 0:
                batches[i].state = BAD_RECORDS
            else:
                row, traced = framed, traced + found
    return row, traced


@lean_njit
def _frame_batch(data, batch, out, row):  # type: ignore[no-untyped-def]
    """The next free row, or -1 where the records do not add up; then rows from `row` on hold nothing of worth."""
    p, end, base, most = batch.body, batch.body_end, batch.base, batch.last - batch.base
    first_ms, floor, newest, traced = batch.first_ms, batch.floor, -1, 0
    for _ in range(batch.count):
        length, p = varint(data, p, end)
        if length < 0 or length > end - p:
            return -1, 0
        stop = p + length
        delta_ms, p = varint(data, p + 1, stop)  # behind a byte of attributes that mean nothing
        delta, p = varint(data, p, stop)
        key_length, key = varint(data, p, stop)
        p = _behind(key, key_length, stop)
        value_length, value = varint(data, p, stop)
        p = _behind(value, value_length, stop)
        headers, p = varint(data, p, stop)
        trace = np.int64(-1)
        if headers != 0:
            p, trace = _read_headers_of(data, p, stop, headers)
        if p != stop or delta <= newest or delta > most:
            return -1, 0
        newest = delta
        if base + delta >= floor:
            out[START, row] = value if value_length >= 0 else -1
            out[END, row] = value + value_length if value_length >= 0 else -1
            out[OFFSET, row] = base + delta
            out[STAMP, row] = _to_ns(batch.max_ms if batch.attributes & LOG_APPEND else first_ms + delta_ms)
            out[KEY_START, row] = key if key_length >= 0 else -1
            out[KEY_END, row] = key + key_length if key_length >= 0 else -1
            out[TRACE, row] = trace
            traced += int(trace >= 0)
            row += 1
    return (row, traced) if p == end else (-1, 0)


@inlined_njit
def _to_ns(ms):  # type: ignore[no-untyped-def]
    return ms * 1_000_000 if 0 <= ms <= MOST_MS else -1


@lean_njit
def _read_headers_of(data, p, stop, count):  # type: ignore[no-untyped-def]
    """The position behind a record's headers, beyond `stop` where they are none; where a traceparent starts, or -1."""
    trace = np.int64(-1)
    if count < 0 or count > stop - p:
        return stop + 1, trace
    for _ in range(count):
        length, name = varint(data, p, stop)
        p = _behind(name, length, stop)
        value_length, value = varint(data, p, stop)
        if length < 0 or value > stop:
            return stop + 1, trace
        p = _behind(value, value_length, stop)
        if trace < 0 and value_length == TRACE_LENGTH and p <= stop and _is_traceparent(data, name, length):
            trace = value
    return p, trace


@inlined_njit
def _is_traceparent(data, name, length):  # type: ignore[no-untyped-def]
    if length != NAME_LENGTH:
        return False
    return big_endian(data, name, 8) == NAME_HEAD and big_endian(data, name + 8, 3) == NAME_TAIL
