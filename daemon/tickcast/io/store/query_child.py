"""The body of the process that answers one query: `python -m tickcast.io.store.query_child`, over a copy of the store.

What a query may take is this process's: it has bounds of its own, and is killed where DuckDB does not listen. A request
comes on stdin, the copy is made as `query_process` allows it, and the reply goes to stdout as the client reads it.
"""

import os
import resource
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import msgspec

from tickcast.errors import BadStore, StoreStalled, TickcastError
from tickcast.io.store.database import archive_folder, connect
from tickcast.io.store.query import select
from tickcast.io.store.query_reply import refusal, reply
from tickcast.settings import Settings

READY, LOG, COPIED = b"ready\n", b"log\n", b"copied\n"  # what is said while the copy is made
OWN_BYTES = 1 << 30  # of memory for the program itself and what DuckDB does not count, beside store.memory_bytes
NICE = 10
COPY_BYTES = 1 << 30


class QueryRequest(msgspec.Struct, frozen=True):
    sql: str
    settings: dict[str, Any]
    folder: str  # for the copy and what spills


def main() -> None:
    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=QueryRequest)
    settings = Settings(**request.settings)
    bind(settings)
    out = sys.stdout.buffer
    try:
        copy = copied(settings.store.path, Path(request.folder), sys.stdin.buffer, out)
        lines = answer(settings, copy, request.sql)
    except TickcastError as error:
        lines = [refusal(error)]
    except MemoryError:
        lines = [refusal(StoreStalled("the query needs more memory than it may have", remedy="ask for less"))]
    for line in lines:
        out.write(line + b"\n")
    out.flush()
    os._exit(0)  # the copy is of no use any more: nothing of it is folded in


def bind(settings: Settings) -> None:
    """Serving comes first: by time, memory, and who is ended where the machine has none left."""
    os.nice(NICE)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    seconds = 2 * settings.store.query_timeout_s
    bounds = {
        resource.RLIMIT_CPU: seconds + 1, resource.RLIMIT_DATA: settings.store.memory_bytes + OWN_BYTES,
        resource.RLIMIT_CORE: 0,
    }  # fmt: skip
    for what, most in bounds.items():
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def copied(store: Path, folder: Path, told: BinaryIO, out: BinaryIO) -> Path:
    """The log first, between two transactions: what it says of the database is there when that is copied after it."""
    log, copy = store.with_name(store.name + ".wal"), folder / "store.duckdb"
    _say(out, READY)
    told.readline()
    try:
        with suppress(FileNotFoundError):
            copy_file(log, copy.with_name(copy.name + ".wal"))
        _say(out, LOG)
        copy_file(store, copy)
        _say(out, COPIED)
    except OSError as error:
        raise StoreStalled(
            f"the store cannot be copied for a query: {error}", remedy="see the room on its disk"
        ) from None
    return copy


def copy_file(source: Path, target: Path) -> None:
    """Without a copy where the file system can share blocks."""
    with source.open("rb") as reader, target.open("wb") as writer:
        try:
            while os.copy_file_range(reader.fileno(), writer.fileno(), COPY_BYTES):
                pass
        except OSError:  # a file system, or a pair of them, that cannot
            reader.seek(0)
            writer.seek(0)
            writer.truncate()
            shutil.copyfileobj(reader, writer, 1 << 20)


def answer(settings: Settings, copy: Path, sql: str) -> list[bytes]:
    store = settings.store.model_copy(update={"path": copy, "archive": archive_folder(settings)})
    try:
        connection = connect(settings.model_copy(update={"store": store}))
    except duckdb.Error as error:
        raise BadStore(f"the copy of the store does not open: {error}", remedy="ask again") from None
    found = select(connection, sql, max_rows=store.query_rows, timeout_s=store.query_timeout_s)
    return [*reply(found.columns, found.rows)]


def _say(out: BinaryIO, word: bytes) -> None:
    out.write(word)
    out.flush()


if __name__ == "__main__":
    main()
