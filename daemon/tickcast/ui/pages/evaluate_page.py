"""What an evaluation found -> one self-contained page: first whether the model beats last value, then by how much.

It computes nothing.
"""

from html import escape
from typing import Any

import numpy as np

from tickcast.ui.pages import svg
from tickcast.ui.pages.page import Column, Row, cards_of, document, form, moment, note_of, section_of, table_of
from tickcast.ui.pages.verdict import beside_last_value

WIDE = 1300
FIGURES = ("skill", "skill_mae", "mae", "mae_naive", "coverage", "directional")
COLUMNS = (
    Column("horizon", "bars ahead", "s"), Column("n", "labels", ",d"),
    Column("skill", "skill", "+.1%", signed=True), Column("skill_low", "from", "+.1%"),
    Column("skill_high", "to", "+.1%"), Column("p", "p", ".3f"),
    Column("skill_mae", "skill of the point", "+.1%", signed=True), Column("mae", "MAE", ".4g"),
    Column("mae_naive", "MAE, last value", ".4g"), Column("coverage", "coverage", ".1%"),
    Column("directional", "direction right", ".1%"),
)  # fmt: skip
GROUPS = (Column("group", "group", "s"), *COLUMNS)
OF_SKILL = "Skill is 1 - pinball loss / that of last value, which is calibrated too: above 0 the model is better."


def page(found: dict[str, Any]) -> str:
    judged = found["judged"]
    title = f"{judged['name']} {judged['version']}, judged"
    body = "".join(map(note_of, notes(found)))
    if found["headline"]:
        body += _cards(found) + _by_horizon(found)
        if found["by_group"]:
            body += section_of("By group", "", table_of(GROUPS, [row_of(row) for row in found["by_group"]]))
    footer = f"tickcast &middot; seed {found['seed']} &middot; data {escape(found['dataset_hash'][:12])}"
    return document(title, _subtitle(found), body, footer)


def notes(found: dict[str, Any]) -> list[str]:
    """The verdict in words, and what does not count."""
    told = [verdict_of(found)]
    if found["in_sample"]["windows"]:
        told.append(f"{found['in_sample']['windows']:,} windows touch the training span and are left out.")
    return told


def verdict_of(found: dict[str, Any]) -> str:
    """Whether it is better than last value, as far as the interval allows to say."""
    if not found["headline"]:
        return "No window lies outside the span that the model was trained on: give other data."
    skill = found["headline"]["skill"]
    return beside_last_value(
        skill["value"], skill["low"], skill["high"], moments=found["moments"], confidence=found["confidence"]
    )


def row_of(row: dict[str, Any]) -> Row:
    """Each figure beside its interval."""
    flat: Row = {"group": row["group"], "horizon": str(row["horizon"] or "all"), "n": row["n"]}
    for name in FIGURES:
        flat |= {name: row[name]["value"], f"{name}_low": row[name]["low"], f"{name}_high": row[name]["high"]}
    return flat | {"p": row["test"]["p_value"] if row["test"] else None}


def _subtitle(found: dict[str, Any]) -> str:
    parts = [found["judged"]["kind"], f"{found['symbols']:,} symbols", f"errors in units of {found['unit']}"]
    if found["headline"]:
        parts.append(f"{moment(found['from_ns'])} to {moment(found['to_ns'])} UTC")
    return " &middot; ".join(map(escape, parts))


def _cards(found: dict[str, Any]) -> str:
    head = row_of(found["headline"])
    between = f"{form(head['skill_low'], '+.1%')} to {form(head['skill_high'], '+.1%')} at {found['confidence']:.0%}"
    windows = found["windows"] - found["in_sample"]["windows"]
    return cards_of([
        ("skill against last value", form(head["skill"], "+.1%"), between),
        ("coverage of the outer band", form(head["coverage"], ".1%"), "as the model answers, not yet widened"),
        ("skill of the point", form(head["skill_mae"], "+.1%"), "absolute error against last value's"),
        ("windows", form(windows, ",d"), f"{found['moments']:,} moments, blocks of {found['block']:,}"),
    ])  # fmt: skip


def _by_horizon(found: dict[str, Any]) -> str:
    rows = [row_of(row) for row in found["by_horizon"]]
    table = table_of(COLUMNS, [*rows, row_of(found["headline"])])
    return section_of("Skill by step", OF_SKILL, _plot(rows) + table)


def _plot(rows: list[Row]) -> str:
    """The skill of each step within its interval."""
    at = np.arange(len(rows), dtype=np.float64)
    value, low, high = (
        np.array([np.nan if row[name] is None else 100 * row[name] for row in rows], np.float64)
        for name in ("skill", "skill_low", "skill_high")
    )

    def draw(width: int) -> svg.Plot:
        plot = svg.Plot(
            svg.named_axis([row["horizon"] for row in rows], "bars ahead"),
            svg.number_axis(np.concatenate([value, low, high]), "skill, %", include=[0.0]),
            title="Skill by step with its interval", width=width, height=240,
        )  # fmt: skip
        plot.line(np.array([-0.5, len(rows) - 0.5]), np.zeros(2), "ideal")
        for place, bottom, top in zip(at, low, high, strict=True):
            plot.line(np.array([place, place]), np.array([bottom, top]), "model")
        plot.dots(at, value, "model")
        return plot

    return svg.legend([("model", "the model, with its interval"), ("ideal", "last value")]) + svg.fitted(draw, WIDE)
