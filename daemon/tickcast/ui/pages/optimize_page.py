"""What a search found -> one self-contained page: first what won and what it is worth, then how the trials went.

It computes nothing. Trials were chosen by the validation part, which therefore flatters the winner; the hold-out, which
the search never saw, does not.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from tickcast.batch.judge.metrics import MOST_IS_BEST
from tickcast.batch.tune.spaces import INTERRUPTED, TELLING
from tickcast.figures import CONFIDENCE
from tickcast.io.jobs.folder import Result
from tickcast.io.jobs.orders import TuneOrder
from tickcast.plugin import Parameter
from tickcast.records import TrialRow
from tickcast.ui.pages import optimize_plots as plots
from tickcast.ui.pages.optimize_plots import Sought
from tickcast.ui.pages.page import Column, Row, cards_of, document, form, moment, note_of, section_of, table_of
from tickcast.ui.pages.verdict import beside_last_value

MOST_SHOWN = 10
WORDS = {
    "pinball": "pinball loss in one-bar moves", "mae": "mean absolute error", "mse": "mean squared error",
    "directional": "share of directions that were right", "sharpe": "Sharpe ratio after costs",
}  # fmt: skip
STATES = {"complete": "complete", "pruned": "given up early", "failed": "failed"}
VALUE = ".5g"


def page(result: Result, rows: Sequence[TrialRow], order: TuneOrder) -> str:
    """`rows` are the lines of trials.jsonl."""
    rows = _counted(rows)
    sought = Sought(order.metric, order.metric in MOST_IS_BEST)
    best, ordered = _best_and_ordered(result)
    complete = ranked(rows, order.metric)
    space = _varied(result.content["space"], complete)
    importance = {name: share for name, share in result.content["importance"].items() if name in space}
    parts = [*map(note_of, verdict(result, order, rows)), _cards(result, rows, order)]
    parts.append(section_of("Trials over time", _over_time(rows, sought), plots.value_by_trial(rows, sought, ordered)))
    parts.append(section_of("Parameters", _weights(importance), _parameters(space, best, ordered, importance)))
    drawn = [
        section_of(name, "", plots.value_by_parameter(name, space[name], complete, sought, best))
        for name in sorted(space, key=lambda name: -importance.get(name, 0.0))
    ]
    head = f'<p class="small quiet">{escape(f"Trials that ended with a value; the best is dark; {sought.label}.")}</p>'
    if drawn:
        parts.append(f'<div class="head"><h2>By parameter</h2>{head}</div><div class="pair">{"".join(drawn)}</div>')
    parts.append(_trials(complete, ordered, space, order.metric))
    parts.append(_failures(rows))
    footer = f"tickcast &middot; seed {order.seed} &middot; data {escape(result.content['dataset']['hash'][:12])}"
    return document(f"{order.fit.name or order.fit.kind}, tuned", _subtitle(result, order), "".join(parts), footer)


def ranked(rows: Sequence[TrialRow], metric: str) -> list[TrialRow]:
    """Those that ended with a value, the best first, of equals the first."""
    sign = -1.0 if metric in MOST_IS_BEST else 1.0
    complete = [row for row in rows if row.state == "complete" and row.value is not None]
    return sorted(complete, key=lambda row: (sign * (row.value or 0.0), row.number))


def verdict(result: Result, order: TuneOrder, rows: Sequence[TrialRow]) -> Iterator[str]:
    """What won against the default parameters, and what that is worth against last value; and what it began with."""
    best, ordered = _best_and_ordered(result)
    yield _against_default(best, ordered, order, of=len(_counted(rows)))
    yield from _begun_with(result.content)
    held = result.metrics
    yield "On the hold-out, which the search never saw: " + _lower_first(
        beside_last_value(
            held["skill"], held.get("skill_low"), held.get("skill_high"), moments=held.get("moments", 0),
            confidence=CONFIDENCE,
        )
    )  # fmt: skip


def _begun_with(found: dict[str, Any]) -> Iterator[str]:
    if past := found["past"]:
        jobs = ", ".join(f"{job[:12]} at {away:.2f}" for job, away in past.items())
        yield f"After the default came the best of {_many(len(past), 'past job')} on data much like these: {jobs}."
    if earlier := found["earlier"]:
        of = ", ".join(f"{count:,} of {job[:12]}" for job, count in earlier.items())
        yield f"It went on from trials of a search that had run out of time, on other bars of this market: {of}."


def label(row: TrialRow, default: int | None) -> str:
    """Its number, and where its parameters came from; `default` is the number of the order as it stands."""
    origin = "default" if row.number == default else f"from {row.origin[:12]}" if row.origin else ""
    return f"{row.number} ({origin})" if origin else str(row.number)


def counts(rows: Sequence[TrialRow]) -> str:
    """How the trials ended, in words."""
    ended = Counter[str](row.state for row in _counted(rows))
    return ", ".join(f"{ended[state]:,} {name}" for state, name in STATES.items() if ended[state])


def _counted(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """One that was interrupted was asked again, and counts as it ended then."""
    return [row for row in rows if row.why != INTERRUPTED]


def _against_default(best: TrialRow, ordered: TrialRow | None, order: TuneOrder, *, of: int) -> str:
    direction = Sought(order.metric, order.metric in MOST_IS_BEST).direction
    trials, value = _many(of, "trial"), f"{order.metric} {form(best.value, VALUE)} over the validation part"
    if ordered is None:
        unknown = "The default parameters ended without a value, so nothing says what tuning gained."
        return f"Of {trials}, number {best.number} won: {value} ({direction}). {unknown}"
    if best.value == ordered.value:
        return f"Nothing better than the default parameters in {trials}: {value} ({direction})."
    beaten = f"against {form(ordered.value, VALUE)} of the default parameters"
    return f"Of {trials}, number {best.number} won: {value}, {beaten} ({direction})."


def _best_and_ordered(result: Result) -> tuple[TrialRow, TrialRow | None]:
    """The second is the order as it stands, the default parameters; None where it did not end with a value."""
    best, ordered = result.content["best"], result.content["first"]
    return TrialRow(**best), None if ordered is None else TrialRow(**ordered)


def _varied(space: dict[str, Any], complete: Sequence[TrialRow]) -> dict[str, Parameter]:
    """The parameters of which more than one value was tried to the end."""
    known = {name: Parameter(**fields) for name, fields in space.items()}
    return {name: p for name, p in known.items() if len({repr(row.params.get(name)) for row in complete}) > 1}


def _subtitle(result: Result, order: TuneOrder) -> str:
    data, direction = result.content["dataset"], Sought(order.metric, order.metric in MOST_IS_BEST).direction
    span = f"{moment(data['from_ns'])} to {moment(data['to_ns'])} UTC"
    parts = (
        order.fit.kind, f"sought: {WORDS[order.metric]}, {direction}",
        f"sampler {order.sampler}, pruner {order.pruner}", f"{data['symbols']:,} symbols, {data['bars']:,} bars", span,
    )  # fmt: skip
    return " &middot; ".join(map(escape, parts))


def _cards(result: Result, rows: Sequence[TrialRow], order: TuneOrder) -> str:
    (best, ordered), held = _best_and_ordered(result), result.metrics
    default = f"default parameters {form(ordered and ordered.value, VALUE)}"
    low, high = held.get("skill_low"), held.get("skill_high")
    between = f"{form(low, '+.1%')} to {form(high, '+.1%')} at {CONFIDENCE:.0%}" if low is not None else "no interval"
    fitting, epochs = sum(row.seconds for row in rows), sum(row.epochs for row in rows)
    return cards_of([
        (f"{order.metric}, validation part", form(best.value, VALUE), default),
        ("skill on the hold-out", form(held["skill"], "+.1%"), f"{between}, {held['windows']:,} windows"),
        ("trials", f"{len(rows):,}", counts(rows)),
        ("time spent fitting", _seconds(fitting), f"{_many(epochs, 'epoch')}, {_many(order.workers, 'worker')}"),
    ])  # fmt: skip


def _over_time(rows: Sequence[TrialRow], sought: Sought) -> str:
    far = plots.far_off(rows, sought)
    beyond = f" {far:,} far off, drawn at the edge." if far else ""
    return f"{sought.metric} over the validation part, {sought.direction}.{beyond}"


def _weights(importance: dict[str, float]) -> str:
    if not importance:
        return f"Fewer than {TELLING} trials ended with a value: too few to say how much each parameter mattered."
    return "Weight: its share in how the good trials differ from all others, by Optuna's PED-ANOVA."


def _parameters(
    space: dict[str, Parameter], best: TrialRow, ordered: TrialRow | None, importance: dict[str, float]
) -> str:
    columns = [Column("name", "parameter", "s"), Column("best", "best trial", "s")]
    columns += [Column("ordered", "default", "s"), Column("tried", "tried", "s")]
    columns += [Column("weight", "weight", ".0%")] if importance else []
    names = sorted(space, key=lambda name: -importance.get(name, 0.0))
    rows: list[Row] = [
        {
            "name": name, "best": short(best.params.get(name)), "weight": importance.get(name),
            "ordered": short(ordered.params.get(name)) if ordered else None, "tried": _tried(space[name]),
        }
        for name in names
    ]  # fmt: skip
    return table_of(columns, rows)


def _tried(parameter: Parameter) -> str:
    if parameter.kind == "choice":
        return ", ".join(map(short, parameter.choices))
    return f"{parameter.low:g} to {parameter.high:g}{', by factors' if parameter.log else ''}"


def _trials(complete: Sequence[TrialRow], ordered: TrialRow | None, space: dict[str, Parameter], metric: str) -> str:
    columns = [Column("trial", "trial", "s"), Column("value", metric, VALUE), Column("epochs", "epochs", ",d")]
    columns += [Column("seconds", "seconds", ",.1f"), *(Column(f"of {name}", name, "s") for name in space)]
    own = None if ordered is None else ordered.number
    shown = [*complete[:MOST_SHOWN], *(row for row in complete[MOST_SHOWN:] if row.number == own)]
    rows: list[Row] = [
        {
            "trial": label(row, own), "value": row.value, "epochs": row.epochs, "seconds": row.seconds,
            **{f"of {name}": short(row.params.get(name)) for name in space},
        }
        for row in shown
    ]  # fmt: skip
    remark = "The best of many looks better over the validation part than it is; the hold-out says what it is worth."
    return section_of("Best trials", remark, table_of(columns, rows))


def _failures(rows: Sequence[TrialRow]) -> str:
    failed = Counter(row.why for row in rows if row.state == "failed")
    if not failed:
        return ""
    told = [{"why": why, "count": count} for why, count in failed.most_common(MOST_SHOWN)]
    return section_of("Failed", "", table_of((Column("why", "why", "s"), Column("count", "trials", ",d")), told))


def short(value: Any) -> str:
    """A parameter as people read it."""
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _seconds(value: float) -> str:
    whole = round(value)
    if whole < 60:
        return f"{value:.1f} s"
    return (
        f"{whole // 3600} h {whole % 3600 // 60:02d} min" if whole >= 3600 else f"{whole // 60} min {whole % 60:02d} s"
    )


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
