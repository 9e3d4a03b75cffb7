"""Two models that share out the symbols of a route: how each did on its own, from stored scores. It changes nothing.

Each answers for other symbols, so their losses say nothing beside each other. Each symbol's skill over last value does:
it is free of how wild the symbol is, and names drew who has which. Symbols are what is drawn, so they are what is
counted: the interval is Welch's, of the mean skill of symbols, over moments in which both models were scored.
"""

from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np

from tickcast import figures
from tickcast.columns import F64
from tickcast.io.store.history import everywhere
from tickcast.io.store.scored import KEPT, in_time, rows_of

BY_SYMBOL = """
, sides AS (
    SELECT unnest($drawn::VARCHAR[]) AS symbol, $model_drawn AS digest, 1 AS side
    UNION ALL SELECT unnest($rest::VARCHAR[]), $model_rest, 0
), own AS (SELECT kept.*, side FROM kept JOIN sides USING (symbol, digest) WHERE NOT in_sample
), lengths AS (
    SELECT greatest(2 * max(settled_ns - as_of_ns), 1) AS block_ns FROM own
    WHERE list_count(actual_from_anchor) = len(steps)
), labels AS (
    SELECT side, symbol, as_of_ns // block_ns AS block, unnest(loss)::DOUBLE AS loss,
        unnest(loss_naive)::DOUBLE AS loss_naive, unnest(covered)::INTEGER AS covered
    FROM own, lengths
), cells AS (
    SELECT side, symbol, block, count(loss) AS n, sum(loss) AS lost, sum(loss_naive) AS lost_naive,
        sum(covered) FILTER (loss IS NOT NULL) AS held
    FROM labels GROUP BY ALL HAVING count(loss) > 0
), common AS (SELECT block FROM cells GROUP BY block HAVING count(DISTINCT side) = 2)
SELECT side, symbol, count(*) AS blocks, sum(n)::BIGINT AS n, sum(lost) AS lost, sum(lost_naive) AS lost_naive,
    sum(held)::BIGINT AS held, (SELECT count(*) FROM common) AS common
FROM cells WHERE block IN (FROM common) GROUP BY ALL ORDER BY ALL
"""
SIDES = ("rest", "drawn")


class SharedRoute(NamedTuple):
    """Who answers for which symbols of a route that has a share."""

    route: str  # the share
    models: tuple[str, str]  # digests: of the rest, and of those that are drawn
    symbols: tuple[list[str], list[str]]


def share_figures(
    cursor: duckdb.DuckDBPyConnection, share: SharedRoute, *, span_ns: tuple[int, int], archive: Path, timeout_s: float
) -> dict[str, Any]:
    """Of the questions in a span of event time."""
    given: dict[str, Any] = {"from": span_ns[0], "to": span_ns[1], "symbols": None, "model": ""}
    given |= dict(zip(SIDES, share.symbols, strict=True))
    given |= dict(zip((f"model_{name}" for name in SIDES), share.models, strict=True))
    with in_time(cursor, timeout_s), everywhere(cursor, "scores", archive, *span_ns) as found:
        rows = rows_of(cursor, KEPT.format(rows=found.rows, once=found.once) + BY_SYMBOL, given)
    return {"route": share.route, **compared(rows, share)}


def compared(rows: list[dict[str, Any]], share: SharedRoute) -> dict[str, Any]:
    """Both sides, by the symbols of which enough is known, and how much more skill those have that were drawn."""
    known = [row for row in rows if row["blocks"] >= figures.LEAST_BLOCKS and row["lost_naive"] > 0]
    by_side = [[row for row in known if row["side"] == side] for side in range(len(SIDES))]
    skills = [_skills(of_side) for of_side in by_side]
    more, low, high = map(_known, figures.apart(skills[1], skills[0]))
    told = {
        name: {"model": share.models[side], "symbols": len(share.symbols[side]), "judged": len(skills[side]),
               **_side(by_side[side], skills[side])}
        for side, name in enumerate(SIDES)
    }  # fmt: skip
    return {
        "blocks": rows[0]["common"] if rows else 0, "insufficient": low is None, **told, "more_skill": more,
        "low": low, "high": high, "confidence": figures.CONFIDENCE,
    }  # fmt: skip


def _skills(rows: list[dict[str, Any]]) -> F64:
    lost, naive = (np.array([row[name] for row in rows], np.float64) for name in ("lost", "lost_naive"))
    return figures.skill(lost, naive)


def _side(rows: list[dict[str, Any]], skills: F64) -> dict[str, Any]:
    n, held = (sum(row[name] for row in rows) for name in ("n", "held"))
    return {"n": n, "skill": _known(figures.mean(skills.sum(), len(skills))), "coverage": _known(figures.mean(held, n))}


def _known(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
