"""From found fields to a row or a reject: the one place that says what makes a tick. It reads no text.

The scanner and the careful path both fill a `Found` and end in `settle`, so they cannot judge differently.
"""

from typing import Any, NamedTuple

import numpy as np

from tickcast.columns import F64, I32, I64, U8, U64, Rejects, TickBatch
from tickcast.compiled import inlined_njit, lean_njit
from tickcast.errors import Reason
from tickcast.symbols import FULL, NAME_BYTES, UNFIT, find_or_add
from tickcast.words import part_at

SYMBOL, TS, PRICE, SIZE, BID, ASK, SEQUENCE, EVENT, WRAPPED = range(9)
FIELDS = 9
FIRST, LAST = SYMBOL, EVENT  # slots of Found.whole that no number needs
KNOWN = 1 << 15  # names that are found without asking the table
MISSING, GOOD, BAD = 0, 1, 2  # null is missing
NO_EVENT, EVENT_OPTIONAL, EVENT_NEEDED = 0, 1, 2

MISSING_FIELD, BAD_NUMBER, BAD_TIME = int(Reason.MISSING_FIELD), int(Reason.BAD_NUMBER), int(Reason.BAD_TIME)
BAD_SYMBOL, SYMBOL_LIMIT, OTHER_EVENT = int(Reason.BAD_SYMBOL), int(Reason.SYMBOL_LIMIT), int(Reason.OTHER_EVENT)


class TickFields(NamedTuple):
    """What one message holds, by field; reused for the next."""

    state: U8
    number: F64  # price, size, bid, ask
    whole: I64  # ts, sequence; at FIRST and LAST where the symbol begins and ends


class Naming(NamedTuple):
    """How a symbol's bytes become a code."""

    prefix: U8
    scratch: U8  # room for prefix and symbol
    known: U64  # [KNOWN, 8], a cache line each: length + 64 x code of a name met before (0 = none), its six words


class Judged(NamedTuple):
    """What a feed asks of a message beyond the fields themselves."""

    event: int  # NO_EVENT, EVENT_OPTIONAL, EVENT_NEEDED
    stamped: bool  # a missing event time is the record's broker stamp


class TickRows(NamedTuple):
    """Columns as kernels fill them; a row with a reason is a reject."""

    symbol: I32
    ts: I64
    price: F64
    size: F64
    bid: F64
    ask: F64
    sequence: I64
    reason: U8


def found() -> TickFields:
    return TickFields(np.zeros(FIELDS, np.uint8), np.zeros(FIELDS), np.zeros(FIELDS, np.int64))


def naming(prefix: str) -> Naming:
    text = np.frombuffer(bytearray(prefix.encode()), np.uint8)
    return Naming(text, np.zeros(NAME_BYTES, np.uint8), np.zeros((KNOWN, 8), np.uint64))


def rows(count: int) -> TickRows:
    """Columns in one block: the allocator keeps a large one for reuse, where it would return eight smaller ones."""
    wide = np.empty((7, count), np.int64)  # six wide columns; the last row is room for the two narrow ones
    ts, sequence, price, size, bid, ask = wide[0], wide[1], *wide[2:6].view(np.float64)
    narrow = wide[6].view(np.int32)
    return TickRows(
        symbol=narrow[:count], ts=ts, price=price, size=size, bid=bid, ask=ask, sequence=sequence,
        reason=narrow[count:].view(np.uint8)[:count],
    )  # fmt: skip


def collect(filled: TickRows, message: I32) -> tuple[TickBatch, Rejects]:
    """The accepted rows and the rejects, each in order. `message` says where each row came from."""
    columns: list[Any] = [*filled[:-1], message, _numbers(message)]
    reason = filled.reason
    if not reason.any():
        return TickBatch(*columns), Rejects(message[:0], reason[:0], message[:0])
    good = reason == Reason.ACCEPTED
    row, number = columns[-2:]
    return TickBatch(*[column[good] for column in columns]), Rejects(row[~good], reason[~good], number[~good])


def _numbers(message: I32) -> I32:
    """Which row of its message each row is. Every message has one at least."""
    count = len(message)
    if not count or message[-1] == count - 1:
        return np.broadcast_to(np.int32(0), count)
    numbers = np.empty(count, np.int32)
    number_rows(np.ascontiguousarray(message), numbers)
    return numbers


