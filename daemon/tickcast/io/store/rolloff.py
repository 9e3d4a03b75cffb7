"""Moves whole days from the database to Parquet. Rows are deleted only after their file was read back and compared.

A file without a row in `archive_files` is what a crash left: the next roll-off writes it again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import duckdb

from tickcast.durable import sync
from tickcast.errors import BadStore
from tickcast.io.store.tables import TABLES

DAY_NS = 86_400 * 10**9
HOUR_NS = DAY_NS // 24
HOURS_ABOVE_ROWS = 5_000_000  # a larger day is moved hour by hour, so that no deletion holds the writer for long


class Slice(NamedTuple):
    """Rows of one table within a day or an hour."""

    table: str
    first_ns: int
    length_ns: int

    @property
    def where(self) -> str:
        time = TABLES[self.table].time
        return f"{time} >= {self.first_ns} AND {time} < {self.first_ns + self.length_ns}"

    @property
    def name(self) -> str:
        began = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=self.first_ns // 10**9)
        return began.strftime("%Y-%m-%d" if self.length_ns == DAY_NS else "%Y-%m-%dT%H")


class Moved(NamedTuple):
    """A slice that stands in the archive, and is still in its table."""

    slice: Slice
    part: int
    file: Path
    rows: int


@dataclass(frozen=True, slots=True)
class RollOff:
    """What a roll-off did; `problem` says why it stopped early, and then what is left is tried again next time."""

    rows: int = 0
    files: tuple[Path, ...] = ()
    problem: str = ""


def due(cursor: duckdb.DuckDBPyConnection, before_ns: int) -> list[Slice]:
    """Slices with rows older than `before_ns`, a midnight, oldest first within each table."""
    found: list[Slice] = []
    for table, time in [(table.name, table.time) for table in TABLES.values() if table.rolled_off]:
        days = f"SELECT {time} // {DAY_NS} AS day, count(*) FROM {table} WHERE {time} < {before_ns} GROUP BY day"
        for day, rows in cursor.execute(f"{days} ORDER BY day").fetchall():
            found += _cut(table, int(day) * DAY_NS, hourly=rows > HOURS_ABOVE_ROWS)
    return found


def _cut(table: str, midnight_ns: int, *, hourly: bool) -> Iterator[Slice]:
    if not hourly:
        yield Slice(table, midnight_ns, DAY_NS)
        return
    for hour in range(24):
        yield Slice(table, midnight_ns + hour * HOUR_NS, HOUR_NS)


def export(cursor: duckdb.DuckDBPyConnection, archive: Path, what: Slice) -> Moved | None:
    """Write the slice to its file, read it back and compare; None where the slice is empty."""
    rows, digest = _content(cursor, f"{what.table} t WHERE {what.where}")
    if not rows:
        return None
    part = _next_part(cursor, what)
    folder = archive / what.table
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / (f"{what.name}.parquet" if part == 0 else f"{what.name}.{part}.parquet")
    fresh = file.with_name(file.name + ".tmp")
    wanted = f"SELECT * FROM {what.table} WHERE {what.where}"
    cursor.execute(f"COPY ({wanted}) TO {_quoted(fresh)} (FORMAT parquet, COMPRESSION zstd)").fetchall()
    sync(fresh)
    fresh.rename(file)
    sync(folder)
    if _content(cursor, f"read_parquet({_quoted(file)}) t") != (rows, digest):
        raise BadStore(f"{file} does not hold what was written to it", remedy="its rows stay in the database")
    return Moved(what, part, file, rows)


def delete(connection: duckdb.DuckDBPyConnection, moved: Moved) -> bool:
    """Within the caller's transaction; False where rows came since: then the file is written again next time."""
    what = moved.slice
    ((rows,),) = connection.execute(f"SELECT count(*) FROM {what.table} WHERE {what.where}").fetchall()
    if rows != moved.rows:
        return False
    connection.execute(f"DELETE FROM {what.table} WHERE {what.where}").fetchall()
    entry = [what.table, what.name, moved.part, str(moved.file), rows]
    connection.execute("INSERT INTO archive_files VALUES (?, ?, ?, ?, ?)", entry).fetchall()
    return True


def midnight_before(now_event_ns: int, keep_days: int) -> int:
    """Days that end here or earlier are due; today is never counted among the days that are kept."""
    return (now_event_ns // DAY_NS - keep_days) * DAY_NS


def _content(cursor: duckdb.DuckDBPyConnection, rows_of: str) -> tuple[int, int | None]:
    """Number of rows and a hash that does not depend on their order."""
    ((rows, digest),) = cursor.execute(f"SELECT count(*), bit_xor(hash(t)) FROM {rows_of}").fetchall()
    return rows, digest


def _next_part(cursor: duckdb.DuckDBPyConnection, what: Slice) -> int:
    counted = "SELECT count(*) FROM archive_files WHERE table_name = ? AND slice = ?"
    ((part,),) = cursor.execute(counted, [what.table, what.name]).fetchall()
    return int(part)


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
