"""Answers one SELECT within a deadline and a bound on its size. It can read the store and nothing else."""

import math
import threading
from decimal import Decimal
from typing import Any, NamedTuple

import duckdb
import msgspec

from tickcast.errors import BadRequest, StoreStalled
from tickcast.io.store.database import open_read_only
from tickcast.io.store.lock import StoreLock
from tickcast.settings import Settings

CHUNK_ROWS = 256  # converted under the GIL at once
ANSWER_BYTES = 64 << 20  # as JSON


class QueryResult(NamedTuple):
    columns: list[str]
    rows: list[tuple[Any, ...]]


def select(cursor: duckdb.DuckDBPyConnection, sql: str, *, max_rows: int, timeout_s: float) -> QueryResult:
    """Run one SELECT in a read-only transaction; whatever is wrong with it is a BadRequest."""
    deadline = threading.Timer(timeout_s, cursor.interrupt)
    try:
        _refuse_all_but_one_select(cursor, sql)
        cursor.execute("BEGIN TRANSACTION READ ONLY").fetchall()
        deadline.start()
        try:
            return _fetch(cursor.execute(sql), max_rows)
        finally:
            deadline.cancel()
            cursor.rollback()
    except duckdb.InterruptException:
        raise BadRequest(
            f"the query took longer than {timeout_s:g} s", remedy="ask for less, or raise store.query_timeout_s"
        ) from None
    except duckdb.FatalException as error:
        raise StoreStalled(f"the store is waiting for its disk: {error}") from None
    except duckdb.Error as error:
        raise BadRequest(str(error)) from None


def query_direct(settings: Settings, sql: str) -> QueryResult:
    """Answer from the file itself, where no daemon holds it."""
    store = settings.store
    if not store.path.exists():
        open_read_only(settings)  # refuses, before a lock file is left where no store is
    with StoreLock(store.path):
        connection = open_read_only(settings)
        try:
            return select(connection, sql, max_rows=store.query_rows, timeout_s=store.query_timeout_s)
        finally:
            connection.close()


def plain(value: Any) -> Any:
    """A value as JSON has it, equal by socket and direct: ids as 32 hex digits, other foreign types as text."""
    if isinstance(value, Decimal):
        value = float(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    digits = getattr(value, "hex", None)  # a UUID
    return digits if isinstance(digits, str) else str(value)


def _refuse_all_but_one_select(cursor: duckdb.DuckDBPyConnection, sql: str) -> None:
    statements = cursor.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise BadRequest("a query is one SELECT", remedy="the store is read-only from outside")


def _fetch(result: duckdb.DuckDBPyConnection, max_rows: int) -> QueryResult:
    answer = QueryResult([str(column[0]) for column in result.description or []], [])
    size = 0
    while chunk := result.fetchmany(CHUNK_ROWS):
        rows = [tuple(plain(value) for value in row) for row in chunk]
        size += len(msgspec.json.encode(rows))
        answer.rows.extend(rows)
        if len(answer.rows) > max_rows:
            raise BadRequest(
                f"the answer has more than {max_rows} rows", remedy="add a LIMIT, aggregate, or raise store.query_rows"
            )
        if size > ANSWER_BYTES:
            raise BadRequest(f"the answer is larger than {ANSWER_BYTES} bytes", remedy="select fewer columns or rows")
    return answer
