"""What a history is like, as a few numbers without a unit, so that what was learnt on one is begun with on another.

Names, order and price units of symbols are not in it, nor is anything of a single symbol: medians over symbols are.
It reads no file and judges nothing.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from tickcast.columns import F64, I32, I64

Mask = npt.NDArray[np.bool_]

MOST_BARS = 10_000  # of each symbol, the newest: more say the same, and cost
LEAST_MOVES = 50  # of a symbol; of fewer no autocorrelation can be told from chance
CLIP = 8.0  # usual moves: one jump must not be all that is seen
LAGS, NEAR_LAGS = 15, 8  # bars
NORMAL_IQR, NORMAL_TAILS = 1.349, 4.653  # of a normal distribution, in standard deviations: 25..75 %, 1..99 %
HOUR_NS, DAY_NS = 3_600 * 10**9, 86_400 * 10**9
LEAST_DAYS = 3  # fewer show no hour of a day twice
SMALLEST = 1e-9  # of a move; a history that stands still has it


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes are decimal logarithms. Of a history without moves, what is told of moves is 0."""

    symbols: float
    bars: float  # of a symbol
    interval: float  # seconds from bar to bar
    spread: float  # usual size of a move, relative to the price
    unevenness: float  # of the spread, from the calmest tenth of symbols to the wildest
    tails: float  # how far the outermost hundredths lie, beside a normal distribution's
    turning: float  # autocorrelation of moves at lag 1: below 0 they turn back, above they go on
    memory: float  # the mean of that at lags 2 to 8
    clustering: float  # of the sizes of moves at lags 1 to 8
    season: float  # share of the variance of moves that the hour of the day explains; of days, the day of the week
    season_of_size: float  # and of their sizes
    gaps: float  # share of bars that were carried or follow a gap
    together: float  # mean correlation of two symbols' moves
    persistence: float  # 0.5 for a random walk, as Hurst's exponent, from the variance of 16 moves beside one


# Differences that make two histories unlike in one respect, each as much as another. Sizes: three times, but ten times
# as many symbols. Autocorrelations: .1 at lag 1 is 1 % of the variance of a move. Of shares: a tenth.
UNLIKE = Signature(
    symbols=1.0, bars=0.5, interval=0.5, spread=0.5, unevenness=0.5, tails=0.2, turning=0.1, memory=0.05,
    clustering=0.1, season=0.05, season_of_size=0.05, gaps=0.1, together=0.5, persistence=0.05,
)  # fmt: skip

# Measured (docs/optimize.md): quarters of one market lie .1 to .3 apart, another market's bars .7 and more.
ALIKE = 0.7  # what was best on one is worth a try on the other
STILL = 0.4  # as one market is at two times


class Closes(NamedTuple):
    """Closed bars by symbol, in the order of closing; at least one."""

    symbol: I32  # ascending
    as_of: I64
    close: F64
    is_real: Mask  # somebody traded
    is_joined: Mask  # to the bar before it: no gap lies between

    def rows(self, kept: Mask) -> "Closes":
        told = (self.is_real[kept], self.is_joined[kept])
        return Closes(self.symbol[kept], self.as_of[kept], self.close[kept], *told)


def distance(one: Signature, other: Signature) -> float:
    """In the mean over all respects; 1 = as unlike in each as UNLIKE has it."""
    of = [msgspec.structs.astuple(signature) for signature in (one, other, UNLIKE)]
    first, second, unit = np.array(of, np.float64)
    return float(np.sqrt(np.mean(np.square((first - second) / unit))))


def read_signature(found: Any) -> Signature | None:
    """Of a stored one; None where it is none, or not all of it is finite."""
    try:
        signature = msgspec.convert(found, Signature)
    except msgspec.ValidationError:
        return None
    return signature if np.isfinite(msgspec.structs.astuple(signature)).all() else None


