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
from tickcast.io.store.history import Everywhere, everywhere, with_archived

YEAR_NS = 31_557_600 * 10**9  # 365.25 days
BPS = 1e-4

KEPT = """
WITH kept AS (
    SELECT m.name, m.version, m.digest, m.levels, s.*
    FROM (
        SELECT * FROM {rows}
        WHERE as_of_ns >= $from AND as_of_ns < $to AND ($symbols IS NULL OR list_contains($symbols, symbol)) {once}
    ) s JOIN models m USING (model)
    WHERE $model IN ('', m.name, m.name || '@' || m.version) OR len($model) >= 8 AND starts_with(m.digest, $model)
)
"""
ADDED = (
    "missed", "missed_naive", "missed_pct", "missed_naive_pct", "squared", "squared_pct", "of_truth", "of_both", "move",
    "move2", "price", "price2", "scaled", "lost", "lost_naive", "strayed", "strayed_naive", "held", "said", "is_right",
    "ups", "judged", "lost_low", "lost_high", "known",
)  # fmt: skip
SUMS = """
, published AS (
    SELECT id, as_of_ns, quantiles_from_anchor AS quantiles FROM {forecasts}
    WHERE as_of_ns >= $from AND as_of_ns < $to {forecasts_once}
), lengths AS (
    SELECT name, version, max((settled_ns - as_of_ns) / list_max(steps)) AS bar_ns
    FROM kept WHERE NOT in_sample AND list_count(actual_from_anchor) = len(steps)
    GROUP BY ALL
), steps AS (
    SELECT name, version, as_of_ns, anchor, scale, unnest(steps) AS step, unnest(actual_from_anchor)::DOUBLE AS actual,
        unnest(point_from_anchor)::DOUBLE AS point, unnest(loss)::DOUBLE AS loss,
        unnest(loss_naive)::DOUBLE AS loss_naive, unnest(covered)::INTEGER AS covered,
        CASE WHEN levels = $levels::DOUBLE[] THEN quantiles END AS quantiles
    FROM kept LEFT JOIN published USING (id, as_of_ns) WHERE NOT in_sample
), labels AS (
    SELECT *, CASE WHEN loss IS NOT NULL THEN {in_moves_of_point} END AS strayed,
        CASE WHEN loss IS NOT NULL THEN {in_moves_of_anchor} END AS moved,
        CASE WHEN loss IS NOT NULL THEN {in_moves_of_low} END AS above_low,
        CASE WHEN loss IS NOT NULL THEN {in_moves_of_high} END AS above_high,
        anchor + actual - (SELECT arg_min(anchor, as_of_ns) FROM kept) AS price
    FROM (SELECT *, quantiles[(step - 1) * $count + 1] AS low, quantiles[step * $count] AS high FROM steps)
), blocks AS (
    SELECT name, version, step, as_of_ns // greatest((2 * step * coalesce(bar_ns, 0))::BIGINT, 1) AS block,
        count(actual) AS n, count(*) AS came,
        sum(abs(actual - point)) AS missed, sum(abs(actual)) AS missed_naive,
        sum(abs(actual - point) / nullif(abs(anchor), 0)) AS missed_pct,
        sum(abs(actual) / nullif(abs(anchor), 0)) AS missed_naive_pct,
        sum((actual - point) ** 2) AS squared, sum(((actual - point) / nullif(anchor, 0)) ** 2) AS squared_pct,
        sum(abs((actual - point) / nullif(anchor + actual, 0))) AS of_truth,
        sum(2 * abs(actual - point) / nullif(abs(anchor + actual) + abs(anchor + point), 0)) AS of_both,
        sum(actual / nullif(abs(anchor), 0)) AS move, sum((actual / nullif(anchor, 0)) ** 2) AS move2,
        sum(price) AS price, sum(price * price) AS price2,
        count(loss) AS scaled, sum(loss) AS lost, sum(loss_naive) AS lost_naive,
        sum(abs(strayed)) AS strayed, sum(abs(moved)) AS strayed_naive, coalesce(sum(covered), 0) AS held,
        count(*) FILTER (actual <> 0 AND point <> 0) AS said, count(*) FILTER (actual * point > 0) AS is_right,
        count(*) FILTER (actual > 0 AND point <> 0) AS ups, count(above_low) AS judged,
        sum(greatest($lowest * above_low, ($lowest - 1) * above_low)) AS lost_low,
        sum(greatest($highest * above_high, ($highest - 1) * above_high)) AS lost_high,
        count(*) FILTER (actual IS NOT NULL AND low IS NOT NULL) AS known{below}
    FROM labels LEFT JOIN lengths USING (name, version)
    GROUP BY ALL
)
SELECT name AS model, version, step AS horizon, sum(n)::BIGINT AS n, sum(came - n)::BIGINT AS void,
    count(*) FILTER (n > 0) AS blocks, {added},
    sum(n * n)::DOUBLE AS n2, sum(held * n)::DOUBLE AS held_n, sum(held * held)::DOUBLE AS held2,
    sum(said * said)::DOUBLE AS said2, sum(is_right * said)::DOUBLE AS right_said,
    sum(is_right * is_right)::DOUBLE AS right2
FROM blocks GROUP BY ALL ORDER BY ALL
"""
BELOW = "count(*) FILTER (actual <= quantiles[(step - 1) * $count + {q}]) AS below_{q}"
LEAST_PRICE = 1e-300  # of which there is a logarithm
COUNTS = """
SELECT count(*) AS forecasts, count(*) FILTER (in_sample) AS in_sample, count(DISTINCT symbol) AS symbols,
    min(as_of_ns) AS first_as_of_ns, max(as_of_ns) AS last_as_of_ns
FROM kept
"""
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


