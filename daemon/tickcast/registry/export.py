"""Rows of a table as a file for somebody else. The file is there whole or not at all."""

from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tickcast.durable import sync
from tickcast.errors import CommandFault, CommandRefused, StoreStalled

Format = Literal["parquet", "csv"]
TIMES = {
    "bars": "as_of_ns", "forecasts": "as_of_ns", "scores": "as_of_ns", "accuracy": "as_of_ns",
    "commands": "received_ns", "promotions": "at_ns", "versions": "registered_ns", "jobs": "created_ns", "trials": "",
}  # fmt: skip
OF_SYMBOLS = ("bars", "forecasts", "scores")
NESTED_AS_TEXT = "a CSV file has no lists: ask for parquet"


def export(
    cursor: duckdb.DuckDBPyConnection, table: str, target: Path, *, format: Format, from_ns: int | None,
    to_ns: int | None, symbols: list[str],
) -> int:  # fmt: skip
    """Returns the rows written."""
    if symbols and table not in OF_SYMBOLS:
        raise CommandRefused(CommandFault.BAD_ARGUMENT, f"export: rows of {table} have no symbol")
    where, given = ["true"], dict[str, object]()
    if TIMES[table]:
        for sign, name, ns in ((">=", "from_ns", from_ns), ("<", "to_ns", to_ns)):
            if ns is not None:
                where.append(f"{TIMES[table]} {sign} ${name}")
                given[name] = ns
    if symbols:
        where.append("list_contains($symbols, symbol)")
        given["symbols"] = symbols
    order = f"ORDER BY {TIMES[table]}" if TIMES[table] else ""
    sql = f"SELECT * FROM {table} WHERE {' AND '.join(where)} {order}"
    rows: pa.Table = cursor.sql(sql, params=given).to_arrow_table()
    _write(rows, target, format)
    return int(rows.num_rows)


def _write(rows: pa.Table, target: Path, format: Format) -> None:
    partial = target.with_name(f".{target.name}")
    try:
        if format == "parquet":
            pq.write_table(rows, partial)
        else:
            pyarrow.csv.write_csv(rows, partial)
        partial.replace(target)
        sync(target.parent)
    except pa.ArrowInvalid as error:
        raise CommandRefused(CommandFault.BAD_ARGUMENT, f"export: {error}", remedy=NESTED_AS_TEXT) from None
    except OSError as error:
        raise StoreStalled(f"{target} cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
