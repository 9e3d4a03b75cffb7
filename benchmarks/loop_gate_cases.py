"""Losses bar by bar of two forecasts of real prices, for the gate: last value with two widths. It measures nothing."""

import math
from statistics import NormalDist

import numpy as np
import polars as pl

from accuracy_data import CRYPTO_FILE
from tickcast.columns import F64
from tickcast.figures import pinball

LEVELS = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
DEVIATES = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
LOOKBACK, STEPS, KEEP = 96, (1, 4, 12), 0.97


def crypto_widths() -> tuple[F64, F64]:
    """Of 27 hourly symbols: a champion as wide as the moves of its window, and a challenger as wide as they were of
    late (exponential weights). Sums over symbols and steps, in one-bar moves of the window."""
    frame = pl.read_parquet(CRYPTO_FILE).pivot(on="symbol", index="timestamp", values="close").sort("timestamp")
    price = np.log(frame.drop("timestamp").fill_null(strategy="forward").drop_nulls().to_numpy())
    moves = np.diff(price, axis=0)
    window = np.sqrt(np.stack([(moves[t - LOOKBACK : t] ** 2).mean(axis=0) for t in range(LOOKBACK, len(moves))]))
    late, variance = np.empty_like(window), (moves[:LOOKBACK] ** 2).mean(axis=0)
    for row in range(len(window)):
        late[row] = np.sqrt(variance)
        variance = KEEP * variance + (1 - KEEP) * moves[LOOKBACK + row] ** 2
    asked = np.arange(LOOKBACK, len(price) - max(STEPS))  # the close that a question is asked at
    window, late = window[: len(asked)], late[: len(asked)]
    champion, challenger = (sum(_loss(price, asked, step, of) / window for step in STEPS) for of in (window, late))
    return np.sum(champion, axis=1), np.sum(challenger, axis=1)


def _loss(price: F64, asked: F64, step: int, width: F64) -> F64:
    return pinball(LEVELS, width[..., None] * DEVIATES * math.sqrt(step), price[asked + step] - price[asked])
