"""Queries from outside: they read the store, end in time, and can do nothing else."""

import asyncio
import subprocess
import sys

import pytest

from storekit import SECOND, T0, open_store, store_settings, unit, value
from tickcast.errors import BadRequest, BadStore
from tickcast.io.store.query import query_direct
from tickcast.ui.query import run_query

FORBIDDEN = [
    "UPDATE commits SET unit = 0",
    "DELETE FROM forecasts",
    "CREATE TABLE t AS SELECT 1",
    "DROP TABLE bars",
    "COPY bars TO '{archive}/stolen.parquet'",
    "ATTACH ':memory:' AS other",
    "ATTACH '{archive}/other.duckdb'",
    "SET memory_limit = '100GB'",
    "PRAGMA threads = 8",
    "SET enable_external_access = true",
    "INSTALL httpfs",
    "LOAD httpfs",
    "CHECKPOINT",
    "CALL force_checkpoint()",
    "EXPLAIN ANALYZE DELETE FROM bars",
    "BEGIN",
    "SELECT 1; DELETE FROM bars",
    "SELECT 1; ROLLBACK; DELETE FROM bars",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_blob('{path}')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM read_text('{archive}/../secret')",
    "SELECT * FROM read_csv('http://127.0.0.1:9/x.csv')",
    "SELECT getenv('HOME')",
    "SELECT * FROM settings",
    "SELECT * FROM query('DELETE FROM bars')",
    "WITH gone AS (DELETE FROM bars RETURNING *) SELECT * FROM gone",
    "not SQL at all",
    "SELECT 'unfinished",
    "",
    ";",
    "SELECT \x00",
]


@pytest.fixture
async def store(tmp_path):
    (tmp_path / "archive").mkdir()
    (tmp_path / "secret").write_text("secret")
    opened = open_store(store_settings(tmp_path, store__query_rows=100, store__query_timeout_s=1))
    await opened.write(unit(0, 20))
    yield opened
    await opened.close()


@pytest.mark.parametrize("sql", FORBIDDEN)
async def test_a_query_can_do_nothing_but_read_the_store(store, tmp_path, sql):
    with pytest.raises(BadRequest):
        await store.query(sql.format(archive=tmp_path / "archive", path=tmp_path / "s.duckdb"))
    await store.write(unit(20, 20))
    assert await value(store, "SELECT count(*) FROM bars") == 40
    assert sorted(p.name for p in (tmp_path / "archive").iterdir()) == []


@pytest.mark.parametrize("sql", FORBIDDEN)
async def test_nor_can_a_direct_one(store, tmp_path, sql):
    await store.close()
    settings = store_settings(tmp_path)
    with pytest.raises(BadRequest):
        query_direct(settings, sql.format(archive=tmp_path / "archive", path=tmp_path / "s.duckdb"))
    assert query_direct(settings, "SELECT count(*) FROM bars").rows == [(20,)]


@pytest.mark.parametrize(
    "sql",
    [
        "DESCRIBE bars",
        "SHOW TABLES",
        "SUMMARIZE bars",
        "FROM bars LIMIT 1",
        "VALUES (1)",
        "WITH x AS (SELECT 1) FROM x",
    ],
)
async def test_all_that_reads_is_a_select(store, sql):
    assert (await store.query(sql)).rows


async def test_an_answer_above_the_row_cap_is_refused_rather_than_cut(store):
    assert len((await store.query("SELECT * FROM range(100)")).rows) == 100
    with pytest.raises(BadRequest, match=r"more than 100 rows \(add a LIMIT"):
        await store.query("SELECT * FROM range(101)")


async def test_an_answer_of_too_many_bytes_is_refused(store, monkeypatch):
    monkeypatch.setattr("tickcast.io.store.query.ANSWER_BYTES", 1 << 20)
    with pytest.raises(BadRequest, match="larger than"):
        await store.query("SELECT repeat('x', 2_000_000)")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM range(1_000_000_000) a(x), range(1000) b(y) WHERE x * y % 7 = 3",
        "SELECT x FROM range(100_000_000_000) t(x) WHERE x < 0",
    ],
)
async def test_a_query_past_its_deadline_is_broken_off_and_the_store_goes_on(store, sql):
    with pytest.raises(BadRequest, match="longer than 1 s"):
        await store.query(sql)
    await store.write(unit(20, 20))
    assert await value(store, "SELECT count(*) FROM bars") == 40


