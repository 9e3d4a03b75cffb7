"""A symbol's last bars as one run of numbers, oldest first, whether they come from a ring or a whole history.

It reads no bar after the asked ordinal.
"""

import numpy as np
from numba import njit

CLOSE, LOG_RETURN, VOLUME = 0, 1, 2
SERIES = {"close": CLOSE, "log_return": LOG_RETURN, "volume": VOLUME}
NEAR = 0.02  # |z| up to which five terms give log((1 + z) / (1 - z)) to its last bit or two


def lookback_of(series: int, length: int) -> int:
    """Bars that so many values of the series are made of: a move needs the bar before."""
    return length + 1 if series == LOG_RETURN else length


@njit(cache=True, nogil=True)
def run(column, base, ordinal, length, wrap, scratch):  # type: ignore[no-untyped-def]
    """The `length` values that end at `ordinal` of the symbol that starts at `base`.

    A view, or a copy in `scratch` where the ring wraps. (The parts of `Bars` come one by one: to hand the whole to a
    function costs more than to read a window.)
    """
    first = base + ((ordinal - length + 1) & wrap)
    last = base + (ordinal & wrap)
    if last - first == length - 1:
        return column[first : last + 1]
    older = base + wrap + 1 - first
    for j, value in enumerate(column[first : first + older]):
        scratch[j] = value
    for j, value in enumerate(column[base : last + 1]):
        scratch[older + j] = value
    return scratch[:length]


@njit(cache=True, nogil=True, error_model="numpy")
def log_move(before, now):  # type: ignore[no-untyped-def]
    """log(now / before), and 0 where either is not positive. Small moves by five terms of 2 artanh(z)."""
    if not (before > 0.0 and now > 0.0):
        return 0.0
    z = (now - before) / (now + before)
    if abs(z) > NEAR:
        return np.log(now / before)
    zz = z * z
    return 2.0 * z * (1.0 + zz * (1 / 3 + zz * (1 / 5 + zz * (1 / 7 + zz * (1 / 9)))))


@njit(cache=True, nogil=True, error_model="numpy")
def log_moves(closes, moves):  # type: ignore[no-untyped-def]
    """The log move of every close after the first, to the bit as `log_move` gives it.

    First as if all were small, in a loop without a branch, which the compiler vectorises; then the others again.
    """
    unusual = 0
    for j in range(len(moves)):
        before, now = closes[j], closes[j + 1]
        z = (now - before) / (now + before)
        zz = z * z
        moves[j] = 2.0 * z * (1.0 + zz * (1 / 3 + zz * (1 / 5 + zz * (1 / 7 + zz * (1 / 9)))))
        unusual += (not abs(z) <= NEAR) | (not before > 0.0) | (not now > 0.0)
    if unusual:
        for j in range(len(moves)):
            moves[j] = log_move(closes[j], closes[j + 1])


@njit(cache=True, nogil=True)
def column_of(series, bars):  # type: ignore[no-untyped-def]
    """The column that a series is read from."""
    return bars.volume if series == VOLUME else bars.close


@njit(cache=True, nogil=True)
def values_of(series, column, base, ordinal, length, wrap, scratch):  # type: ignore[no-untyped-def]
    """The last `length` values of close, log return or volume. `scratch` has room for 2 * length + 1."""
    if series != LOG_RETURN:
        return run(column, base, ordinal, length, wrap, scratch)
    moves = scratch[:length]
    log_moves(run(column, base, ordinal, length + 1, wrap, scratch[length:]), moves)
    return moves


@njit(cache=True, nogil=True)
def scaled_moves(close, base, ordinal, length, wrap, scratch):  # type: ignore[no-untyped-def]
    """The last log returns in units of their root mean square, and that; zeros where the close never moved.

    `scratch` is as for `values_of`, which may give a view of the bars and so nothing that can be written to.
    """
    moves = scratch[:length]
    log_moves(run(close, base, ordinal, length + 1, wrap, scratch[length:]), moves)
    squares = 0.0
    for j in range(length):
        squares += moves[j] * moves[j]
    size = np.sqrt(squares / length)
    if size > 0.0:
        for j in range(length):
            moves[j] /= size
    return moves, size
