"""Text eight bytes at a time: the kernels that make scanning fast. They read no byte beyond the end they are given."""

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from tickcast.compiled import inlined_njit, lean_njit

ONES, HIGHS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
QUOTES, BACKSLASHES, SPACES = ONES * np.uint64(34), ONES * np.uint64(92), ONES * np.uint64(32)
ZEROS, ABOVE_NINE = ONES * np.uint64(48), ONES * np.uint64(0x46)  # 0x46 lifts bytes above '9' over 0x7F
QUOTE, BACKSLASH = 34, 92


def _trailing_zeros(_typing: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], context.get_constant(types.boolean, False))

    return types.uint64(types.uint64), generate


trailing_zeros: Any = intrinsic(_trailing_zeros)
"""Zero bits below the lowest set one of a 64-bit word, 64 of zero: one instruction, which numpy has no name for."""


@lean_njit
def word_at(data, p):  # type: ignore[no-untyped-def]
    """Eight bytes, lowest first, from any position; the compiler makes one load of it."""
    q = np.uint64(p)  # without a sign there is no counting from the end to guard against
    word = np.uint64(data[q])
    for k in range(1, 8):
        word |= np.uint64(data[q + np.uint64(k)]) << np.uint64(8 * k)
    return word


@inlined_njit
def part_at(data, p, count, end):  # type: ignore[no-untyped-def]
    """The first `count` (1 to 8) of eight bytes, zeros after them."""
    if p + 8 <= end:
        return word_at(data, p) & (~np.uint64(0) >> np.uint64(64 - 8 * count))
    return _slow_part_at(data, p, count)


@lean_njit
def _slow_part_at(data, p, count):  # type: ignore[no-untyped-def]
    word = np.uint64(0)
    for k in range(count):
        word |= np.uint64(data[p + k]) << np.uint64(8 * k)
    return word


@inlined_njit
def plain_end(data, p, end):  # type: ignore[no-untyped-def]
    """Position of the quote that ends the text at p; -1 if the text is not plain ASCII without escapes."""
    while p + 8 <= end:
        word = word_at(data, p)
        quote = word ^ QUOTES
        quote = (quote - ONES) & ~quote & HIGHS  # the lowest bit set marks the first quote
        slash = word ^ BACKSLASHES
        odd = (((slash - ONES) & ~slash) | ((word - SPACES) & ~word) | word) & HIGHS
        hit = quote | odd
        if hit != 0:
            first = hit & (~hit + np.uint64(1))
            if first & quote == 0:
                return np.int64(-1)
            return np.int64(p) + (np.int64(trailing_zeros(first)) >> 3)
        p += 8
    while p < end:
        c = data[p]
        if c == QUOTE:
            return np.int64(p)
        if c < 32 or c > 127 or c == BACKSLASH:
            return np.int64(-1)
        p += 1
    return np.int64(-1)


@inlined_njit
def read_digits(data, p, end, value):  # type: ignore[no-untyped-def]
    """Digits at p appended to `value`, which may wrap: (position after them, value)."""
    while p + 8 <= end:
        word = word_at(data, p)
        if ((word + ABOVE_NINE) | (word - ZEROS)) & HIGHS != 0:
            break
        word -= ZEROS  # pairs, then fours, then all eight, side by side
        word = (word * np.uint64(10)) + (word >> np.uint64(8))
        low = (word & np.uint64(0x000000FF000000FF)) * np.uint64(0x000F424000000064)
        high = ((word >> np.uint64(16)) & np.uint64(0x000000FF000000FF)) * np.uint64(0x0000271000000001)
        value = value * np.uint64(100_000_000) + ((low + high) >> np.uint64(32))
        p += 8
    while p < end:
        digit = np.uint8(data[p] - np.uint8(48))
        if digit > 9:
            break
        value = value * np.uint64(10) + np.uint64(digit)
        p += 1
    return np.int64(p), value
