"""`tickcast evaluate`: what it takes as an order, its figures as a page and on the terminal. It computes nothing."""

import argparse
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tickcast.batch.by_hand.evaluate import FILE, PAGE, evaluate
from tickcast.io.jobs.prepare import evaluate_order
from tickcast.settings import Settings
from tickcast.ui.command_line import Doubts, terminal
from tickcast.ui.pages import evaluate_page
from tickcast.ui.view import ProgressBar

SHOWN = (("skill", "+.1%"), ("skill_mae", "+.1%"), ("coverage", ".1%"), ("directional", ".1%"))
CLASSES = {  # heading -> figure and its form
    "accuracy": ("accuracy", ".1%"), "commonest": ("accuracy_majority", ".1%"), "log loss": ("log_loss", ".4f"),
    "frequencies": ("log_loss_frequencies", ".4f"),
}  # fmt: skip


def command(args: argparse.Namespace, settings: Settings) -> int:
    console, doubts = terminal(), Doubts()
    order = evaluate_order(settings, seed=args.seed)
    found = evaluate(
        settings, args.model, args.data, args.out, order=order, symbols=args.symbols, shown=ProgressBar, warn=doubts
    )
    (args.out / PAGE).write_text(evaluate_page.page(found), encoding="utf-8")
    print_evaluation(console, found)
    print(f"the page is {args.out / PAGE}, all figures are in {args.out / FILE}")
    return doubts.exit_code


def print_evaluation(console: Console, found: dict[str, Any]) -> None:
    model = found["judged"]
    console.print(evaluate_page.verdict_of(found), highlight=False, soft_wrap=True)
    if not found["headline"]:
        return
    title = f"{model['name']} {model['version']}: {found['windows'] - found['in_sample']['windows']:,} windows"
    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for heading in ("group", "bars\nahead", "skill", f"{found['confidence']:.0%}", "of the\npoint", "covered",
                    "right\nway", "p", *(CLASSES if has_classes(found["headline"]) else ())):  # fmt: skip
        table.add_column(heading, justify="left" if heading == "group" else "right", no_wrap=heading != "group")
    for row in [*found["by_horizon"], found["headline"], *found["by_group"]]:
        table.add_row(*_cells(row))
    console.print(table)
    if found["in_sample"]["windows"]:
        console.print(f"{found['in_sample']['windows']:,} windows touch the training span and are left out")


def _cells(row: dict[str, Any]) -> list[str]:
    values = {name: _written(row[name]["value"], form) for name, form in SHOWN}
    interval = f"{_written(row['skill']['low'], '+.1%')} to {_written(row['skill']['high'], '+.1%')}"
    test = _written(row["test"]["p_value"], ".3f") if row["test"] else "-"
    return [
        row["group"], str(row["horizon"] or "all"), values["skill"], interval, values["skill_mae"], values["coverage"],
        values["directional"], test,
        *(_written(row[name]["value"], form) for name, form in CLASSES.values() if has_classes(row)),
    ]  # fmt: skip


def has_classes(row: dict[str, Any]) -> bool:
    """Of a model that answers in them."""
    return "accuracy" in row


def _written(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
