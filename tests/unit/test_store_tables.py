"""The one list of tables beside the migrations, which made them, and beside the command that exports them."""

from typing import get_args, get_type_hints

import duckdb
import pytest

from tickcast.engine.records.published import FORECASTS
from tickcast.io.store.schema import folder, read_migrations
from tickcast.io.store.tables import TABLES
from tickcast.live.commands.arguments import Export

OF_THE_STORE_ITSELF = {"commits", "deployment", "models", "archive_files", "routes", "datasets", "upkeep"}


@pytest.fixture(scope="module")
def columns():
    with duckdb.connect() as connection:
        for migration in read_migrations(folder()):
            connection.execute(migration.sql)
        found = connection.execute("SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal").fetchall()
        tables = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    return {table: {column for name, column in found if name == table} for table in tables}


def test_every_table_that_the_migrations_made_is_in_the_list(columns):
    assert set(columns) - OF_THE_STORE_ITSELF == set(TABLES)


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_a_line_names_columns_that_are_there(columns, table):
    first = [name for name in table.first.split(", ") if name]
    assert {*([table.time] if table.time else []), *table.key, *first} <= columns[table.name]
    assert ("symbol" in columns[table.name]) == table.has_symbols
    assert table.time or not table.rolled_off
    assert table.key or not table.handed_over


def test_the_command_exports_exactly_what_the_list_says():
    offered = get_args(get_type_hints(Export)["table"])
    assert [*offered] == [table.name for table in TABLES.values() if table.exported]


def test_the_store_has_a_column_for_every_field_of_a_forecast_that_it_keeps(columns):
    stored = {field.stored for field in FORECASTS.fields if field.stored}
    of_source = {"source_topic", "source_partition", "source_offset"}
    assert stored - {"source"} | {"step_ns"} | of_source == columns["forecasts"]
