"""Scores and forecasts -> the figures of a report. Pure; spans that the model was trained on never enter a headline.

`mae`, `skill`, `directional` and `crps` are what the record Accuracy means by them. `skill_by_scale` is the skill with
every error in one-bar moves of its own window, so that dear symbols do not outweigh cheap ones.
"""

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from tickcast.columns import F64

RELIABILITY_ROWS = 5_000  # scored forecasts whose quantiles are compared with the truth, spread evenly over time
TIME_BUCKETS = 60
LEAST_SCALE = 2e-8  # below it a window has never moved, and its unit means nothing
OF_A_SCORE = ("symbol", "as_of_ns", "model", "anchor", "scale", "in_sample")
PER_HORIZON = ("horizons", "actual", "point", "pinball", "covered")

Figures = dict[str, Any]


class Labels(NamedTuple):
    """Scores with one row for each scored horizon."""

    settled: pl.DataFrame  # outside the training span
    in_sample: pl.DataFrame
    void: int


def labels(scores: pl.DataFrame, *, log_return: bool) -> Labels:
    if not scores.height:
        return Labels(pl.DataFrame(), pl.DataFrame(), 0)
    unit = pl.col("scale") * (pl.col("anchor").abs() if log_return else 1.0)
    rows = scores.select(*OF_A_SCORE, *PER_HORIZON).explode(PER_HORIZON).rename({"horizons": "horizon"})
    rows = rows.with_columns(
        in_sample=pl.col("in_sample").cast(pl.Boolean),
        error=(pl.col("actual") - pl.col("point")).abs(),
        naive=(pl.col("actual") - pl.col("anchor")).abs(),
        unit=pl.when(pl.col("scale") > LEAST_SCALE).then(unit),
    )
    void = rows["actual"].is_nan() | rows["actual"].is_null()
    rows, gone = rows.filter(~void), rows.filter(void & ~rows["in_sample"])
    return Labels(rows.filter(~pl.col("in_sample")), rows.filter("in_sample"), gone.height)


def by(rows: pl.DataFrame, key: str) -> list[Figures]:
    """One row of figures for each value of `key`."""
    return rows.group_by(key).agg(_figures()).sort(key).to_dicts() if rows.height else []


def overall(rows: pl.DataFrame) -> Figures:
    return rows.select(_figures()).to_dicts()[0] if rows.height else {}


def _figures() -> list[pl.Expr]:
    move, forecast = pl.col("actual") - pl.col("anchor"), pl.col("point") - pl.col("anchor")
    moved = move != 0
    in_units = pl.col("unit").is_not_null()
    scaled_error = (pl.col("error") / pl.col("unit")).filter(in_units).sum()
    scaled_naive = (pl.col("naive") / pl.col("unit")).filter(in_units).sum()
    rises = (move > 0).filter(moved).mean()
    return [
        pl.len().alias("n"),
        pl.col("error").mean().alias("mae"),
        pl.col("naive").mean().alias("mae_naive"),
        (1 - _ratio(pl.col("error").sum(), pl.col("naive").sum())).alias("skill"),
        (1 - _ratio(scaled_error, scaled_naive)).alias("skill_by_scale"),
        (100 * (pl.col("error") / pl.col("anchor").abs()).mean()).alias("mae_pct"),
        pl.col("error").pow(2).mean().sqrt().alias("rmse"),
        pl.col("pinball").mean().alias("pinball"),
        (2 * pl.col("pinball").mean()).alias("crps"),
        pl.col("covered").cast(pl.Float64).mean().alias("coverage"),
        (forecast * move > 0).filter(moved).mean().alias("directional"),
        pl.max_horizontal(rises, 1 - rises).alias("directional_base"),
    ]


def _ratio(part: pl.Expr, whole: pl.Expr) -> pl.Expr:
    return pl.when(whole > 0).then(part / whole)


def over_time(rows: pl.DataFrame) -> list[Figures]:
    """Error relative to naive, in even stretches of event time."""
    if not rows.height:
        return []
    low, high = (int(at) for at in rows.select(pl.col("as_of_ns").min(), last=pl.col("as_of_ns").max()).row(0))
    width = (high - low) // TIME_BUCKETS + 1
    bucket = ((pl.col("as_of_ns") - low) // width * width + low + width // 2).alias("as_of_ns")
    share = rows.group_by(bucket).agg(_figures()).sort("as_of_ns")
    return share.select("as_of_ns", "n", ratio=1 - pl.col("skill_by_scale")).to_dicts()


def reliability(scores: pl.DataFrame, forecasts: pl.LazyFrame) -> list[Figures]:
    """For each level the share of actuals at or below its quantile, over a sample of settled forecasts."""
    if not scores.height:
        return []
    outside = scores.filter(~pl.col("in_sample").cast(pl.Boolean)).sort("as_of_ns", "id")
    sample = outside.gather_every(max(1, outside.height // RELIABILITY_ROWS)).select("id", "horizons", "actual")
    answers = forecasts.select("id", "levels", "quantiles").drop_nulls("quantiles")
    joined = answers.join(sample.lazy(), on="id").collect()
    if not joined.height:
        return []
    levels = np.array(joined["levels"][0], np.float64)
    steps = np.array(joined["horizons"][0], np.int64) - 1
    quantiles = stacked(joined["quantiles"], len(levels))[:, steps]
    actual = np.array(joined["actual"].to_list(), np.float64)[:, :, None]
    known = np.isfinite(actual)
    below = (np.where(known, actual <= quantiles, False)).sum((0, 1)) / max(int(known.sum()), 1)
    return [{"level": float(level), "share": float(share)} for level, share in zip(levels, below, strict=True)]


def stacked(quantiles: pl.Series, levels: int) -> F64:
    """A column of lists of lists as [rows, horizon, level]."""
    flat: F64 = quantiles.explode().explode().to_numpy().astype(np.float64)
    return flat.reshape(len(quantiles), -1, levels)


def spans(in_sample: pl.DataFrame) -> Figures:
    """Where the model was scored on its own training span."""
    if not in_sample.height:
        return {"labels": 0}
    return {
        "labels": in_sample.height,
        "from_ns": in_sample["as_of_ns"].min(),
        "to_ns": in_sample["as_of_ns"].max(),
        "figures": overall(in_sample),
    }