def signature_of(closes: Closes) -> Signature:
    """Vectorised over symbols; O(bars). Prices that are not positive are taken as differences."""
    closes = _newest(closes)
    count = int(closes.symbol[-1]) + 1
    bars = np.bincount(closes.symbol, minlength=count)
    moves = _moves(closes, count)
    sizes, z = _standardised(moves, closes.symbol, count)
    moving = sizes > 0
    near = _autocorrelations(z, closes.symbol, count)[:, moving]
    size = _centred(np.abs(z), closes.symbol, count)
    lasting = _autocorrelations(size, closes.symbol, count)[:NEAR_LAGS, moving]
    steps = np.diff(closes.as_of)[np.diff(closes.symbol) == 0]
    interval_ns = max(float(np.median(steps)), 1.0) if len(steps) else 1e9
    hours = _season_bins(closes, interval_ns)
    inner = near[: LAGS - 1] if near.size else near
    weights = 1 - np.arange(1, len(inner) + 1) / LAGS
    ratio = np.clip(1 + 2 * weights @ inner, 1 / LAGS**2, LAGS)
    low, high = np.quantile(sizes[moving], [0.1, 0.9]) if moving.any() else (1.0, 1.0)
    alone = ~(closes.is_real & closes.is_joined)
    return Signature(
        symbols=float(np.log10(count)), bars=float(np.log10(np.median(bars))),
        interval=float(np.log10(interval_ns / 1e9)), spread=float(np.log10(max(_middle(sizes[moving]), SMALLEST))),
        unevenness=float(np.log10(high / low)), tails=_tails(z, closes.symbol, count), turning=_middle(near[:1]),
        memory=_middle(near[1:NEAR_LAGS].mean(axis=0)), clustering=_middle(lasting.mean(axis=0)),
        season=_explained(z, closes.symbol, hours, count), season_of_size=_explained(size, closes.symbol, hours, count),
        gaps=float((np.bincount(closes.symbol, alone) / bars).mean()), together=_together(z, closes, interval_ns),
        persistence=0.5 + 0.5 * _middle(np.log(ratio)) / float(np.log(LAGS)),
    )  # fmt: skip


def _newest(closes: Closes) -> Closes:
    """The newest of each symbol; those that have none are not counted."""
    symbol = np.unique(closes.symbol, return_inverse=True)[1].astype(np.int32)
    ends = np.cumsum(np.bincount(symbol))
    kept = ends[symbol] - np.arange(len(symbol)) <= MOST_BARS
    return closes._replace(symbol=symbol).rows(kept)


def _middle(values: F64) -> float:
    return float(np.median(values)) if values.size else 0.0


def _moves(closes: Closes, count: int) -> F64:
    """From the bar before to each; NaN where there is none, or not both are real."""
    close = np.where(np.isfinite(closes.close), closes.close, np.nan)
    follows = np.zeros(len(close), bool)
    follows[1:] = np.diff(closes.symbol) == 0
    follows[1:] &= closes.is_real[1:] & closes.is_real[:-1] & closes.is_joined[1:]
    bad = np.bincount(closes.symbol, ~(close > 0), minlength=count) > 0
    level = _quantiles(np.abs(close), closes.symbol, count, [0.5])[0]
    shown = np.where(bad[closes.symbol], close / np.maximum(level, SMALLEST)[closes.symbol], 0.0)
    logs = np.log(np.where(close > 0, close, 1.0))
    value = np.where(bad[closes.symbol], shown, logs)
    moves = np.full(len(close), np.nan)
    moves[1:] = np.where(follows[1:], np.diff(value), np.nan)
    return moves


def _quantiles(values: F64, symbol: I32, count: int, levels: Sequence[float]) -> F64:
    """[level, symbol] Of what is finite, each the value at that rank; 0 where a symbol has none."""
    there = np.isfinite(values)
    kept, of = values[there], symbol[there]
    ranked = kept[np.lexsort((kept, of))]
    counts = np.bincount(of, minlength=count)
    starts = np.cumsum(counts) - counts
    at = starts + np.floor(np.multiply.outer(np.asarray(levels), np.maximum(counts - 1, 0))).astype(np.int64)
    found: F64 = np.where(counts > 0, np.append(ranked, 0.0)[np.minimum(at, len(ranked))], 0.0)
    return found


