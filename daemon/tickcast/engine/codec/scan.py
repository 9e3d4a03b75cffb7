"""The JSON scanner: kernels that read the wanted fields of many messages at once, whatever the order of the keys.

It accepts only what it reads with certainty: plain ASCII JSON without escapes where it matters. At the first message it
is unsure of it stops, and the careful path takes that one. It never reads beyond a message's end, whatever the bytes.
"""

from typing import NamedTuple

import numpy as np

from tickcast.columns import I64, U8, U64
from tickcast.compiled import inlined_njit, lean_njit
from tickcast.engine.codec.parse import read_number, read_time, to_double, to_ns
from tickcast.engine.codec.ticks import (
    BAD,
    EVENT,
    FIELDS,
    FIRST,
    GOOD,
    LAST,
    MISSING,
    SEQUENCE,
    SYMBOL,
    TS,
    WRAPPED,
    settle,
)
from tickcast.errors import Reason
from tickcast.words import part_at, plain_end

EMPTY, TOO_LARGE = int(Reason.EMPTY), int(Reason.TOO_LARGE)
UNSURE = -1
VALUE = FIELDS  # row of the event value in the names
UNWANTED = -1  # the field of a key that no field is mapped to
DEEPEST = 63  # levels of nesting that fit the scanner's stack of bits
QUOTE, COMMA, COLON, BACKSLASH, MINUS = 34, 44, 58, 92, 45
OPEN_ARRAY, OPEN_OBJECT, CLOSE_ARRAY, CLOSE_OBJECT = 91, 123, 93, 125


class ScanPlan(NamedTuple):
    """What the scanner looks for."""

    names: U8  # [FIELDS + 1, longest]: keys by field, then the value of the event field that makes a tick
    heads: U64  # their first eight bytes
    lengths: I64  # 0 = field not mapped
    unit: int  # power of ten that makes a numeric time ns


def plan(names: tuple[str, ...], event: str, unit: int) -> ScanPlan:
    coded = [name.encode() for name in (*names, event)]
    table = np.zeros((len(coded), max(map(len, coded)) + 1), np.uint8)
    for f, name in enumerate(coded):
        table[f, : len(name)] = np.frombuffer(name, np.uint8)
    lengths = np.array([len(name) for name in coded], np.int64)
    heads = np.array([int.from_bytes(name[:8], "little") for name in coded], np.uint64)
    return ScanPlan(table, heads, lengths, unit)


@lean_njit
def scan_messages(data, starts, ends, stamps, first, max_bytes, plan, judged, naming, found, table, rows):  # type: ignore[no-untyped-def]
    """Fill rows from `first` on; returns the first message that the careful path must read, or their count."""
    names, heads, lengths, unit = plan
    state, number, whole = found
    reason = rows.reason
    for i in range(first, len(starts)):
        p, end = starts[i], ends[i]
        if p >= end:
            reason[i] = EMPTY
        elif end - p > max_bytes:
            reason[i] = TOO_LARGE
        else:
            for f in range(FIELDS):
                state[f] = MISSING
            p = scan_object(data, p, end, names, heads, lengths, unit, state, number, whole)
            if p < 0 or _blank(data, p, end) < end:
                return i
            settle(state, number, whole, judged, naming, data, stamps[i], table, rows, i)
    return len(starts)


