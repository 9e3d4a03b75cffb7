"""Which kinds of model are worth trying on some data, and why: what was found on data like these, and what their
signature shows. Each reason is computed from the numbers that it names; kinds are known from data alone.

It fits nothing and reads no store.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tickcast.io.store.ledger_rows import TrajectoryRow
from tickcast.loop.signature import ALIKE, Signature, distance, read_signature

MEASURED = Path(__file__).with_name("measured.json")  # benchmarks/measured_kinds.py writes it
CHANCE = 3.0  # standard errors of an autocorrelation
LEAST_TURNING, LEAST_MEMORY, LEAST_CLUSTERING, LEAST_SEASON = 0.05, 0.02, 0.05, 0.01  # less is nothing to build on
OF_MEMORY = 7  # lags in that mean
SEASON_CHANCE = 20.0  # three standard errors of the share that 24 hours explain of so many bars are this / bars
MANY_GAPS, FEW_BARS = 0.2, 20_000
MOST_SUGGESTED = 8


class MeasuredKind(msgspec.Struct, frozen=True):
    kind: str
    skill: float
    skill_low: float | None  # of its interval, or of its folds
    skill_high: float | None
    cost_us: float | None


class MeasuredCase(msgspec.Struct, frozen=True):
    """What kinds were worth on a set of public data."""

    data: str
    horizon: int
    beside: str  # what skill is against
    origin: str  # the file of results
    signature: Signature
    kinds: list[MeasuredKind]


class MeasuredTable(msgspec.Struct, frozen=True):
    cases: list[MeasuredCase]
    uses: dict[str, list[str]]  # what kinds can make use of, as TRAITS has it -> kinds, the cheapest first


class Suggestion(msgspec.Struct, kw_only=True):
    kind: str
    skill: float | None = None
    skill_low: float | None = None
    skill_high: float | None = None
    cost_us: float | None = None
    why: list[str]


class Recommendation(msgspec.Struct, kw_only=True):
    is_known: bool  # whether anything was found on data like these
    says: list[str]  # of the data
    kinds: list[Suggestion]  # the most promising first
    signature: Signature


def measured() -> MeasuredTable:
    return msgspec.json.decode(MEASURED.read_bytes(), type=MeasuredTable)


def recommend(
    signature: Signature, trajectories: Sequence[TrajectoryRow], table: MeasuredTable, *, kinds: Sequence[str]
) -> Recommendation:
    """Of these `kinds`; what the deployment found itself comes before what was measured elsewhere."""
    found: dict[str, Suggestion] = {}
    for suggestion in (*_own(signature, trajectories), *_elsewhere(signature, table)):
        known = found.setdefault(suggestion.kind, suggestion)
        if known is not suggestion:
            known.why += suggestion.why
    is_known = bool(found)
    traits = dict(_traits(signature))
    for trait, why in traits.items():
        for kind in table.uses.get(trait, []):
            found.setdefault(kind, Suggestion(kind=kind, why=[])).why.append(why)
    worth = [one for one in found.values() if one.kind in kinds and (one.skill is None or one.skill > 0)]
    worse = sorted(one.kind for one in found.values() if one.kind in kinds and one not in worth)
    says = [*traits.values(), *_remarks(signature, traits)]
    says += [f"no better than last value on data like these: {', '.join(worse)}"] if worse else []
    if not is_known:
        says.append(_nothing_known(signature, trajectories, table))
    best_first = sorted(worth, key=_promise)
    return Recommendation(is_known=is_known, says=says, kinds=best_first[:MOST_SUGGESTED], signature=signature)


def worth_a_sweep(found: Recommendation, table: MeasuredTable, *, kinds: Sequence[str]) -> list[str]:
    """Kinds to fit once: what is recommended, then the first of each make, then all that was measured, by cost."""
    costs = {row.kind: row.cost_us or 0.0 for case in table.cases for row in case.kinds}
    makes = [of[0] for of in table.uses.values()]
    order = [*(one.kind for one in found.kinds), *makes, *sorted(costs, key=costs.__getitem__)]
    return [kind for kind in dict.fromkeys(order) if kind in kinds]


def _promise(one: Suggestion) -> tuple[float, ...]:
    """The low end of what was found, then what was found; what only the signature speaks for comes last."""
    if one.skill is None:
        return (1.0, -float(len(one.why)))
    return (0.0, -(one.skill if one.skill_low is None else one.skill_low), -one.skill)


def _own(signature: Signature, trajectories: Sequence[TrajectoryRow]) -> Iterator[Suggestion]:
    """Of each kind the nearest fit or search of the deployment, and of equals the newest."""
    nearest: dict[str, tuple[float, TrajectoryRow]] = {}
    for row in sorted(trajectories, key=lambda row: -row.at_ns):
        known = read_signature(row.signature)
        if known is None or row.skill is None:
            continue
        away = distance(known, signature)
        if away <= ALIKE and (row.kind not in nearest or away < nearest[row.kind][0]):
            nearest[row.kind] = (away, row)
    for away, row in nearest.values():
        why = f"{_worth(row)} on the hold-out of job {row.job[:12]} ({row.made_by}), {away:.2f} away"
        yield _suggestion(row, why)


def _elsewhere(signature: Signature, table: MeasuredTable) -> Iterator[Suggestion]:
    """On public data, the nearest first."""
    near = [(away, case) for case in table.cases if (away := distance(case.signature, signature)) <= ALIKE]
    for away, case in sorted(near, key=lambda one: one[0]):
        for row in case.kinds:
            why = f"{_worth(row)} on {case.data}, horizon {case.horizon}, {away:.2f} away, beside {case.beside}"
            yield _suggestion(row, why)


def _suggestion(row: Any, why: str) -> Suggestion:
    of = {name: getattr(row, name) for name in ("kind", "skill", "skill_low", "skill_high", "cost_us")}
    return Suggestion(**of, why=[why])


def _worth(row: Any) -> str:
    between = "" if row.skill_low is None else f" ({row.skill_low:+.2%} to {row.skill_high:+.2%})"
    return f"skill {row.skill:+.2%}{between}"


def _traits(of: Signature) -> Iterator[tuple[str, str]]:
    """What the data show that a kind could make use of, and in which numbers."""
    chance = _chance(of)
    if abs(of.turning) > max(LEAST_TURNING, chance):
        does = "turn back" if of.turning < 0 else "go on"
        yield (
            "memory",
            (
                f"moves {does}: lag-1 autocorrelation {of.turning:+.2f}, chance alone up to {chance:.2f}; "
                f"that is {of.turning**2:.0%} of the variance of the next move"
            ),
        )
    elif abs(of.memory) > max(LEAST_MEMORY, chance / OF_MEMORY**0.5):
        does = "turn back" if of.memory < 0 else "go on"
        of_mean = f"mean autocorrelation {of.memory:+.2f}, chance alone up to {chance / OF_MEMORY**0.5:.2f}"
        yield "memory", f"moves {does} at lags 2 to 8: {of_mean}"
    if of.clustering > max(LEAST_CLUSTERING, chance):
        yield "clustering", f"sizes of moves cluster: mean autocorrelation {of.clustering:+.2f} at lags 1 to 8"
    least_season = max(LEAST_SEASON, SEASON_CHANCE * 10**-of.bars)
    if of.season > least_season:
        yield "season", f"the season explains {of.season:.1%} of the variance of moves"
    if of.season_of_size > least_season:
        yield "season of size", f"the season explains {of.season_of_size:.1%} of the variance of their sizes"


def _chance(of: Signature) -> float:
    """What an autocorrelation of one symbol may be by chance alone."""
    return CHANCE * 10 ** (-of.bars / 2)


def _remarks(of: Signature, traits: dict[str, str]) -> Iterator[str]:
    if "memory" not in traits and "season" not in traits:
        found, chance = f"{of.turning:+.2f} at lag 1, {of.memory:+.2f} at lags 2 to 8", _chance(of)
        if chance > LEAST_TURNING:
            yield f"no memory in moves is seen: {found}; so few bars would not show one below {chance:.2f}"
        else:
            yield f"no memory in moves: autocorrelation {found}; do not expect a better point than last value"
    if of.gaps > MANY_GAPS:
        yield f"{of.gaps:.0%} of the bars were carried or follow a gap: tickcast check --data says where"
    if (bars := 10 ** (of.symbols + of.bars)) < FEW_BARS:
        yield f"about {bars:,.0f} bars are few: kinds with few parameters first"


def _nothing_known(signature: Signature, trajectories: Sequence[TrajectoryRow], table: MeasuredTable) -> str:
    known = [(distance(case.signature, signature), case.data) for case in table.cases]
    known += [
        (distance(of, signature), f"job {row.job[:12]}")
        for row in trajectories if row.skill is not None and (of := read_signature(row.signature)) is not None
    ]  # fmt: skip
    if not known:
        return "nothing is known of such data"
    away, what = min(known)
    return f"nothing is known of such data: nearest is {what}, {away:.2f} away, and beyond {ALIKE} it tells nothing"
