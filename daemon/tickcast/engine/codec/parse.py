"""Decimal numbers and times in text -> doubles and nanoseconds, as kernels. What they cannot do exactly they say.

A kernel that answers "not sure" never guesses: the caller hands the row to the careful path, which is exact but slow.
"""

import numpy as np

from tickcast.compiled import inlined_njit, lean_njit
from tickcast.words import read_digits

EXACT_POWERS = 10.0 ** np.arange(23)  # powers of ten that a double holds exactly
WHOLE_POWERS = 10 ** np.arange(19, dtype=np.int64)
MOST_DIGITS = 19  # always fit 64 bits without sign
LARGEST = np.uint64((1 << 63) - 1)
EXACT_WHOLE = 1 << 53  # whole numbers up to here are doubles
SPLIT_LIMIT = 10**18  # mantissas up to here survive the two-double division
SPLITTER = 134217729.0  # 2**27 + 1 cuts a double into two halves of 26 bits
DOUBT = 2.0**-46  # far above the relative error of the correction
LAST_SECOND = 9_223_372_035  # whole seconds beyond this leave 64-bit nanoseconds
UNIT_EXPONENT = {"s": 9, "ms": 6, "us": 3, "ns": 0}
MINUS, PLUS, DOT, COLON, ZERO, LOWER = 45, 43, 46, 58, 48, 0x20


@inlined_njit
def read_number(data, p, end):  # type: ignore[no-untyped-def]
    """JSON number at p: (position after it, mantissa, power of ten); position -1 if it is none, or too long to hold."""
    negative = p < end and data[p] == MINUS
    if negative:
        p += 1
    first = p
    p, mantissa = read_digits(data, p, end, np.uint64(0))
    digits = p - first
    if digits == 0 or (digits > 1 and data[first] == ZERO):
        return np.int64(-1), np.int64(0), np.int64(0)
    exponent = np.int64(0)
    if p < end and data[p] == DOT:
        point = p + 1
        p, mantissa = read_digits(data, point, end, mantissa)
        exponent = np.int64(point - p)
        if exponent == 0:
            return np.int64(-1), np.int64(0), np.int64(0)
    if digits - exponent > MOST_DIGITS or mantissa > LARGEST:
        return np.int64(-1), np.int64(0), np.int64(0)
    if p < end and (data[p] | LOWER) == 101:
        p, shift = _read_exponent(data, p + 1, end)
        exponent += shift
    return np.int64(p), (-np.int64(mantissa) if negative else np.int64(mantissa)), exponent


@lean_njit
def _read_exponent(data, p, end):  # type: ignore[no-untyped-def]
    negative = p < end and data[p] == MINUS
    if p < end and (negative or data[p] == PLUS):
        p += 1
    first, shift = p, np.int64(0)
    while p < end and ZERO <= data[p] <= ZERO + 9 and p - first < 4:
        shift = shift * 10 + np.int64(data[p] - ZERO)
        p += 1
    if p == first or (p < end and ZERO <= data[p] <= ZERO + 9):
        return np.int64(-1), np.int64(0)
    return np.int64(p), (-shift if negative else shift)


@inlined_njit
def to_double(mantissa, exponent):  # type: ignore[no-untyped-def]
    """The double nearest to mantissa x 10^exponent, and whether that is certain."""
    whole = np.float64(mantissa)
    if exponent == 0:
        return whole, True
    exact = -EXACT_WHOLE <= mantissa <= EXACT_WHOLE
    if exponent > 0:
        if exact and exponent <= 22:
            return whole * EXACT_POWERS[exponent], True
        return np.nan, False
    if exponent < -22:
        return np.nan, False
    if exact:
        return whole / EXACT_POWERS[-exponent], True
    if mantissa > SPLIT_LIMIT or mantissa < -SPLIT_LIMIT:
        return np.nan, False
    return _divide(mantissa, whole, EXACT_POWERS[-exponent])


@lean_njit
def _divide(mantissa, whole, divisor):  # type: ignore[no-untyped-def]
    """The quotient with the remainder added back; certain where a doubt in that addition changes nothing."""
    quotient = whole / divisor
    a = SPLITTER * quotient
    a_high = a - (a - quotient)
    a_low = quotient - a_high
    b = SPLITTER * divisor
    b_high = b - (b - divisor)
    b_low = divisor - b_high
    product = quotient * divisor
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    rest = ((whole - product) - error) + np.float64(mantissa - np.int64(whole))
    correction = rest / divisor
    high = quotient + correction * (1.0 + DOUBT)
    return high, high == quotient + correction * (1.0 - DOUBT)


