"""Frames of a replay -> why the worst of its forecasts were wrong, by the statement that a store is asked. Pure."""

from typing import Any

import polars as pl

from tickcast.engine.core.ladder import RUNGS
from tickcast.io.store import postmortems

OF_SCORE = (
    "id", "symbol", "as_of_ns", "settled_ns", "model", "anchor", "scale", "loss", "loss_naive", "covered", "in_sample",
    "regime", "odd_pct",
)  # fmt: skip
NO_BARS = pl.LazyFrame(schema={"symbol": pl.String, "as_of_ns": pl.Int64, "tie": pl.Int32, "close": pl.Float64,
                               "mask": pl.Boolean, "gap": pl.Boolean})  # fmt: skip

Figures = dict[str, Any]


def why(
    scores: pl.DataFrame, forecasts: pl.LazyFrame, bars: pl.LazyFrame | None, models: list[Figures], *, log_return: bool
) -> Figures:
    """Of `models` their names, versions and training spans."""
    if not scores.height:
        return {"forecasts": 0, "causes": [], "regimes": []}
    newest = scores.sort("as_of_ns").tail(postmortems.MOST_FORECASTS)
    widths = pl.col("quantiles").list.eval(pl.element().list.last() - pl.element().list.first())
    frames = {
        "scores": newest.lazy().select(*OF_SCORE, steps="horizons"),
        "forecasts_by_step": forecasts.filter(pl.col("as_of_ns") >= newest["as_of_ns"][0]).select(
            "id", "as_of_ns", "tie", pl.col("rung").replace_strict(RUNGS, range(len(RUNGS))), widths=widths
        ),
        "models_by_span": pl.LazyFrame(
            [{name: each[name] for name in ("name", "version", "trained_from_ns", "trained_to_ns")} for each in models]
        ).with_columns(model="name").unique("model", keep="last"),
        "bars": (NO_BARS if bars is None else bars).select(
            "symbol", "as_of_ns", "tie", "close", pl.col("mask", "gap").cast(pl.Boolean)
        ),
    }  # fmt: skip
    tables = {name: frame.collect().to_arrow() for name, frame in frames.items()}
    return postmortems.why_of(tables, log_return=log_return)
