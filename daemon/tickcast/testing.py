"""The public test kit: what every plugin must hold, as checks that its author runs too. Nothing serves through it.

A check raises AssertionError with what is wrong; it knows the contract only, never a plugin by name.
"""

from collections.abc import Callable

import numpy as np

from tickcast.columns import F64, I32, I64, Bars
from tickcast.core import windows
from tickcast.plugin import Feature

SYMBOLS = 5
STEP_NS = 60 * 10**9


def check_feature(make: Callable[[], Feature], *, seed: int = 0) -> None:
    """All that `plugin.Feature` promises, for a feature as `make()` builds it.

    Call it in a test: `check_feature(MyFeature)` or `check_feature(lambda: MyFeature(window=7))`.
    """
    feature = make()
    _check_description(feature)
    rng = np.random.default_rng(seed)
    for what, bars in _markets(feature.lookback, rng).items():
        symbol, ordinal = _rows(bars, feature.lookback)
        values = _compute(feature, bars, symbol, ordinal, what)
        _same(values, _compute(make(), bars, symbol, ordinal, what), f"{what}: built anew, it gives other values")
        _check_batches(feature, bars, symbol, ordinal, values)
        _check_reach(feature, bars, symbol, ordinal, values)
        _check_ring(feature, bars, symbol, ordinal, values)


def history(lengths: list[int], rng: np.random.Generator, *, price: float = 100.0, move: float = 0.01) -> Bars:
    """Whole histories of random bars, one symbol after the other; some bars have no volume, some are carried."""
    rows = sum(lengths)
    start = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    close = price * np.exp(np.concatenate([np.cumsum(rng.normal(0, move, length)) for length in lengths]))
    opened = close * np.exp(rng.normal(0, move, rows))
    high = np.maximum(opened, close) * np.exp(np.abs(rng.normal(0, move, rows)))
    low = np.minimum(opened, close) * np.exp(-np.abs(rng.normal(0, move, rows)))
    volume = rng.exponential(10.0, rows) * (rng.random(rows) > 0.1)
    as_of = np.concatenate([np.arange(1, length + 1, dtype=np.int64) * STEP_NS for length in lengths])
    mask = (rng.random(rows) > 0.05).astype(np.uint8)
    return Bars(opened, high, low, close, volume, mask, as_of, start, windows.UNWRAPPED)


def as_ring(bars: Bars, ends: I64, length: int) -> Bars:
    """The newest `length` (a power of two) bars of every symbol of whole histories, in rings."""
    rings = windows.ring(len(bars.start), length)
    for symbol, (start, end) in enumerate(zip(bars.start, ends)):
        ordinal = np.arange(max(0, end - start - length), end - start)
        at = rings.start[symbol] + (ordinal & rings.wrap)
        for name in ("open", "high", "low", "close", "volume", "mask", "as_of"):
            getattr(rings, name)[at] = getattr(bars, name)[start + ordinal]
    return rings


def _check_description(feature: Feature) -> None:
    names = feature.names
    _require(isinstance(names, tuple) and len(names) > 0, "names must be a tuple of at least one channel")
    _require(all(isinstance(name, str) and name.isprintable() and name for name in names), f"bad names: {names}")
    _require(len(set(names)) == len(names), f"a name is there twice: {names}")
    _require(type(feature.version) is int and feature.version >= 1, "version must be a whole number from 1")
    _require(type(feature.lookback) is int and feature.lookback >= 1, "lookback must be a whole number from 1")


def _markets(lookback: int, rng: np.random.Generator) -> dict[str, Bars]:
    """Histories that every feature must cope with."""
    lengths = [lookback + 20 + 3 * symbol for symbol in range(SYMBOLS)]
    wild, large = history(lengths, rng), history(lengths, rng, price=1e8, move=1e-5)
    still = history(lengths, rng, move=0.0)
    silent = history(lengths, rng)
    silent.volume[:] = 0.0
    return {"random prices": wild, "large prices": large, "constant prices": still, "no volume": silent}