@inlined_njit
def scan_object(data, p, end, names, heads, lengths, unit, state, number, whole):  # type: ignore[no-untyped-def]
    """Read one object, going down into the wrapper's; returns the position after it, or UNSURE."""
    p = _blank(data, p, end)
    if p >= end or data[p] != OPEN_OBJECT:
        return UNSURE
    seen, inside, wrapped = 0, False, False  # bits of the fields met; now in the wrapped object; there was one
    p = _blank(data, p + 1, end)
    while True:
        if p >= end or data[p] != QUOTE:
            return UNSURE
        first = p + 1
        last = plain_end(data, first, end)
        p = _colon(data, last, end)
        if p < 0:
            return UNSURE
        f = _field_of(data, first, last, end, names, heads, lengths)
        if f == WRAPPED or (wrapped and not inside):
            if f == WRAPPED and not inside and data[p] == OPEN_OBJECT:
                if seen != 0:
                    return UNSURE
                inside = wrapped = True
                p = _blank(data, p + 1, end)
                continue
            if f == WRAPPED and not inside:
                return UNSURE
            f = UNWANTED
        if f < 0:
            p = _skip(data, p, end)
        else:
            if (seen >> f) & 1:
                return UNSURE
            seen |= 1 << f
            p = _read_value(data, p, end, f, names, heads, lengths, unit, state, number, whole)
        if p < 0:
            return UNSURE
        p = _blank(data, p, end)
        if p < end and inside and data[p] == CLOSE_OBJECT:
            inside = False
            p = _blank(data, p + 1, end)
        if p >= end:
            return UNSURE
        if data[p] == CLOSE_OBJECT:
            return p + 1
        if data[p] != COMMA:
            return UNSURE
        p = _blank(data, p + 1, end)


@lean_njit
def _blank(data, p, end):  # type: ignore[no-untyped-def]
    """Position of the first byte at or after p that is no white space."""
    while p < end and data[p] <= 32 and (data[p] == 32 or data[p] == 10 or data[p] == 13 or data[p] == 9):
        p += 1
    return p


@lean_njit
def _colon(data, quote, end):  # type: ignore[no-untyped-def]
    """Position of the value after a key that ends at `quote`, or UNSURE."""
    if quote < 0:
        return UNSURE
    p = _blank(data, quote + 1, end)
    if p >= end or data[p] != COLON:
        return UNSURE
    p = _blank(data, p + 1, end)
    return p if p < end else UNSURE


@inlined_njit
def _field_of(data, first, last, end, names, heads, lengths):  # type: ignore[no-untyped-def]
    """The field that is mapped to the key data[first:last]."""
    length = last - first
    if length == 0:
        return UNWANTED
    head = part_at(data, first, min(length, 8), end)
    for f in range(FIELDS):
        if lengths[f] == length and heads[f] == head and _same_rest(data, first, length, names, f):
            return f
    return UNWANTED


@lean_njit
def _same_rest(data, first, length, names, f):  # type: ignore[no-untyped-def]
    for k in range(8, length):  # noqa: SIM110 - kernels know no generators
        if data[first + k] != names[f, k]:
            return False
    return True


@inlined_njit
def _read_value(data, p, end, f, names, heads, lengths, unit, state, number, whole):  # type: ignore[no-untyped-def]
    """Read the value at p into field f; returns the position after it, or UNSURE."""
    c = data[p]
    if c == QUOTE:
        last = plain_end(data, p + 1, end)
        if last < 0 or not _read_text(data, p + 1, last, f, names, heads, lengths, unit, state, number, whole):
            return UNSURE
        return last + 1
    if c == MINUS or 48 <= c <= 57:
        after, mantissa, exponent = read_number(data, p, end)
        if after < 0:
            return UNSURE
        if f in (SYMBOL, EVENT):
            state[f] = BAD
        elif not _put_number(mantissa, exponent, f, unit, state, number, whole):
            return UNSURE
        return after
    state[f] = MISSING if c == 110 else BAD  # null; true, false, an array or an object are no values of ours
    return _skip(data, p, end)


@inlined_njit
def _read_text(data, first, last, f, names, heads, lengths, unit, state, number, whole):  # type: ignore[no-untyped-def]
    """Read the text data[first:last] into field f; False if unsure."""
    if f == SYMBOL:
        whole[FIRST], whole[LAST] = first, last
        state[f] = GOOD
        return True
    if f == EVENT:
        length = last - first
        same = length == lengths[VALUE] and part_at(data, first, min(length, 8), last) == heads[VALUE]
        state[f] = GOOD if same and _same_rest(data, first, length, names, VALUE) else BAD
        return True
    after, mantissa, exponent = read_number(data, first, last)
    if after == last:
        return _put_number(mantissa, exponent, f, unit, state, number, whole)
    if f != TS:
        return False
    ns, good = read_time(data, first, last)
    whole[f] = ns
    state[f] = GOOD
    return good


