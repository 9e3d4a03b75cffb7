"""Two detectors that others use, small and from their papers, with the parameters that river gives them. Both take one
number a bar and say whether it has changed; neither states how often it is wrong. Beside river's own, on misses and on
features that change: the same alarms of Page-Hinkley; of ADWIN the same first one, and then more of the same change.
"""

import numpy as np
from numba import njit

PH_DELTA, PH_THRESHOLD, PH_FORGET, PH_LEAST = 0.005, 50.0, 0.9999, 30
ADWIN_DELTA, ADWIN_CLOCK, ADWIN_PER_ROW, ADWIN_ROWS, ADWIN_LEAST = 0.002, 32, 5, 24, 5


@njit(cache=True)
def page_hinkley(row, delta, threshold, forget, least, found):  # type: ignore[no-untyped-def]
    """Page (1954): the sum of what lies above the mean, less its minimum. Marks in `found` where it begins anew."""
    n, mean, total, lowest = 0, 0.0, 0.0, 0.0
    for t in range(len(row)):
        n += 1
        mean += (row[t] - mean) / n
        total = forget * total + row[t] - mean - delta
        lowest = min(lowest, total)
        if n >= least and total - lowest > threshold:
            found[t] = True
            n, mean, total, lowest = 0, 0.0, 0.0, 0.0


@njit(cache=True)
def adwin(row, delta, clock, per_row, rows, least, found):  # type: ignore[no-untyped-def]
    """Bifet and Gavalda (2007): a window in an exponential histogram, cut where two parts differ."""
    sums, squares, count = np.zeros((rows, per_row + 1)), np.zeros((rows, per_row + 1)), np.zeros(rows, np.int64)
    for t in range(len(row)):
        k, total, square = 0, row[t], 0.0
        while True:
            sums[k, count[k]], squares[k, count[k]] = total, square
            count[k] += 1
            if count[k] <= per_row:
                break
            half = 2.0**k
            apart = (sums[k, 0] - sums[k, 1]) / half
            total, square = sums[k, 0] + sums[k, 1], squares[k, 0] + squares[k, 1] + apart * apart * half / 2
            count[k] -= 2
            for i in range(count[k]):
                sums[k, i], squares[k, i] = sums[k, i + 2], squares[k, i + 2]
            k += 1
        if (t + 1) % clock == 0:
            while _cut(sums, squares, count, delta, least):
                found[t] = True


@njit(cache=True)
def _cut(sums, squares, count, delta, least):  # type: ignore[no-untyped-def]
    """Drop the oldest bucket where some cut of the window tells two means apart."""
    n, total, spread, oldest = 0.0, 0.0, 0.0, -1
    for k in range(len(count) - 1, -1, -1):
        for i in range(count[k]):
            if oldest < 0:
                oldest = k
            size = 2.0**k
            apart = sums[k, i] / size - (total / n if n else 0.0)
            spread += squares[k, i] + (apart * apart * n * size / (n + size) if n else 0.0)
            n += size
            total += sums[k, i]
    if n < 2 * least:
        return False
    confidence, variance, n0, total0 = np.log(2 * np.log(n) / delta), spread / n, 0.0, 0.0
    for k in range(len(count) - 1, -1, -1):
        for i in range(count[k]):
            n0 += 2.0**k
            total0 += sums[k, i]
            n1 = n - n0
            if n0 < least or n1 < least:
                continue
            m = 1 / (1 / (n0 - least + 1) + 1 / (n1 - least + 1))
            bound = np.sqrt(2 / m * variance * confidence) + 2 / (3 * m) * confidence
            if abs(total0 / n0 - (total - total0) / n1) > bound:
                count[oldest] -= 1
                for j in range(count[oldest]):
                    sums[oldest, j], squares[oldest, j] = sums[oldest, j + 1], squares[oldest, j + 1]
                return True
    return False


def alarms_of(name: str, hits: "np.ndarray") -> "np.ndarray":  # type: ignore[type-arg]
    """[bars, streams] where it says that its stream has changed."""
    found = np.zeros(hits.shape, np.bool_)
    for s in range(hits.shape[1]):
        row, out = np.ascontiguousarray(hits[:, s], np.float64), np.zeros(len(hits), np.bool_)
        if name == "Page-Hinkley":
            page_hinkley(row, PH_DELTA, PH_THRESHOLD, PH_FORGET, PH_LEAST, out)
        else:
            adwin(row, ADWIN_DELTA, ADWIN_CLOCK, ADWIN_PER_ROW, ADWIN_ROWS, ADWIN_LEAST, out)
        found[:, s] = out
    return found
