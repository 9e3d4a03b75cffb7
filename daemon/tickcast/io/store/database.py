"""Opens the DuckDB file hardened, and moves a damaged one aside. It never deletes a file and reads no row."""

import os
from pathlib import Path

import duckdb

from tickcast.errors import BadStore
from tickcast.settings import Settings

MAGIC = b"DUCK"  # at bytes 8..12
NEVER = "1TB"  # of log: the writer folds it in after a commit, so that a failed checkpoint is no failed commit
SPILL_PER_MEMORY = 4  # a query may spill this many times store.memory_bytes to disk
DAMAGE = (
    "Corrupt", "Failure while replaying WAL", "Could not read enough bytes", "INTERNAL Error", "Serialization Error",
)  # fmt: skip
NOT_DAMAGE = ("No space left", "Out of Memory", "version number")  # says so while replaying a sound log


def archive_folder(settings: Settings) -> Path:
    return (settings.store.archive or settings.store.path.parent / "archive").absolute()


def connect(settings: Settings, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """One hardened connection: it may read and write this database and the archive, and no setting may change."""
    store, path = settings.store, settings.store.path.absolute()
    connection = duckdb.connect(
        str(path),
        read_only=read_only,
        config={
            "memory_limit": f"{store.memory_bytes}B", "threads": 1, "checkpoint_threshold": NEVER,
            "temp_directory": f"{path}.tmp", "max_temp_directory_size": f"{SPILL_PER_MEMORY * store.memory_bytes}B",
            "autoinstall_known_extensions": False, "autoload_known_extensions": False,
            "python_enable_replacements": False,
        },
    )  # fmt: skip
    quoted = str(archive_folder(settings)).replace("'", "''")
    for statement in (
        f"SET allowed_directories = ['{quoted}']",
        "SET enable_external_access = false",
        "SET lock_configuration = true",
    ):
        connection.execute(statement).fetchall()
    return connection


def open_database(settings: Settings) -> duckdb.DuckDBPyConnection:
    """Connect for writing. What is no database of DuckDB is refused; DuckDB's own errors are for `refusal`."""
    refuse_unfit(settings.store.path)
    return connect(settings)


def refusal(settings: Settings, error: duckdb.Error) -> BadStore:
    """Why the database cannot be used and how to go on; what is damaged has been moved aside. All must be closed."""
    return _quarantine(settings, error) if is_damage(error) else _unfit(settings.store.path, error)


def open_read_only(settings: Settings) -> duckdb.DuckDBPyConnection:
    path = settings.store.path
    if not path.exists():
        raise BadStore(f"there is no store at {path}", remedy="it is made by the daemon, a replay or a load")
    refuse_unfit(path)
    try:
        return connect(settings, read_only=True)
    except duckdb.Error as error:
        raise _unfit(path, error) from None


def refuse_unfit(path: Path) -> None:
    """What DuckDB would take for something else: a folder, an empty file, a file of another kind."""
    if path.is_dir():
        raise BadStore(f"store.path {path} is a folder", remedy="name a file in it")
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError as error:
        raise BadStore(f"cannot read {path}: {error.strerror}", remedy="see its owner and mode") from None
    if start[8:12] != MAGIC:
        what = "is empty" if not start else "is not a DuckDB file"
        raise BadStore(f"{path} {what}", remedy="move it away, or set another store.path")


def is_damage(error: duckdb.Error) -> bool:
    text = str(error)
    return any(sign in text for sign in DAMAGE) and not any(sign in text for sign in NOT_DAMAGE)


def _unfit(path: Path, error: duckdb.Error) -> BadStore:
    return BadStore(f"cannot open {path}: {_first_line(error)}", remedy="nothing was changed; see docs/store.md")


def _quarantine(settings: Settings, error: duckdb.Error) -> BadStore:
    """Move the damaged file aside: the log alone where it is to blame and the database opens without it, else both."""
    path = settings.store.path
    log = path.with_name(path.name + ".wal")
    aside = _free_name(path)
    log_aside = aside.with_name(aside.name + ".wal")
    if log.exists():
        os.rename(log, log_aside)
        if "WAL" in str(error) and _opens(settings):
            return BadStore(
                f"the write-ahead log of {path} is damaged and was moved to {log_aside}: {_first_line(error)}",
                remedy="start again: the store goes on from its last checkpoint, its offsets with it, "
                "and what came after is read from the bus once more",
            )
    os.rename(path, aside)
    return BadStore(
        f"{path} is damaged and was moved to {aside}: {_first_line(error)}",
        remedy=f"start again with an empty store, or put a backup ({path.name}.before-*) in its place first",
    )


def _opens(settings: Settings) -> bool:
    try:
        connect(settings).close()
    except duckdb.Error:
        return False
    return True


def _free_name(path: Path) -> Path:
    number = 1
    while True:
        aside = path.with_name(f"{path.name}.quarantine-{number}")
        if not aside.exists() and not aside.with_name(aside.name + ".wal").exists():
            return aside
        number += 1


def _first_line(error: duckdb.Error) -> str:
    return str(error).splitlines()[0]
