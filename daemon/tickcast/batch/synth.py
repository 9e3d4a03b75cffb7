"""A seeded synthetic market whose law is known: regimes, jumps, seasons, drift points, popular and rare symbols.

The same seed gives the same ticks however they are asked for. It never reads a clock: event time starts where told.

Log price = a random walk (with the regime's drift, volatility and now and then a jump) + a mean-reverting deviation +
a cycle of its own phase for each symbol. The last two can be learnt; how much they explain is known by construction.
At each drift point the law changes: volatility rises and the cycle gets another length, or both go back.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from tickcast.batch.out_folder import claim_file
from tickcast.columns import F64, I64
from tickcast.io.tape.tape import write_ticks

SECOND_NS = 10**9
DAY_S = 86_400
STEPS_PER_S = 10  # the hidden price moves this often
BLOCK_S = 10  # ticks are drawn block by block, each from a generator of its own

CALM, TREND, REVERTING, WILD = range(4)
REGIME_VOLATILITY = np.array([0.8, 1.0, 0.6, 2.2])
REGIME_DRIFT = np.array([0.0, 1.5e-5, 0.0, 0.0])  # per second; its sign is drawn with the regime
REGIME_DEVIATION = np.array([1.0, 0.6, 2.0, 1.0])
REGIME_ACTIVITY = np.array([0.7, 0.9, 0.8, 1.6])  # 1 in the mean
REGIME_MEAN_S = 120.0

WALK_SIGMA = 6e-5  # of log price in one second
DEVIATION_SIGMA = 1.5e-4
DEVIATION_DECAY_S = 4.0
CYCLE_SIZE = 3.5e-4
CYCLE_S = (32.0, 20.0)  # before a drift point, after it, and so on in turn
LAW_VOLATILITY = (1.0, 1.7)
JUMPS_PER_S = 1 / 1800
JUMP_SIZE = 1e-3
NOISE_SIGMA = 1e-5  # of one tick around the hidden price
POPULARITY_POWER = 0.8
DAY_SWING = 0.4  # how far activity and volatility swing over the day


class TickBlock(NamedTuple):
    """Ticks of some seconds, by time."""

    symbol: I64
    ts: I64
    price: F64
    size: F64

    def part(self, first: int, last: int) -> "TickBlock":
        return TickBlock(self.symbol[first:last], self.ts[first:last], self.price[first:last], self.size[first:last])


class Market:
    """`tick_rate_hz` is the mean over a day and all symbols; `drift_points_s` count from the start."""

    def __init__(
        self,
        *,
        seed: int,
        symbols: int = 50,
        start_ns: int = 1_700_000_000 * SECOND_NS,
        tick_rate_hz: float = 500.0,
        drift_points_s: tuple[float, ...] = (),
    ) -> None:
        self.symbols = [f"SYN{i:0{len(str(symbols - 1))}d}" for i in range(symbols)]
        self.start_ns = start_ns
        self.drift_points_ns = [start_ns + round(at * SECOND_NS) for at in sorted(drift_points_s)]
        self._seed, self._n = seed, symbols
        draw = np.random.default_rng([seed, 0])
        share = np.arange(1, symbols + 1) ** -POPULARITY_POWER
        self.rates_hz = tick_rate_hz * share / share.sum()  # the first symbol is the most popular
        self._base = np.exp(draw.uniform(np.log(5.0), np.log(5_000.0), symbols))
        self._tick_size = 10.0 ** (np.floor(np.log10(self._base)) - 5)
        self._phase = draw.uniform(0, 2 * np.pi, symbols)
        self._cycle_size = CYCLE_SIZE * draw.uniform(0.7, 1.3, symbols)
        self._regime = draw.integers(0, 4, symbols)
        self._direction = draw.choice([-1.0, 1.0], symbols)
        self._walk, self._deviation = np.zeros(symbols), np.zeros(symbols)
        self._blocks = self._draw_blocks()
        self._rest: TickBlock | None = None

    def ticks(self, until_ns: int) -> pl.DataFrame:
        """All ticks before `until_ns` that were not given yet: symbol, ts, price, size."""
        parts: list[TickBlock] = []
        while True:
            block = self._rest or next(self._blocks)
            count = int(np.searchsorted(block.ts, until_ns))
            parts.append(block.part(0, count))
            if count < len(block.ts):
                self._rest = block.part(count, len(block.ts))
                break
            self._rest = None
            if self._next_block_ns() >= until_ns:
                break
        symbol, ts, price, size = (np.concatenate(columns) for columns in zip(*parts))
        names = pl.Series(self.symbols, dtype=pl.String).gather(symbol)
        return pl.DataFrame({"symbol": names, "ts": ts, "price": price, "size": size})

    def _next_block_ns(self) -> int:
        return self.start_ns + self._drawn * BLOCK_S * SECOND_NS

    def _draw_blocks(self) -> Iterator[TickBlock]:
        self._drawn = 0
        while True:
            draw = np.random.default_rng([self._seed, 1, self._drawn])
            first_s = self._drawn * BLOCK_S
            self._drawn += 1
            yield self._draw_block(draw, first_s)

    def _draw_block(self, draw: np.random.Generator, first_s: int) -> TickBlock:
        prices, activity = [], []
        for second in range(first_s, first_s + BLOCK_S):
            self._change_regimes(draw)
            prices.append(self._hidden_prices(draw, second))
            activity.append(REGIME_ACTIVITY[self._regime] * self._season(second))
        return self._observe(draw, first_s, np.concatenate(prices), np.array(activity))

    def _change_regimes(self, draw: np.random.Generator) -> None:
        changes = draw.random(self._n) < 1 / REGIME_MEAN_S
        self._regime = np.where(changes, draw.integers(0, 4, self._n), self._regime)
        self._direction = np.where(changes, draw.choice([-1.0, 1.0], self._n), self._direction)

    def _season(self, second: int) -> float:
        """Busiest at both ends of the day, quietest in its middle."""
        of_day = ((self.start_ns // SECOND_NS + second) % DAY_S) / DAY_S
        return float(1.0 + DAY_SWING * np.cos(2 * np.pi * of_day))

    def law(self, at_ns: int) -> int:
        """0 or 1: which of the two laws holds at that time."""
        return sum(point <= at_ns for point in self.drift_points_ns) % 2

    def cycle(self, at_ns: int) -> F64:
        """The known cycle of every symbol, in log price."""
        seconds = (at_ns - self.start_ns) / SECOND_NS
        wave: F64 = self._cycle_size * np.sin(2 * np.pi * seconds / CYCLE_S[self.law(at_ns)] + self._phase)
        return wave

    def _hidden_prices(self, draw: np.random.Generator, second: int) -> F64:
        """Log prices [steps, symbols] of one second, relative to each symbol's base."""
        at_ns = self.start_ns + second * SECOND_NS
        sigma = LAW_VOLATILITY[self.law(at_ns)] * self._season(second) * REGIME_VOLATILITY[self._regime]
        moves = draw.standard_normal((STEPS_PER_S, self._n)) * (WALK_SIGMA * sigma / np.sqrt(STEPS_PER_S))
        moves += REGIME_DRIFT[self._regime] * self._direction / STEPS_PER_S
        jumps = draw.random((STEPS_PER_S, self._n)) < JUMPS_PER_S / STEPS_PER_S
        moves += jumps * draw.laplace(0.0, JUMP_SIZE, (STEPS_PER_S, self._n))
        walk = self._walk + np.cumsum(moves, axis=0)
        self._walk = walk[-1]
        step_ns = SECOND_NS // STEPS_PER_S
        cycle = np.array([self.cycle(at_ns + k * step_ns) for k in range(STEPS_PER_S)])
        hidden: F64 = walk + self._deviations(draw) + cycle
        return hidden

    def _deviations(self, draw: np.random.Generator) -> F64:
        keep = float(np.exp(-1 / (DEVIATION_DECAY_S * STEPS_PER_S)))
        sigma = DEVIATION_SIGMA * REGIME_DEVIATION[self._regime] * np.sqrt(1 - keep * keep)
        shocks = draw.standard_normal((STEPS_PER_S, self._n)) * sigma
        deviations: F64 = np.empty_like(shocks)
        for k in range(STEPS_PER_S):
            self._deviation = deviations[k] = keep * self._deviation + shocks[k]
        return deviations

    def _observe(self, draw: np.random.Generator, first_s: int, log_prices: F64, activity: F64) -> TickBlock:
        """Ticks at random moments, each seeing the hidden price through a little noise and the tick size."""
        counts = draw.poisson(self.rates_hz * activity)  # [second, symbol]
        second, symbol = (index.repeat(counts.ravel()) for index in np.indices(counts.shape).reshape(2, -1))
        within = draw.integers(0, SECOND_NS // 1000, len(second)) * 1000  # microseconds, as exchanges stamp
        step = second * STEPS_PER_S + within * STEPS_PER_S // SECOND_NS
        noise = draw.standard_normal(len(second)) * NOISE_SIGMA
        price = self._base[symbol] * np.exp(log_prices[step, symbol] + noise)
        price = np.maximum(np.round(price / self._tick_size[symbol]), 1.0) * self._tick_size[symbol]
        size = np.ceil(draw.lognormal(0.0, 1.0, len(second)) * 100) / 100
        ts = self.start_ns + (first_s + second) * SECOND_NS + within
        order = np.argsort(ts, kind="stable")
        return TickBlock(symbol[order], ts[order], np.round(price[order], 9), size[order])


def json_texts(ticks: pl.DataFrame) -> pl.Series:
    """One JSON object per tick."""
    form = pl.format('{{"symbol":"{}","ts":{},"price":{},"size":{}}}', "symbol", "ts", "price", "size")
    return ticks.select(form.alias("text"))["text"]


def json_messages(ticks: pl.DataFrame) -> list[tuple[str, bytes]]:
    """The text of each tick, with its symbol as key."""
    return [(symbol, line.encode()) for symbol, line in zip(ticks["symbol"], json_texts(ticks))]


def write(path: Path, *, symbols: int, seconds: float, seed: int, tick_rate_hz: float = 500.0) -> int:
    """Write so many seconds of a market to a file; returns the number of ticks."""
    claim_file(path)
    market = Market(seed=seed, symbols=symbols, tick_rate_hz=tick_rate_hz)
    ticks = market.ticks(market.start_ns + round(seconds * SECOND_NS))
    try:
        write_ticks(path, ticks)
    except BaseException:
        path.unlink(missing_ok=True)  # half of it
        raise
    return ticks.height
