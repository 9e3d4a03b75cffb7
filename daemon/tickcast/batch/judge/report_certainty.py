"""Scored labels -> how sure the skills of a report are: intervals by a block bootstrap over moments, as `evaluate` has.

All labels of one moment are drawn together: what moves the whole market once is not many successes. Pure, and seeded.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from tickcast.batch.judge import report_figures as figures
from tickcast.batch.judge import statistics
from tickcast.columns import F64, I64
from tickcast.figures import CONFIDENCE, skill

DRAWS, SEED = 500, 0
MOST_MOMENTS = 4_000  # of a longer run neighbours are drawn together, so that no report waits for its intervals
MOST_ROWS = 50  # of a table: more have no intervals, for each takes its sums of every moment
PAIRS = {"skill": ("loss", "loss_naive"), "skill_mae": ("missed", "missed_naive")}  # figure -> columns of the labels

ALL = "all"  # the table of one row over all labels; it comes first

Figures = dict[str, Any]


def with_intervals(tables: dict[str, list[Figures]], labels: pl.DataFrame) -> dict[str, list[Figures]]:
    """Tables of rows, one a value of the column that is the table's key, and one row in all under `ALL`: each row with
    `NAME_low` and `NAME_high` of every skill, which are None where too few moments tell.
    """
    drawn = {key: rows for key, rows in tables.items() if 0 < len(rows) <= MOST_ROWS}
    sums, together = _sums(labels, {key: [row.get(key) for row in rows] for key, rows in drawn.items()})
    ends = iter(_intervals(sums, _longest(labels, together)))
    nothing = dict.fromkeys(_names())
    return {key: [{**row, **(next(ends) if key in drawn else nothing)} for row in rows] for key, rows in tables.items()}


def moments_of(labels: pl.DataFrame) -> int:
    return int(_moments(labels).n_unique())


def _longest(labels: pl.DataFrame, together: int) -> int:
    """So far, in rows of sums, neighbouring forecasts share what came."""
    return -(-int(labels["horizon"].max()) // together) if labels.height else 1  # type: ignore[arg-type]


def _intervals(sums: F64, at_least: int) -> list[Figures]:
    """For each of the places of [moments, places, skills, (own, last value's)]; place 0 holds all labels."""
    moments, places = sums.shape[:2]
    told = (sums[:, :, 0, 1] > 0).sum(axis=0) >= statistics.LEAST_ROWS
    if not told.any():
        return [dict.fromkeys(_names()) for _ in range(places)]
    block = statistics.block_length(sums[:, 0, 0, 1] - sums[:, 0, 0, 0], at_least=at_least)
    drawn = statistics.bootstrap_sums(sums.reshape(moments, -1), block=block, draws=DRAWS, seed=SEED)
    by_place = np.moveaxis(drawn.reshape(DRAWS, *sums.shape[1:]), 1, 0)
    return [_ends(one) if enough else dict.fromkeys(_names()) for one, enough in zip(by_place, told, strict=True)]


def _sums(labels: pl.DataFrame, values: dict[str, list[Any]]) -> tuple[F64, int]:
    """[moments, places, skills, (own, last value's)], and how many moments each row holds. The places are the values of
    each key, in that order.
    """
    scaled = labels.filter("scaled")
    moment = np.unique(_moments(scaled).to_numpy(), return_inverse=True)[1]
    together = int(moment.max(initial=0)) // MOST_MOMENTS + 1
    row: I64 = moment // together
    rows = int(row.max(initial=-1)) + 1
    names = [name for pair in PAIRS.values() for name in pair]
    sums = np.zeros((rows, sum(map(len, values.values())), len(names)))
    first = 0
    for key, known in values.items():
        place = pl.lit(0) if key == ALL else pl.col(key).replace_strict(known, range(len(known)))
        at = row * len(known) + scaled.select(pl.repeat(0, pl.len()) + place).to_series().to_numpy()
        for column, name in enumerate(names):
            flat = np.bincount(at, scaled[name].to_numpy(), minlength=rows * len(known))
            sums[:, first : first + len(known), column] = flat.reshape(rows, len(known))
        first += len(known)
    return sums.reshape(rows, first, len(PAIRS), 2), together


def _moments(labels: pl.DataFrame) -> pl.Series:
    """Time bars of all symbols end together; others share a moment where they end within one usual bar of each other,
    the median step.
    """
    ends = labels.select("symbol", "as_of_ns").unique().sort("symbol", "as_of_ns")
    steps = ends.select(pl.col("as_of_ns").diff().over("symbol"))["as_of_ns"].drop_nulls().to_numpy()
    return labels["as_of_ns"] // (max(int(np.median(steps)), 1) if len(steps) else 1)


def _ends(drawn: F64) -> Figures:
    """Of draws [draws, skills, (own, last value's)]."""
    found: Figures = {}
    for number, name in enumerate(PAIRS):
        own, naive = drawn[:, number, 0], drawn[:, number, 1]
        low, high = statistics.percentiles(skill(own, naive), CONFIDENCE)
        known = np.isfinite(low)
        found |= {f"{name}_low": low if known else None, f"{name}_high": high if known else None}
    return found


def _names() -> list[str]:
    return [f"{name}_{end}" for name in PAIRS for end in ("low", "high")]


def skills(settled: pl.DataFrame, levels: Sequence[float] = ()) -> Figures:
    """The figures of the labels, all together and by what, each skill with its interval."""
    if not settled.height:
        return {"headline": {}, "by_horizon": [], "by_model": [], "by_symbol": []}
    by = {key: figures.by(settled, key, levels) for key in ("horizon", "model", "symbol")}
    found = with_intervals({ALL: [figures.overall(settled, levels)], **by}, settled)
    (headline,) = found.pop(ALL)
    sure = {"moments": moments_of(settled), "confidence": CONFIDENCE}
    return {"headline": {**headline, **sure}, **{f"by_{key}": rows for key, rows in found.items()}}
