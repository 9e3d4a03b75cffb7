"""Why forecasts were wrong: the worst tenth of what was scored, and what was so of them more often than of all.

It reads stored scores, forecasts and bars, whose neighbours say what was near a forecast; only its regime and how odd
its inputs were came with its score. A forecast is among the worst at a step where its loss, in one-bar moves of its
window, is above nine tenths of all at that step, whoever answered: else who did could be no cause.

A cause's lift is how much likelier a forecast with it is among the worst than any. Its interval is that of a share over
blocks of event time that have the cause, as wide as all causes and steps together need: in a market in which nothing is
a cause, 19 of 20 looks find none beyond it.
"""

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tickcast import figures
from tickcast.causes import CAUSES, JUMP_MOVES, NEAR_BARS, ODD_PCT, OLD_SHARE, WORST_SHARE
from tickcast.columns import F64
from tickcast.engine.core.ladder import RUNGS
from tickcast.regimes import CALM, FAST_BARS, REGIMES, SLOW_BARS, WILD

MOST_FORECASTS = 200_000  # the newest of a span are looked at
BLOCK_BARS = 2 * FAST_BARS  # at least: so long a regime is like itself
ONE_SIDED = 0.05
DAY_NS, SLOT_NS = 86_400 * 10**9, 300 * 10**9
UNKNOWN = -1  # whether a label has a cause
Row = dict[str, Any]
Sums = dict[str, npt.NDArray[Any]]  # columns of SUMS

