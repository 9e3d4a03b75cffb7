"""What came of `auto` -> one self-contained page: the verdict in words, then each step that led to it.

It computes nothing but skills from the losses that it is told.
"""

from collections.abc import Iterator
from html import escape
from typing import Any

from tickcast.figures import CONFIDENCE, skill
from tickcast.io.jobs.folder import Result
from tickcast.ui.pages.page import Column, Row, cards_of, document, form, moment, note_of, section_of, table_of
from tickcast.ui.pages.verdict import beside_last_value

MOST_SHOWN = 30
KINDS = (
    Column("kind", "kind", "s"), Column("skill", "skill, validation", "+.2%"), Column("tuned", "tuned", "+.2%"),
    Column("trials", "trials", ",d"), Column("seconds", "seconds", ",.1f"),
    Column("why", "why it has none", "s", long=True),
)  # fmt: skip
CHECKS = tuple(Column(name, name, "s") for name in ("check", "subject", "measured", "verdict", "advice"))
HOLD_OUT = "On the hold-out, which no step before looked at: "


def verdict(result: Result) -> Iterator[str]:
    """What came of it, as much as the figures allow to say."""
    found, held = result.content, result.metrics
    if result.status == "stopped":
        yield "It was stopped before there was a verdict."
        return
    ended = found["verdict"]
    if ended == "bad_data":
        bad = ", ".join(f"{one['check']} of {one['subject']}" for one in found["findings"] if one["verdict"] == "bad")
        yield f"The data are not fit to learn from, and nothing was fitted: {bad}."
        return
    if ended == "nothing_fitted":
        yield f"No kind of model could be fitted: {next((row['why'] for row in found['swept']), 'there was none')}."
        return
    won, best = found["won"], found["searches"][found["won"]]["best"]["value"]
    said = f"{won} is the best of {len(found['swept'])} kinds over the validation part: pinball {form(best, '.4g')}"
    yield f"{said} in one-bar moves, last value {form(found['last_value'], '.4g')}."
    if held:
        beside = beside_last_value(
            held["skill"], held["skill_low"], held["skill_high"], moments=held["moments"], confidence=CONFIDENCE
        )
        yield HOLD_OUT + beside[:1].lower() + beside[1:]
    if ended == "candidate":
        yield "It is a candidate: it has still to win its contest before it serves."
    else:
        seen = "" if held else " The hold-out was not looked at."
        yield f"Nothing that was tried is shown to beat last value, so there is no candidate.{seen}"


def swept_rows(result: Result) -> list[Row]:
    """Of each kind that was tried, the best first; skill is over the validation part, beside last value."""
    found, last_value = result.content, result.content.get("last_value")
    rows: list[Row] = [
        {
            "kind": row["kind"], "seconds": row["seconds"], "why": row["why"],
            "skill": _skill(row["value"], last_value),
            **_tuned(found.get("searches", {}).get(row["kind"], {}), last_value),
        }
        for row in found.get("swept", [])
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -float("inf") if row["skill"] is None else row["skill"], reverse=True)


def page(result: Result) -> str:
    found = result.content
    data = found["dataset"]
    parts = [*map(note_of, verdict(result)), _cards(result)]
    if "recommended" in found:
        says = "".join(f"<p>{escape(line)}</p>" for line in found["recommended"]["says"])
        parts.append(section_of("What the data are like", "", says))
    remark = "Skill is that over the validation part, beside last value with widths of the training part. It flatters "
    remark += "who was chosen by it; the hold-out does not."
    parts.append(section_of("Kinds", remark, table_of(KINDS, swept_rows(result))))
    odd = [one for one in found["findings"] if one["verdict"] != "ok"][:MOST_SHOWN]
    if odd:
        parts.append(section_of("Data check", "What is odd; the rest is in order.", table_of(CHECKS, odd)))
    span = f"{moment(data['from_ns'])} to {moment(data['to_ns'])} UTC"
    subtitle = f"{data['symbols']:,} symbols, {data['bars']:,} bars &middot; {escape(span)}"
    footer = f"tickcast &middot; data {escape(data['hash'][:12])}"
    return document("From a history to a candidate", subtitle, "".join(parts), footer)


def _cards(result: Result) -> str:
    found, held = result.content, result.metrics
    low, high = held.get("skill_low"), held.get("skill_high")
    between = f"{form(low, '+.1%')} to {form(high, '+.1%')} at {CONFIDENCE:.0%}" if low is not None else "no interval"
    return cards_of([
        ("verdict", found.get("verdict", result.status).replace("_", " "), found.get("won", "")),
        ("skill on the hold-out", form(held.get("skill"), "+.1%"), between if held else "not looked at"),
        ("kinds tried", f"{len(found.get('swept', [])):,}", f"{len(found.get('searches', {})):,} tuned"),
        ("time", f"{found['seconds']:,.0f} s", ""),
    ])  # fmt: skip


def _skill(value: float | None, last_value: float | None) -> float | None:
    return None if value is None or not last_value else float(skill(value, last_value))


def _tuned(search: dict[str, Any], last_value: float | None) -> dict[str, Any]:
    best = search.get("best")
    return {
        "tuned": None if best is None else _skill(best["value"], last_value),
        "trials": sum(search.get("trials", {}).values()) or None,
    }  # fmt: skip