class Said(NamedTuple):
    """What forecasts said: these levels of moves, which are logarithms or differences."""

    levels: list[float]
    log_return: bool


class Trading(NamedTuple):
    """What a change of position costs, and whether each bar has a forecast, so that a position may go on."""

    side_bps: float
    goes_on: bool


def scored(
    cursor: duckdb.DuckDBPyConnection, wanted: ScoreFilter, trading: Trading, *, said: Said, archive: Path,
    timeout_s: float,
) -> dict[str, Any]:  # fmt: skip
    """A position is the sign of the median move of step 1, held for one bar, all symbols with the same share; what was
    learnt from is left out. A Sharpe ratio is per year.
    """
    given: dict[str, object] = {
        "from": wanted.from_ns, "to": wanted.to_ns, "symbols": wanted.symbols or None, "model": wanted.model,
    }  # fmt: skip
    terms = {"cost": trading.side_bps * BPS, "goes_on": trading.goes_on, "year": YEAR_NS}
    with in_time(cursor, timeout_s), everywhere(cursor, "scores", archive, wanted.from_ns, wanted.to_ns) as found:
        kept = KEPT.format(rows=found.rows, once=found.once)
        published = with_archived(cursor, "forecasts", archive, wanted.from_ns, wanted.to_ns)
        (counts,) = rows_of(cursor, kept + COUNTS, given)
        sums = rows_of(cursor, kept + sums_sql(said, published), given | given_of(said))
        earned = rows_of(cursor, kept + TRADED, given | terms)
    return {**counts, "figures": figures_of(sums, said, one_symbol=counts["symbols"] == 1), "trading": earned}


def sums_sql(said: Said, forecasts: Everywhere) -> str:
    """Behind KEPT: by model and step, of what each figure is made."""
    below = [BELOW.format(q=q) for q in range(1, len(said.levels) + 1)]
    added = [*ADDED, *(f"below_{q}" for q in range(1, len(said.levels) + 1))]
    return SUMS.format(
        forecasts=forecasts.rows, forecasts_once=forecasts.once, below="".join(f", {each}" for each in below),
        added=", ".join(f"sum({name})::DOUBLE AS {name}" for name in added),
        **{f"in_moves_of_{name}": _in_moves(name, said) for name in ("point", "anchor", "low", "high")},
    )  # fmt: skip


def given_of(said: Said) -> dict[str, object]:
    """For `sums_sql`."""
    levels = said.levels
    return {"levels": levels, "count": len(levels), "lowest": levels[0], "highest": levels[-1]}


