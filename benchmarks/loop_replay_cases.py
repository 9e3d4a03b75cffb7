"""Streams for replays of the loop: quiet ones, and ones whose law turns, with what an oracle of the law would lose. It
measures nothing.
"""

from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import polars as pl

from accuracy_data import HOUR_NS
from coverage_cases import PRICES, T0, written
from tickcast.columns import F64, I64
from tickcast.figures import pinball

SYMBOLS, NOISE, TURNS_BACK, GOES_ON = 8, 1e-3, -0.5, 0.4
LEVELS = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
DEVIATES = np.array([NormalDist().inv_cdf(level) for level in LEVELS])


class Stream(NamedTuple):
    """Log prices [bars, symbols] whose moves follow the last one by `persistence` [bars]."""

    price: F64
    persistence: F64


def stream(bars: int, *, changes_at: int = 0, seed: int) -> Stream:
    """Moves that turn back; from bar `changes_at` on they go on instead; 0 = never."""
    rng = np.random.default_rng(seed)
    persistence = np.full(bars, TURNS_BACK)
    if changes_at:
        persistence[changes_at:] = GOES_ON
    moves, noise = np.zeros((bars, SYMBOLS)), rng.normal(0, NOISE, (bars, SYMBOLS))
    for bar in range(1, bars):
        moves[bar] = persistence[bar] * moves[bar - 1] + noise[bar]
    return Stream(np.cumsum(moves, axis=0), persistence)


def write(of: Stream, path: Path) -> Path:
    """As hourly bars."""
    bars, symbols = of.price.shape
    price = 100 * np.exp(of.price).ravel()
    return written(pl.DataFrame({
        "symbol": np.tile([f"S{s}" for s in range(symbols)], bars),
        "ts": T0 + np.repeat(np.arange(bars), symbols) * HOUR_NS, **dict.fromkeys(PRICES, price),
    }), path)  # fmt: skip


def oracle_loss(of: Stream, symbol: I64, bar: I64, horizon: I64, scale: F64) -> F64:
    """Per label, in one-bar moves: of who knows the law and the change's moment, mean over the levels."""
    move = np.diff(of.price, axis=0, prepend=of.price[:1])[bar, symbol]
    centre, variance, gain = np.zeros(len(bar)), np.zeros(len(bar)), np.zeros((int(horizon.max()) + 1, len(bar)))
    last, carried = move, np.zeros((int(horizon.max()), len(bar)))
    for step in range(1, int(horizon.max()) + 1):
        phi = of.persistence[np.minimum(bar + step, len(of.persistence) - 1)]
        last = phi * last
        carried[: step - 1] *= phi
        carried[step - 1] = 1.0
        gain[:step] += carried[:step]
        inside = step <= horizon
        centre += np.where(inside, last, 0.0)
        variance = np.where(inside, (gain[:step] ** 2).sum(axis=0), variance)
    quantiles = centre[:, None] + NOISE * np.sqrt(variance)[:, None] * DEVIATES
    truth = of.price[bar + horizon, symbol] - of.price[bar, symbol]
    found: F64 = pinball(LEVELS, quantiles / scale[:, None], truth / scale)
    return found
