"""Numbers and names as JSON text, as kernels. The caller sees to it that there is room: ROOM bytes for a number.

Every `put_*` writes at `o` and returns the position after what it wrote. What is not finite becomes `null`.
"""

import numpy as np

from tickcast.compiled import inlined_njit, lean_njit
from tickcast.engine.codec.parse import EXACT_POWERS, WHOLE_POWERS
from tickcast.words import ZEROS, trailing_zeros

ROOM = 48  # a sign, 19 digits, a point, 22 decimals
ESCAPED = 6  # bytes that one byte of a name becomes at most
POWERS = 10.0 ** np.arange(309)
HEX = np.frombuffer(bytearray(b"0123456789abcdef"), np.uint8)
EXACT = 2.0**52  # below it a product still has a binary digit to round with
MOST_DECIMALS = 22
SPLIT_DECIMALS = 15  # of the fraction alone
WHOLE_LIMIT = 9e18
ALL_DIGITS = 17  # of a double that must be read back
TEN_8, TEN_16 = np.uint64(10**8), np.uint64(10**16)
ZERO, MINUS, POINT, QUOTE, BACKSLASH, LETTER_E = 48, 45, 46, 34, 92, 101


@lean_njit
def put_bytes(out, o, text, first, last):  # type: ignore[no-untyped-def]
    to, origin = np.uint64(o), np.uint64(first)  # unsigned: no index is then taken to count from the end
    for k in range(np.uint64(last - first)):
        out[to + k] = text[origin + k]
    return o + last - first


@lean_njit
def put_null(out, o):  # type: ignore[no-untyped-def]
    out[o], out[o + 1], out[o + 2], out[o + 3] = 110, 117, 108, 108
    return o + 4


@inlined_njit
def eight_digits(value):  # type: ignore[no-untyped-def]
    """The eight digits of a value below 10^8 as numbers in the bytes of a word, the first one lowest."""
    high = value // np.uint64(10_000)
    word = high | ((value - high * np.uint64(10_000)) << np.uint64(32))
    high = ((word * np.uint64(10_486)) >> np.uint64(20)) & np.uint64(0x0000007F0000007F)
    word = high | ((word - high * np.uint64(100)) << np.uint64(16))
    high = ((word * np.uint64(103)) >> np.uint64(10)) & np.uint64(0x000F000F000F000F)
    return high | ((word - high * np.uint64(10)) << np.uint64(8))


@inlined_njit
def _put_last(out, o, word, count):  # type: ignore[no-untyped-def]
    """The last `count` (1 to 8) digits of a word; writes eight bytes, of which the next ones overwrite the rest."""
    word = (word | ZEROS) >> np.uint64(64 - 8 * count)
    at = np.uint64(o)
    for k in range(8):
        out[at + np.uint64(k)] = np.uint8((word >> np.uint64(8 * k)) & np.uint64(0xFF))
    return o + count


@lean_njit
def put_padded(out, o, value, width):  # type: ignore[no-untyped-def]
    """The lowest `width` (1 to 24) digits of a value."""
    if width > 16:
        top = value // TEN_16
        value -= top * TEN_16
        o = _put_last(out, o, eight_digits(top), width - 16)
        width = 16
    if width > 8:
        top = value // TEN_8
        value -= top * TEN_8
        o = _put_last(out, o, eight_digits(top), width - 8)
        width = 8
    return _put_last(out, o, eight_digits(value), width)


@inlined_njit
def _put_short(out, o, value):  # type: ignore[no-untyped-def]
    """A value below 10^8 without leading zeros."""
    word = eight_digits(value)
    return _put_last(out, o, word, max(8 - (np.int64(trailing_zeros(word)) >> 3), 1))


@lean_njit
def put_whole(out, o, value):  # type: ignore[no-untyped-def]
    left = np.uint64(value)
    if value < 0:
        out[o] = MINUS
        o += 1
        left = ~left + np.uint64(1)
    if left < TEN_8:
        return _put_short(out, o, left)
    if left < TEN_16:
        top = left // TEN_8
        return put_padded(out, _put_short(out, o, top), left - top * TEN_8, 8)
    top = left // TEN_16
    return put_padded(out, _put_short(out, o, top), left - top * TEN_16, 16)


@lean_njit
def put_hex(out, o, value):  # type: ignore[no-untyped-def]
    """16 digits."""
    for k in range(16):
        out[o + k] = HEX[np.int64((value >> np.uint64(60 - 4 * k)) & np.uint64(15))]
    return o + 16


