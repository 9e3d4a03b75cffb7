"""A replay of the loop -> one self-contained page: the arms side by side, then what each did. It computes nothing."""

from html import escape
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tickcast.ui.pages import loop_plots
from tickcast.ui.pages.page import (
    Column,
    cards_of,
    document,
    form,
    moment,
    note_of,
    section_of,
    table_of,
    verdict,
)

Figures = dict[str, Any]
ARMS = (
    Column("title", "", "s"),
    Column("skill", "skill", "+.2%", signed=True),
    Column("skill_low", "from", "+.2%"),
    Column("skill_high", "to", "+.2%"),
    Column("gain", "beside static", "+.2%", signed=True),
    Column("gain_low", "from", "+.2%"),
    Column("gain_high", "to", "+.2%"),
    Column("coverage", "coverage", ".1%"),
    Column("width", "width", ".2f"),
    Column("fits", "fits", "d"),
    Column("changes", "promoted / back / down", "s"),
    Column("alarmed", "alarms", "d"),
    Column("cpu", "CPU s", ",.1f"),
)
ON_TERMINAL = ("title", "skill", "skill_low", "skill_high", "gain", "coverage", "fits")  # fits 80 columns
HORIZONS = ("static", "scheduled", "triggered")
JOBS = (
    Column("moment", "ordered", "s"), Column("model", "model", "s"), Column("why", "why", "s"),
    Column("skill", "skill on its hold-out", "+.2%"), Column("came", "came to", "s"),
    Column("reason", "", "s", long=True),
)  # fmt: skip
DECISIONS = (
    Column("moment", "decided", "s"), Column("kind", "", "s"), Column("model", "model", "s"), Column("why", "why", "s"),
    Column("blocks", "blocks", "d"), Column("log_e", "ln e", "+.2f"), Column("log_needed", "needed", ".2f"),
    Column("skill", "beside who served", "+.2%"),
)  # fmt: skip
MOST_ROWS = 40  # of a table: the newest
OF_SKILL = (
    "Skill is 1 - pinball loss / that of last value, whose quantiles are calibrated online: above 0 the arm is better. "
    "Beside static: the same with the static arm in last value's place. Intervals at 90 % by a block bootstrap over "
    "moments. Width is that of the outermost quantiles in one-bar moves. Changes of who serves: promoted, rolled back, "
    "stepped down to last value. CPU seconds are those of fits."
)
OF_EVIDENCE = (
    "Evidence of each contest in parts of what it needs: at 1 it is decided. Evidence is an e-process on blocks; that "
    "of last value goes in rounds. A dot is a change of who serves, by promotion (green) or back (red)."
)


def page(found: Figures) -> str:
    arms = {arm["key"]: arm for arm in found["arms"]}
    ours = [key for key in HORIZONS if key in arms]
    both = [key for name in ("static", "triggered") for key in (name, f"{name}-as-fitted")]
    parts = [
        "".join(map(note_of, verdicts(found))), _cards(arms),
        section_of("The arms", OF_SKILL, table_of(ARMS, rows_of(found))),
        section_of("Skill over time", "Above the dashed line an arm is better than last value.", loop_plots.over_time(
            found, "skill", "skill, %", arms=ours, level=0.0)),
        section_of("Coverage over time", f"Of the {found['nominal_coverage']:.0%} interval.", loop_plots.over_time(
            found, "coverage", "coverage, %", arms=both, level=found["nominal_coverage"])),
        section_of("Width over time", "", loop_plots.over_time(found, "width", "width, one-bar moves", arms=both)),
        *(_told(found, arms[key]) for key in ours if key != "static"),
        section_of("Skill by horizon", "Intervals adaptive.", table_of(*_by_horizon(arms, ours))),
        section_of("CPU spent", "On this machine; the first fit is one for all arms.", loop_plots.cpu(found, ours)),
    ]  # fmt: skip
    footer = f"tickcast &middot; digest {escape(found['digest'])}"
    return document(found["title"], _subtitle(found), "".join(parts), footer)


def _subtitle(found: Figures) -> str:
    parts = [
        found["data"], f"{found['symbols']:,} symbols, {found['bars']:,} bars",
        f"judged from {moment(found['from_ns'])} to {moment(found['to_ns'])} UTC",
        f"bars from the order of a fit to its answer: {found['job_bars']:,}",
    ]  # fmt: skip
    return " &middot; ".join(map(escape, parts))


def verdicts(found: Figures) -> list[str]:
    """What retraining was worth, and what adaptive intervals were, as far as the intervals allow to say."""
    arms = {arm["key"]: arm for arm in found["arms"]}
    said = [_beside_static(arms[key]) for key in ("triggered", "scheduled")]
    said += [_beside_last_value(arms[key]) for key in HORIZONS]
    fitted, adaptive = (arms[key]["coverage"] for key in ("static-as-fitted", "static"))
    said.append(
        f"Of a nominal {found['nominal_coverage']:.0%}, static intervals covered {form(fitted, '.1%')} as fitted and "
        f"{form(adaptive, '.1%')} adaptive."
    )
    return [" ".join(said[:2]), " ".join(said[2:5]), said[5]] + [found["refused"]] * bool(found["refused"])


