"""Bars and feature values by symbol, and the gather that turns them into a model's inputs. It decides nothing.

The live rings and a training file share one shape (`columns.Bars`), so serving and training gather by the same kernel.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from tickcast.columns import F32, F64, I32, I64, U64, Bars, Inputs
from tickcast.figures import SCALE_FLOOR
from tickcast.scales import LEAST_RATIO, LEAST_WEIGHT, Speeds, speeds

TRANSFORMS = {"log_return": 0, "difference": 1, "level": 2}
LOG_RETURN, DIFFERENCE, LEVEL = 0, 1, 2
SCALE_CEILING = 1e150  # the scale of a window whose squared moves overflow
RMS = speeds("rms", 1)
DAY_NS = 86_400 * 10**9
WEEK_NS = 7 * DAY_NS
EPOCH_WEEKDAY_NS = 4 * DAY_NS  # 1970-01-01 was a Thursday; shifts week phases to start on Sunday
UNWRAPPED = (1 << 62) - 1  # the `wrap` of a history that is kept whole


def ring(symbols: int, length: int) -> Bars:
    """Empty rings of `length` (a power of two) bars for so many symbols; pages are touched on use only."""
    rows = symbols * length
    names = ("open", "high", "low", "close", "volume")
    return Bars(
        **{name: np.zeros(rows) for name in names}, mask=np.zeros(rows, np.uint8), as_of=np.zeros(rows, np.int64),
        start=np.arange(symbols, dtype=np.int64) * length, wrap=length - 1,
    )  # fmt: skip


def whole(prices_and_volume: Sequence[F64]) -> Bars:
    """Open, high, low, close and volume of one symbol's bars, oldest first: all real, following one another."""
    first, high, low, close, volume = (np.ascontiguousarray(column, np.float64) for column in prices_and_volume)
    return Bars(
        open=first, high=high, low=low, close=close, volume=volume, mask=np.ones(len(close), np.uint8),
        as_of=np.zeros(len(close), np.int64), start=np.zeros(1, np.int64), wrap=UNWRAPPED,
    )  # fmt: skip


def ring_columns(bars: Bars) -> dict[str, npt.NDArray[Any]]:
    """What is kept of every bar, by name."""
    return {name: column for name, column in bars._asdict().items() if name not in ("start", "wrap")}


def target_lookback(transform: int) -> int:
    """Bars that channel 0 reads: a move needs the bar before."""
    return 1 if transform == LEVEL else 2


@njit(cache=True, nogil=True)
def target_channel(bars, symbol, ordinal, transform, out):  # type: ignore[no-untyped-def]
    """Channel 0 of every model: the one-bar move, or the close itself for `level`. Rows must have their lookback."""
    for i in range(len(symbol)):
        base = bars.start[symbol[i]]
        close = bars.close[base + (ordinal[i] & bars.wrap)]
        if transform == 2:
            out[i] = close
            continue
        before = bars.close[base + ((ordinal[i] - 1) & bars.wrap)]
        out[i] = np.log(close / before) if transform == 0 else close - before


@njit(cache=True, nogil=True)
def gather(bars, values, symbol, ordinal, first, lookback, transform, past, mask, anchor, scale):  # type: ignore[no-untyped-def]
    """Copy the windows that end at `ordinal[i]` and begin no earlier than `first[i]`, the symbol's oldest bar.

    `values` is [rows, F], laid out as the bars. Missing and carried bars have mask 0; what is missing holds zeros.
    For `level`, channel 0 is relative to the anchor, so that large levels survive the cast to float32.
    """
    for i in range(len(symbol)):
        base = bars.start[symbol[i]]
        last = base + (ordinal[i] & bars.wrap)
        anchor[i] = bars.close[last]
        squares, moves = 0.0, 0
        for j in range(lookback):
            k = ordinal[i] - lookback + 1 + j
            usable_from = first[i] if transform == 2 else first[i] + 1
            if k < usable_from:
                mask[i, j] = 0.0
                past[i, j, :] = 0.0
                continue
            at = base + (k & bars.wrap)
            mask[i, j] = bars.mask[at]
            for f in range(values.shape[1]):
                past[i, j, f] = values[at, f]
            if transform == 2:
                past[i, j, 0] = values[at, 0] - anchor[i]
                if bars.mask[at] and j > 0 and k > first[i]:
                    move = values[at, 0] - values[base + ((k - 1) & bars.wrap), 0]
                    squares += move * move
                    moves += 1
            elif bars.mask[at]:
                squares += values[at, 0] * values[at, 0]
                moves += 1
        scale[i] = min(max(np.sqrt(squares / moves), SCALE_FLOOR), SCALE_CEILING) if moves else SCALE_FLOOR


