"""How odd the values of closed bars are by a model's reference: each channel's place in its sketch, whether it lies
outside of the central 90 % or repeats itself, and whether all together are far from where they used to be. It remembers
nothing.

Distances are between normal scores: each value through its own channel's sketch. So heavy tails make no distance, what
one channel does by itself adds little, and what is left is how they move together.
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from tickcast.columns import F64, I32, I64, U8, Bars
from tickcast.compiled import inlined_njit, lean_njit
from tickcast.reference import EDGES, Reference

BINS = EDGES - 1
MISSING = np.uint8(255)
ODD = np.uint8(128)  # beside the bin of a value
SCORES = np.array([NormalDist().inv_cdf(min(max(k / BINS, 0.25 / BINS), 1 - 0.25 / BINS)) for k in range(EDGES)])


class Sketches(NamedTuple):
    """What of a reference the kernels read."""

    edges: F64  # [F, EDGES]
    low: F64
    high: F64
    repeats: U8
    center: F64
    whiten: F64
    distance: float


class Measured(NamedTuple):
    """Rows of closed bars."""

    place: U8  # [n, F] bin, and ODD beside it; or MISSING
    far: U8  # [n] 1 = beyond the reference's 95 % point, MISSING where a value is
    share: U8  # [n] % of the values that are odd, MISSING where there is none


def sketches_of(reference: Reference) -> Sketches:
    kept = {name: getattr(reference, name) for name in Sketches._fields if name != "distance"}
    return Sketches(**kept, distance=float(reference.distance[0]))


def room(rows: int, channels: int) -> Measured:
    return Measured(np.empty((rows, channels), np.uint8), *(np.empty(rows, np.uint8) for _ in range(2)))


def measured(sketches: Sketches, bars: Bars, values: F64, symbol: I32, ordinal: I64, first: I64) -> Measured:
    """Of the bars `ordinal`, by the values [rows, F] that lie as the bars do; a symbol's oldest bar is `first`."""
    channels = len(sketches.low)
    found = room(len(symbol), channels)
    scores = np.empty((len(symbol), channels))
    measure(sketches, bars, values, symbol, ordinal, first, scores, found)
    find_far(sketches, scores, found.far)
    return found


@inlined_njit
def _place(edges, value):  # type: ignore[no-untyped-def]
    """The bin of a value: those beyond the edges lie in the outermost."""
    low, high = 0, BINS
    while high - low > 1:
        middle = (low + high) // 2
        if edges[middle] <= value:
            low = middle
        else:
            high = middle
    return low


@inlined_njit
def _score(edges, k, value):  # type: ignore[no-untyped-def]
    width = edges[k + 1] - edges[k]
    part = (value - edges[k]) / width if width > 0.0 else 0.5
    return SCORES[k] + min(max(part, 0.0), 1.0) * (SCORES[k + 1] - SCORES[k])


@lean_njit
def measure(sketches, bars, values, symbol, ordinal, first, scores, out):  # type: ignore[no-untyped-def]
    """Places and normal scores. Carried bars have no values of their own, and are none to repeat."""
    for i in range(len(symbol)):
        base = bars.start[symbol[i]]
        at, before = base + (ordinal[i] & bars.wrap), base + ((ordinal[i] - 1) & bars.wrap)
        has_before = ordinal[i] > first[i] and bars.mask[before] == 1
        out.far[i], odd_ones, known = 0, 0, 0
        for f in range(values.shape[1]):
            value = values[at, f]
            if bars.mask[at] == 0 or not np.isfinite(value):
                out.place[i, f] = out.far[i] = MISSING
                scores[i, f] = 0.0
                continue
            k = _place(sketches.edges[f], value)
            odd = value < sketches.low[f] or value > sketches.high[f]
            odd |= sketches.repeats[f] == 0 and has_before and values[before, f] == value
            out.place[i, f] = k + ODD if odd else k
            odd_ones, known = odd_ones + odd, known + 1
            scores[i, f] = _score(sketches.edges[f], k, value) - sketches.center[f]
        out.share[i] = 100 * odd_ones // known if known else MISSING


@lean_njit
def find_far(sketches, scores, far):  # type: ignore[no-untyped-def]
    """Rows whose squared distance is beyond the reference's."""
    for i in range(len(far)):
        if far[i] == MISSING:
            continue
        far[i] = squared_distance(sketches.whiten, scores[i], sketches.distance) > sketches.distance


@lean_njit
def squared_distance(whiten, row, enough):  # type: ignore[no-untyped-def]
    """No further than beyond `enough`."""
    total = 0.0
    for a in range(len(row)):
        part = 0.0
        for b in range(a + 1):
            part += whiten[a, b] * row[b]
        total += part * part
        if total > enough:
            break
    return total
