"""Tallied sums -> the figures a person reads, naive beside each. It only divides."""

from typing import Literal

import numpy as np

from tickcast.columns import F64
from tickcast.engine.core import scoring as column
from tickcast.figures import skill
from tickcast.records import Accuracy


def figures(
    sums: F64,
    levels: list[float],
    *,
    name: tuple[str, str, str],
    horizon: int,
    window: Literal["rolling", "all"],
    pending: int,
    as_of_ns: int,
) -> Accuracy:
    """Figures of one row of sums [columns + Q]; `name` is (model, version, group). NaN where nothing was settled."""
    n = float(sums[column.N])

    def mean(c: int, over: float = n) -> float:
        return float(sums[c] / over) if over else float("nan")

    directed = float(sums[column.DIRECTED])
    covered = {f"{level:g}": mean(column.COVERED + q) for q, level in enumerate(levels)}
    misfit = [abs(level - share) for level, share in zip(levels, covered.values(), strict=True)]
    ups = mean(column.UPS, directed)
    scaled = float(sums[column.SCALED])
    loss, loss_naive = mean(column.PINBALL, scaled), mean(column.PINBALL_NAIVE, scaled)
    return Accuracy(
        model=name[0], version=name[1], group=name[2], horizon=horizon, window=window,
        n=int(n), void=int(sums[column.VOID]), pending=pending, mae=mean(column.AE), mae_naive=mean(column.AE_NAIVE),
        mae_pct=100 * mean(column.APE),
        rmse=float(np.sqrt(mean(column.SE))), rmse_pct=100 * float(np.sqrt(mean(column.SE_PCT))),
        mape=100 * mean(column.MAPE, float(sums[column.MAPE_N])), smape=100 * mean(column.SMAPE),
        r2=_explained(sums[column.SE], sums[column.Y], sums[column.YY], n),
        r2_returns=_explained(sums[column.SE_PCT], sums[column.MOVE], sums[column.MOVE_2], n),
        pinball=loss, pinball_naive=loss_naive, crps=2 * loss, coverage=covered, width=mean(column.WIDTH),
        directional=mean(column.HITS, directed), directional_base=max(ups, 1 - ups),
        calibration=1 - float(np.mean(misfit)) if n else float("nan"),
        skill=float(skill(loss, loss_naive)),
        skill_mae=float(skill(sums[column.ERROR], sums[column.ERROR_NAIVE])), as_of_ns=as_of_ns,
    )  # fmt: skip


def _explained(residual: float, total: float, squares: float, n: float) -> float:
    """R2: one less the share of the variance that the errors leave."""
    spread = squares - total * total / n if n else 0.0
    return float(1 - residual / spread) if spread > 0 else float("nan")