_NEAR = "CASE WHEN n IS NOT NULL THEN coalesce({}, false) END"  # of bars that are stored
HOLDS = {  # when a label has a cause; NULL = it is not known
    "after_gap": _NEAR.format(f"bars_since_gap < {NEAR_BARS}"),
    "after_jump": _NEAR.format(f"bars_since_jump < {NEAR_BARS}"),
    "jump": _NEAR.format("bars_to_jump <= step"),
    "wild": f"regime = {WILD}",
    "calm": f"regime = {CALM}",
    "odd_inputs": f"odd_pct > {ODD_PCT}",
    "stand_in": f"rung <> {RUNGS.index('model')}",
    "old_model": f"model_age_ns > {OLD_SHARE} * trained_ns",
}
KEPT = f"""
WITH kept AS (
    SELECT * FROM scores
    WHERE as_of_ns >= $from AND as_of_ns < $to AND NOT in_sample
        AND ($symbols IS NULL OR list_contains($symbols, symbol))
    ORDER BY as_of_ns DESC, id LIMIT {MOST_FORECASTS}
), span AS (
    SELECT min(as_of_ns) AS first_ns, max(as_of_ns) AS last_ns, max(settled_ns) AS settled_ns,
        coalesce(median((settled_ns - as_of_ns) / list_max(steps)), 0)::BIGINT AS bar_ns
    FROM kept
)
"""
OF_STORE = """
, forecasts_by_step AS (
    SELECT id, as_of_ns, tie, rung, list_transform(
        range(1, len(quantiles_from_anchor) // len(levels) + 1),
        lambda step: quantiles_from_anchor[step * len(levels)] - quantiles_from_anchor[1 + (step - 1) * len(levels)]
    ) AS widths
    FROM forecasts JOIN models USING (model)
    WHERE as_of_ns >= (SELECT first_ns FROM span) AND as_of_ns <= (SELECT last_ns FROM span)
), models_by_span AS (
    SELECT model, name, version, (card->>'$.trained_from_ns')::BIGINT AS trained_from_ns,
        (card->>'$.trained_to_ns')::BIGINT AS trained_to_ns
    FROM models
)
"""
JUDGED = f"""
, moves AS (
    SELECT symbol, as_of_ns, tie, row_number() OVER own AS n,
        mask AND (gap OR NOT coalesce(lag(mask) OVER own, true)) AS ends_gap,
        CASE WHEN NOT mask OR ends_gap THEN NULL
            WHEN NOT $log_return THEN abs(close - lag(close) OVER own)
            WHEN close > 0 AND lag(close) OVER own > 0 THEN abs(ln(close / lag(close) OVER own))
        END AS move
    FROM bars
    WHERE as_of_ns >= (SELECT first_ns - {SLOW_BARS + 1} * bar_ns FROM span)
        AND as_of_ns <= (SELECT last_ns + {FAST_BARS} * bar_ns FROM span)
        AND ($symbols IS NULL OR list_contains($symbols, symbol))
    WINDOW own AS (PARTITION BY symbol ORDER BY as_of_ns, tie)
), paces AS (
    SELECT *, avg(move) OVER (own ROWS BETWEEN {SLOW_BARS} PRECEDING AND 1 PRECEDING) AS usual,
        avg(move) OVER (own ROWS BETWEEN {FAST_BARS - 1} PRECEDING AND CURRENT ROW) AS fast,
        avg(move) OVER (own ROWS BETWEEN 1 FOLLOWING AND {FAST_BARS} FOLLOWING) AS coming
    FROM moves WINDOW own AS (PARTITION BY symbol ORDER BY n)
), places AS (
    SELECT symbol, as_of_ns, tie, n, fast / nullif(usual, 0) AS volatility,
        coming / nullif(usual, 0) AS volatility_after, n - max(n) FILTER (ends_gap) OVER past AS bars_since_gap,
        n - max(n) FILTER (move > {JUMP_MOVES} * usual) OVER past AS bars_since_jump,
        min(n) FILTER (move > {JUMP_MOVES} * usual) OVER future - n AS bars_to_jump
    FROM paces
    WINDOW own AS (PARTITION BY symbol ORDER BY n),
        past AS (own ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW),
        future AS (own ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING)
), labels AS (
    SELECT s.id, s.symbol, s.as_of_ns, s.settled_ns, s.model, m.name, m.version, f.rung, s.regime, s.odd_pct,
        CASE WHEN m.trained_to_ns > 0 THEN s.as_of_ns - m.trained_to_ns END AS model_age_ns,
        m.trained_to_ns - m.trained_from_ns AS trained_ns, p.* EXCLUDE (symbol, as_of_ns, tie),
        unnest(s.steps) AS step, unnest(s.loss)::DOUBLE AS loss, unnest(s.loss_naive)::DOUBLE AS loss_naive,
        unnest(s.covered)::INTEGER AS held, unnest(list_transform(s.steps, lambda step: f.widths[step]))::DOUBLE
            / nullif(s.scale * CASE WHEN $log_return THEN abs(s.anchor) ELSE 1 END, 0) AS width
    FROM kept s JOIN forecasts_by_step f ON f.id = s.id AND f.as_of_ns = s.as_of_ns
        JOIN models_by_span m ON m.model = s.model
        LEFT JOIN places p ON p.symbol = s.symbol AND p.as_of_ns = s.as_of_ns AND p.tie = f.tie
), limits AS (
    SELECT step, quantile_cont(loss, {1 - WORST_SHARE}) AS limited FROM labels WHERE isfinite(loss) GROUP BY step
), judged AS MATERIALIZED (
    SELECT *, loss > limited AS worst, loss / nullif(limited, 0) AS excess,
        {", ".join(f"{holds} AS {cause}" for cause, holds in HOLDS.items())}
    FROM labels JOIN limits USING (step) WHERE isfinite(loss)
)
"""
SUMS = f"""{JUDGED}
SELECT name, version, step, coalesce(regime, {len(REGIMES)})::INTEGER AS regime,
    as_of_ns // greatest(greatest(2 * step, {BLOCK_BARS}) * bar_ns, 1) AS block, worst,
    {", ".join(f"coalesce({cause}::INTEGER, {UNKNOWN}) AS {cause}" for cause in HOLDS)}, count(*)::DOUBLE AS n,
    sum(loss) AS lost, sum(loss_naive) AS lost_naive, sum(held)::DOUBLE AS held, sum(width) AS width
FROM judged, span GROUP BY ALL
"""
SPAN = f"{KEPT} SELECT (SELECT count(*) FROM kept), first_ns, last_ns FROM span"
_CAUSES_OF_ROW = ", ".join(f"CASE WHEN {cause} THEN '{cause}' END" for cause in HOLDS)
WORST = f"""{JUDGED}
, settings AS (
    SELECT greatest({SLOT_NS}, bar_ns, ({DAY_NS} + $a_day - 1) // $a_day) AS slot_ns,
        $a_day * slot_ns // {DAY_NS} AS quota
    FROM span
), taken AS (
    SELECT as_of_ns // slot_ns AS slot, count(*) AS rows
    FROM postmortems, settings WHERE as_of_ns >= $from GROUP BY slot
), worst_steps AS (
    SELECT judged.*, as_of_ns // slot_ns AS slot, quota FROM judged, settings, span
    WHERE worst AND slot * slot_ns >= first_ns
        AND (slot + 1) * slot_ns + (SELECT max(step) FROM judged) * bar_ns <= span.settled_ns
        AND id NOT IN (SELECT id FROM postmortems WHERE as_of_ns >= $from)
    QUALIFY row_number() OVER (PARTITION BY id ORDER BY excess DESC, step) = 1
)
SELECT id, symbol, as_of_ns, settled_ns, model, step, loss, loss_naive, excess, rung, regime, volatility,
    volatility_after, bars_since_gap, bars_since_jump, bars_to_jump, odd_pct, model_age_ns,
    list_filter([{_CAUSES_OF_ROW}], lambda cause: cause IS NOT NULL) AS causes
FROM worst_steps LEFT JOIN taken USING (slot)
QUALIFY row_number() OVER (PARTITION BY slot ORDER BY excess DESC, id) <= quota - coalesce(rows, 0)
ORDER BY as_of_ns, id
"""
KEEP = """
INSERT INTO postmortems BY NAME SELECT * FROM found
WHERE NOT EXISTS (SELECT 1 FROM postmortems old WHERE old.as_of_ns = found.as_of_ns AND old.id = found.id)
"""


