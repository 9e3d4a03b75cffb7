"""Scores of the arms -> how good each was beside last value, and beside the static one, over the same labels. Pure."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tickcast.batch.judge import report_figures
from tickcast.batch.judge.report_certainty import ALL, with_intervals
from tickcast.columns import F64, I64
from tickcast.errors import BadData
from tickcast.figures import CONFIDENCE, mean, skill

SAME = ("symbol", "as_of_ns")
SCORES = [*report_figures.OF_A_SCORE, *report_figures.PER_HORIZON]
OF_A_TABLE = ("n", "skill", "skill_low", "skill_high", "coverage")
BUCKETS = 90  # of event time

Figures = dict[str, Any]


def read_scores(path: Path) -> pl.DataFrame:
    if not path.exists():
        raise BadData("the history ended before anything was scored", remedy="give a longer one")
    return pl.read_parquet(path, columns=SCORES)


def beside(scores: pl.DataFrame, other: pl.DataFrame, *, log_return: bool, from_ns: int) -> pl.DataFrame:
    """Labels from then on, each with the other's loss for that of last value. Both arms were asked the same."""
    if not scores.select(SAME).equals(other.select(SAME)):
        raise BadData("two arms were not asked the same questions", remedy="replay a file that nobody writes to")
    judged = scores.with_columns(loss_naive=other["loss"], in_sample=pl.col("in_sample") | other["in_sample"])
    found = report_figures.labels(judged, log_return=log_return).settled
    return found.filter(pl.col("as_of_ns") >= from_ns) if found.height else found


def overall(labels: pl.DataFrame) -> Figures:
    """With the interval of the skill."""
    if not labels.height:
        return dict.fromkeys(OF_A_TABLE)
    (row,) = with_intervals({ALL: [report_figures.overall(labels)]}, labels)[ALL]
    return {name: row[name] for name in OF_A_TABLE} | {"confidence": CONFIDENCE}


def by_horizon(labels: pl.DataFrame) -> list[Figures]:
    if not labels.height:
        return []
    tables = {ALL: [report_figures.overall(labels)], "horizon": report_figures.by(labels, "horizon")}
    rows = with_intervals(tables, labels)["horizon"]
    return [{name: row[name] for name in ("horizon", *OF_A_TABLE)} for row in rows]


def edges_of(from_ns: int, to_ns: int) -> I64:
    """Of even stretches of event time."""
    return np.linspace(from_ns, max(to_ns, from_ns + BUCKETS), BUCKETS + 1).astype(np.int64)


def over_time(labels: pl.DataFrame, widths: tuple[I64, F64], edges: I64) -> Figures:
    """Per stretch: skill, coverage and width; None where nothing was scored."""
    middles = (edges[:-1] + edges[1:]) // 2
    known = labels.filter("scaled") if labels.height else labels
    columns = ("loss", "loss_naive", "covered") if known.height else ()
    own, naive, covered = ([_sums(known["as_of_ns"].to_numpy(), known[name].cast(pl.Float64).to_numpy(), edges)
                            for name in columns] or [np.zeros((2, BUCKETS))] * 3)  # fmt: skip
    width = _sums(*widths, edges)
    found = {"skill": skill(own[0], naive[0]), "coverage": mean(*covered), "width": mean(*width)}
    told = {name: [float(v) if np.isfinite(v) else None for v in values] for name, values in found.items()}
    return {"as_of_ns": middles.tolist(), **told}


def _sums(as_of: I64, values: F64, edges: I64) -> F64:
    """[sum, count] per stretch."""
    at = np.searchsorted(edges, as_of, side="right") - 1
    inside = (at >= 0) & (at < BUCKETS)
    return np.stack([np.bincount(at[inside], weights, minlength=BUCKETS) for weights in (values[inside], None)])
