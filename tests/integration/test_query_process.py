"""Queries of others run in a process of their own over a copy: serving feels neither their memory nor their time."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from storekit import open_store, store_settings, unit
from tickcast.io.store import query_process, writer
from tickcast.io.store.query_process import FOLDER, Queries
from tickcast.io.store.store import Store
from tickcast.settings import Settings

WAIT_S = 60.0
GREEDY = [
    "SELECT len(list_sort(range(400000000)))",
    "SELECT len(regexp_replace(repeat('a', 300000000), 'a', 'bb', 'g'))",
    "SELECT count(*) FROM (SELECT unnest(range(2000000000)) AS n) GROUP BY n",
    "SELECT len(array_to_json(range(100000000))::VARCHAR)",
]


async def asked(queries: Queries, sql: str) -> list[Any]:
    async with asyncio.timeout(WAIT_S):
        parts = [part async for part in queries.reply(sql)]
    return [msgspec.json.decode(line) for line in b"".join(parts).splitlines()]


def opened(folder: Path, **more: Any) -> tuple[Settings, Store]:
    settings = store_settings(folder, **more)
    return settings, open_store(settings)


@pytest.mark.slow
async def test_a_query_sees_what_is_in_the_log_and_in_the_database_and_leaves_nothing(tmp_path: Path) -> None:
    settings, store = opened(tmp_path)
    (settings.runtime.folder / FOLDER / "left").mkdir(parents=True)  # by a daemon that was killed
    queries = Queries(store, settings)
    assert not (settings.runtime.folder / FOLDER).exists()
    await store.write(unit(0, 70))
    head, rows, end = await asked(queries, "SELECT count(*) AS n FROM forecasts")
    assert (head, rows, end) == ({"columns": ["n"]}, [[70]], {"rows": 1})
    await store.write(unit(70, 30))
    assert (await asked(queries, "SELECT count(*) AS n FROM forecasts"))[1] == [[100]]
    assert [*(settings.runtime.folder / FOLDER).iterdir()] == []
    await store.close()


@pytest.mark.slow
async def test_a_copy_that_is_made_while_units_are_written_and_folded_in_holds_whole_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "CHECKPOINT_BYTES", 1)  # at every unit
    settings, store = opened(tmp_path)
    queries, stop = Queries(store, settings), False

    async def write() -> int:
        written = 0
        while not stop:
            await store.write(unit(50 * written, 50))
            written += 1
        return written

    writing = asyncio.create_task(write())
    counts = [(await asked(queries, "SELECT count(*), count(DISTINCT id) FROM forecasts"))[1][0] for _ in range(3)]
    stop = True
    written = await writing
    assert all(count == ids and count % 50 == 0 for count, ids in counts)
    assert counts == sorted(counts)
    assert counts[-1][0] <= 50 * written
    await store.close()


@pytest.mark.slow
@pytest.mark.parametrize("sql", GREEDY)
async def test_a_greedy_query_ends_by_its_own_bounds(tmp_path: Path, sql: str) -> None:
    settings, store = opened(tmp_path, store__query_timeout_s=1)
    queries = Queries(store, settings)
    (refused,) = await asked(queries, sql)
    assert refused["error"] in ("bad_request", "store_stalled")
    assert (await asked(queries, "SELECT 1 AS one"))[1] == [[1]]
    await store.close()


async def test_a_query_that_does_not_listen_is_killed_and_nobody_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, store = opened(tmp_path, store__query_timeout_s=1)
    queries = Queries(store, settings)
    pid = tmp_path / "pid"
    deaf = (
        f"import os, sys, time; sys.stdin.readline(); open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    )
    monkeypatch.setattr(query_process, "CHILD", (sys.executable, "-c", deaf))
    (refused,) = await asked(queries, "SELECT 1")
    assert (refused["error"], refused["message"]) == ("bad_request", query_process.KILLED)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)

    pid.unlink()
    queries = Queries(store, store_settings(tmp_path, store__query_timeout_s=600))
    waiting = asyncio.create_task(asked(queries, "SELECT 1"))
    async with asyncio.timeout(WAIT_S):
        while not (pid.exists() and pid.read_text()):
            await asyncio.sleep(0.01)
        waiting.cancel()  # as a drain does
        await asyncio.gather(waiting, return_exceptions=True)
        await store.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


async def test_while_the_database_is_copied_units_are_written_and_none_is_folded_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "CHECKPOINT_BYTES", 1)
    settings, store = opened(tmp_path)
    await store.write(unit(0, 10))
    path = settings.store.path
    before = path.stat()
    with store.without_checkpoint():
        async with store.between_transactions():
            writing = asyncio.create_task(store.write(unit(10, 10)))
            await asyncio.sleep(0.05)
            assert not writing.done()
        await writing
        assert (path.stat().st_mtime_ns, path.stat().st_size) == (before.st_mtime_ns, before.st_size)
    await store.write(unit(20, 10))
    assert path.stat().st_mtime_ns != before.st_mtime_ns
    await store.close()


async def test_more_queries_than_may_wait_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_process, "WAITING", 1)
    settings, store = opened(tmp_path)
    queries = Queries(store, settings)
    first = asyncio.create_task(asked(queries, "SELECT 1"))
    await asyncio.sleep(0)
    with pytest.raises(query_process.StoreStalled):
        await asked(queries, "SELECT 2")
    assert (await first)[1] == [[1]]
    await store.close()


async def test_a_query_process_has_no_secret_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKCAST_KAFKA__PASSWORD", "secret")
    told = "import json, os, sys; sys.stdin.readline(); print(json.dumps(dict(os.environ)))"
    monkeypatch.setattr(query_process, "CHILD", (sys.executable, "-c", told))
    settings, store = opened(tmp_path)
    (environ,) = await asked(Queries(store, settings), "SELECT 1")
    assert "PATH" in environ
    assert "secret" not in environ.values()
    await store.close()
