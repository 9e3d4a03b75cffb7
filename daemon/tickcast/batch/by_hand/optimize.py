"""What a person says of a search in the shell -> its order; its trials, read back. It searches nothing itself."""

import re
from pathlib import Path
from typing import Any

import msgspec

from tickcast.batch.by_hand.run_folder import go_on
from tickcast.errors import BadSettings
from tickcast.io.jobs.folder import TRIALS, Result
from tickcast.io.jobs.orders import TuneOrder
from tickcast.io.jobs.prepare import changed_search
from tickcast.plugin import Parameter
from tickcast.progress import Shown, unshown
from tickcast.records import TrialRow
from tickcast.settings import parse

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


def resume(out: Path, *, shown: Shown = unshown, **limits: Any) -> Result:
    """Go on with a search; `limits` are `trials` and `seconds`, where they change."""
    return go_on(out, changed_search({**msgspec.to_builtins(TuneOrder.read(out)), **limits}), shown=shown)


def read_trials(folder: Path) -> list[TrialRow]:
    return [msgspec.json.decode(line, type=TrialRow) for line in (folder / TRIALS).read_bytes().splitlines()]