def _standardised(moves: F64, symbol: I32, count: int) -> tuple[F64, F64]:
    """The usual size of each symbol's moves, 0 where it has too few or stands still; and its moves in that unit."""
    low, middle, high = _quantiles(moves, symbol, count, [0.25, 0.5, 0.75])
    size = (high - low) / NORMAL_IQR
    there = np.isfinite(moves)
    n = np.bincount(symbol, there, minlength=count)
    mean = np.bincount(symbol, np.where(there, np.abs(moves), 0.0), minlength=count) / np.maximum(n, 1)
    size = np.where(size > 0, size, mean)  # most of its moves are none
    size = np.where((n >= LEAST_MOVES) & np.isfinite(size), size, 0.0)
    unit = np.where(size > 0, size, np.nan)[symbol]
    return size, _centred(np.clip((moves - middle[symbol]) / unit, -CLIP, CLIP), symbol, count)


def _centred(values: F64, symbol: I32, count: int) -> F64:
    there = np.isfinite(values)
    n = np.maximum(np.bincount(symbol, there, minlength=count), 1)
    centred: F64 = values - (np.bincount(symbol, np.where(there, values, 0.0), minlength=count) / n)[symbol]
    return centred


def _autocorrelations(values: F64, symbol: I32, count: int) -> F64:
    """[lag - 1, symbol] Of centred values, for lags 1 to LAGS; 0 where nothing tells."""
    found = np.zeros((LAGS, count))
    zeros, there = np.nan_to_num(values), np.isfinite(values)
    n = np.maximum(np.bincount(symbol, there, minlength=count), 1)
    variance = np.bincount(symbol, zeros**2, minlength=count) / n
    for lag in range(1, min(LAGS, len(values) - 1) + 1):
        both = there[lag:] & there[:-lag] & (symbol[lag:] == symbol[:-lag])
        sums = np.bincount(symbol[lag:], np.where(both, zeros[lag:] * zeros[:-lag], 0.0), minlength=count)
        pairs = np.bincount(symbol[lag:], both, minlength=count)
        tells = (pairs >= LEAST_MOVES // 2) & (variance > 0)
        found[lag - 1] = np.where(tells, sums / np.maximum(pairs, 1) / np.where(variance > 0, variance, 1.0), 0.0)
    return found


def _tails(z: F64, symbol: I32, count: int) -> float:
    low, high = _quantiles(z, symbol, count, [0.01, 0.99])
    wide = (high - low)[high > low]
    return float(np.log10(_middle(wide) / NORMAL_TAILS)) if len(wide) else 0.0


def _season_bins(closes: Closes, interval_ns: float) -> I64:
    """Of each bar its hour of the day, or where bars are long its day of the week; all 0 where that says nothing."""
    if np.ptp(closes.as_of) < LEAST_DAYS * DAY_NS:
        return np.zeros(len(closes.as_of), np.int64)
    if interval_ns > DAY_NS / 2:
        return closes.as_of // DAY_NS % 7
    return closes.as_of // HOUR_NS % 24


def _explained(values: F64, symbol: I32, bins: I64, count: int) -> float:
    """Share of the variance that the bins explain, beyond what as many bins explain by chance; of the middle symbol."""
    there = np.isfinite(values)
    kept, of, most = values[there], symbol[there], int(bins.max()) + 1
    cell = of * most + bins[there]
    n = np.bincount(cell, minlength=count * most)
    sums = np.bincount(cell, kept, minlength=count * most)
    between = np.where(n > 0, sums**2 / np.maximum(n, 1), 0.0).reshape(count, most).sum(axis=1)
    total = np.bincount(of, kept**2, minlength=count)
    rows, filled = n.reshape(count, most).sum(axis=1), (n.reshape(count, most) > 0).sum(axis=1)
    tells = (total > 0) & (rows > filled + 1) & (filled > 1)
    within = (total - between)[tells] / (rows - filled)[tells] / (total[tells] / (rows - 1)[tells])
    return max(0.0, _middle(1 - within))


def _together(z: F64, closes: Closes, interval_ns: float) -> float:
    """Mean over pairs of symbols and moments: 2 * sum of products, from the square of the sum."""
    there = np.isfinite(z)
    at = np.unique(closes.as_of[there] // int(interval_ns), return_inverse=True)[1]
    kept = z[there]
    if not len(kept):
        return 0.0
    n, sums, squares = (np.bincount(at, weight) for weight in (np.ones(len(kept)), kept, kept**2))
    pairs = float((n * (n - 1)).sum())
    if pairs == 0:
        return 0.0
    return float((sums**2 - squares).sum() / pairs / (squares.sum() / n.sum()))