@lean_njit
def put_decimals(out, o, value, decimals):  # type: ignore[no-untyped-def]
    """A number with so many decimals (0 or more); beyond what 64 bits can round exactly, with all its digits."""
    if not np.isfinite(value):
        return put_null(out, o)
    size = abs(value)
    if decimals <= MOST_DECIMALS and size * EXACT_POWERS[decimals] < EXACT:
        scaled = np.uint64(np.rint(size * EXACT_POWERS[decimals]))
        power = np.uint64(WHOLE_POWERS[min(decimals, 18)])
        whole = scaled // power if decimals <= 18 else np.uint64(0)
        part = scaled - whole * power
    elif decimals <= SPLIT_DECIMALS and size < WHOLE_LIMIT:
        whole = np.uint64(size)
        part = np.uint64(np.rint((size - np.float64(whole)) * EXACT_POWERS[decimals]))
        if part == np.uint64(WHOLE_POWERS[decimals]):
            whole, part = whole + np.uint64(1), np.uint64(0)
    else:
        return put_exponent(out, o, value, ALL_DIGITS)
    if value < 0:
        out[o] = MINUS
        o += 1
    o = put_whole(out, o, np.int64(whole))
    if decimals > 0:
        out[o] = POINT
        o = put_padded(out, o + 1, part, decimals)
    return o


@lean_njit
def put_exponent(out, o, value, digits):  # type: ignore[no-untyped-def]
    """`digits` significant digits and a power of ten: for what is too large or too small for plain decimals."""
    if value == 0:
        out[o] = ZERO
        return o + 1
    if abs(value) > POWERS[308]:
        digits = ALL_DIGITS  # fewer might round up to what is no double
    power = np.int64(np.floor(np.log10(abs(value)))) - digits + 1
    if power > 0:
        scaled = value / POWERS[power]
    else:
        scaled = value * POWERS[min(-power, 300)] * POWERS[max(-power - 300, 0)]
    o = put_whole(out, o, np.int64(np.rint(scaled)))
    out[o] = LETTER_E
    return put_whole(out, o + 1, power)


@lean_njit
def put_significant(out, o, value, digits):  # type: ignore[no-untyped-def]
    """At most so many significant digits, without trailing zeros."""
    if not np.isfinite(value):
        return put_null(out, o)
    decimals = digits - 1 - np.int64(np.floor(np.log10(abs(value)))) if value != 0 else np.int64(0)
    if decimals > MOST_DECIMALS or decimals < digits - 15:
        return put_exponent(out, o, value, digits)
    o = put_decimals(out, o, value, max(decimals, 0))
    if decimals > 0:
        while out[o - 1] == ZERO:
            o -= 1
        if out[o - 1] == POINT:
            o -= 1
    return o


@lean_njit
def put_name(out, o, name, length):  # type: ignore[no-untyped-def]
    """name[:length] as a JSON string; bytes that are no UTF-8 become the replacement character."""
    out[o] = QUOTE
    o += 1
    k = 0
    while k < length:
        c = name[k]
        if c >= 128:
            size, good = _sequence(name, k, length)
            if good:
                o = put_bytes(out, o, name, k, k + size)
            else:
                out[o], out[o + 1], out[o + 2] = 0xEF, 0xBF, 0xBD
                o += 3
            k += size
            continue
        if c < 32:
            out[o], out[o + 1], out[o + 2], out[o + 3] = BACKSLASH, 117, ZERO, ZERO
            out[o + 4], out[o + 5] = HEX[c >> 4], HEX[c & 15]
            o += ESCAPED - 1
        else:
            if c in (QUOTE, BACKSLASH):
                out[o] = BACKSLASH
                o += 1
            out[o] = c
        o += 1
        k += 1
    out[o] = QUOTE
    return o + 1


@lean_njit
def _sequence(name, k, length):  # type: ignore[no-untyped-def]
    """The UTF-8 sequence at k: (its bytes, whether it is whole); a broken one ends before the byte that breaks it."""
    c = name[k]
    low, high = 0x80, 0xBF  # bounds of the second byte
    if 0xC2 <= c <= 0xDF:
        size = 2
    elif 0xE0 <= c <= 0xEF:
        size = 3
        low = 0xA0 if c == 0xE0 else low
        high = 0x9F if c == 0xED else high
    elif 0xF0 <= c <= 0xF4:
        size = 4
        low = 0x90 if c == 0xF0 else low
        high = 0x8F if c == 0xF4 else high
    else:
        return 1, False
    for j in range(1, size):
        if k + j >= length or name[k + j] < low or name[k + j] > high:
            return j, False
        low, high = 0x80, 0xBF
    return size, True
