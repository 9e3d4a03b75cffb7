"""What keeping score costs: CPU time per settled forecast-horizon at 1,000 symbols, and of a report of all figures.

    python benchmarks/run.py accuracy_cost
    python benchmarks/pairs.py ../before accuracy_cost --pairs 5

Each bar of each symbol settles the forecasts that it is a scored step of, and asks a question: a label is widening,
opening, settling and tallying, last value's beside it, and its part of the marks.
"""

import time
from statistics import median

import numpy as np

from stats import Figure, cpu_ns_per
from tickcast.engine.core.scorekeeper import Scorekeeper
from tickcast.engine.core.scoring import Entries, SettledRows
from tickcast.loop.build import build
from tickcast.settings import Settings, load
from tickcast.symbols import SymbolTable

T0, SECOND = 1_700_000_000 * 10**9, 10**9
SYMBOLS, BARS = 1_000, 200


def main() -> list[Figure]:
    settings = load(overrides={"model.default": "holt", "model.ladder": '["naive"]'}, environ={})[0]
    market = Market(settings)
    market.settle(BARS)
    labels = SYMBOLS * BARS * len(settings.scored_horizons())
    per_label = cpu_ns_per(labels, lambda: market.settle(BARS))
    return [
        Figure("settled forecast-horizon, 1,000 symbols", per_label, "ns", 1000, note=f"{labels:,} labels a run"),
        Figure("report of the rolling window", 1e3 * market.report_s(), "ms"),
    ]


class Market:
    """A scorekeeper of two models, and bars of 1,000 symbols that close together, second by second."""

    def __init__(self, settings: Settings) -> None:
        ladder = build(settings).ladder
        assert ladder is not None
        self.symbols = SymbolTable(SYMBOLS)
        for code in range(SYMBOLS):
            self.symbols.code(f"S{code}")
        self.keeper = Scorekeeper(settings, self.symbols, ladder.cards, last_value=ladder.last_value)
        self.model = next(number for number in range(len(ladder.cards)) if number != ladder.last_value)
        self.draw, self.bar, self.price = np.random.default_rng(3), 0, np.full(SYMBOLS, 100.0)
        spread = np.sqrt(np.arange(1, settings.forecast.horizon + 1))[:, None] * np.array([-1.6, -0.7, 0.0, 0.7, 1.6])
        self.raw = np.tile(spread, (SYMBOLS, 1, 1)) + self.draw.normal(0, 0.05, (SYMBOLS, 1, 1))
        self.moves = self.draw.normal(0, 1e-3, (BARS, SYMBOLS))

    def settle(self, bars: int) -> None:
        for number in range(bars):
            self.price = self.price * np.exp(self.moves[number])
            self.bar += 1
            self.keeper.settle(self._rows(), self._entries(), np.array([self.bar]))

    def report_s(self) -> float:
        found = []
        for _ in range(9):
            began = time.process_time()
            self.keeper.accuracy(T0 + self.bar * SECOND, window="rolling")
            found.append(time.process_time() - began)
        return median(found)

    def _rows(self) -> SettledRows:
        n, none = SYMBOLS, np.zeros(SYMBOLS, np.int64)
        return SettledRows(
            symbol=np.arange(n, dtype=np.int32), ordinal=np.full(n, self.bar), close=self.price,
            as_of=np.full(n, T0 + self.bar * SECOND), mask=np.ones(n, np.uint8), void_before=none,
            mark=np.full(n, self.bar), partition=none.astype(np.int32), question=np.arange(n),
        )  # fmt: skip

    def _entries(self) -> Entries:
        n = SYMBOLS
        later = {
            "probs": np.full((n, 3), np.nan, np.float32),
            "regime": np.ones(n, np.uint8),
            "odd": np.ones(n, np.uint8),
        }
        known = {name: column for name, column in later.items() if name in Entries._fields}  # an older tree lacks some
        return Entries(
            raw=self.raw, anchor=self.price, scale=np.full(n, 1e-3), model=np.full(n, self.model, np.int32),
            in_sample=np.zeros(n, np.uint8), id_high=np.full(n, self.bar, np.uint64),
            id_low=np.arange(n, dtype=np.uint64),
            wide=np.empty_like(self.raw), confidence=np.empty(n, np.float32), flags=np.empty(n, np.uint8), **known,
        )  # fmt: skip
