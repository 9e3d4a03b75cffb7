"""Numbered SQL files bring any older store to the newest schema, and nothing else is touched."""

import re
from pathlib import Path

import duckdb
import pytest

from storekit import SOURCE, forecasts, open_store, store_settings, unit, value
from tickcast.errors import BadStore
from tickcast.io.store import schema
from tickcast.io.store.schema import Migration, migrate, read_migrations, version_of
from tickcast.io.store.store import Commit

KNOWN = read_migrations(schema.folder())


def connect(path: Path) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(str(path))


def made_by(path: Path, migrations: list[Migration], *, at_ns: int = 1) -> None:
    migrate(lambda: connect(path), path, at_ns=at_ns, known=migrations).close()


def objects(path: Path) -> list[tuple[object, ...]]:
    with connect(path) as db:
        columns = "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() WHERE NOT internal"
        return sorted(db.execute(columns).fetchall())


def test_the_checkouts_migrations_are_found_and_numbered():
    assert schema.folder().name == "migrations"
    assert [m.version for m in KNOWN] == list(range(1, len(KNOWN) + 1))
    assert len(KNOWN) >= 3


def test_the_packaged_migrations_win_over_the_checkouts(tmp_path, monkeypatch):
    (tmp_path / "migrations").mkdir()
    monkeypatch.setattr(schema, "files", lambda package: tmp_path)
    assert schema.folder() == tmp_path / "migrations"


@pytest.mark.parametrize("start", range(1, len(KNOWN)))
def test_a_store_of_every_older_schema_becomes_what_a_new_one_is(tmp_path, start):
    old, new = tmp_path / "old.duckdb", tmp_path / "new.duckdb"
    made_by(old, KNOWN[:start])
    made_by(old, KNOWN, at_ns=2)
    made_by(new, KNOWN)
    assert objects(old) == objects(new)
    with connect(old) as db:
        applied = db.execute("SELECT version, applied_ns FROM schema_migrations ORDER BY 1").fetchall()
    assert applied == [(m.version, 1 if m.version <= start else 2) for m in KNOWN]


A_VALUE = {
    "VARCHAR": "'text'", "INTEGER": "7", "BIGINT": "8", "UTINYINT": "3", "UBIGINT": "9", "DOUBLE": "0.25",
    "FLOAT": "0.5", "BOOLEAN": "true", "UUID": "'00000000-0000-0000-0000-000000000001'", "JSON": "'{}'",
    "BLOB": "'\\x00\\xFF'::BLOB", "VARCHAR[]": "['text']",
    "DOUBLE[]": "[0.5]", "FLOAT[]": "[0.5, NULL]", "INTEGER[]": "[1, 2]", "BIGINT[]": "[5]", "BOOLEAN[]": "[true]",
}  # fmt: skip


