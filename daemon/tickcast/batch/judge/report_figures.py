"""Scores and forecasts -> the figures of a report. Pure; spans that the model was trained on never enter a headline.

They are named as in the record Accuracy and mean the same (tickcast.figures).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from tickcast import figures as of
from tickcast.columns import F64

TIME_BUCKETS = 60
OF_A_SCORE = ("symbol", "as_of_ns", "model", "anchor", "scale", "in_sample")
PER_HORIZON = ("horizons", "actual", "point", "loss", "loss_naive", "covered")
OF_QUANTILES = ("low", "high", "reached")

IN_PRICES = ("mae", "mae_naive", "rmse", "r2")

Figures = dict[str, Any]


class Labels(NamedTuple):
    """Scores with one row for each scored horizon."""

    settled: pl.DataFrame  # outside the training span
    in_sample: pl.DataFrame
    void: int


def with_quantiles(scores: pl.DataFrame, forecasts: pl.LazyFrame) -> pl.DataFrame:
    """Each score with the outermost quantiles that were published of its steps, and how many of them the truth lay at
    or below."""
    if not scores.height:
        return scores
    published = forecasts.select("id", "quantiles").drop_nulls("quantiles")
    one = published.select(pl.col("quantiles").list.first().list.len()).head(1).collect()
    if not one.height:
        return scores
    steps, levels = scores["horizons"][0].to_list(), range(one.item())
    at = [pl.col("quantiles").list.get(step - 1) for step in steps]
    truth = [pl.col("actual").list.get(j) for j in range(len(steps))]
    reached = [[(y <= each.list.get(q)).cast(pl.UInt32) for q in levels] for y, each in zip(truth, at, strict=True)]
    found: dict[str, list[pl.Expr]] = {
        "low": [each.list.first() for each in at], "high": [each.list.last() for each in at],
        "reached": [pl.sum_horizontal(of_step) for of_step in reached],
    }  # fmt: skip
    joined = scores.lazy().join(published, on="id", how="left", maintain_order="left")
    lists = joined.with_columns(pl.concat_list(columns).alias(name) for name, columns in found.items())
    return lists.drop("quantiles").collect(engine="streaming")


def labels(scores: pl.DataFrame, *, log_return: bool, levels: Sequence[float] = ()) -> Labels:
    """With `levels`, scores are those with quantiles."""
    if not scores.height:
        return Labels(pl.DataFrame(), pl.DataFrame(), 0)
    exploded = [*PER_HORIZON, *(name for name in OF_QUANTILES if name in scores.columns)]
    rows = scores.select(*OF_A_SCORE, *exploded).explode(exploded).rename({"horizons": "horizon"})
    rows = rows.with_columns(
        in_sample=pl.col("in_sample").cast(pl.Boolean),
        missed=_in_moves("point", log_return).abs(),
        missed_naive=_in_moves("anchor", log_return).abs(),
        scaled=pl.col("scale") > of.SCALE_FLOOR,
    )
    if "low" in rows.columns and len(levels) > 1:
        beyond = rows.select(_in_moves("low", log_return), _in_moves("high", log_return)).to_numpy()
        loss = of.losses(np.array([levels[0], levels[-1]]), -beyond, np.zeros(len(beyond)))
        rows = rows.with_columns(winkler=of.winkler(levels, (0, -1), loss[:, 0], loss[:, 1]))
    void = rows["actual"].is_nan() | rows["actual"].is_null()
    rows, gone = rows.filter(~void), rows.filter(void & ~rows["in_sample"])
    return Labels(rows.filter(~pl.col("in_sample")), rows.filter("in_sample"), gone.height)


def _in_moves(column: str, log_return: bool) -> pl.Expr:
    """How far the truth lay above the column, in one-bar moves."""
    actual, other = pl.col("actual"), pl.col(column)
    return (((actual / other).log() if log_return else actual - other) / pl.col("scale")).alias(column)


def by(rows: pl.DataFrame, key: str, levels: Sequence[float] = ()) -> list[Figures]:
    """One row of figures for each value of `key`."""
    if not rows.height:
        return []
    sums = rows.group_by(key).agg(_sums(rows, len(levels))).sort(key)
    return pl.DataFrame({key: sums[key], **_figures(sums, levels)}).to_dicts()


def overall(rows: pl.DataFrame, levels: Sequence[float] = ()) -> Figures:
    """All together: without figures in prices where there are several symbols, whose dearest would decide them."""
    if not rows.height:
        return {}
    found: Figures = pl.DataFrame(_figures(rows.select(_sums(rows, len(levels))), levels)).to_dicts()[0]
    return found if rows["symbol"].n_unique() == 1 else found | dict.fromkeys(IN_PRICES)


def _sums(rows: pl.DataFrame, levels: int) -> list[pl.Expr]:
    """Of what each figure is made. Prices are summed beside the first: else their size would eat up their digits."""
    actual, anchor, size = pl.col("actual"), pl.col("anchor"), pl.col("anchor").abs()
    move, error, price = actual - anchor, actual - pl.col("point"), actual - anchor.first()
    told, right = of.directions(move, pl.col("point") - anchor)
    in_moves = [name for name in ("loss", "loss_naive", "missed", "missed_naive", "winkler") if name in rows.columns]
    sums: dict[str, pl.Expr] = {
        "n": pl.len(), "error": error.abs(), "naive": move.abs(), "share": error.abs() / size,
        "squares": error.pow(2), "squared_shares": (error / size).pow(2), "price": price, "prices": price.pow(2),
        "moves": move / size, "squared_moves": (move / size).pow(2), "held": pl.col("covered").cast(pl.Float64),
        "told": told, "right": right & told, "ups": (move > 0) & told, "scaled": pl.col("scaled"),
        **{name: pl.col(name).filter("scaled") for name in in_moves},
        "one_step": pl.col("missed_naive").filter(pl.col("scaled") & (pl.col("horizon") == 1)),
        "one_steps": pl.col("scaled") & (pl.col("horizon") == 1),
        **{f"reached {q}": pl.col("reached") >= levels - q for q in range(levels if "reached" in rows.columns else 0)},
    }  # fmt: skip
    return [pl.col("symbol").n_unique().alias("symbols"), *(
        (each if name == "n" else each.sum()).alias(name) for name, each in sums.items()
    )]  # fmt: skip


def _figures(sums: pl.DataFrame, levels: Sequence[float]) -> dict[str, pl.Series]:
    s = {name: sums[name].cast(pl.Float64).to_numpy() for name in sums.columns if name not in ("model", "symbol")}
    nothing, n, scaled = np.full(sums.height, np.nan), s["n"], s["scaled"]
    loss, missed = of.mean(s["loss"], scaled), of.mean(s["missed"], scaled)
    one_step = of.mean(s["one_step"], s["one_steps"])
    if "horizon" in s:  # of each step, beside that of the first
        one_step = np.full(sums.height, one_step[0])
    shares = [of.mean(s[f"reached {q}"], n) for q in range(len(levels)) if f"reached {q}" in s]
    found = {
        "mae": of.mean(s["error"], n), "mae_naive": of.mean(s["naive"], n), "pinball": loss,
        "pinball_naive": of.mean(s["loss_naive"], scaled), "crps": 2 * loss, "mae_pct": 100 * of.mean(s["share"], n),
        "rmse": of.rmse(s["squares"], n), "coverage": of.mean(s["held"], n),
        "directional": of.mean(s["right"], s["told"]), "directional_base": of.directional_base(s["ups"], s["told"]),
        "skill": of.skill(s["loss"], s["loss_naive"]), "skill_mae": of.skill(s["missed"], s["missed_naive"]),
        "r2": np.where(s["symbols"] == 1, of.explained(s["squares"], s["price"], s["prices"], n), np.nan),
        "r2_returns": of.explained(s["squared_shares"], s["moves"], s["squared_moves"], n),
        "mase": of.mase(missed, one_step), "winkler": of.mean(s["winkler"], scaled) if "winkler" in s else nothing,
        "calibration": of.calibration(levels, np.stack(shares, axis=-1)) if shares else nothing,
    }  # fmt: skip
    return {"n": sums["n"], **{name: pl.Series(name, each).fill_nan(None) for name, each in found.items()}}


def over_time(rows: pl.DataFrame) -> list[Figures]:
    """Pinball loss relative to last value's, in even stretches of event time."""
    if not rows.height:
        return []
    low, high = (int(at) for at in rows.select(pl.col("as_of_ns").min(), last=pl.col("as_of_ns").max()).row(0))
    width = (high - low) // TIME_BUCKETS + 1
    bucket = ((pl.col("as_of_ns") - low) // width * width + low + width // 2).alias("as_of_ns")
    losses = (pl.col(name).filter("scaled").sum() for name in ("loss", "loss_naive"))
    share = rows.group_by(bucket).agg(pl.len().alias("n"), *losses).sort("as_of_ns")
    ratio = 1 - of.skill(share["loss"].to_numpy(), share["loss_naive"].to_numpy())
    return share.select("as_of_ns", "n", ratio=pl.Series(ratio).fill_nan(None)).to_dicts()


def reliability(rows: pl.DataFrame, levels: Sequence[float]) -> list[Figures]:
    """For each level the share of actuals at or below its quantile."""
    if "reached" not in rows.columns:
        return []
    reached = rows["reached"].to_numpy()
    return [{"level": level, "share": float((reached >= len(levels) - q).mean())} for q, level in enumerate(levels)]


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
