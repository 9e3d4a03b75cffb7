"""JSON messages -> ticks -> bars -> features -> last-value forecasts, scored: cost per tick, and the plain peer.

    python benchmarks/run.py engine

Tapes hold so many ticks per symbol-bar in the mean, with skewed popularity. The peer is benchmarks/plain.py, tick by
tick in plain Python; before anything is timed, its bars and its errors are checked equal to the engine's.
"""

import time
from statistics import median
from typing import NamedTuple

import numpy as np

from plain import PlainEngine
from stats import Figure, ratio_of
from tickcast.columns import RawBatch
from tickcast.io.memory_bus import raw_batch
from tickcast.loop.build import build
from tickcast.settings import Settings, load

T0 = 1_700_000_000 * 10**9
SECOND = 10**9
CHUNK = 20_000
PLAIN_TICKS = 60_000
FEATURES = '[{kind="log_return"}, {kind="rolling_mean", window=20}, {kind="rolling_std", window=20}]'


class Tape(NamedTuple):
    messages: list[bytes]
    batches: list[RawBatch]
    bars: int


def tape(symbols: int, ticks: int, per_bar: int, *, seed: int = 1) -> Tape:
    """Ticks of a market where the k-th symbol is traded in proportion to k ** -0.5; `per_bar` ticks per symbol-bar."""
    rng = np.random.default_rng(seed)
    share = np.arange(1, symbols + 1) ** -0.5
    code = rng.choice(symbols, ticks, p=share / share.sum())
    bars = max(1, ticks // (symbols * per_bar))
    ts = T0 + np.sort(rng.integers(0, bars * SECOND, ticks))
    price = 100 * np.exp(np.cumsum(rng.normal(0, 1e-5, ticks)))
    size = rng.integers(1, 1000, ticks)
    messages = [
        b'{"symbol":"SYM%05d","ts":%d,"price":%.4f,"size":%.3f}' % (c, t, p, z / 1000)
        for c, t, p, z in zip(code, ts, price, size, strict=True)
    ]
    batches = [
        raw_batch("tickcast.ticks", 0, messages[i : i + CHUNK], first_offset=i, stamp_ns=-1)
        for i in range(0, ticks, CHUNK)
    ]
    return Tape(messages, batches, bars)


def deployment() -> Settings:
    return load(overrides={"features.set": FEATURES, "model.default": "naive"}, environ={})[0]


def engine_run(settings: Settings, batches: list[RawBatch]) -> tuple[float, int, object]:
    """CPU seconds of the process, bars, and the engine."""
    engine = build(settings).engine
    began = time.process_time()
    bars = sum(len(b) for batch in batches for b in engine.turn([batch], 0).bars)
    return time.process_time() - began, bars, engine


def plain_run(messages: list[bytes], horizons: list[int]) -> tuple[float, PlainEngine]:
    peer = PlainEngine(every_ns=SECOND, horizons=horizons)
    began = time.process_time()
    for message in messages:
        peer.message(message)
    return time.process_time() - began, peer


def check_equal(settings: Settings) -> None:
    """The engine and the peer close the same bars and score the same errors, or nothing is reported."""
    small = tape(20, PLAIN_TICKS, 50)
    _, bars, engine = engine_run(settings, small.batches)
    _, peer = plain_run(small.messages, settings.scored_horizons())
    if bars != len(peer.folder.bars):
        raise SystemExit(f"the engine closed {bars} bars, the peer {len(peer.folder.bars)}")
    for row in engine.scorekeeper.accuracy(0, window="all"):
        n, total = peer.errors[row.horizon]
        if row.n != n or abs(row.mae - total / n) > 1e-9 * row.mae:
            raise SystemExit(f"at horizon {row.horizon}: {row.n} {row.mae}, the peer says {n} {total / n}")


def main() -> list[Figure]:
    settings = deployment()
    engine_run(settings, tape(20, 40_000, 20).batches)
    check_equal(settings)
    figures = []
    for symbols, per_bar, bar in ((1_000, 200, 1.5e6), (1_000, 20, None), (10_000, 200, 1.5e6), (10_000, 20, None)):
        ticks = min(4_000_000, max(600_000, 3 * symbols * per_bar))
        market = tape(symbols, ticks, per_bar)
        runs = [engine_run(settings, market.batches) for _ in range(5)]
        seconds, bars = median(run[0] for run in runs), runs[0][1]
        note = f"{bars / seconds:,.0f} bars/s, {1e9 * seconds / ticks:.0f} ns per tick"
        figures.append(
            Figure(
                f"{symbols:,} symbols, {per_bar} ticks per bar", ticks / seconds, "ticks/s", bar, "higher", note=note
            )
        )
    figures.append(against_plain(settings))
    figures.append(growth(settings))
    return figures


def against_plain(settings: Settings) -> Figure:
    market = tape(100, 20 * CHUNK, 200)
    ratios = []
    for _ in range(5):
        ours = engine_run(settings, market.batches)[0] / len(market.messages)
        theirs = plain_run(market.messages[:PLAIN_TICKS], settings.scored_horizons())[0] / PLAIN_TICKS
        ratios.append(theirs / ours)
    ratio = ratio_of(ratios)
    return Figure("times faster than plain Python, same work", ratio.median, "x", 15, "higher", ratio.low, ratio.high)


def growth(settings: Settings) -> Figure:
    """Cost per tick with 20,000 symbols in costs with 100, both warm: the same number of ticks and bars."""
    few, many = tape(100, 4_000_000, 200), tape(20_000, 4_000_000, 200)
    ratio = ratio_of([engine_run(settings, many.batches)[0] / engine_run(settings, few.batches)[0] for _ in range(5)])
    return Figure("cost per tick, 20,000 symbols over 100", ratio.median, "x", 2.5, "lower", ratio.low, ratio.high)


if __name__ == "__main__":
    for figure in main():
        print(figure)