def _beside_static(arm: Figures) -> str:
    what = f"{arm['name'].capitalize()} retraining"
    more = arm["fits"] - 1
    cost = f"{more} fit{'s' * (more != 1)} after the first, {arm['promotions']} promoted"
    gain, low, high = (arm[name] for name in ("gain", "gain_low", "gain_high"))
    if low is None or high is None:
        return f"{what}: too few moments to say what it gains ({cost})."
    if low == high == 0:
        return f"{what} changed nothing ({cost})."
    span = f"{form(gain, '+.2%')}, {form(low, '+.2%')} to {form(high, '+.2%')}; {cost}"
    word = "gains over" if low > 0 else "loses to" if high < 0 else "is not told apart from"
    return f"{what} {word} never retraining: {span}."


def _beside_last_value(arm: Figures) -> str:
    low, high = arm["skill_low"], arm["skill_high"]
    if low is None or high is None:
        return ""
    word = "better than" if low > 0 else "worse than" if high < 0 else "not told apart from"
    return f"{arm['name'].capitalize()}: {word} last value, {form(arm['skill'], '+.2%')}."


def _cards(arms: dict[str, Figures]) -> str:
    shown = []
    for name in HORIZONS:
        arm = arms[name]
        shown.append((f"skill, {name}", form(arm["skill"], "+.2%"), _between(arm)))
    triggered = arms["triggered"]
    done = f"of {triggered['fits'] - 1} fitted; drift was alarmed {triggered['alarmed']} x"
    shown.append(("promoted by need", str(triggered["promotions"]), done))
    return cards_of(shown)


def _between(arm: Figures) -> str:
    if arm["skill_low"] is None:
        return "too few moments for an interval"
    return f"{form(arm['skill_low'], '+.2%')} to {form(arm['skill_high'], '+.2%')}"


def rows_of(found: Figures) -> list[Figures]:
    """Of the table of the arms; last value, which they are judged beside, last."""
    rows = [
        {**arm, "cpu": found["spent"][arm["key"]]["jobs_cpu_s"],
         "changes": f"{arm['promotions']} / {arm['rollbacks']} / {arm['step_downs']}"}
        for arm in found["arms"]
    ]  # fmt: skip
    return [*rows[1:], {**rows[0], "skill": None, "skill_low": None, "skill_high": None}]


def _by_horizon(arms: dict[str, Figures], ours: list[str]) -> tuple[list[Column], list[Figures]]:
    columns, rows = [Column("horizon", "bars ahead", "d")], []
    for key in ours:
        columns += [Column(key, key, "+.2%", signed=True), Column(f"{key}_low", "from", "+.2%")]
        columns.append(Column(f"{key}_high", "to", "+.2%"))
    for at, row in enumerate(arms[ours[0]]["by_horizon"]):
        told = {"horizon": row["horizon"]}
        for key in ours:
            own = arms[key]["by_horizon"][at]
            told |= {f"{key}{end}": own[f"skill{end}"] for end in ("", "_low", "_high")}
        rows.append(told)
    return columns, rows


def _told(found: Figures, arm: Figures) -> str:
    """One arm: who served, by what evidence, which jobs, which decisions."""
    body = loop_plots.lanes(found, arm) + loop_plots.evidence(found, arm)
    if decisions := [_decision(one) for one in arm["decisions"][-MOST_ROWS:]]:
        body += table_of(DECISIONS, decisions)
    jobs = [{**job, "moment": moment(job["ordered_ns"]), "why": ", ".join(job["why"])} for job in arm["jobs"]]
    body += table_of(JOBS, jobs[-MOST_ROWS:])
    return section_of(f"What the {arm['name']} arm did", OF_EVIDENCE, body)


def _decision(one: Figures) -> Figures:
    why = ", ".join(one["why"]) + (f"; refused: {one['refused']}" if one["refused"] else "")
    return {**one, "moment": moment(one["at_ns"]), "kind": one["kind"].replace("_", " "), "why": why}


def print_loop(console: Console, found: Figures) -> None:
    for line in verdicts(found):
        console.print(line, highlight=False, soft_wrap=True)
    table = Table(
        title=f"nominal coverage {found['nominal_coverage']:.0%}", title_justify="left", title_style="bold",
        box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    columns = [column for column in ARMS if column.key in ON_TERMINAL]
    for column in columns:
        table.add_column(column.heading, justify="left" if column.key == "title" else "right")
    for row in rows_of(found):
        table.add_row(*(_written(column, row) for column in columns))
    console.print(table)


def _written(column: Column, row: Figures) -> str:
    text = form(row[column.key], column.form)
    colour = {"good": "green", "bad": "red"}.get(verdict(column, row))
    return f"[{colour}]{text}[/]" if colour else text
