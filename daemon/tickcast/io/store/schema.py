"""Brings a database to the newest schema by numbered SQL files, or refuses it. It never changes an applied one."""

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import duckdb

from tickcast.errors import BadStore

NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
HISTORY = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version INTEGER PRIMARY KEY, name VARCHAR NOT NULL, sha256 VARCHAR NOT NULL, applied_ns BIGINT NOT NULL
)"""

Connect = Callable[[], duckdb.DuckDBPyConnection]


class Migration(NamedTuple):
    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def folder() -> Path:
    """The migrations of the installed package, or of the checkout."""
    packaged = Path(str(files("tickcast") / "migrations"))
    return packaged if packaged.is_dir() else Path(__file__).parents[4] / "migrations"


def read_migrations(place: Path) -> list[Migration]:
    """All migrations, numbered from 1 without a hole."""
    found: list[Migration] = []
    for file in sorted(place.glob("*.sql")):
        named = NAME.fullmatch(file.name)
        if named is None or int(named[1]) != len(found) + 1:
            raise BadStore(f"{file} breaks the numbering of the migrations", remedy="names are 0001_what.sql, 0002_...")
        found.append(Migration(int(named[1]), named[2], file.read_text()))
    if not found:
        raise BadStore(f"no migrations in {place}", remedy="install tickcast again")
    return found


def version_of(connection: duckdb.DuckDBPyConnection, known: list[Migration]) -> int:
    """The schema version; refuses a database that is not ours, is newer, or was made by altered migrations."""
    tables = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if not tables:
        return 0
    if "schema_migrations" not in tables:
        raise BadStore("store.path is a DuckDB database, but no store of tickcast", remedy="set another store.path")
    applied = connection.execute("SELECT version, name, sha256 FROM schema_migrations ORDER BY version").fetchall()
    if len(applied) > len(known):
        raise BadStore(
            f"the store has schema {applied[-1][0]}, this tickcast knows up to {known[-1].version}",
            remedy="run the newer tickcast that wrote it, or set another store.path",
        )
    for (version, name, sha256), migration in zip(applied, known, strict=False):
        if (version, sha256) != (migration.version, migration.sha256):
            raise BadStore(
                f"migration {version:04d}_{name} differs from the one that made this store",
                remedy="an applied migration must never be edited: restore it, and add a new one",
            )
    return len(applied)


def migrate(
    connect: Connect, path: Path, *, at_ns: int, known: list[Migration] | None = None
) -> duckdb.DuckDBPyConnection:
    """Open the database at the newest schema; an existing one is copied before it is changed."""
    known = known or read_migrations(folder())
    connection = connect()
    try:
        version = version_of(connection, known)
        if 0 < version < len(known):
            connection.close()  # folds the log in, so that the one file is whole
            _back_up(path, known[-1].version)
            connection = connect()
        connection.execute(HISTORY).fetchall()
        for migration in known[version:]:
            _apply(connection, migration, at_ns)
    except (duckdb.Error, BadStore):
        connection.close()
        raise
    return connection


def _apply(connection: duckdb.DuckDBPyConnection, migration: Migration, at_ns: int) -> None:
    connection.begin()
    try:
        connection.execute(migration.sql).fetchall()
        row = [migration.version, migration.name, migration.sha256, at_ns]
        connection.execute("INSERT INTO schema_migrations VALUES (?, ?, ?, ?)", row).fetchall()
    except duckdb.Error:
        connection.rollback()
        raise
    connection.commit()


def _back_up(path: Path, version: int) -> None:
    """Copy to a temporary name, then rename: a backup is whole or absent."""
    number = 0
    while (backup := path.with_name(f"{path.name}.before-{version:04d}" + (f"-{number}" if number else ""))).exists():
        number += 1
    part = backup.with_name(backup.name + ".part")
    try:
        shutil.copyfile(path, part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.rename(backup)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise BadStore(
            f"cannot back {path} up before its upgrade: {error.strerror}", remedy=f"free space for {backup}"
        ) from None
