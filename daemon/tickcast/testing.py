"""The public test kit: what every plugin must hold, as checks that its author runs too. Nothing serves through it.

A check raises AssertionError with what is wrong; it knows the contract only, never a plugin by name.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tickcast.columns import F32, F64, I32, I64, Bars, Inputs
from tickcast.direction import LABELS, band_of, classes_of, counts_of, edges, frequencies
from tickcast.engine.core import windows
from tickcast.plugin import Feature, Runner

SYMBOLS = 5
STEP_NS = 60 * 10**9
NEAR = 1e-5  # of an answer: what the size of a batch may change
TURNED = 600  # windows of prices that turn back


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
    columns = {"open": opened, "high": high, "low": low, "close": close, "volume": volume}
    return Bars(**columns, mask=mask, as_of=as_of, start=start, wrap=windows.UNWRAPPED)


def as_ring(bars: Bars, ends: I64, length: int) -> Bars:
    """The newest `length` (a power of two) bars of every symbol of whole histories, in rings."""
    rings = windows.ring(len(bars.start), length)
    for symbol, (start, end) in enumerate(zip(bars.start, ends)):
        ordinal = np.arange(max(0, end - start - length), end - start)
        at = rings.start[symbol] + (ordinal & rings.wrap)
        for name, column in _columns(bars).items():
            if name != "start":
                getattr(rings, name)[at] = column[start + ordinal]
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
    lengths = [_ring_length(lookback) + 8 + 3 * symbol for symbol in range(SYMBOLS)]
    wild, large = history(lengths, rng), history(lengths, rng, price=1e8, move=1e-5)
    still = history(lengths, rng, move=0.0)
    silent = history(lengths, rng)
    silent.volume[:] = 0.0
    return {"random prices": wild, "large prices": large, "constant prices": still, "no volume": silent}


def _ring_length(lookback: int) -> int:
    """Of rings that hold the lookback and a few bars more."""
    return 1 << (lookback + 8).bit_length()


def _ends(bars: Bars) -> I64:
    return np.append(bars.start[1:], len(bars.close))


def _columns(bars: Bars) -> dict[str, Any]:
    return {name: column for name, column in bars._asdict().items() if name != "wrap"}


def _rows(bars: Bars, lookback: int) -> tuple[I32, I64]:
    """Of every symbol the first rows that have their lookback, and the last ones, symbols mixed."""
    lengths = _ends(bars) - bars.start
    pairs = [(o, s) for s, length in enumerate(lengths) for o in (lookback - 1, lookback, *range(length - 12, length))]
    ordinal, symbol = np.array(sorted(pairs)).T
    return symbol.astype(np.int32), ordinal.astype(np.int64)


def _compute(feature: Feature, bars: Bars, symbol: I32, ordinal: I64, what: str) -> F64:
    """The values, after a look at what a call may not do: leave cells out, change its arguments."""
    out = np.full((len(symbol), len(feature.names)), np.nan)
    arguments = [*_columns(bars).values(), symbol, ordinal]
    before = [argument.copy() for argument in arguments]
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
    changed = bars._replace(**{name: column.copy() for name, column in _columns(bars).items()})
    for column in (changed.open, changed.high, changed.low, changed.close, changed.volume):
        column[rows] = column[rows] * 3.0 + 1.0
    changed.mask[rows] ^= 1
    changed.as_of[rows] += 12_345 * STEP_NS
    return changed


def _check_ring(feature: Feature, bars: Bars, symbol: I32, ordinal: I64, values: F64) -> None:
    """In a ring that has wrapped, and holds later bars, the values are those of the whole history."""
    length, ends = _ring_length(feature.lookback), _ends(bars)
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


def check_model(make: Callable[[int], Any], *, lookback: int, folder: Path | None = None) -> None:
    """All that `plugin.Runner` promises, for a model as `make(seed)` builds it; `lookback` is that of its windows.

    Other seeds must give other weights; a model without weights ignores the seed. With a `folder`, `save` and `load`
    are checked too. Call it in a test: `check_model(lambda seed: open_model(path), lookback=96)`.
    """
    runner: Runner = make(1)
    inputs = walks(runner, rows=9, lookback=lookback)
    before = inputs.take(np.arange(9))
    answer = _answer(runner, inputs)
    for name in ("past", "mask", "future", "static"):
        _require(np.array_equal(getattr(before, name), getattr(inputs, name)), f"it changes its input {name}")
    _require(np.array_equal(_answer(runner, inputs), answer), "asked again, it gives another answer")
    _require(np.array_equal(_answer(make(1), inputs), answer), "built anew, it gives another answer")
    single = np.concatenate([_answer(runner, inputs.take(slice(i, i + 1))) for i in range(len(inputs))])
    far = float(np.abs(single - answer).max())
    _require(far <= NEAR * max(1.0, float(np.abs(answer).max())), f"a row's neighbours change its answer by {far:.2g}")
    _check_mask(runner, inputs, answer)
    if folder is not None:
        _check_files(make, inputs, folder)


def walks(runner: Runner, *, rows: int, lookback: int, seed: int = 0) -> Inputs:
    """Random walks with a one-bar move of 1, some bars under mask 0, shaped as the runner's card asks."""
    card, rng = runner.card, np.random.default_rng(seed)
    past = rng.standard_normal((rows, lookback, 1 + len(card.features)))
    if card.transform == "level":
        path = np.cumsum(past[:, :, 0], axis=1)
        past[:, :, 0] = path - path[:, -1:]
    mask = (rng.random((rows, lookback)) > 0.2).astype(np.float32)
    mask[:, -1] = 1
    mask[0, : lookback // 2] = 0
    future = rng.uniform(-1, 1, (rows, card.horizon, 2 * len(card.future))).astype(np.float32)
    return Inputs(past.astype(np.float32), mask, future, np.empty((rows, 0), np.float32))


def _answer(runner: Runner, inputs: Inputs) -> F32:
    answer = runner.predict(inputs)
    expected = (len(inputs), runner.card.horizon, len(runner.card.levels))
    _require(answer.dtype == np.float32, f"quantiles must be float32, not {answer.dtype}")
    _require(answer.shape == expected, f"quantiles must have the shape {expected}, not {answer.shape}")
    _require(bool(np.isfinite(answer).all()), "quantiles must be finite")
    _require(bool((np.diff(answer, axis=2) >= 0).all()), "quantiles must not cross")
    return answer


def _check_mask(runner: Runner, inputs: Inputs, answer: F32) -> None:
    """What lies under mask 0 counts for nothing; a window that never moved, or is all unknown, is answered."""
    for rubbish in (1e6, -1e6, np.nan):
        past = np.where(inputs.mask[:, :, None] > 0, inputs.past, np.float32(rubbish))
        found = _answer(runner, replace(inputs, past=past))
        _require(np.array_equal(found, answer), f"{rubbish} under mask 0 changes its answer")
    mask = inputs.mask.copy()
    mask[0] = 0
    _answer(runner, replace(inputs, past=np.zeros_like(inputs.past), mask=mask))


def _check_files(make: Callable[[int], Any], inputs: Inputs, folder: Path) -> None:
    saved, other = make(1), make(2)
    expected = _answer(saved, inputs)
    _require(not np.array_equal(_answer(other, inputs), expected), "another seed gives the same weights")
    saved.save(folder)
    other.load(folder)
    _require(np.array_equal(_answer(other, inputs), expected), "loaded, it answers otherwise than when saved")


def turning(bars: int, *, seed: int) -> F64:
    """Closes whose moves turn back: six tenths of a move are taken back by the next, so a direction can be learnt."""
    noise = np.random.default_rng(seed).normal(0, 1e-3, bars)
    moves = np.zeros(bars)
    for i in range(1, bars):
        moves[i] = -0.6 * moves[i - 1] + noise[i]
    closes: F64 = 100 * np.exp(np.cumsum(moves))
    return closes


def check_direction(model: Any, *, lookback: int, seed: int = 0) -> None:
    """All that a Runner promises besides when its card has labels, for one that was fitted on `turning` prices.

    `model.probs(inputs)` gives [B, H, C], and the card's `model_params` hold `band`. Other seeds of `turning` than the
    fit's, please: over windows of this one it must beat the commonest class and the frequencies of the classes.
    """
    card = model.card
    _require(card.labels == LABELS, f"labels must be {LABELS}, not {card.labels}")
    inputs, moves, scale = _turned(model, lookback, seed)
    probs = _probs(model, inputs)
    single = np.concatenate([_probs(model, inputs.take(slice(i, i + 1))) for i in range(9)])
    _require(float(np.abs(single - probs[:9]).max()) <= NEAR, "a row's neighbours change its probabilities")
    quantiles = _answer(model, inputs) / scale[:, None, None]
    _check_agreement(quantiles, probs, card.levels, edges(band_of(card), card.horizon)[:, None])
    known = classes_of(moves, band_of(card))
    usual = frequencies(counts_of(known))
    right, commonest = (float((best == known).mean()) for best in (probs.argmax(axis=2), usual.argmax(axis=1)))
    _require(right > commonest, f"it is right in {right:.1%}, the commonest class in {commonest:.1%}")
    lost = -np.log(np.take_along_axis(probs, known[..., None], axis=2)).mean()
    base = -np.log(usual[np.arange(card.horizon), known]).mean()
    _require(lost < base, f"its log loss is {lost:.3f}, that of the classes' frequencies {base:.3f}")


def _turned(runner: Runner, lookback: int, seed: int) -> tuple[Inputs, F64, F64]:
    """Windows without gaps, the moves [B, H] after them in one-bar moves, and the scale [B]."""
    card, close = runner.card, turning(TURNED + lookback + runner.card.horizon, seed=seed)
    series = np.log(close) if card.transform == "log_return" else close
    seen = np.lib.stride_tricks.sliding_window_view(np.diff(series), lookback)[:TURNED]
    at = np.arange(TURNED) + lookback
    inputs = walks(runner, rows=TURNED, lookback=lookback, seed=seed)
    inputs.mask[:] = 1
    bars = at[:, None] + np.arange(1 - lookback, 1)
    inputs.past[:, :, 0] = series[bars] - series[at, None] if card.transform == "level" else seen
    scale = np.sqrt(np.square(seen[:, int(card.transform == "level") :]).mean(axis=1))
    ahead = series[at[:, None] + np.arange(1, card.horizon + 1)] - series[at, None]
    return inputs, ahead / scale[:, None], scale


def _probs(model: Any, inputs: Inputs) -> F32:
    probs: F32 = model.probs(inputs)
    expected = (len(inputs), model.card.horizon, len(LABELS))
    _require(probs.shape == expected and probs.dtype == np.float32, f"probabilities must be float32 {expected}")
    _require(bool((probs >= 0).all()), "probabilities must not be negative")
    _require(bool((np.abs(probs.sum(axis=2) - 1) <= NEAR).all()), "probabilities must add up to one")
    return probs


def _check_agreement(quantiles: F64, probs: F32, levels: list[float], edge: F64) -> None:
    """A level below p_down has its quantile among the moves that are down, one above 1 - p_up among those up."""
    level = np.array(levels)
    for sign, beyond in ((-1, level - probs[:, :, :1]), (1, 1 - probs[:, :, 2:] - level)):
        outside = sign * quantiles - edge
        _require(bool((outside[beyond < -1e-3] >= -1e-3).all()), "a quantile lies within a class that ends before it")
        _require(bool((outside[beyond > 1e-3] <= 1e-3).all()), "a quantile lies beyond a class that holds its level")
