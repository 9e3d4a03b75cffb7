"""A stream of bars whose law turns, small enough to replay the loop over it in a test."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tickcast.batch.loop_replay.loop_replay import LoopOrder
from tickcast.batch.replay import ReplayOrder
from tickcast.settings import Settings, load

HOUR_NS, T0 = 3600 * 10**9, 1_700_000_000 * 10**9 // (3600 * 10**9) * (3600 * 10**9)
SYMBOLS, FIRST = ("A", "B", "C", "D"), 400


def stream(bars: int = 1600, *, turns_at: int = 700, seed: int = 4, spoilt_from: int = 0) -> pl.DataFrame:
    """Moves turn back, from `turns_at` on they go on. From `spoilt_from` on every price is another one."""
    rng, moves = np.random.default_rng(seed), np.zeros((bars, len(SYMBOLS)))
    noise = rng.normal(0, 1e-3, moves.shape)
    for bar in range(1, bars):
        moves[bar] = (0.8 if bar >= turns_at else -0.6) * moves[bar - 1] + noise[bar]
    if spoilt_from:
        moves[spoilt_from:] = np.random.default_rng(seed + 1).normal(0, 2e-3, moves[spoilt_from:].shape)
    price = 100 * np.exp(np.cumsum(moves, axis=0)).ravel()
    ts = T0 + np.repeat(np.arange(bars), len(SYMBOLS)) * HOUR_NS
    return pl.DataFrame(
        {"symbol": [*SYMBOLS] * bars, "ts": ts, **dict.fromkeys(("open", "high", "low", "close"), price)}
    )


def loop_settings(folder: Path, **more: Any) -> Settings:
    given = {
        "bars.every_ms": "3600000", "window.lookback": "8", "forecast.horizon": "1", "schedule.kind": "ridge",
        "schedule.max_new_bars": "300", "schedule.min_new_bars": "100", "schedule.keep_bars": "400",
        "drift.mean_bars_between_false_alarms": "2000", "runtime.folder": str(folder / "run"),
    }  # fmt: skip
    overrides = given | {name.replace("__", "."): str(value) for name, value in more.items()}
    return load(overrides=overrides, environ={})[0]


def loop_order(folder: Path, frame: pl.DataFrame, **more: Any) -> LoopOrder:
    path = folder / "bars.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(path)
    return LoopOrder(ReplayOrder(path, folder / "out", chunk=80), **{"first_bars": FIRST, **more})
