"""`tickcast evaluate`: test data -> closed bars -> the job's own judging of a model -> a table. It computes nothing."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tickcast.clock import fresh_id
from tickcast.core.questions import bar_identity
from tickcast.errors import BadModel
from tickcast.model_folder import read_card
from tickcast.settings import Settings
from tickcast_desk import evaluate_page
from tickcast_desk.command_line import Doubts, terminal
from tickcast_desk.fit import write_bars
from tickcast_desk.out_folder import claim
from tickcast_desk.view import Progress
from tickcast_trainer import judge
from tickcast_trainer.judge import EvaluateOrder
from tickcast_trainer.order import BARS, ORDER

FILE, PAGE = "evaluate.json", "evaluate.html"
SHOWN = (("skill", "+.1%"), ("skill_mae", "+.1%"), ("coverage", ".1%"), ("directional", ".1%"))
CLASSES = {  # heading -> figure and its form
    "accuracy": ("accuracy", ".1%"), "commonest": ("accuracy_majority", ".1%"), "log loss": ("log_loss", ".4f"),
    "frequencies": ("log_loss_frequencies", ".4f"),
}  # fmt: skip


def make_order(settings: Settings, **fields: Any) -> EvaluateOrder:
    return judge.converted({"groups": settings.symbols.groups, **fields}, EvaluateOrder)


def evaluate(
    settings: Settings, model: Path, data: Path, out: Path, *,
    order: EvaluateOrder, symbols: list[str] | None = None, warn: Doubts | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Judge the model on the data and leave `evaluate.json` and its page in `out`."""
    claim(out, writes=[FILE, PAGE])
    card = read_card(model)
    if card.bars != bar_identity(settings):
        raise BadModel(
            f"the model in {model} was made for bars = {card.bars}, these settings make {bar_identity(settings)}",
            remedy="give the settings that it was fitted with",
        )
    folder = settings.runtime.folder / "jobs" / fresh_id()
    folder.mkdir(parents=True)
    try:
        write_bars(settings, data, folder / BARS, symbols=symbols, warn=warn)
        shutil.copytree(model, folder / judge.MODEL)
        (folder / ORDER).write_bytes(msgspec.json.encode(order))
        found = _judge(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    (out / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2))
    (out / PAGE).write_text(evaluate_page.page(found), encoding="utf-8")
    return found


def evaluate_and_print(
    settings: Settings, model: Path, data: Path, out: Path, *,
    order: EvaluateOrder, symbols: list[str] | None = None, warn: Doubts,
) -> None:  # fmt: skip
    """The command."""
    console = terminal()
    found = evaluate(settings, model, data, out, order=order, symbols=symbols, warn=warn)
    print_evaluation(console, found)
    print(f"the page is {out / PAGE}, all figures are in {out / FILE}")


def _judge(folder: Path) -> dict[str, Any]:
    shown = 0
    progress: Progress | None = None

    def report(*, step: int, steps: int, **figures: float) -> bool:
        nonlocal shown, progress
        if progress is None:
            progress = Progress(steps, "evaluate")
            progress.__enter__()
        progress.advance(step - shown)
        shown = step
        return True

    try:
        return judge.run(folder, report)
    finally:
        if progress is not None:
            progress.__exit__(None, None, None)


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
