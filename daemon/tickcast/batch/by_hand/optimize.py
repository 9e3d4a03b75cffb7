"""History -> a child process that searches -> a folder with the study and the tuned model.

It searches nothing itself; docs/optimize.md says what the child does.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tickcast.batch.bar_history import write_bars
from tickcast.batch.by_hand.fit import train
from tickcast.batch.out_folder import claim, claim_model, claim_new
from tickcast.errors import BadSettings
from tickcast.io.jobs.folder import BARS, ORDER, RESULT, TRIALS, Result
from tickcast.io.jobs.orders import TuneOrder
from tickcast.io.jobs.past import NO_PAST, Past
from tickcast.io.jobs.prepare import JobInputs, changed_search, prepare
from tickcast.plugin import Parameter
from tickcast.progress import Shown, unshown
from tickcast.records import TrialRow
from tickcast.remedies import say_refused
from tickcast.settings import Settings, parse

FOLDER = "model"  # within the study's
PAGE = "report.html"
RANGE = re.compile(r"(\S+)\.\.(\S+?)(?: (log))?")


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
    order: TuneOrder, symbols: list[str] | None = None, past: Past = NO_PAST, shown: Shown = unshown,
    warn: Callable[[str], object] = say_refused,
) -> Result:  # fmt: skip
    """Search, and leave study and model in `out`, which must not hold a study yet."""
    if (out / ORDER).exists():
        raise BadSettings(f"{out} holds a study", remedy=f"--resume {out}, or another --out")
    claim_new(out)

    def bars(folder: Path) -> None:
        write_bars(settings, data, folder / BARS, symbols=symbols, warn=warn)

    prepare(out, order, JobInputs(bars, past=past))
    return train(out, title="optimize", shown=shown)


def resume(out: Path, *, shown: Shown = unshown, **limits: Any) -> Result:
    """Go on with what a kill or too little time left; `limits` are `trials` and `seconds`, where they change."""
    order = changed_search({**msgspec.to_builtins(TuneOrder.read(out)), **limits})
    claim(out, writes=[PAGE], told_by=[ORDER, BARS])
    claim_model(out / FOLDER)
    order.write(out)
    (out / RESULT).unlink(missing_ok=True)
    return train(out, title="optimize", shown=shown)


def read_trials(folder: Path) -> list[TrialRow]:
    return [msgspec.json.decode(line, type=TrialRow) for line in (folder / TRIALS).read_bytes().splitlines()]
