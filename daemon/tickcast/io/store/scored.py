"""How stored scores of a span of event time turned out: figures by model and step, and what trading on step 1 earned.

It reads the tables and their days in the archive, and changes nothing.
"""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np

from tickcast import figures
from tickcast.errors import BadRequest
from tickcast.io.store.history import everywhere

YEAR_NS = 31_557_600 * 10**9  # 365.25 days
BPS = 1e-4

KEPT = """
WITH kept AS (
    SELECT m.name, m.version, s.*
    FROM (
        SELECT * FROM {rows}
        WHERE as_of_ns >= $from AND as_of_ns < $to AND ($symbols IS NULL OR list_contains($symbols, symbol)) {once}
    ) s JOIN models m USING (model)
    WHERE $model IN ('', m.name, m.name || '@' || m.version) OR len($model) >= 8 AND starts_with(m.digest, $model)
)
"""
ADDED = (
    "missed", "missed_naive", "missed_pct", "missed_naive_pct", "squared", "of_truth", "of_both", "scaled", "lost",
    "lost_naive", "held", "said", "is_right",
)  # fmt: skip
SUMS = f"""
, lengths AS (
    SELECT name, version, max((settled_ns - as_of_ns) / list_max(steps)) AS bar_ns
    FROM kept WHERE NOT in_sample AND list_count(actual_from_anchor) = len(steps)
    GROUP BY ALL
), labels AS (
    SELECT name, version, as_of_ns, anchor, unnest(steps) AS step, unnest(actual_from_anchor)::DOUBLE AS actual,
        unnest(point_from_anchor)::DOUBLE AS point, unnest(loss)::DOUBLE AS loss,
        unnest(loss_naive)::DOUBLE AS loss_naive, unnest(covered)::INTEGER AS covered
    FROM kept WHERE NOT in_sample
), blocks AS (
    SELECT name, version, step, as_of_ns // greatest((2 * step * coalesce(bar_ns, 0))::BIGINT, 1) AS block,
        count(actual) AS n, count(*) AS came,
        sum(abs(actual - point)) AS missed, sum(abs(actual)) AS missed_naive,
        sum(abs(actual - point) / nullif(abs(anchor), 0)) AS missed_pct,
        sum(abs(actual) / nullif(abs(anchor), 0)) AS missed_naive_pct,
        sum((actual - point) ** 2) AS squared, sum(abs((actual - point) / nullif(anchor + actual, 0))) AS of_truth,
        sum(2 * abs(actual - point) / nullif(abs(anchor + actual) + abs(anchor + point), 0)) AS of_both,
        count(loss) AS scaled, sum(loss) AS lost, sum(loss_naive) AS lost_naive, coalesce(sum(covered), 0) AS held,
        count(*) FILTER (actual <> 0 AND point <> 0) AS said, count(*) FILTER (actual * point > 0) AS is_right
    FROM labels LEFT JOIN lengths USING (name, version)
    GROUP BY ALL
)
SELECT name AS model, version, step AS horizon, sum(n)::BIGINT AS n, sum(came - n)::BIGINT AS void,
    count(*) FILTER (n > 0) AS blocks, {", ".join(f"sum({name})::DOUBLE AS {name}" for name in ADDED)},
    sum(n * n)::DOUBLE AS n2, sum(held * n)::DOUBLE AS held_n, sum(held * held)::DOUBLE AS held2,
    sum(said * said)::DOUBLE AS said2, sum(is_right * said)::DOUBLE AS right_said,
    sum(is_right * is_right)::DOUBLE AS right2
FROM blocks GROUP BY ALL ORDER BY ALL
"""
COUNTS = "SELECT count(*), count(*) FILTER (in_sample), count(DISTINCT symbol), min(as_of_ns), max(as_of_ns) FROM kept"
TRADED = """
, moves AS (
    SELECT name, version, symbol, as_of_ns, id, anchor, list_position(steps, 1) AS i,
        sign(point_from_anchor[i]) AS side, actual_from_anchor[i] / anchor AS move
    FROM kept WHERE NOT in_sample AND anchor > 0 AND actual_from_anchor[list_position(steps, 1)] IS NOT NULL
), held AS (
    SELECT name, version, as_of_ns, side, side * move - $cost * (
        CASE WHEN $goes_on THEN abs(side - lag(side, 1, 0) OVER own) ELSE 2 * abs(side) END
    ) AS net
    FROM moves WINDOW own AS (PARTITION BY name, version, symbol ORDER BY as_of_ns, id)
), earned AS (
    SELECT name, version, as_of_ns, avg(net) AS net, count(*) FILTER (side <> 0) AS positions,
        count(*) FILTER (side <> 0 AND net > 0) AS won
    FROM held GROUP BY ALL
), equity AS (
    SELECT *, exp(sum(ln(greatest(1 + net, 1e-12))) OVER own) AS worth
    FROM earned WINDOW own AS (PARTITION BY name, version ORDER BY as_of_ns)
), fallen AS (
    SELECT *, 1 - worth / greatest(1, max(worth) OVER own) AS below
    FROM equity WINDOW own AS (PARTITION BY name, version ORDER BY as_of_ns)
)
SELECT name AS model, version, count(*) AS moments, sum(positions)::BIGINT AS positions,
    arg_max(worth, as_of_ns) - 1 AS "return", max(below) AS max_drawdown,
    sum(won) / nullif(sum(positions), 0) AS win_rate,
    avg(net) / nullif(stddev_samp(net), 0)
        * sqrt((count(*) - 1) * $year::DOUBLE / nullif(max(as_of_ns) - min(as_of_ns), 0)) AS sharpe
FROM fallen GROUP BY ALL ORDER BY ALL
"""


