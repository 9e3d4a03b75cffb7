"""Made rows of a market of which it is known what makes forecasts wrong: scores, forecasts, models and bars."""

from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from storekit import unit
from tickcast import figures
from tickcast.engine.core.ladder import RUNGS
from tickcast.io.store.store import Commit
from tickcast.regimes import NORMAL

MINUTE = 60 * 10**9
T0 = 1_700_000_000 * 10**9 // MINUTE * MINUTE
LEVELS = [0.05, 0.5, 0.95]
QUANTILES = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
STEPS = [1, 4]


class Planted(NamedTuple):
    """[bars, symbols]; the names of `symbols` are S0, S1, ..."""

    close: np.ndarray
    gap: np.ndarray
    regime: np.ndarray
    odd: np.ndarray
    rung: np.ndarray
    trained: tuple[int, int] = (0, 0)


def quiet(seed: int, *, bars: int = 1200, symbols: int = 5) -> tuple[np.ndarray, Planted]:
    """Normal moves, and a market in which nothing makes forecasts wrong: labels are drawn, and tell nothing."""
    draw = np.random.default_rng(seed)
    shape = (bars, symbols)
    moves = draw.normal(size=shape)
    regime = np.repeat(draw.integers(0, 3, (bars // 40 + 1, symbols)), 40, axis=0)[:bars]
    return moves, Planted(
        close=path_of(moves), gap=draw.random(shape) < 0.01, regime=regime, odd=draw.integers(0, 60, shape),
        rung=np.where(draw.random(shape) < 0.1, RUNGS.index("naive"), RUNGS.index("model")),
    )  # fmt: skip


def path_of(moves: np.ndarray) -> np.ndarray:
    return 100 * np.exp(1e-3 * np.cumsum(moves, axis=0))


def since(events: np.ndarray) -> np.ndarray:
    """[bars, symbols] Bars since the last one; many before the first."""
    at = np.where(events, np.arange(len(events))[:, None], -(10**6))
    return np.arange(len(events))[:, None] - np.maximum.accumulate(at, axis=0)


def tables_of(planted: Planted) -> dict[str, pa.Table]:
    bars, symbols = planted.close.shape
    t, s = (each.ravel() for each in np.indices((bars, symbols)))
    asked = t < bars - max(STEPS)
    names, as_of, n = np.array([f"S{code}" for code in range(symbols)]), T0 + (t + 1) * MINUTE, int(asked.sum())
    none = np.zeros(n, np.int32)
    loss = np.stack([losses(planted.close, step)[: bars - max(STEPS)].ravel() for step in STEPS], axis=1)
    scores: dict[str, Any] = {
        "id": np.arange(n), "symbol": names[s[asked]], "as_of_ns": as_of[asked],
        "settled_ns": as_of[asked] + max(STEPS) * MINUTE, "model": none, "anchor": planted.close.ravel()[asked],
        "scale": np.full(n, 1e-3), "steps": lists(np.tile(np.array(STEPS, np.int32), (n, 1))), "loss": lists(loss),
        "loss_naive": lists(2 * loss), "covered": lists(np.arange(2 * n).reshape(n, 2) % 7 > 0),
        "in_sample": none.astype(bool), "regime": planted.regime.ravel()[asked].astype(np.uint8),
        "odd_pct": planted.odd.ravel()[asked].astype(np.uint8),
    }  # fmt: skip
    return {
        "scores": pa.table(scores),
        "forecasts_by_step": pa.table({
            "id": np.arange(n), "as_of_ns": as_of[asked], "tie": none,
            "rung": planted.rung.ravel()[asked].astype(np.uint8), "widths": lists(np.full((n, max(STEPS)), 0.25)),
        }),
        "models_by_span": pa.table({
            "model": [0], "name": ["net"], "version": ["1"], "trained_from_ns": [planted.trained[0]],
            "trained_to_ns": [planted.trained[1]],
        }),
        "bars": pa.table({
            "symbol": names[s], "as_of_ns": as_of, "tie": np.zeros(len(t), np.int32), "close": planted.close.ravel(),
            "mask": np.ones(len(t), bool), "gap": planted.gap.ravel(),
        }),
    }  # fmt: skip


def losses(close: np.ndarray, step: int) -> np.ndarray:
    """[bars, symbols] In one-bar moves, of who forecasts the spread of a quiet market; 0 where nothing came."""
    loss = np.zeros_like(close)
    moved = np.log(close[step:] / close[:-step]) / 1e-3
    loss[:-step] = figures.pinball(np.array(LEVELS), QUANTILES * np.sqrt(step), moved)
    return loss


def lists(values: np.ndarray) -> pa.Array:
    """[N, K] as N lists."""
    ends = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(values.ravel()))


def nothing_said(planted: Planted) -> Planted:
    """The same market without its labels."""
    return planted._replace(
        gap=np.zeros_like(planted.gap), regime=np.full_like(planted.regime, NORMAL), odd=np.zeros_like(planted.odd),
        rung=np.full_like(planted.rung, RUNGS.index("model")),
    )  # fmt: skip


def lost(count: int) -> Commit:
    """Forecasts of one second each, whose losses differ."""
    one = unit(0, count)
    (scores,) = one.scores
    scores.loss[:] = np.random.default_rng(9).exponential(size=scores.loss.shape)
    scores.loss[::3, 0] = np.nan
    return one