def _ends(bars: Bars) -> I64:
    return np.append(bars.start[1:], len(bars.close))


def _rows(bars: Bars, lookback: int) -> tuple[I32, I64]:
    """Every row that has its lookback, symbols mixed."""
    lengths = _ends(bars) - bars.start
    pairs = [(o, s) for s, length in enumerate(lengths) for o in range(lookback - 1, length)]
    ordinal, symbol = np.array(sorted(pairs)).T
    return symbol.astype(np.int32), ordinal.astype(np.int64)


def _compute(feature: Feature, bars: Bars, symbol: I32, ordinal: I64, what: str) -> F64:
    """The values, after a look at what a call may not do: leave cells out, change its arguments."""
    out = np.full((len(symbol), len(feature.names)), np.nan)
    arguments = [*bars[:-1], symbol, ordinal]
    before = [np.array(column) for column in arguments]
    feature.compute(bars, symbol, ordinal, out)
    _require(all(np.array_equal(old, new) for old, new in zip(before, arguments)), f"{what}: it changes its arguments")
    bad = ~np.isfinite(out)
    _require(not bad.any(), f"{what}: {feature.names[int(bad.any(axis=0).argmax())]} is not finite or was left out")
    return out


def _check_batches(feature: Feature, bars: Bars, symbol: I32, ordinal: I64, values: F64) -> None:
    """The same bits again, one row at a time, in another order, and for no rows at all."""
    _same(values, _compute(feature, bars, symbol, ordinal, "again"), "called again, it gives other values")
    single = [_compute(feature, bars, symbol[i : i + 1], ordinal[i : i + 1], "one row") for i in range(len(symbol))]
    _same(values, np.concatenate(single), "one row at a time, it gives other values than in a batch")
    backwards = _compute(feature, bars, symbol[::-1].copy(), ordinal[::-1].copy(), "backwards")
    _same(values, backwards[::-1], "in another order, it gives other values")
    _compute(feature, bars, symbol[:0], ordinal[:0], "no rows")


def _check_reach(feature: Feature, bars: Bars, symbol: I32, ordinal: I64, values: F64) -> None:
    """Bars after the row, before its lookback and of other symbols may be anything: the value stays."""
    for i in range(0, len(symbol), 7):
        row = bars.start[symbol[i]] + ordinal[i]
        for what, outside in (
            ("after the row", slice(row + 1, None)),
            ("before its lookback", slice(0, row - feature.lookback + 1)),
        ):
            changed = _spoilt(bars, outside)
            value = _compute(feature, changed, symbol[i : i + 1], ordinal[i : i + 1], what)
            _same(values[i : i + 1], value, f"it reads a bar {what}")


def _spoilt(bars: Bars, rows: slice) -> Bars:
    changed = Bars(*(np.array(column) for column in bars[:-1]), bars.wrap)
    for column in (changed.open, changed.high, changed.low, changed.close, changed.volume):
        column[rows] = column[rows] * 3.0 + 1.0
    changed.mask[rows] ^= 1
    changed.as_of[rows] += 12_345 * STEP_NS
    return changed


def _check_ring(feature: Feature, bars: Bars, symbol: I32, ordinal: I64, values: F64) -> None:
    """In a ring that has wrapped, and holds later bars, the values are those of the whole history."""
    length = 1 << int(feature.lookback + 8).bit_length()
    ends = _ends(bars)
    oldest = np.maximum(ends - bars.start - length, 0)
    there = ordinal - feature.lookback + 1 >= oldest[symbol]
    rings = as_ring(bars, ends, length)
    found = _compute(feature, rings, symbol[there], ordinal[there], "in a ring")
    _same(values[there], found, "in a ring, it gives other values than in a whole history")


def _same(expected: F64, found: F64, complaint: str) -> None:
    _require(np.array_equal(expected, found), complaint)


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise AssertionError(complaint)
