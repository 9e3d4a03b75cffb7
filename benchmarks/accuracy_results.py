"""What fits of the accuracy tables came to: one file of JSON lines for each table, a line a fit; and which setting of
a model they choose. It fits nothing.
"""

from pathlib import Path
from typing import Any

import msgspec

from accuracy_cases import SEEDED, SETTINGS, Case, Key, first_cases, seeded_cases
from tickcast.io.jobs.folder import write_whole
from tickcast.io.jobs.orders import FitOrder

RESULTS = Path(__file__).parent / "results" / "accuracy"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One fit. Errors are those of the test part unless their name says otherwise."""

    name: str
    data: str
    horizon: int
    model: str
    setting: str
    seed: int
    fold: int
    order: dict[str, Any]  # what is not at its default; so a field that orders get later does not undo a result
    mse: float
    mae: float
    mse_naive: float
    mae_naive: float
    pinball: float
    pinball_naive: float
    coverage: float  # of the 90 % interval, as the model gives it
    windows: int  # tested
    validation_mse: float
    lookback: int
    parameters: int
    cost_us: float  # of a forecast in a batch of 1,024
    status: str
    epochs: int
    trained_windows: int
    seconds: float
    dataset_hash: str


def order_fields(order: FitOrder) -> dict[str, Any]:
    """As they come back from JSON."""
    plain, fields = msgspec.to_builtins(FitOrder()), msgspec.to_builtins(order)
    given = {name: value for name, value in fields.items() if value != plain[name]}
    return msgspec.json.decode(msgspec.json.encode(given))


def read_table(table: str, folder: Path | None = None) -> dict[str, Row]:
    path = _path(table, folder)
    lines = path.read_bytes().splitlines() if path.exists() else []
    return {row.name: row for row in (msgspec.json.decode(line, type=Row) for line in lines)}


def keep(case: Case, row: Row, folder: Path | None = None) -> None:
    """The row takes the place of an older one of the same name."""
    rows = {**read_table(case.table, folder), row.name: row}
    path = _path(case.table, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, b"".join(msgspec.json.encode(rows[name]) + b"\n" for name in sorted(rows)))


def is_there(case: Case, folder: Path | None = None) -> bool:
    return bool(current(case.table, [case], folder))


def current(table: str, cases: list[Case], folder: Path | None = None) -> list[Row]:
    """Rows of the table's `cases`, in their order; what another order gave is left out."""
    rows = read_table(table, folder)
    found = [(case, rows.get(case.name)) for case in cases if case.table == table]
    return [row for case, row in found if row is not None and row.order == order_fields(case.order)]


def choose(folder: Path | None = None) -> dict[tuple[Key, str], str]:
    """Of the fitted settings the one with the lowest error on the validation part; while there is none, the first."""
    chosen, cases = {}, first_cases()
    for (data, horizon), own in SETTINGS.items():
        rows = current(f"{data}-{horizon}", cases, folder)
        for model in SEEDED:
            found = {row.setting: row.validation_mse for row in rows if row.model == model}
            chosen[(data, horizon), model] = min(found, key=found.__getitem__) if found else next(iter(own[model]))
    return chosen


def all_cases(folder: Path | None = None) -> list[Case]:
    return [*first_cases(), *seeded_cases(choose(folder))]


def chosen_rows(table: str, folder: Path | None = None) -> dict[str, list[Row]]:
    """Model -> its rows, by seed or fold, under the chosen setting."""
    chosen, found = choose(folder), dict[str, list[Row]]()
    for row in current(table, all_cases(folder), folder):
        if row.setting in ("", chosen.get(((row.data, row.horizon), row.model))):
            found.setdefault(row.model, []).append(row)
    return found


def _path(table: str, folder: Path | None) -> Path:
    return (folder or RESULTS) / f"{table}.jsonl"