@lean_njit
def number_rows(message, numbers):  # type: ignore[no-untyped-def]
    numbers[0] = 0
    for i in range(1, len(message)):
        numbers[i] = numbers[i - 1] + 1 if message[i] == message[i - 1] else 0


@inlined_njit
def settle(state, number, whole, judged, naming, data, stamp, table, rows, i):  # type: ignore[no-untyped-def]
    """Write row i from what was found in a message; `data` holds the symbol's bytes. Only a tick adds a symbol."""
    reason = _judge(state, judged, stamp)
    if reason == 0:
        code = name_code(naming, data, whole[FIRST], whole[LAST], table)
        if code < 0:
            reason = SYMBOL_LIMIT if code == FULL else BAD_SYMBOL
        else:
            rows.symbol[i] = code
    rows.reason[i] = reason
    if reason != 0:
        return
    rows.ts[i] = whole[TS] if state[TS] == GOOD else stamp
    bid = number[BID] if state[BID] == GOOD else np.nan
    ask = number[ASK] if state[ASK] == GOOD else np.nan
    rows.price[i] = number[PRICE] if state[PRICE] == GOOD else 0.5 * (bid + ask)
    rows.size[i] = number[SIZE] if state[SIZE] == GOOD else 0.0
    rows.bid[i] = bid
    rows.ask[i] = ask
    rows.sequence[i] = whole[SEQUENCE] if state[SEQUENCE] == GOOD else -1


@inlined_njit
def _judge(state, judged, stamp):  # type: ignore[no-untyped-def]
    """The first reason that applies, in the order in which they would puzzle a reader least."""
    quoted = state[BID] != MISSING and state[ASK] != MISSING
    if judged.event != NO_EVENT:
        if state[EVENT] == BAD:
            return OTHER_EVENT
        bare = state[SYMBOL] == MISSING and state[PRICE] == MISSING and not quoted
        if state[EVENT] == MISSING and (judged.event == EVENT_NEEDED or bare):
            return OTHER_EVENT
    timeless = state[TS] == MISSING
    if state[SYMBOL] == MISSING or (timeless and not judged.stamped) or (state[PRICE] == MISSING and not quoted):
        return MISSING_FIELD
    if state[SYMBOL] == BAD:
        return BAD_SYMBOL
    if state[TS] == BAD or (timeless and stamp < 0):
        return BAD_TIME
    for f in range(PRICE, SEQUENCE + 1):
        if state[f] == BAD:
            return BAD_NUMBER
    return 0


@inlined_njit
def name_code(naming, data, first, last, table):  # type: ignore[no-untyped-def]
    """Code of prefix + data[first:last], added if new; FULL or UNFIT as `find_or_add`.

    Names met before are found eight bytes at a time, in a slot that the newest name of its hash holds.
    """
    length, end = last - first, np.int64(len(data))
    if length <= 0 or length > NAME_BYTES:
        return np.int64(UNFIT)
    words, h = (length + 7) >> 3, np.uint64(length)
    for k in range(words):
        h = (h ^ part_at(data, first + 8 * k, min(length - 8 * k, 8), end)) * np.uint64(0x9E3779B97F4A7C15)
        h ^= h >> np.uint64(29)
    slot = np.int64(h & np.uint64(KNOWN - 1))
    tag = np.int64(naming.known[slot, 0])
    if tag & 63 == length:
        same = True
        for k in range(words):
            same = same and naming.known[slot, k + 1] == part_at(data, first + 8 * k, min(length - 8 * k, 8), end)
        if same:
            return tag >> 6
    code = _prefixed_code(naming, data, first, last, table)
    if code >= 0:
        naming.known[slot, 0] = np.uint64(length + 64 * code)
        for k in range(words):
            naming.known[slot, k + 1] = part_at(data, first + 8 * k, min(length - 8 * k, 8), end)
    return code


@lean_njit
def _prefixed_code(naming, data, first, last, table):  # type: ignore[no-untyped-def]
    prefix = len(naming.prefix)
    length = prefix + last - first
    if prefix == 0 or length > NAME_BYTES:
        return np.int64(find_or_add(table, data, first, first + length))
    for k in range(prefix):
        naming.scratch[k] = naming.prefix[k]
    for k in range(last - first):
        naming.scratch[prefix + k] = data[first + k]
    return np.int64(find_or_add(table, naming.scratch, 0, length))