def rows_of(path: Path) -> dict[str, dict[str, object]]:
    """The last row of every table but that of the migrations, by column."""
    with connect(path) as db:
        tables = [name for (name,) in db.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        found = {}
        for table in set(tables) - {"schema_migrations"}:
            result = db.execute(f"SELECT * FROM {table}")
            names, rows = [column[0] for column in result.description], result.fetchall()
            found[table] = dict(zip(names, rows[-1], strict=True)) if rows else {}
    return found


@pytest.mark.parametrize("start", range(1, len(KNOWN)))
def test_each_migration_keeps_the_rows_of_every_table(tmp_path, start):
    path = tmp_path / "s.duckdb"
    made_by(path, KNOWN[:start])
    with connect(path) as db:
        columns = db.execute("SELECT table_name, data_type FROM duckdb_columns() WHERE NOT internal").fetchall()
        tables = {name for (name,) in db.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
        for table in tables - {"schema_migrations"}:
            values = ", ".join(A_VALUE[kind] for of, kind in columns if of == table)
            db.execute(f"INSERT INTO {table} VALUES ({values})")
    before = rows_of(path)
    made_by(path, KNOWN, at_ns=2)
    after = rows_of(path)
    for table, row in before.items():
        kept = {name: after[table][name] for name in row}
        if table == "accuracy" and start < 8:  # what stood in `skill` is `skill_mae` now
            kept["skill"] = after[table]["skill_mae"]
        assert kept == row, table


async def test_rows_survive_an_upgrade_and_the_backup_is_the_store_of_before(tmp_path, monkeypatch):
    settings = store_settings(tmp_path)
    store = open_store(settings)
    await store.write(unit(0, 20))
    await store.close()
    before = objects(settings.store.path)
    newer = [*KNOWN, Migration(len(KNOWN) + 1, "more", "ALTER TABLE bars ADD COLUMN more INTEGER")]
    monkeypatch.setattr(schema, "read_migrations", lambda place: newer)
    store = open_store(settings)
    assert await value(store, "SELECT count(more IS NULL) FROM bars") == 20
    await store.write(Commit(forecasts=[forecasts(20, 5)], offsets={SOURCE: 25}, sources=[SOURCE]))
    await store.close()
    backup = tmp_path / f"s.duckdb.before-{len(newer):04d}"
    assert objects(backup) == before
    with connect(backup) as db:
        assert db.execute("SELECT count(*) FROM forecasts").fetchall() == [(20,)]


def test_a_new_store_has_no_backup_and_opening_it_again_changes_nothing(tmp_path):
    path = tmp_path / "s.duckdb"
    made_by(path, KNOWN)
    before = objects(path)
    made_by(path, KNOWN, at_ns=9)
    assert objects(path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["s.duckdb"]


def test_a_backup_never_overwrites_another(tmp_path):
    path = tmp_path / "s.duckdb"
    backup = tmp_path / f"s.duckdb.before-{len(KNOWN):04d}"
    backup.write_text("from an earlier try")
    made_by(path, KNOWN[:1])
    made_by(path, KNOWN)
    assert backup.read_text() == "from an earlier try"
    assert (tmp_path / f"{backup.name}-1").exists()


def test_without_room_for_the_backup_nothing_is_upgraded(tmp_path, monkeypatch):
    path = tmp_path / "s.duckdb"
    made_by(path, KNOWN[:1])

    def no_room(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(schema.shutil, "copyfile", no_room)
    with pytest.raises(BadStore, match="cannot back .* up before its upgrade: No space left"):
        made_by(path, KNOWN)
    with connect(path) as db:
        assert version_of(db, KNOWN) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["s.duckdb"]


def test_a_store_of_a_newer_schema_is_refused_and_unchanged(tmp_path):
    settings = store_settings(tmp_path)
    made_by(
        settings.store.path, [*KNOWN, Migration(len(KNOWN) + 1, "from_the_future", "CREATE TABLE future (a INTEGER)")]
    )
    before = settings.store.path.read_bytes()
    with pytest.raises(BadStore, match=f"has schema {len(KNOWN) + 1}, this tickcast knows up to {len(KNOWN)}"):
        open_store(settings)
    assert settings.store.path.read_bytes() == before


def test_a_store_made_by_an_altered_migration_is_refused(tmp_path):
    settings = store_settings(tmp_path)
    altered = KNOWN[0]._replace(sql=KNOWN[0].sql + "\n-- an afterthought")
    made_by(settings.store.path, [altered, *KNOWN[1:]])
    with pytest.raises(BadStore, match=r"migration 0001_stream differs .* must never be edited"):
        open_store(settings)


def test_a_migration_that_fails_halfway_leaves_the_version_before(tmp_path):
    path = tmp_path / "s.duckdb"
    made_by(path, KNOWN[:1])
    broken = Migration(2, "broken", "CREATE TABLE half (a INTEGER); INSERT INTO nowhere VALUES (1);")
    with pytest.raises(duckdb.CatalogException):
        made_by(path, [KNOWN[0], broken])
    with connect(path) as db:
        assert version_of(db, KNOWN) == 1
        assert not db.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'half'").fetchall()
    made_by(path, KNOWN)


@pytest.mark.parametrize(
    "names", [["0002_b.sql"], ["0001_a.sql", "0003_c.sql"], ["0001_a.sql", "0001_b.sql"], ["1_a.sql"], []]
)
def test_a_folder_with_broken_numbering_is_refused(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(BadStore, match=r"numbering|no migrations"):
        read_migrations(tmp_path)


def test_the_pages_of_store_and_registry_name_every_table_and_column():
    docs = Path(__file__).parents[2] / "docs"
    page = "\n".join((docs / name).read_text() for name in ("store.md", "registry.md"))
    with duckdb.connect() as db:
        for migration in KNOWN:
            db.execute(migration.sql).fetchall()
        columns = db.execute("SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal").fetchall()
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", page, re.DOTALL | re.MULTILINE))
    for table in {table for table, _ in columns}:
        named = set(re.findall(r"^\| `(\w+)`", sections.get(table, ""), re.MULTILINE))
        assert named == {column for of, column in columns if of == table}, table