@njit(cache=True, nogil=True)
def rescale(past, mask, is_level, keep, share, scale):  # type: ignore[no-untyped-def]
    """Write the scales that forecast: of the same windows, bar by bar."""
    sums, seen = np.empty(len(keep)), np.empty(len(keep))
    for i in range(len(past)):
        sums[:], seen[:] = 0.0, 0.0
        for j in range(past.shape[1]):
            known = mask[i, j] > 0 and (not is_level or (j > 0 and mask[i, j - 1] > 0))
            move = (np.float64(past[i, j, 0]) - (past[i, j - 1, 0] if is_level else 0.0)) if known else 0.0
            for p in range(len(keep)):
                sums[p] = keep[p] * sums[p] + (1.0 - keep[p]) * move * move
                seen[p] = keep[p] * seen[p] + (1.0 - keep[p]) * known
        last, logs = len(keep) - 1, 0.0
        slowest = max(sums[last] / max(seen[last], LEAST_WEIGHT), SCALE_FLOOR**2)
        for p in range(len(keep)):
            ratio = sums[p] / max(seen[p], LEAST_WEIGHT) / slowest
            logs += share[p] * np.log(max(ratio, LEAST_RATIO))
        scale[i] = min(max(np.sqrt(slowest * np.exp(logs)), SCALE_FLOOR), SCALE_CEILING)


def gather_inputs(
    bars: Bars, values: F64, symbol: I32, ordinal: I64, first: I64, *, lookback: int, transform: int, future: F32,
    speeds: Speeds = RMS,
) -> tuple[Inputs, F64, F64]:  # fmt: skip
    """The inputs of a batch of questions, with anchor and scale."""
    n, channels = len(symbol), values.shape[1]
    past = np.empty((n, lookback, channels), np.float32)
    mask = np.empty((n, lookback), np.float32)
    anchor, scale = np.empty(n), np.empty(n)
    gather(bars, values, symbol, ordinal, first, lookback, transform, past, mask, anchor, scale)
    if len(speeds.keep):
        rescale(past, mask, transform == LEVEL, speeds.keep, speeds.share, scale)
    return Inputs(past, mask, future, np.empty((n, 0), np.float32)), anchor, scale


def calendar_channels(target_ns: I64, names: list[str]) -> F32:
    """[B, H, 2 per name]: sine and cosine of where in the day or week each target bar lies."""
    parts = []
    for name in names:
        period, shift = (DAY_NS, 0) if name == "time_of_day" else (WEEK_NS, EPOCH_WEEKDAY_NS)
        phase = 2 * np.pi * (((target_ns + shift) % period) / period)
        parts += [np.sin(phase), np.cos(phase)]
    if not parts:
        return np.empty((*target_ns.shape, 0), np.float32)
    return np.stack(parts, axis=-1).astype(np.float32)


@njit(cache=True, nogil=True, inline="always")
def mix(h):  # type: ignore[no-untyped-def]
    """Final mix of splitmix64."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@njit(cache=True, nogil=True)
def _hash_rows(words, h):  # type: ignore[no-untyped-def]
    for i in range(words.shape[0]):
        x = h[i]
        for j in range(words.shape[1]):
            x = (x ^ np.uint64(words[i, j])) * np.uint64(0x9E3779B97F4A7C15)
            x ^= x >> np.uint64(29)
        h[i] = mix(x)


def input_hash(inputs: Inputs) -> U64:
    """64 bits of every input row, so that a served forecast can be matched with its rebuilt inputs."""
    n = len(inputs)
    h = np.zeros(n, np.uint64)
    for part in (inputs.past, inputs.mask, inputs.future, inputs.static):
        words = np.ascontiguousarray(part).reshape(n, -1) if n else part.reshape(0, 0)
        _hash_rows(words.view(np.uint32), h)
    return h


def prices(transform: int, anchor: F64, moves: F64) -> F64:
    """Moves [B, ...] from the anchor [B] as prices."""
    shaped = anchor.reshape(-1, *([1] * (moves.ndim - 1)))
    moved: F64 = shaped * np.exp(moves) if transform == LOG_RETURN else shaped + moves
    return moved


def moves_of(transform: int, anchor: F64, price: F64) -> F64:
    """Prices [B, ...] as moves from the anchor [B]: the inverse of `prices`."""
    shaped = anchor.reshape(-1, *([1] * (price.ndim - 1)))
    moved: F64 = np.log(price / shaped) if transform == LOG_RETURN else price - shaped
    return moved