async def test_writing_does_not_wait_for_a_slow_query(store):
    slow = asyncio.create_task(store.query("SELECT count(*) FROM range(10_000_000_000) WHERE range % 7 = 9"))
    await asyncio.sleep(0.1)
    await store.write(unit(20, 20))
    assert not slow.done()
    with pytest.raises(BadRequest):
        await slow


async def test_closing_breaks_off_a_query(tmp_path):
    store = open_store(store_settings(tmp_path))
    slow = asyncio.create_task(store.query("SELECT count(*) FROM range(100_000_000_000) WHERE range % 7 = 9"))
    await asyncio.sleep(0.2)
    async with asyncio.timeout(10):
        await store.close()
    with pytest.raises(BadRequest):
        await slow


async def test_a_query_that_wants_too_much_memory_is_refused(tmp_path):
    store = open_store(store_settings(tmp_path, store__memory_bytes=64 << 20))
    with pytest.raises(BadRequest, match=r"(?i)memory"):
        await store.query("SELECT len(list(range)) FROM range(100_000_000)")
    await store.write(unit(0, 5))
    await store.close()


async def test_values_come_back_as_json_has_them(store):
    sql = """SELECT 1::UTINYINT a, 2.5::FLOAT b, 'x' c, NULL d, true e, [1, NULL] f, {'k': 'v'} g, 'nan'::DOUBLE h,
        sum(n) i, 1.25::DECIMAL(9, 2) j, DATE '2026-01-02' k, 'a\\xff'::BLOB l, (10::HUGEINT << 64) m,
        '00000000-0000-0007-0000-00000000002b'::UUID n, make_timestamp_ns(1) o, 1 AS a FROM range(3) t(n)"""
    columns, (row,) = await store.query(sql)
    assert columns == [*"abcdefghijklmno", "a"]
    assert row[:9] == (1, 2.5, "x", None, True, [1, None], {"k": "v"}, "nan", 3)
    assert row[9:13] == (1.25, "2026-01-02", "a\\xff", 10 << 64)
    assert row[13] == "0000000000000007000000000000002b"
    assert isinstance(row[14], str)


async def test_a_forecast_is_found_by_the_hex_digits_of_its_id(store):
    assert await value(store, f"SELECT as_of_ns FROM forecasts WHERE id = '{7:016x}{11:016x}'") == T0 + 11 * SECOND


async def test_a_direct_query_where_no_store_is_leaves_no_files(tmp_path):
    with pytest.raises(BadStore, match="there is no store"):
        query_direct(store_settings(tmp_path), "SELECT 1")
    assert list(tmp_path.iterdir()) == []


async def test_a_direct_query_on_a_held_store_names_the_holder(tmp_path):
    settings = store_settings(tmp_path)
    await open_store(settings).close()
    hold = "import sys; from pathlib import Path; from tickcast.io.store.lock import StoreLock; StoreLock(Path(sys.argv[1])); print(1, flush=True); sys.stdin.read()"  # noqa: E501
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(settings.store.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(BadStore, match=f"held by process {holder.pid}"):
            run_query(settings, "SELECT 1")
        holder.kill()
    assert run_query(settings, "SELECT count(*) FROM bars") == (["count_star()"], [(0,)])


@pytest.mark.slow
async def test_a_direct_query_sees_what_a_killed_daemon_committed(tmp_path):
    from test_store_damage import killed_writer

    acknowledged = killed_writer(tmp_path, commits=3)
    ((rows,),) = query_direct(store_settings(tmp_path), "SELECT count(*) FROM forecasts").rows
    assert rows >= acknowledged
    assert (tmp_path / "s.duckdb.wal").exists()  # read-only: the log is not folded in
