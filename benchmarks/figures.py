"""The tables of docs/figures.md, written from benchmarks/results/history.jsonl between two marks of the page.

    python benchmarks/figures.py

`run.py` adds a line to the history for each figure that it measures, and writes the page; this measures nothing.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accuracy_tables import table

ROOT = Path(__file__).parents[1]
HISTORY = ROOT / "benchmarks" / "results" / "history.jsonl"
PAGE = ROOT / "docs" / "figures.md"
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"

Line = dict[str, Any]


def add_to_history(day: str, script: str, figures: Sequence[Line], path: Path) -> None:
    with path.open("a", encoding="utf-8") as file:
        for figure in figures:
            kept = {name: figure[name] for name in ("name", "value", "unit", "bar", "better", "low", "high", "note")}
            file.write(json.dumps({"day": day, "script": script, **kept}, ensure_ascii=False) + "\n")


def verdict(figure: Line) -> str:
    """A bar that only the interval of a figure reaches is missed."""
    if figure["bar"] is None:
        return ""
    short = figure["value"] - figure["bar"]
    if (short if figure["better"] == "lower" else -short) <= 0:
        return "met"
    end = figure["low"] if figure["better"] == "lower" else figure["high"]
    touches = end is not None and ((end - figure["bar"]) if figure["better"] == "lower" else (figure["bar"] - end)) <= 0
    return "**missed**, within the noise" if touches else "**missed**"


def render(path: Path = HISTORY) -> str:
    runs: dict[tuple[str, str], list[Line]] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        runs.setdefault((line["script"], line["name"]), []).append(line)
    parts = []
    for script in sorted({script for script, _ in runs}):
        rows = [row(lines) for (of, _), lines in runs.items() if of == script]
        parts += [f"### {script}", "", f"`python benchmarks/run.py {script}`", "", *table(HEAD, rows)]
    return "\n".join(parts)


HEAD = ("figure", "last", "of", "all runs", "bar", "")


def row(lines: list[Line]) -> list[str]:
    last = lines[-1]
    value = f"{told(last['value'])} {last['unit']}"
    if last["low"] is not None and last["high"] is not None:
        value += f" [{told(last['low'])}, {told(last['high'])}]"
    values = [line["value"] for line in lines]
    spread = f"{told(min(values))} to {told(max(values))} ({len(values)})" if len(values) > 1 else ""
    bar = "" if last["bar"] is None else f"{'at most' if last['better'] == 'lower' else 'at least'} {told(last['bar'])}"
    return [last["name"], value, last["day"], spread, bar, verdict(last)]


def told(value: float) -> str:
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def written_into(page: str, tables: str) -> str:
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{tables}{END}{after}"


def write_page(history: Path, page: Path) -> None:
    if history.exists():
        page.write_text(written_into(page.read_text(encoding="utf-8"), render(history)), encoding="utf-8")


if __name__ == "__main__":
    write_page(HISTORY, PAGE)