@inlined_njit
def _put_number(mantissa, exponent, f, unit, state, number, whole):  # type: ignore[no-untyped-def]
    state[f] = GOOD
    if f == TS:
        ns, sure = to_ns(mantissa, exponent, unit)
        whole[f] = ns
        return sure
    if f == SEQUENCE:
        whole[f] = mantissa
        return exponent == 0
    value, sure = to_double(mantissa, exponent)
    number[f] = value
    return sure


@lean_njit
def _skip(data, p, end):  # type: ignore[no-untyped-def]
    """Position after the value at p, checked in full; UNSURE if it is not plain JSON."""
    if data[p] != OPEN_ARRAY and data[p] != OPEN_OBJECT:
        return _skip_scalar(data, p, end)
    objects, depth = np.uint64(0), 0  # one bit a level, the innermost lowest: 1 = object
    while True:
        if p >= end:
            return UNSURE
        c = data[p]
        if c in (OPEN_ARRAY, OPEN_OBJECT):
            if depth == DEEPEST:
                return UNSURE
            objects = (objects << np.uint64(1)) | np.uint64(c == OPEN_OBJECT)
            depth += 1
            p = _blank(data, p + 1, end)
            if p < end and data[p] != c + 2:  # not empty: ']' and '}' lie two after '[' and '{'
                p = _skip_key(data, p, end) if c == OPEN_OBJECT else p
                if p < 0:
                    return UNSURE
                continue
        else:
            p = _skip_scalar(data, p, end)
        p, objects, depth = _close(data, p, end, objects, depth)
        if p < 0 or depth == 0:
            return p


@lean_njit
def _close(data, p, end, objects, depth):  # type: ignore[no-untyped-def]
    """After a value: leave the levels that end here and go to the next value; (UNSURE, ...) if neither is there."""
    while p >= 0:
        p = _blank(data, p, end)
        if p >= end:
            break
        in_object = objects & np.uint64(1)
        if data[p] == (CLOSE_OBJECT if in_object else CLOSE_ARRAY):
            p, objects, depth = p + 1, objects >> np.uint64(1), depth - 1
            if depth == 0:
                return p, objects, depth
        elif data[p] == COMMA:
            p = _blank(data, p + 1, end)
            return (_skip_key(data, p, end) if in_object else p), objects, depth
        else:
            break
    return UNSURE, objects, depth


@lean_njit
def _skip_key(data, p, end):  # type: ignore[no-untyped-def]
    """Position of the value whose key is at p, or UNSURE."""
    if p >= end or data[p] != QUOTE:
        return UNSURE
    return _colon(data, _skip_text(data, p + 1, end) - 1, end)


@lean_njit
def _skip_text(data, p, end):  # type: ignore[no-untyped-def]
    """Position after the quote that ends the text at p; simple escapes are stepped over."""
    while p < end:
        c = data[p]
        if c == QUOTE:
            return p + 1
        if c < 32 or c > 126:
            return UNSURE
        if c == BACKSLASH:
            p += 1
            if p >= end or not _is_simple_escape(data[p]):
                return UNSURE
        p += 1
    return UNSURE


@lean_njit
def _is_simple_escape(c):  # type: ignore[no-untyped-def]
    return c in (QUOTE, BACKSLASH, 47, 98, 102, 110, 114, 116)  # " \\ / b f n r t


@lean_njit
def _skip_scalar(data, p, end):  # type: ignore[no-untyped-def]
    c = data[p]
    if c == QUOTE:
        return _skip_text(data, p + 1, end)
    if c == 116:
        return _word(data, p, end, 0x65757274)  # true
    if c == 110:
        return _word(data, p, end, 0x6C6C756E)  # null
    if c == 102:
        return _word(data, p + 1, end, 0x65736C61)  # (f)alse
    return read_number(data, p, end)[0]


@lean_njit
def _word(data, p, end, word):  # type: ignore[no-untyped-def]
    """Position after the four letters of `word` (lowest byte first) at p, or UNSURE."""
    if p + 4 > end:
        return UNSURE
    for k in range(4):
        if data[p + k] != (word >> (8 * k)) & 0xFF:
            return UNSURE
    return p + 4
