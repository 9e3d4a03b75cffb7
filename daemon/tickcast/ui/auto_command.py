"""`tickcast auto`: what it takes as an order, and what came of it in words, as a table and as a page."""

import argparse
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from tickcast.batch.by_hand.run_folder import PAGE, begin, go_on
from tickcast.io.jobs.folder import Result
from tickcast.io.jobs.orders import AutoOrder
from tickcast.io.jobs.past import Past
from tickcast.io.jobs.prepare import auto_order
from tickcast.settings import Settings
from tickcast.ui.command_line import Doubts, terminal, told_how_to_go_on
from tickcast.ui.pages.auto_page import page, swept_rows, verdict
from tickcast.ui.trajectories import read_trajectories
from tickcast.ui.view import ProgressBar


def command(args: argparse.Namespace, settings: Settings) -> int:
    folder: Path = args.resume or args.out
    doubts = Doubts()
    with told_how_to_go_on(folder, "auto"):
        if args.resume:
            result = go_on(folder, AutoOrder.read(folder), shown=ProgressBar)  # all of the budget once more
        else:
            limits = {name: getattr(args, name) for name in ("budget_s", "seed") if getattr(args, name) is not None}
            order = auto_order(settings, name=args.name, kinds=args.kinds, **limits)
            past = Past(trajectories=read_trajectories(settings))
            result = begin(
                settings, args.data, folder, order=order, symbols=args.symbols, past=past, shown=ProgressBar,
                warn=doubts,
            )  # fmt: skip
    show(result, folder, terminal())
    (folder / PAGE).write_text(page(result), encoding="utf-8")
    print(f"the page is {folder / PAGE}")
    return doubts.exit_code


def show(result: Result, folder: Path, console: Console) -> None:
    """What came of it, then what was tried; all else is on the page."""
    lines = [*verdict(result)]
    if result.model:
        model = folder / result.model
        lines.append(f"the model is in {model}; serve it with --set model.default={model}")
    if result.status == "stopped":
        lines.append(f"go on with --resume {folder}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if rows := swept_rows(result):
        right = [Column(name, justify="right") for name in ("skill, validation", "tuned", "s")]
        table = Table("kind", *right, "", box=SIMPLE_HEAD, pad_edge=False)
        for row in rows:
            figures = ["" if row[name] is None else f"{row[name]:+.2%}" for name in ("skill", "tuned")]
            table.add_row(row["kind"], *figures, f"{row['seconds']:.1f}", row["why"])
        console.print(table)
