"""History -> a child process that searches -> a folder with the study and the tuned model.

It searches nothing itself; docs/optimize.md says what the child does.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tickcast.batch.by_hand.fit import known_kind, make_order, train, write_bars
from tickcast.batch.out_folder import claim, claim_model, claim_new
from tickcast.batch.train.order import BARS
from tickcast.batch.tune.order import TuneOrder, read_tune_order, write_tune_order
from tickcast.errors import BadSettings
from tickcast.io.jobs.folder import ORDER, RESULT, TRIALS, Result
from tickcast.plugin import Parameter
from tickcast.progress import Shown, unshown
from tickcast.records import TrialRow
from tickcast.remedies import say_refused
from tickcast.settings import Settings, parse

FOLDER = "model"  # within the study's
PAGE = "report.html"
RANGE = re.compile(r"(\S+)\.\.(\S+?)(?: (log))?")


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
    order: TuneOrder, symbols: list[str] | None = None, shown: Shown = unshown,
    warn: Callable[[str], object] = say_refused,
) -> Result:  # fmt: skip
    """Search, and leave study and model in `out`, which must not hold a study yet."""
    if (out / ORDER).exists():
        raise BadSettings(f"{out} holds a study", remedy=f"--resume {out}, or another --out")
    claim_new(out)
    write_bars(settings, data, out / BARS, symbols=symbols, warn=warn)
    write_tune_order(out, order)
    return train(out, title="optimize", shown=shown)


def resume(out: Path, *, shown: Shown = unshown, **limits: Any) -> Result:
    """Go on with what a kill or too little time left; `limits` are `trials` and `seconds`, where they change."""
    order = _changed(read_tune_order(out), limits)
    claim(out, writes=[PAGE], told_by=[ORDER, BARS])
    claim_model(out / FOLDER)
    write_tune_order(out, order)
    (out / RESULT).unlink(missing_ok=True)
    return train(out, title="optimize", shown=shown)


def read_trials(folder: Path) -> list[TrialRow]:
    return [msgspec.json.decode(line, type=TrialRow) for line in (folder / TRIALS).read_bytes().splitlines()]


def _changed(order: TuneOrder, search: dict[str, Any]) -> TuneOrder:
    try:
        return msgspec.convert({**msgspec.to_builtins(order), **search}, TuneOrder)
    except msgspec.ValidationError as error:
        raise BadSettings(f"the search cannot be ordered so: {error}") from None