@lean_njit
def to_ns(mantissa, exponent, unit):  # type: ignore[no-untyped-def]
    """mantissa x 10^exponent units (10^unit ns each) as ns, what is below one dropped; and whether it could be done."""
    shift = exponent + unit
    if shift == 0:
        return mantissa, True
    if 0 < shift <= 18:
        power = WHOLE_POWERS[shift]
        return mantissa * power, abs(mantissa) <= np.int64(LARGEST) // power
    if -18 <= shift < 0:
        power = WHOLE_POWERS[-shift]
        return (mantissa // power if mantissa >= 0 else -(-mantissa // power)), True
    return np.int64(0), False


@lean_njit
def _digits(data, p, count):  # type: ignore[no-untyped-def]
    """The number that `count` digits make; far below zero if one is no digit."""
    value = np.int64(0)
    for i in range(p, p + count):
        digit = np.int64(data[i]) - ZERO
        if digit < 0 or digit > 9:
            return np.int64(-1_000_000)
        value = value * 10 + digit
    return value


@lean_njit
def _days(year, month, day):  # type: ignore[no-untyped-def]
    """Days since 1970-01-01 of a date of the Gregorian calendar, counted in years that begin in March."""
    year -= month <= 2
    month = month - 3 if month > 2 else month + 9
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 1 - 719_468


@lean_njit
def _month_length(year, month):  # type: ignore[no-untyped-def]
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31


@lean_njit
def read_time(data, first, last):  # type: ignore[no-untyped-def]
    """RFC 3339 text data[first:last] as ns since 1970, and whether it is one; digits below 1 ns are dropped."""
    if last - first < 20:
        return np.int64(0), False
    t = data[first + 10]
    if data[first + 4] != MINUS or data[first + 7] != MINUS or ((t | LOWER) != 116 and t != 32):
        return np.int64(0), False
    if data[first + 13] != COLON or data[first + 16] != COLON:
        return np.int64(0), False
    year, month, day = _digits(data, first, 4), _digits(data, first + 5, 2), _digits(data, first + 8, 2)
    hour, minute, second = _digits(data, first + 11, 2), _digits(data, first + 14, 2), _digits(data, first + 17, 2)
    if year < 0 or not 1 <= month <= 12 or not 1 <= day <= _month_length(year, month):
        return np.int64(0), False
    if not 0 <= hour <= 23 or not 0 <= minute <= 59 or not 0 <= second <= 60:
        return np.int64(0), False
    p, fraction = _read_fraction(data, first + 19, last)
    shift, good = _read_offset(data, p, last)
    seconds = _days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - shift
    if not good or abs(seconds) > LAST_SECOND:
        return np.int64(0), False
    return seconds * 1_000_000_000 + fraction, True


@lean_njit
def _read_fraction(data, p, last):  # type: ignore[no-untyped-def]
    """`.` and digits at p, if there: (position after them, ns); position `last` + 1 for a point without digits."""
    if p >= last or data[p] != DOT:
        return p, np.int64(0)
    p += 1
    first, ns = p, np.int64(0)
    while p < last and ZERO <= data[p] <= ZERO + 9:
        if p - first < 9:
            ns = ns * 10 + np.int64(data[p] - ZERO)
        p += 1
    if p == first:
        return last + 1, np.int64(0)
    return p, ns * WHOLE_POWERS[max(9 - (p - first), 0)]


@lean_njit
def _read_offset(data, p, last):  # type: ignore[no-untyped-def]
    """`Z` or `+hh:mm` that must end the text: (seconds east of Greenwich, whether it is one)."""
    if p == last - 1 and (data[p] | LOWER) == 122:
        return np.int64(0), True
    if p != last - 6 or data[p + 3] != COLON or (data[p] != PLUS and data[p] != MINUS):
        return np.int64(0), False
    hours, minutes = _digits(data, p + 1, 2), _digits(data, p + 4, 2)
    if not 0 <= hours <= 23 or not 0 <= minutes <= 59:
        return np.int64(0), False
    shift = hours * 3600 + minutes * 60
    return (shift if data[p] == PLUS else -shift), True
