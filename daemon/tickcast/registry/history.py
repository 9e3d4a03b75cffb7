"""Reads bars back: the tail that fills windows, and spans for training. It never writes."""

import duckdb
import numpy as np
import pyarrow as pa

from tickcast.columns import BarBatch
from tickcast.symbols import SymbolTable

NEAR_BARS = 4  # the tail is sought within so many times the wanted bars; for symbols still short, everywhere
EVER = -(1 << 63)

NEAR = """
SELECT max(as_of_ns) - $bars * greatest(1, (max(as_of_ns) - min(as_of_ns)) // greatest(1, max(ordinal) - min(ordinal)))
FROM bars
"""
TAIL = """
SELECT * EXCLUDE (nth, newest) FROM (
    SELECT symbol, ordinal, as_of_ns, tie, open, high, low, close, volume, ticks, mask, gap, source_offset,
        row_number() OVER newest_first AS nth, first(ordinal) OVER newest_first AS newest
    FROM bars WHERE as_of_ns > $after AND NOT list_contains($done, symbol)
    WINDOW newest_first AS (PARTITION BY symbol ORDER BY as_of_ns DESC, tie DESC)
) WHERE nth <= $count AND ordinal = newest - nth + 1
"""
SPAN = """
SELECT * FROM bars
WHERE as_of_ns >= $from AND as_of_ns < $to AND ($symbols IS NULL OR list_contains($symbols, symbol))
ORDER BY symbol, as_of_ns, tie
"""


def bars_tail(cursor: duckdb.DuckDBPyConnection, symbols: SymbolTable, count: int) -> BarBatch:
    """The last `count` bars of every stored symbol, back to its last hole; sorted by symbol and ordinal.

    The symbols' names enter the table; those that find no room there are left out.
    """
    ((after,),) = cursor.execute(NEAR, {"bars": NEAR_BARS * count}).fetchall()
    near = _table(cursor, TAIL, {"after": EVER if after is None else after, "done": [], "count": count})
    sizes = near.group_by("symbol").aggregate([("ordinal", "count")]).to_pydict()
    done = [name for name, bars in zip(sizes["symbol"], sizes["ordinal_count"], strict=True) if bars == count]
    far = _table(cursor, TAIL, {"after": EVER, "done": done, "count": count})
    return _batch(pa.concat_tables([_only(near, done), far]), symbols)


def bars_between(cursor: duckdb.DuckDBPyConnection, from_ns: int, to_ns: int, symbols: list[str] | None) -> pa.Table:
    """Bars with from_ns <= as_of < to_ns, of these symbols or all, sorted by symbol and time."""
    return _table(cursor, SPAN, {"from": from_ns, "to": to_ns, "symbols": symbols})


def _table(cursor: duckdb.DuckDBPyConnection, sql: str, parameters: dict[str, object]) -> pa.Table:
    return cursor.sql(sql, params=parameters).to_arrow_table()


def _only(table: pa.Table, names: list[str]) -> pa.Table:
    return table.filter(pa.compute.is_in(table["symbol"], value_set=pa.array(names, pa.string())))


def _batch(table: pa.Table, symbols: SymbolTable) -> BarBatch:
    names = table["symbol"].combine_chunks().dictionary_encode()
    known = names.dictionary.to_pylist()
    code = {name: symbols.code(name) for name in sorted(known)}  # sorted: the codes do not depend on DuckDB's order
    symbol = np.array([code[name] for name in known], np.int32)[names.indices.to_numpy()]

    c = {name: np.asarray(table[name].to_numpy()) for name in table.column_names if name != "symbol"}
    nowhere = np.zeros(len(table), np.int64)  # partitions and marks are the engine's of that time
    bars = BarBatch(
        symbol, c["ordinal"], c["as_of_ns"], c["tie"], c["open"], c["high"], c["low"], c["close"], c["volume"],
        c["ticks"], c["mask"].astype(np.uint8), c["gap"].astype(np.uint8), nowhere.astype(np.int32),
        c["source_offset"], nowhere,
    )  # fmt: skip
    order = np.lexsort((bars.ordinal, bars.symbol))
    return bars.take(order[bars.symbol[order] >= 0])
