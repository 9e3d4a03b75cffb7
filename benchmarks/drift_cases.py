"""Streams on which drift is measured: quiet ones, ones that change at a known bar, walks, and real hours put together
by whole weeks. It measures nothing.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import polars as pl

from coverage_cases import GARCH, crypto
from tickcast.columns import F64

STREAMS, CHANGE_AT = 100, 3_000
TRAINED, QUIET, CHANGED = 6_000, 20_000, 6_000  # bars of a stream
WEEK = 168
CORRELATION = 0.8
MISS_RATE = 0.1
ONE_MOVE = 1e-3


class Market(NamedTuple):
    """Of every bar and stream: features, whether the interval missed, the model's loss and that of last value."""

    values: F64  # [bars, streams, 4], the last two of which move together
    missed: F64  # [bars, streams]
    loss: F64
    loss_naive: F64


def quiet(bars: int, stay: float, seed: int) -> Market:
    """All of the same law, whose correlation from bar to bar is `stay`."""
    rng = np.random.default_rng(seed)
    values = persistent(rng, (bars, STREAMS, 4), stay)
    values[:, :, 3] = CORRELATION * values[:, :, 2] + np.sqrt(1 - CORRELATION**2) * values[:, :, 3]
    missed = switching(rng, (bars, STREAMS), MISS_RATE, stay)
    own, beside = persistent(rng, (2, bars, STREAMS), stay, axis=1)
    loss_naive = np.exp(0.5 * beside)
    return Market(values, missed, loss_naive * np.exp(0.3 * own), loss_naive)


def persistent(rng: np.random.Generator, shape: tuple[int, ...], stay: float, axis: int = 0) -> F64:
    """Standard normal, AR(1) along the axis."""
    noise = np.moveaxis(rng.standard_normal(shape), axis, 0)
    noise[1:] *= np.sqrt(1 - stay**2)
    for t in range(1, len(noise) if stay else 0):
        noise[t] += stay * noise[t - 1]
    return np.moveaxis(noise, 0, axis)


def switching(rng: np.random.Generator, shape: tuple[int, int], rate: float, stay: float) -> F64:
    """Hits of a rate, each with that probability the one before again."""
    hit, stays = rng.random(shape) < rate, rng.random(shape) < stay
    for t in range(1, len(hit) if stay else 0):
        hit[t] = np.where(stays[t], hit[t - 1], hit[t])
    return hit.astype(np.float64)


def shifted(market: Market, stay: float) -> None:
    market.values[CHANGE_AT:, :, 0] += 1.0


def scaled(market: Market, stay: float) -> None:
    market.values[CHANGE_AT:, :, 1] *= 2.0


def torn(market: Market, stay: float) -> None:
    """What moved together no longer does; each by itself is as before."""
    rest = market.values[CHANGE_AT:, :, 3] - CORRELATION * market.values[CHANGE_AT:, :, 2]
    market.values[CHANGE_AT:, :, 3] = rest / np.sqrt(1 - CORRELATION**2)


def stuck(market: Market, stay: float) -> None:
    market.values[CHANGE_AT:, :, 0] = market.values[CHANGE_AT, :, 0]


def missing(market: Market, stay: float) -> None:
    after = market.missed[CHANGE_AT:]
    after[:] = switching(np.random.default_rng(99), after.shape, 2 * MISS_RATE, stay)


CHANGES: dict[str, tuple[Callable[[Market, float], None], str, int]] = {  # -> its family, and a channel
    "a mean + 1 sd": (shifted, "range", 0), "a scale x 2": (scaled, "range", 1),
    "correlation .8 -> 0": (torn, "joint", 0), "a feature stuck": (stuck, "range", 0),
    "the miss rate x 2": (missing, "coverage", 0),
}  # fmt: skip


def garch_moves(bars: int, seed: int) -> F64:
    """[bars, streams]"""
    rng, variance, moves = np.random.default_rng(seed), np.ones(STREAMS), np.empty((bars, STREAMS))
    constant, of_move, of_itself = GARCH
    for t in range(bars):
        moves[t] = np.sqrt(variance) * rng.standard_normal(STREAMS)
        variance = constant + of_move * moves[t] ** 2 + of_itself * variance
    return ONE_MOVE * moves


def crypto_moves(bars: int, seed: int) -> F64:
    """[bars, streams] of hours of a symbol, its weeks drawn anew with replacement: nothing lasts longer."""
    rng, found = np.random.default_rng(seed), []
    symbols = [np.diff(np.log(of["close"].to_numpy())) for of in crypto().sort("ts").partition_by("symbol")]
    for stream in range(STREAMS):
        own = symbols[stream % len(symbols)]
        weeks = own[: len(own) // WEEK * WEEK].reshape(-1, WEEK)
        found.append(weeks[rng.integers(0, len(weeks), -(-bars // WEEK))].ravel()[:bars])
    return np.stack(found, axis=1)


def bars_of(moves: F64, first_ns: int, every_ns: int) -> pl.DataFrame:
    bars = len(moves)
    close = 100 * np.exp(np.cumsum(moves, axis=0)).ravel()
    return pl.DataFrame({
        "symbol": np.tile([f"S{s:03d}" for s in range(STREAMS)], bars),
        "ts": first_ns + np.repeat(np.arange(1, bars + 1), STREAMS) * every_ns,
        **dict.fromkeys(("open", "high", "low", "close"), close),
    })  # fmt: skip
