"""Rows of a table, its days in the archive among them, as a file for somebody else, who may give bars back as data.
The file is there whole or not at all.
"""

import threading
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tickcast.durable import sync
from tickcast.errors import CommandFault, CommandRefused, StoreStalled
from tickcast.io.store.database import archive_folder
from tickcast.io.store.history import everywhere
from tickcast.io.store.tables import TABLES
from tickcast.settings import Settings

Format = Literal["parquet", "csv"]
EVER_NS = (1 << 63) - 1
BAR_FIELDS = ("symbol", "open", "high", "low", "close", "volume")
BATCH_ROWS = 16_384
MOST_ROWS, MOST_BYTES = 100_000_000, 8 << 30  # of one file
SHORTER = "ask for a shorter span, or fewer symbols"
NESTED_AS_TEXT = "a CSV file has no lists: ask for parquet"


def export(
    cursor: duckdb.DuckDBPyConnection, table: str, target: Path, *, settings: Settings, format: Format,
    from_ns: int | None, to_ns: int | None, symbols: list[str],
) -> int:  # fmt: skip
    """Returns the rows written."""
    time = TABLES[table].time
    if symbols and not TABLES[table].has_symbols:
        raise CommandRefused(CommandFault.BAD_ARGUMENT, f"export: rows of {table} have no symbol")
    where, given = ["true"], dict[str, object]()
    if time:
        for sign, name, ns in ((">=", "from_ns", from_ns), ("<", "to_ns", to_ns)):
            if ns is not None:
                where.append(f"{time} {sign} ${name}")
                given[name] = ns
    if symbols:
        where.append("list_contains($symbols, symbol)")
        given["symbols"] = symbols
    columns = "*"
    if table == "bars" and may_be_data(settings):
        columns = _as_data(settings)
        where.append("mask")  # a carried bar is no bar of a file: whoever reads it carries it again
    order = f"ORDER BY {time}" if time else ""
    span = (from_ns or 0, EVER_NS if to_ns is None else to_ns)
    with everywhere(cursor, table, archive_folder(settings), *span) as found:
        sql = f"SELECT {columns} FROM {found.rows} WHERE {' AND '.join(where)} {found.once} {order}"
        deadline = threading.Timer(settings.control.timeout_s, cursor.interrupt)
        deadline.start()
        try:
            with cursor.sql(sql, params=given).to_arrow_reader(BATCH_ROWS) as rows:
                return _write(rows, target, format)
        except duckdb.InterruptException:
            said = f"export: it took longer than {settings.control.timeout_s} s"
            raise CommandRefused(CommandFault.TIMED_OUT, said, remedy=SHORTER) from None
        finally:
            deadline.cancel()


def may_be_data(settings: Settings) -> bool:
    """Whether a file of our bars, read under these settings, gives the same bars: only time bars come in files, stored
    ones have their splits behind them, and a price column of that name would make ticks of them.
    """
    fields = settings.codec.fields
    ours = {getattr(fields, name) for name in BAR_FIELDS}
    plain = settings.bars.kind == "time" and settings.bars.adjustments is None and settings.codec.layout == "long"
    return plain and not ours & {fields.price, fields.bid, fields.ts} and len(ours) == len(BAR_FIELDS)


def _as_data(settings: Settings) -> str:
    """The columns of bars under the names that a bar file has here, with `ts`, where the interval begins."""
    fields = settings.codec.fields
    renamed = {name: getattr(fields, name) for name in BAR_FIELDS}
    named = ", ".join(f"{name} AS {_quoted(other)}" for name, other in renamed.items())
    begin = f"make_timestamp_ns(as_of_ns - {settings.bars.every_ms} * 1_000_000) AS {_quoted(fields.ts)}"
    return f"{begin}, {named}, * EXCLUDE ({', '.join(BAR_FIELDS)})"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _write(rows: pa.RecordBatchReader, target: Path, format: Format) -> int:
    """Batch by batch: what is held does not grow with what is written."""
    partial, count = target.with_name(f".{target.name}"), 0
    open_writer = pq.ParquetWriter if format == "parquet" else pyarrow.csv.CSVWriter
    try:
        with partial.open("wb") as file, open_writer(file, rows.schema) as writer:
            for batch in rows:
                writer.write_batch(batch)
                count += batch.num_rows
                if count > MOST_ROWS or file.tell() > MOST_BYTES:
                    said = f"export: more than {MOST_ROWS} rows or {MOST_BYTES} bytes"
                    raise CommandRefused(CommandFault.ANSWER_TOO_LARGE, said, remedy=SHORTER)
        partial.replace(target)
        sync(target.parent)
    except pa.ArrowInvalid as error:
        raise CommandRefused(CommandFault.BAD_ARGUMENT, f"export: {error}", remedy=NESTED_AS_TEXT) from None
    except OSError as error:
        raise StoreStalled(f"{target} cannot be written: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)
    return count