def _in_moves(name: str, said: Said) -> str:
    """How far the truth lay above it, in one-bar moves; all but the anchor are distances from that."""
    other = "0" if name == "anchor" else name
    if not said.log_return:
        return f"(actual - {other}) / scale"
    truth, beside = (f"greatest(anchor + {each}, {LEAST_PRICE})" for each in ("actual", other))
    return f"ln({truth} / {beside}) / scale"


def figures_of(sums: list[dict[str, Any]], said: Said, *, one_symbol: bool) -> list[dict[str, Any]]:
    """Of the sums by model and step."""
    known = [{name: math.nan if value is None else value for name, value in row.items()} for row in sums]
    first = {(row["model"], row["version"]): row for row in known if row["horizon"] == 1}
    return [_figures(row, first.get((row["model"], row["version"])), said, one_symbol=one_symbol) for row in known]


def _figures(known: dict[str, Any], first: dict[str, Any] | None, said: Said, *, one_symbol: bool) -> dict[str, Any]:
    """None of all where too few blocks tell; `first` are the sums of the step of one bar."""
    n, enough = known["n"], known["blocks"] >= figures.LEAST_BLOCKS
    coverage, directional = figures.mean(known["held"], n), figures.mean(known["is_right"], known["said"])
    within = figures.wilson(coverage, _blocks(known, "n", "n2", "held_n", "held2"))
    right = figures.wilson(directional, _blocks(known, "said", "said2", "right_said", "right2"))
    pinball, shares = figures.mean(known["lost"], known["scaled"]), _shares(known, said)
    one_step = math.nan if first is None else figures.mean(first["strayed_naive"], first["scaled"])
    ends = (figures.mean(known[name], known["judged"]) for name in ("lost_low", "lost_high"))
    found = {
        "mae": figures.mean(known["missed"], n), "mae_naive": figures.mean(known["missed_naive"], n),
        "mae_pct": 100 * figures.mean(known["missed_pct"], n),
        "mae_naive_pct": 100 * figures.mean(known["missed_naive_pct"], n), "rmse": figures.rmse(known["squared"], n),
        "mape": 100 * figures.mean(known["of_truth"], n), "smape": 100 * figures.mean(known["of_both"], n),
        "r2": _explained(known, "squared", "price", "price2") if one_symbol else math.nan,
        "r2_returns": _explained(known, "squared_pct", "move", "move2"),
        "mase": figures.mase(figures.mean(known["strayed"], known["scaled"]), one_step),
        "pinball": pinball, "pinball_naive": figures.mean(known["lost_naive"], known["scaled"]), "crps": 2 * pinball,
        "coverage": coverage, "coverage_low": within[0], "coverage_high": within[1],
        "winkler": figures.winkler(said.levels, (0, -1), *ends), "directional": directional,
        "calibration": figures.calibration(said.levels, shares),
        "directional_low": right[0], "directional_high": right[1],
        "directional_base": figures.directional_base(known["ups"], known["said"]),
        "skill": figures.skill(known["lost"], known["lost_naive"]),
        "skill_mae": figures.skill(known["strayed"], known["strayed_naive"]),
    }  # fmt: skip
    counts = {name: known[name] for name in ("model", "version", "horizon", "n", "void", "blocks")}
    told = {name: _finite(float(value)) if enough else None for name, value in found.items()}
    return {**counts, "insufficient": not enough, **told}


def _explained(known: dict[str, Any], *names: str) -> Any:
    return figures.explained(*(known[name] for name in (*names, "n")))


def _shares(known: dict[str, Any], said: Said) -> Any:
    """The calibration curve."""
    return figures.mean([known[f"below_{q}"] for q in range(1, len(said.levels) + 1)], known["known"])


def _blocks(known: dict[str, Any], *names: str) -> figures.BlockSums:
    return figures.BlockSums(*(np.array([known[name]], np.float64) for name in (*names, "blocks")))


def rows_of(cursor: duckdb.DuckDBPyConnection, sql: str, given: dict[str, object]) -> list[dict[str, Any]]:
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
