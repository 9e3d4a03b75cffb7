"""`tickcast optimize`: history -> a child process that searches -> a folder with the study and the tuned model.

It searches nothing itself; docs/optimize.md says what the child does.
"""

import argparse
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from tickcast.errors import BadSettings
from tickcast.job_folder import ORDER, RESULT, TRIALS, Result
from tickcast.plugin import Parameter
from tickcast.records import TrialRow
from tickcast.settings import Settings, parse
from tickcast_desk.command_line import pairs
from tickcast_desk.fit import make_order, train, write_bars
from tickcast_trainer.order import BARS
from tickcast_trainer.tune_order import TuneOrder, read_tune_order, write_tune_order

MOST_SHOWN = 10
RANGE = re.compile(r"(\S+)\.\.(\S+?)(?: (log))?")


def command(args: argparse.Namespace, settings: Settings) -> int:
    folder: Path = args.resume or args.out
    limits = {name: getattr(args, name) for name in ("trials", "seconds") if getattr(args, name) is not None}
    if args.resume:
        result = resume(folder, **limits)
    else:
        order = make_tune_order(
            settings, kind=args.model, params=pairs(args.param), space=pairs(args.space),
            sampler=args.sampler, pruner=args.pruner, seed=args.seed, **limits,
        )  # fmt: skip
        result = optimize(settings, args.data, folder, order=order, symbols=args.symbols)
    show(result, folder, Console())
    return 0


def make_tune_order(
    settings: Settings, *, kind: str, params: dict[str, Any], space: dict[str, Any], **search: Any
) -> TuneOrder:
    """A parameter that a person gave is not tuned, unless its space is given too; `search` holds TuneOrder's keys."""
    asked = {name: space_of(value) for name, value in space.items()}
    fit = make_order(settings, kind=kind, name=kind, split="default", params=params)
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
    settings: Settings, data: Path, out: Path, *, order: TuneOrder, symbols: list[str] | None = None
) -> Result:
    """Search, and leave study and model in `out`, which must not hold a study yet."""
    if (out / ORDER).exists():
        raise BadSettings(f"{out} holds a study", remedy=f"--resume {out}, or another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_bars(settings, data, out / BARS, symbols=symbols)
    write_tune_order(out, order)
    return train(out, title="optimize")


def resume(out: Path, **limits: Any) -> Result:
    """Go on with what a kill or too little time left; `limits` are `trials` and `seconds`, where they change."""
    write_tune_order(out, _changed(read_tune_order(out), limits))
    (out / RESULT).unlink(missing_ok=True)
    return train(out, title="optimize")


def show(result: Result, folder: Path, console: Console) -> None:
    """The best trials beside the first, what mattered, and what the model is worth on the hold-out."""
    found = result.content
    if "best" not in found:
        console.print(f"{result.status}; go on with --resume {folder}", soft_wrap=True)
        return
    rows = [msgspec.json.decode(line, type=TrialRow) for line in (folder / TRIALS).read_bytes().splitlines()]
    first = found["first"]
    complete = sorted((row for row in rows if row.state == "complete"), key=_value)
    shown = complete[:MOST_SHOWN] + [row for row in complete[MOST_SHOWN:] if first and row.number == first["number"]]
    table = Table(Column("trial", no_wrap=True), "pinball", "epochs", "s", "parameters")
    for row in shown:
        own = f"{row.number} (as ordered)" if first and row.number == first["number"] else str(row.number)
        params = ", ".join(f"{name} {_short(value)}" for name, value in row.params.items())
        table.add_row(own, f"{_value(row):.5f}", str(row.epochs), f"{row.seconds:.1f}", Text(params))
    console.print(table)
    for line in _said(result, folder):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _said(result: Result, folder: Path) -> Iterator[str]:
    found, held = result.content, result.metrics
    best, first = found["best"], found["first"]
    yield f"{result.status}: {', '.join(f'{count} {state}' for state, count in found['trials'].items())}"
    if first:
        yield f"pinball over the validation part: {best['value']:.5f} tuned, {first['value']:.5f} as ordered"
    if found["importance"]:
        yield "what mattered: " + ", ".join(f"{name} {share:.0%}" for name, share in found["importance"].items())
    yield f"hold-out: pinball {held['pinball']:.5f}, skill {held['skill']:+.2%} over last value"
    yield f"the model is in {folder / result.model}; serve it with --set model.default={folder / result.model}"


def _changed(order: TuneOrder, search: dict[str, Any]) -> TuneOrder:
    try:
        return msgspec.convert({**msgspec.to_builtins(order), **search}, TuneOrder)
    except msgspec.ValidationError as error:
        raise BadSettings(f"the search cannot be ordered so: {error}") from None


def _value(row: TrialRow) -> float:
    return math.inf if row.value is None else row.value


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
