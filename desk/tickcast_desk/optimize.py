"""`tickcast optimize`: history -> a child process that searches -> a folder with the study, the tuned model and a page.

It searches nothing itself; docs/optimize.md says what the child does.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from tickcast.errors import BadSettings
from tickcast.job_folder import ORDER, RESULT, TRIALS, Result
from tickcast.plugin import Parameter
from tickcast.records import TrialRow
from tickcast.settings import Settings, parse
from tickcast_desk.command_line import Doubts, pairs, terminal
from tickcast_desk.fit import known_kind, make_order, train, write_bars
from tickcast_desk.optimize_page import MOST_SHOWN, counts, page, ranked, short, verdict
from tickcast_desk.out_folder import claim, claim_model, claim_new
from tickcast_trainer.order import BARS
from tickcast_trainer.tune_order import TuneOrder, read_tune_order, write_tune_order

FOLDER = "model"  # within the study's
PAGE = "report.html"
RANGE = re.compile(r"(\S+)\.\.(\S+?)(?: (log))?")


def command(args: argparse.Namespace, settings: Settings) -> int:
    folder: Path = args.resume or args.out
    limits = {name: getattr(args, name) for name in ("trials", "seconds") if getattr(args, name) is not None}
    order, doubts = None, Doubts()
    if not args.resume:
        order = make_tune_order(
            settings, kind=args.model, params=pairs(args.param), space=pairs(args.space),
            metric=args.metric, sampler=args.sampler, pruner=args.pruner, seed=args.seed, **limits,
        )  # fmt: skip
    try:
        if order is None:
            result = resume(folder, **limits)
        else:
            result = optimize(settings, args.data, folder, order=order, symbols=args.symbols, warn=doubts)
    except KeyboardInterrupt:
        if (folder / ORDER).exists():
            raise KeyboardInterrupt(f"go on with tickcast optimize --resume {folder}") from None
        raise
    show(result, folder, terminal())
    if "best" in result.content:
        write_page(result, folder)
        print(f"the page is {folder / PAGE}, every trial is in {folder / TRIALS}")
    return doubts.exit_code


def make_tune_order(
    settings: Settings, *, kind: str, params: dict[str, Any], space: dict[str, Any], **search: Any
) -> TuneOrder:
    """A parameter that a person gave is not tuned, unless its space is given too; `search` holds TuneOrder's keys."""
    asked = {name: space_of(value) for name, value in space.items()}
    fit = make_order(settings, kind=known_kind(kind), name=kind, split="default", params=params)
    order = TuneOrder(fit=fit, space={**dict.fromkeys(params), **asked}, workers=settings.jobs.workers)
    return _changed(order, search)


def space_of(value: Any) -> Parameter | None:
    """`LOW..HIGH`, `LOW..HIGH log`, a list of choices, `keep`, or what an order has for them."""
    if value is None or value == "keep":
        return None
    if isinstance(value, list):
        value = {"kind": "choice", "choices": value}
    elif isinstance(value, str) and (ends := RANGE.fullmatch(value)):
        low, high = parse(ends[1]), parse(ends[2])
        whole = isinstance(low, int) and isinstance(high, int)
        value = {"kind": "int" if whole else "float", "low": low, "high": high, "log": ends[3] is not None}
    try:
        return msgspec.convert(value, Parameter)
    except msgspec.ValidationError as error:
        raise BadSettings(
            f"{value!r} is no space: {error}", remedy="LOW..HIGH, 'LOW..HIGH log', [A, B] or keep"
        ) from None


def optimize(
    settings: Settings, data: Path, out: Path, *,
    order: TuneOrder, symbols: list[str] | None = None, warn: Doubts | None = None,
) -> Result:  # fmt: skip
    """Search, and leave study and model in `out`, which must not hold a study yet."""
    if (out / ORDER).exists():
        raise BadSettings(f"{out} holds a study", remedy=f"--resume {out}, or another --out")
    claim_new(out)
    write_bars(settings, data, out / BARS, symbols=symbols, warn=warn)
    write_tune_order(out, order)
    return train(out, title="optimize")


def resume(out: Path, **limits: Any) -> Result:
    """Go on with what a kill or too little time left; `limits` are `trials` and `seconds`, where they change."""
    order = _changed(read_tune_order(out), limits)
    claim(out, writes=[PAGE], told_by=[ORDER, BARS])
    claim_model(out / FOLDER)
    write_tune_order(out, order)
    (out / RESULT).unlink(missing_ok=True)
    return train(out, title="optimize")


def write_page(result: Result, folder: Path) -> None:
    (folder / PAGE).write_text(page(result, read_trials(folder), read_tune_order(folder)), encoding="utf-8")


def read_trials(folder: Path) -> list[TrialRow]:
    return [msgspec.json.decode(line, type=TrialRow) for line in (folder / TRIALS).read_bytes().splitlines()]


def show(result: Result, folder: Path, console: Console) -> None:
    """What won and what it is worth, the best trials beside the first, what mattered."""
    found = result.content
    if "best" not in found:
        console.print(f"{result.status}; go on with --resume {folder}", soft_wrap=True)
        return
    rows, first, metric = read_trials(folder), found["first"], found["metric"]
    for line in verdict(result, read_tune_order(folder), rows):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    complete = ranked(rows, metric)
    shown = complete[:MOST_SHOWN] + [row for row in complete[MOST_SHOWN:] if first and row.number == first["number"]]
    table = Table(
        Column("trial", no_wrap=True), *(Column(of, justify="right") for of in (metric, "epochs", "s")), "parameters",
        box=SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for row in shown:
        own = f"{row.number} (default)" if first and row.number == first["number"] else str(row.number)
        params = ", ".join(f"{name} {short(value)}" for name, value in row.params.items())
        table.add_row(own, f"{row.value:.5g}", str(row.epochs), f"{row.seconds:.1f}", Text(params))
    console.print(table)
    for line in _said(result, rows, folder):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _said(result: Result, rows: list[TrialRow], folder: Path) -> Iterator[str]:
    yield f"{result.status}: {counts(rows)}"
    if found := result.content["importance"]:
        yield "what mattered: " + ", ".join(f"{name} {share:.0%}" for name, share in found.items())
    yield f"the model is in {folder / result.model}; serve it with --set model.default={folder / result.model}"


def _changed(order: TuneOrder, search: dict[str, Any]) -> TuneOrder:
    try:
        return msgspec.convert({**msgspec.to_builtins(order), **search}, TuneOrder)
    except msgspec.ValidationError as error:
        raise BadSettings(f"the search cannot be ordered so: {error}") from None
