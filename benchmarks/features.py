"""What a closed bar costs in features on one core: 16 kinds with their defaults, 1,000 and 10,000 symbols.

    python benchmarks/run.py features

Each call is one instant at which every symbol closes a bar, as the engine makes it, checks of the values included.
Then each kind of feature alone, by its plugin's own call.
"""

import inspect
from collections.abc import Callable

import numpy as np

from stats import Figure, cpu_ns_per
from tickcast import plugin
from tickcast.columns import I32, I64, Bars
from tickcast.engine.core.features import FeatureSet
from tickcast.engine.core.windows import ring
from tickcast.settings.engine import FeatureEntry

SIXTEEN = [
    "log_return", "lags", "roc", "diff", "rolling_mean", "rolling_std", "rolling_min", "rolling_max", "zscore", "ema",
    "macd", "rsi", "bollinger", "realised_volatility", "volume_ratio", "fourier",
]  # fmt: skip
RING = 512
INSTANTS = 20
MINUTE_NS = 60 * 10**9

Compute = Callable[[I32, I64], object]


def market(symbols: int) -> Bars:
    rng = np.random.default_rng(0)
    bars = ring(symbols, RING)
    bars.close[:] = (100 * np.exp(np.cumsum(rng.normal(0, 0.001, (symbols, RING)), axis=1))).ravel()
    bars.open[:] = np.roll(bars.close, 1)
    bars.high[:] = np.maximum(bars.open, bars.close) * 1.0005
    bars.low[:] = np.minimum(bars.open, bars.close) * 0.9995
    bars.volume[:] = rng.exponential(1.0, symbols * RING)
    bars.as_of[:] = np.tile(np.arange(1, RING + 1) * MINUTE_NS, symbols)
    bars.mask[:] = 1
    return bars


def ns_per_bar(compute: Compute, symbols: int) -> float:
    """CPU time of one closed bar, at ordinals that reach around the ring."""
    symbol = np.arange(symbols, dtype=np.int32)
    ordinals = [np.full(symbols, RING - 1 + 13 * k) for k in range(INSTANTS)]

    def close_all() -> None:
        for ordinal in ordinals:
            compute(symbol, ordinal)

    return cpu_ns_per(INSTANTS * symbols, close_all)


def together(kinds: list[str], bars: Bars) -> Compute:
    features = FeatureSet([FeatureEntry(kind=kind) for kind in kinds], "log_return")
    first = np.zeros(len(bars.start), np.int64)
    return lambda symbol, ordinal: features.compute(bars, symbol, ordinal, first)


def alone(kind: str, bars: Bars) -> Compute:
    feature = plugin.find("features", kind)()
    out = np.empty((len(bars.start), len(feature.names)))
    return lambda symbol, ordinal: feature.compute(bars, symbol, ordinal, out)


def is_plain(kind: str) -> bool:
    """Whether it can be made without numbers that were learnt from data."""
    return "learnt_to_ns" not in inspect.signature(plugin.find("features", kind)).parameters


def main() -> list[Figure]:
    figures = []
    for symbols in (1_000, 10_000):
        value = ns_per_bar(together(SIXTEEN, market(symbols)), symbols) / len(SIXTEEN)
        figures.append(Figure(f"a feature of a closed bar, {symbols:,} symbols", value, "ns", note="mean of 16"))
    bars = market(1_000)
    for kind in filter(is_plain, plugin.names("features")):
        value = ns_per_bar(alone(kind, bars), 1_000)
        figures.append(Figure(f"{kind} of a closed bar, 1,000 symbols", value, "ns"))
    return figures


if __name__ == "__main__":
    for figure in main():
        print(f"{figure.name:<58} {figure.value:8.1f} {figure.unit}")
