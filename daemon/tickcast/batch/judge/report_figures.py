"""Scores and forecasts -> the figures of a report. Pure; spans that the model was trained on never enter a headline.

They are named as in the record Accuracy and mean the same (tickcast.figures).
"""

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from tickcast.columns import F64
from tickcast.figures import SCALE_FLOOR, skill

RELIABILITY_ROWS = 5_000  # scored forecasts whose quantiles are compared with the truth, spread evenly over time
TIME_BUCKETS = 60
OF_A_SCORE = ("symbol", "as_of_ns", "model", "anchor", "scale", "in_sample")
PER_HORIZON = ("horizons", "actual", "point", "loss", "loss_naive", "covered")

IN_PRICES = ("mae", "mae_naive", "rmse")

Figures = dict[str, Any]


class Labels(NamedTuple):
    """Scores with one row for each scored horizon."""

    settled: pl.DataFrame  # outside the training span
    in_sample: pl.DataFrame
    void: int


def labels(scores: pl.DataFrame, *, log_return: bool) -> Labels:
    if not scores.height:
        return Labels(pl.DataFrame(), pl.DataFrame(), 0)
    rows = scores.select(*OF_A_SCORE, *PER_HORIZON).explode(PER_HORIZON).rename({"horizons": "horizon"})
    rows = rows.with_columns(
        in_sample=pl.col("in_sample").cast(pl.Boolean),
        error=(pl.col("actual") - pl.col("point")).abs(),
        naive=(pl.col("actual") - pl.col("anchor")).abs(),
        **{name: _in_moves(column, log_return) for name, column in (("missed", "point"), ("missed_naive", "anchor"))},
        scaled=pl.col("scale") > SCALE_FLOOR,
    )
    void = rows["actual"].is_nan() | rows["actual"].is_null()
    rows, gone = rows.filter(~void), rows.filter(void & ~rows["in_sample"])
    return Labels(rows.filter(~pl.col("in_sample")), rows.filter("in_sample"), gone.height)


def _in_moves(column: str, log_return: bool) -> pl.Expr:
    """How far the truth lay from the column, in one-bar moves."""
    actual, other = pl.col("actual"), pl.col(column)
    return ((actual / other).log() if log_return else actual - other).abs() / pl.col("scale")


def by(rows: pl.DataFrame, key: str) -> list[Figures]:
    """One row of figures for each value of `key`."""
    return _with_skill(rows.group_by(key).agg(_figures()).sort(key)).to_dicts() if rows.height else []


def overall(rows: pl.DataFrame) -> Figures:
    """All together: without figures in prices where there are several symbols, whose dearest would decide them."""
    if not rows.height:
        return {}
    found = _with_skill(rows.select(_figures())).to_dicts()[0]
    return found if rows["symbol"].n_unique() == 1 else found | dict.fromkeys(IN_PRICES)


def _with_skill(found: pl.DataFrame) -> pl.DataFrame:
    pairs = {"skill": ("pinball", "pinball_naive"), "skill_mae": ("missed", "missed_naive")}
    columns = {name: skill(*(found[each].cast(pl.Float64).to_numpy() for each in pair)) for name, pair in pairs.items()}
    return found.with_columns(pl.Series(name, column).fill_nan(None) for name, column in columns.items()).drop(
        "missed", "missed_naive"
    )


def _figures() -> list[pl.Expr]:
    move, forecast = pl.col("actual") - pl.col("anchor"), pl.col("point") - pl.col("anchor")
    said = (move != 0) & (forecast != 0)
    rises = (move > 0).filter(said).mean()
    losses = {"pinball": "loss", "pinball_naive": "loss_naive", "missed": "missed", "missed_naive": "missed_naive"}
    return [
        pl.len().alias("n"),
        pl.col("error").mean().alias("mae"),
        pl.col("naive").mean().alias("mae_naive"),
        *(pl.col(column).filter("scaled").mean().alias(name) for name, column in losses.items()),
        (2 * pl.col("loss").filter("scaled").mean()).alias("crps"),
        (100 * (pl.col("error") / pl.col("anchor").abs()).mean()).alias("mae_pct"),
        pl.col("error").pow(2).mean().sqrt().alias("rmse"),
        pl.col("covered").cast(pl.Float64).mean().alias("coverage"),
        (forecast * move > 0).filter(said).mean().alias("directional"),
        pl.max_horizontal(rises, 1 - rises).alias("directional_base"),
    ]


def over_time(rows: pl.DataFrame) -> list[Figures]:
    """Pinball loss relative to last value's, in even stretches of event time."""
    if not rows.height:
        return []
    low, high = (int(at) for at in rows.select(pl.col("as_of_ns").min(), last=pl.col("as_of_ns").max()).row(0))
    width = (high - low) // TIME_BUCKETS + 1
    bucket = ((pl.col("as_of_ns") - low) // width * width + low + width // 2).alias("as_of_ns")
    share = _with_skill(rows.group_by(bucket).agg(_figures()).sort("as_of_ns"))
    return share.select("as_of_ns", "n", ratio=1 - pl.col("skill")).to_dicts()


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