class Looked(NamedTuple):
    """At what: event times in [from_ns, to_ns), symbols (none = all), and how moves are counted."""

    from_ns: int
    to_ns: int
    symbols: list[str]
    log_return: bool

    def rows(self) -> dict[str, object]:
        """The parameters of KEPT."""
        return {"from": self.from_ns, "to": self.to_ns, "symbols": self.symbols or None}

    def all(self) -> dict[str, object]:
        return {**self.rows(), "log_return": self.log_return}


def why(cursor: duckdb.DuckDBPyConnection, at: Looked, *, origin: str = OF_STORE) -> Row:
    """What the worst tenth had more often than all, and the figures of each regime; see the top."""
    ((forecasts, first_ns, last_ns),) = cursor.execute(SPAN, at.rows()).fetchall()
    told = {"forecasts": forecasts, "first_as_of_ns": first_ns, "last_as_of_ns": last_ns, "causes": [], "regimes": []}
    if forecasts:
        found = cursor.execute(KEPT + origin + SUMS, at.all()).fetchnumpy()
        sums = {name: np.ma.filled(column) for name, column in found.items()}
        told["causes"], told["regimes"] = _causes(sums), _regimes(sums)
    return told


def why_of(tables: dict[str, pa.Table], *, log_return: bool) -> Row:
    """The same of rows that no store holds: `scores`, `forecasts_by_step`, `models_by_span` and `bars`, as above."""
    with duckdb.connect(config={"threads": 1}) as memory:  # sums of several threads are not always the same
        for name, table in tables.items():
            memory.register(name, table)
        return why(memory, Looked(-(1 << 63), (1 << 63) - 1, [], log_return), origin="")


def worst(cursor: duckdb.DuckDBPyConnection, at: Looked, *, a_day: int) -> pa.Table:
    """Rows for `postmortems` that are not there yet: of each forecast the step at which it was worst, the worst of each
    stretch of event time, of no day more than `a_day`."""
    return cursor.sql(KEPT + OF_STORE + WORST, params=at.all() | {"a_day": a_day}).to_arrow_table()