class ScoreFilter(NamedTuple):
    """Of which scores: event times in [from_ns, to_ns), symbols (none = all), a model (empty = all)."""

    from_ns: int
    to_ns: int
    symbols: list[str]
    model: str


class Trading(NamedTuple):
    """What a change of position costs, and whether each bar has a forecast, so that a position may go on."""

    side_bps: float
    goes_on: bool


def scored(
    cursor: duckdb.DuckDBPyConnection, wanted: ScoreFilter, trading: Trading, *, archive: Path, timeout_s: float
) -> dict[str, Any]:
    """A position is the sign of the median move of step 1, held for one bar, all symbols with the same share; what was
    learnt from is left out. A Sharpe ratio is per year.
    """
    given: dict[str, object] = {
        "from": wanted.from_ns, "to": wanted.to_ns, "symbols": wanted.symbols or None, "model": wanted.model,
    }  # fmt: skip
    terms = {"cost": trading.side_bps * BPS, "goes_on": trading.goes_on, "year": YEAR_NS}
    with in_time(cursor, timeout_s), everywhere(cursor, "scores", archive, wanted.from_ns, wanted.to_ns) as found:
        kept = KEPT.format(rows=found.rows, once=found.once)
        (counts,) = _rows(cursor, kept + COUNTS, given)
        told = [_figures(row) for row in _rows(cursor, kept + SUMS, given)]
        earned = _rows(cursor, kept + TRADED, given | terms)
    names = ("forecasts", "in_sample", "symbols", "first_as_of_ns", "last_as_of_ns")
    return {**dict(zip(names, counts.values(), strict=True)), "figures": told, "trading": earned}


def _figures(of: dict[str, Any]) -> dict[str, Any]:
    """Of the sums of a model and step; None of all where too few blocks tell."""
    known = {name: math.nan if value is None else value for name, value in of.items()}
    n, enough = known["n"], known["blocks"] >= figures.LEAST_BLOCKS
    coverage, directional = figures.mean(known["held"], n), figures.mean(known["is_right"], known["said"])
    within = figures.wilson(coverage, _blocks(known, "n", "n2", "held_n", "held2"))
    right = figures.wilson(directional, _blocks(known, "said", "said2", "right_said", "right2"))
    found = {
        "mae": figures.mean(known["missed"], n), "mae_naive": figures.mean(known["missed_naive"], n),
        "mae_pct": 100 * figures.mean(known["missed_pct"], n),
        "mae_naive_pct": 100 * figures.mean(known["missed_naive_pct"], n), "rmse": figures.rmse(known["squared"], n),
        "mape": 100 * figures.mean(known["of_truth"], n), "smape": 100 * figures.mean(known["of_both"], n),
        "pinball": figures.mean(known["lost"], known["scaled"]),
        "pinball_naive": figures.mean(known["lost_naive"], known["scaled"]),
        "coverage": coverage, "coverage_low": within[0], "coverage_high": within[1], "directional": directional,
        "directional_low": right[0], "directional_high": right[1],
        "skill": figures.skill(known["lost"], known["lost_naive"]),
    }  # fmt: skip
    counts = {name: of[name] for name in ("model", "version", "horizon", "n", "void", "blocks")}
    told = {name: _finite(float(value)) if enough else None for name, value in found.items()}
    return {**counts, "insufficient": not enough, **told}


def _blocks(known: dict[str, Any], *names: str) -> figures.BlockSums:
    return figures.BlockSums(*(np.array([known[name]], np.float64) for name in (*names, "blocks")))


def _rows(cursor: duckdb.DuckDBPyConnection, sql: str, given: dict[str, object]) -> list[dict[str, Any]]:
    found = cursor.execute(sql, given)
    names = [str(column[0]) for column in found.description or []]
    return [dict(zip(names, map(_finite, row), strict=True)) for row in found.fetchall()]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def in_time(cursor: duckdb.DuckDBPyConnection, timeout_s: float) -> Iterator[None]:
    deadline = threading.Timer(timeout_s, cursor.interrupt)
    deadline.start()
    try:
        yield
    except duckdb.InterruptException:
        raise BadRequest(
            f"what was asked took longer than {timeout_s:g} s",
            remedy="ask for fewer hours or symbols, or raise store.query_timeout_s",
        ) from None
    finally:
        deadline.cancel()
