"""Reads back what a restart or training needs: bars, and where event time stood. It changes nothing, nor decides."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tickcast.columns import BarBatch, Source
from tickcast.errors import BadData
from tickcast.io.store.tables import TABLES
from tickcast.symbols import FULL, SymbolTable

CHUNK_ROWS = 100_000  # read at once where all would be too much
NEAR_BARS = 4  # the tail is sought within so many times the wanted bars; for symbols still short, everywhere
EVER = -(1 << 63)

NEAR = """
SELECT max(as_of_ns) - $bars * greatest(1, (max(as_of_ns) - min(as_of_ns)) // greatest(1, max(ordinal) - min(ordinal)))
FROM bars
"""
OWN = """
SELECT unnest($topics::VARCHAR[]) AS source_topic, unnest($numbers::INTEGER[]) AS source_partition,
    unnest($below::BIGINT[]) AS below, unnest($upto::BIGINT[]) AS upto, unnest(range(len($topics))) AS place
"""
TAIL = f"""
SELECT * EXCLUDE (nth, newest) FROM (
    SELECT symbol, ordinal, as_of_ns, tie, open, high, low, close, volume, ticks, mask, gap, source_offset,
        coalesce(place, -1)::INTEGER AS place,
        row_number() OVER newest_first AS nth, first(ordinal) OVER newest_first AS newest
    FROM bars LEFT JOIN ({OWN}) own USING (source_topic, source_partition)
    WHERE as_of_ns > $after AND symbol NOT IN (SELECT unnest($done::VARCHAR[]))
        AND ($all OR source_topic IS NULL OR source_offset < below AND as_of_ns <= upto)
    WINDOW newest_first AS (PARTITION BY symbol ORDER BY as_of_ns DESC, tie DESC)
) WHERE nth <= $count AND ordinal = newest - nth + 1
"""
CLOSED = f"""
SELECT source_topic, source_partition, max(as_of_ns)
FROM bars JOIN ({OWN}) own USING (source_topic, source_partition) WHERE source_offset < below GROUP BY ALL
"""
MARKS = "SELECT source_topic, source_partition, watermark_ns, next_offset FROM watermarks ORDER BY next_offset"
SPAN = """
SELECT * FROM {rows}
WHERE as_of_ns >= $from AND as_of_ns < $to AND ($symbols IS NULL OR list_contains($symbols, symbol))
{once}
ORDER BY symbol, as_of_ns, tie
"""
ARCHIVED = """
SELECT file FROM archive_files
WHERE table_name = $table AND slice[1:10] BETWEEN $first AND $last ORDER BY slice, part
"""
WITH_ARCHIVED = "(SELECT * FROM {table} UNION ALL BY NAME SELECT * FROM read_parquet([{files}], union_by_name = true))"


class Mark(NamedTuple):
    """Every tick that was accepted below `next_offset` is at most this new; None = nothing was read before it."""

    watermark_ns: int | None
    next_offset: int


class Kept(NamedTuple):
    """What the store holds of a partition."""

    marks: list[Mark]  # ascending; about one a minute of event time
    closed_ns: int | None  # as_of of the newest bar that was closed below an offset; None = none is stored
    next_offset: int | None  # all that records below it brought is stored; None = the store knows nothing of it


class Everywhere(NamedTuple):
    """A table with its days in the archive, as SQL."""

    rows: str  # for FROM
    once: str  # behind WHERE, so that no row comes twice


class BarsOfPartition(NamedTuple):
    """Those bars of a partition that were closed by records below an offset, and end at a time or before."""

    below: int
    upto_ns: int


def kept(
    cursor: duckdb.DuckDBPyConnection, below: Mapping[Source, int], positions: Mapping[Source, int]
) -> dict[Source, Kept]:
    """What is stored of these partitions, where `positions` are the next offsets of the store."""
    parts = {source: BarsOfPartition(offset, 0) for source, offset in below.items()}
    closed = {(topic, number): ns for topic, number, ns in cursor.execute(CLOSED, _own(parts)).fetchall()}
    marks: dict[Source, list[Mark]] = {source: [] for source in below}
    for topic, number, ns, offset in cursor.execute(MARKS).fetchall():
        marks.get((topic, number), []).append(Mark(ns, offset))
    return {source: Kept(marks[source], closed.get(source), positions.get(source)) for source in below}


def bars_tail(
    cursor: duckdb.DuckDBPyConnection,
    symbols: SymbolTable,
    count: int,
    parts: Mapping[Source, BarsOfPartition] | None = None,
) -> BarBatch:
    """The last `count` bars of every stored symbol, back to its last hole; sorted by symbol and ordinal.

    The symbols' names enter the table; where there is no room for all, those whose bars are newest. With `parts`, only
    bars of those partitions and bars without a source count, and `partition` is the place of the source in `parts`, -1
    for none.
    """
    own = _own(parts or {}) | {"all": parts is None, "count": count}
    ((after,),) = cursor.execute(NEAR, {"bars": NEAR_BARS * count}).fetchall()
    near = _table(cursor, TAIL, own | {"after": EVER if after is None else after, "done": []})
    sizes = near.group_by("symbol").aggregate([("ordinal", "count")]).to_pydict()
    done = [name for name, bars in zip(sizes["symbol"], sizes["ordinal_count"], strict=True) if bars == count]
    far = _table(cursor, TAIL, own | {"after": EVER, "done": done})
    return _batch(pa.concat_tables([_only(near, done), far]), symbols)


def save_bars(
    cursor: duckdb.DuckDBPyConnection, from_ns: int, to_ns: int, symbols: list[str] | None, *, archive: Path, path: Path
) -> int:
    """Bars with from_ns <= as_of < to_ns, of these symbols or all, as a Parquet file sorted by symbol and time; those
    of days that have left for the archive among them. A part at a time; returns how many.
    """
    with everywhere(cursor, "bars", archive, from_ns, to_ns) as found:
        sql = SPAN.format(rows=found.rows, once=found.once)
        bars = cursor.sql(sql, params={"from": from_ns, "to": to_ns, "symbols": symbols})
        reader = bars.to_arrow_reader(CHUNK_ROWS)
        with pq.ParquetWriter(path, reader.schema) as writer:
            rows = 0
            for batch in reader:
                writer.write_batch(batch)
                rows += batch.num_rows
    return rows


def count_bars(
    cursor: duckdb.DuckDBPyConnection, from_ns: int, to_ns: int, symbols: list[str] | None, *, archive: Path
) -> int:
    """How many `save_bars` would write."""
    with everywhere(cursor, "bars", archive, from_ns, to_ns) as found:
        sql = f"SELECT count(*) FROM ({SPAN.format(rows=found.rows, once=found.once)})"
        ((rows,),) = cursor.execute(sql, {"from": from_ns, "to": to_ns, "symbols": symbols}).fetchall()
    return int(rows)


@contextmanager
def everywhere(
    cursor: duckdb.DuckDBPyConnection, table: str, archive: Path, from_ns: int, to_ns: int
) -> Iterator[Everywhere]:
    """The rows of a span that stand in the table or in the archive, in one transaction: a day that leaves the table
    meanwhile is read from it.
    """
    cursor.execute("BEGIN TRANSACTION READ ONLY").fetchall()
    try:
        yield with_archived(cursor, table, archive, from_ns, to_ns)
    except duckdb.IOException as error:
        raise BadData(
            f"a file of the archive cannot be read: {error}", remedy="put it back, or ask for rows of a later time"
        ) from None
    finally:
        cursor.rollback()


def with_archived(cursor: duckdb.DuckDBPyConnection, table: str, archive: Path, from_ns: int, to_ns: int) -> Everywhere:
    """As `everywhere`, within its transaction."""
    wanted = {"table": table, "first": _day(from_ns), "last": _day(to_ns)}
    files = [archive / table / Path(name).name for (name,) in cursor.execute(ARCHIVED, wanted).fetchall()]
    quoted = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
    rows = WITH_ARCHIVED.format(table=table, files=quoted) if files else table
    return Everywhere(rows, TABLES[table].once if files else "")


def _day(ns: int) -> str:
    """As slices of the archive are named."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=max(ns, 0) // 10**9)).strftime("%Y-%m-%d")


def _own(parts: Mapping[Source, BarsOfPartition]) -> dict[str, object]:
    """The parameters of OWN."""
    return {
        "topics": [topic for topic, _ in parts], "numbers": [number for _, number in parts],
        "below": [part.below for part in parts.values()], "upto": [part.upto_ns for part in parts.values()],
    }  # fmt: skip


def _table(cursor: duckdb.DuckDBPyConnection, sql: str, parameters: dict[str, object]) -> pa.Table:
    return cursor.sql(sql, params=parameters).to_arrow_table()


def _only(table: pa.Table, names: list[str]) -> pa.Table:
    return table.filter(pa.compute.is_in(table["symbol"], value_set=pa.array(names, pa.string())))


def _newest(table: pa.Table, room: int) -> list[str]:
    """So many of the symbols, those whose last bar is newest; sorted, for codes are not to depend on DuckDB's order."""
    last = table.group_by("symbol").aggregate([("as_of_ns", "max")])
    return sorted(last.sort_by([("as_of_ns_max", "descending"), ("symbol", "ascending")])["symbol"].to_pylist()[:room])


def _batch(table: pa.Table, symbols: SymbolTable) -> BarBatch:
    names = table["symbol"].combine_chunks().dictionary_encode()
    known = names.dictionary.to_pylist()
    find = {name: symbols.code(name) for name in _newest(table, symbols.limit - len(symbols))}
    symbol = np.array([find.get(name, FULL) for name in known], np.int32)[names.indices.to_numpy()]

    c = {name: np.asarray(table[name].to_numpy()) for name in table.column_names if name != "symbol"}
    unknown = np.zeros(len(table), np.int64)  # marks are the engine's of that time
    bars = BarBatch(
        symbol=symbol, ordinal=c["ordinal"], as_of=c["as_of_ns"], tie=c["tie"], open=c["open"], high=c["high"],
        low=c["low"], close=c["close"], volume=c["volume"], ticks=c["ticks"], mask=c["mask"].astype(np.uint8),
        gap=c["gap"].astype(np.uint8), partition=c["place"], offset=c["source_offset"], mark=unknown,
    )  # fmt: skip
    order = np.lexsort((bars.ordinal, bars.symbol))
    return bars.take(order[bars.symbol[order] >= 0])
