"""What a closed bar costs in features on one core: 16 kinds with their defaults, 1,000 and 10,000 symbols.

    python benchmarks/run.py features

Each call is one instant at which every symbol closes a bar, as the engine makes it, checks of the values included.
Then each kind of feature alone, the channel of the target subtracted.
"""

import numpy as np

from stats import Figure, cpu_ns_per
from tickcast import plugin
from tickcast.columns import Bars
from tickcast.core.features import FeatureSet
from tickcast.core.windows import ring
from tickcast.settings import FeatureEntry

SIXTEEN = [
    "log_return", "lags", "roc", "diff", "rolling_mean", "rolling_std", "rolling_min", "rolling_max", "zscore", "ema",
    "macd", "rsi", "bollinger", "realised_volatility", "volume_ratio", "fourier",
]  # fmt: skip
RING = 512
INSTANTS = 20
MINUTE_NS = 60 * 10**9


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


def ns_per_bar(kinds: list[str], bars: Bars) -> float:
    """CPU time of one closed bar, at ordinals that reach around the ring."""
    features = FeatureSet([FeatureEntry(kind=kind) for kind in kinds], "log_return")
    symbol = np.arange(len(bars.start), dtype=np.int32)
    first = np.zeros(len(symbol), np.int64)
    ordinals = [np.full(len(symbol), RING - 1 + 13 * k) for k in range(INSTANTS)]

    def close_all() -> None:
        for ordinal in ordinals:
            features.compute(bars, symbol, ordinal, first)

    return cpu_ns_per(INSTANTS * len(symbol), close_all)


def main() -> list[Figure]:
    figures = []
    for symbols in (1_000, 10_000):
        value = ns_per_bar(SIXTEEN, market(symbols)) / len(SIXTEEN)
        figures.append(Figure(f"a feature of a closed bar, {symbols:,} symbols", value, "ns", note="mean of 16"))
    bars = market(1_000)
    target = ns_per_bar([], bars)
    for kind in plugin.names("features"):
        value = ns_per_bar([kind], bars) - target
        figures.append(Figure(f"{kind} of a closed bar, 1,000 symbols", value, "ns"))
    return figures


if __name__ == "__main__":
    for figure in main():
        print(f"{figure.name:<58} {figure.value:8.1f} {figure.unit}")
