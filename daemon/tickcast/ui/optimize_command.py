"""`tickcast optimize`: what it takes as an order, and what was found as a page and on the terminal."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from tickcast.batch.by_hand.optimize import read_trials, resume, space_of
from tickcast.batch.by_hand.run_folder import PAGE, begin
from tickcast.io.jobs.folder import TRIALS, Result
from tickcast.io.jobs.orders import TuneOrder
from tickcast.io.jobs.past import NO_PAST, Past
from tickcast.io.jobs.prepare import tune_order
from tickcast.records import TrialRow
from tickcast.settings import Settings
from tickcast.ui.command_line import Doubts, pairs, terminal, told_how_to_go_on
from tickcast.ui.pages.optimize_page import MOST_SHOWN, counts, label, page, ranked, short, verdict
from tickcast.ui.trajectories import read_trajectories
from tickcast.ui.view import ProgressBar


def command(args: argparse.Namespace, settings: Settings) -> int:
    folder: Path = args.resume or args.out
    limits = {name: getattr(args, name) for name in ("trials", "seconds") if getattr(args, name) is not None}
    doubts = Doubts()
    with told_how_to_go_on(folder, "optimize"):
        if args.resume:
            result = resume(folder, shown=ProgressBar, **limits)
        else:
            order = tune_order(
                settings, kind=args.model, params=pairs(args.param), metric=args.metric, sampler=args.sampler,
                space={name: space_of(value) for name, value in pairs(args.space).items()}, pruner=args.pruner,
                seed=args.seed, **limits,
            )  # fmt: skip
            past = Past(trajectories=read_trajectories(settings)) if order.past_searches else NO_PAST
            result = begin(
                settings, args.data, folder, order=order, symbols=args.symbols, past=past, shown=ProgressBar,
                warn=doubts,
            )  # fmt: skip
    show(result, folder, terminal())
    if "best" in result.content:
        write_page(result, folder)
        print(f"the page is {folder / PAGE}, every trial is in {folder / TRIALS}")
    return doubts.exit_code


def write_page(result: Result, folder: Path) -> None:
    (folder / PAGE).write_text(page(result, read_trials(folder), TuneOrder.read(folder)), encoding="utf-8")


def show(result: Result, folder: Path, console: Console) -> None:
    """What won and what it is worth, the best trials beside the first, what mattered."""
    found = result.content
    if "best" not in found:
        console.print(f"{result.status}; go on with --resume {folder}", soft_wrap=True)
        return
    rows, first, metric = read_trials(folder), found["first"], found["metric"]
    for line in verdict(result, TuneOrder.read(folder), rows):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    complete = ranked(rows, metric)
    shown = complete[:MOST_SHOWN] + [row for row in complete[MOST_SHOWN:] if first and row.number == first["number"]]
    table = Table(
        Column("trial", no_wrap=True), *(Column(of, justify="right") for of in (metric, "epochs", "s")), "parameters",
        box=SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for row in shown:
        params = ", ".join(f"{name} {short(value)}" for name, value in row.params.items())
        own = label(row, first and first["number"])
        table.add_row(own, f"{row.value:.5g}", str(row.epochs), f"{row.seconds:.1f}", Text(params))
    console.print(table)
    for line in _said(result, rows, folder):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _said(result: Result, rows: list[TrialRow], folder: Path) -> Iterator[str]:
    yield f"{result.status}: {counts(rows)}"
    if found := result.content["importance"]:
        yield "what mattered: " + ", ".join(f"{name} {share:.0%}" for name, share in found.items())
    yield f"the model is in {folder / result.model}; serve it with --set model.default={folder / result.model}"