def keep(connection: duckdb.DuckDBPyConnection, found: pa.Table) -> None:
    """Once, however often it is given."""
    connection.register("found", found)
    connection.execute(KEEP).fetchall()
    connection.unregister("found")


def _causes(sums: Sums) -> list[Row]:
    """Those that some labels have and others not, by lift; what too few blocks tell comes last."""
    steps = np.unique(sums["step"]).tolist()
    z = NormalDist().inv_cdf(1 - ONE_SIDED / (len(CAUSES) * max(len(steps), 1)))
    found = []
    for step in steps:
        own = _where(sums, sums["step"] == step)
        told = [cause for cause in HOLDS if {0, 1} <= {*own[cause].tolist()}]
        found += [_cause(cause, step, _by_block(own, own[cause]), z) for cause in told]
    return sorted(found, key=lambda row: -(row["lift"] or 0.0))


def _by_block(sums: Sums, has: Any) -> F64:
    """[blocks, (known, having it, known and worst, having it and worst)]."""
    block = np.unique(sums["block"], return_inverse=True)[1]
    known, worst = has != UNKNOWN, sums["worst"]
    counted = [known, has == 1, known & worst, (has == 1) & worst]
    return np.stack([np.bincount(block, sums["n"] * each) for each in counted], axis=1)


def _cause(cause: str, step: int, counts: F64, z: float) -> Row:
    having, hit = counts[counts[:, 1] > 0, 1], counts[counts[:, 1] > 0, 3]
    known, with_it, worst_known, worst_with_it = counts.sum(axis=0)
    told: Row = {
        "cause": cause, "step": step, "n": int(known), "having": int(with_it), "worst": int(worst_known),
        "worst_having": int(worst_with_it), "blocks": len(having),
    }  # fmt: skip
    names = ("share", "base", "lift", "lift_low", "lift_high")
    told["insufficient"] = len(having) < figures.LEAST_BLOCKS or not worst_known
    if told["insufficient"]:
        return told | dict.fromkeys(names)
    usual, risk = worst_known / known, worst_with_it / with_it
    low, high = figures.wilson(risk, _sums(having, hit), z)
    values = (worst_with_it / worst_known, with_it / known, risk / usual, low / usual, high / usual)
    return told | dict(zip(names, map(float, values), strict=True))


def _regimes(sums: Sums) -> list[Row]:
    """Of every model, step and regime, in this order."""
    keys = sorted({*zip(*(sums[name].tolist() for name in ("name", "version", "step", "regime")), strict=True)})
    found = []
    for name, version, step, regime in keys:
        if regime < len(REGIMES):
            own = (sums["name"] == name) & (sums["version"] == version) & (sums["step"] == step)
            told: Row = {"model": name, "version": version, "step": step, "regime": REGIMES[regime]}
            found.append(told | _figures(_where(sums, own & (sums["regime"] == regime))))
    return found


def _figures(sums: Sums) -> Row:
    block = np.unique(sums["block"], return_inverse=True)[1]
    n, held = (np.bincount(block, sums[name]).astype(np.float64) for name in ("n", "held"))
    count, lost, lost_naive, width = (sums[name].sum() for name in ("n", "lost", "lost_naive", "width"))
    coverage = held.sum() / count
    low, high = figures.wilson(coverage, _sums(n, held))
    values = {
        "pinball": lost / count, "pinball_naive": lost_naive / count, "skill": figures.skill(lost, lost_naive),
        "coverage": coverage, "coverage_low": low, "coverage_high": high, "width": width / count,
    }  # fmt: skip
    told: Row = {"n": int(count), "blocks": len(n), "insufficient": len(n) < figures.LEAST_BLOCKS}
    return told | {
        name: None if told["insufficient"] or not math.isfinite(value) else float(value)
        for name, value in values.items()
    }


def _where(sums: Sums, rows: Any) -> Sums:
    return {name: column[rows] for name, column in sums.items()}


def _sums(n: F64, k: F64) -> figures.BlockSums:
    of = ((n).sum(), (n * n).sum(), (k * n).sum(), (k * k).sum(), float(len(n)))
    return figures.BlockSums(*(np.array([value]) for value in of))
