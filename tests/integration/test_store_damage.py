"""What a store does when its file is held, foreign, torn or damaged, its disk full, or its process killed."""

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest

from nursery import Warm
from storekit import SOURCE, forecasts, open_store, store_settings, unit, value
from tickcast.errors import BadRequest, BadStore, StoreStalled
from tickcast.io.store import database
from tickcast.io.store.lock import StoreLock
from tickcast.io.store.store import Commit

WRITE_FOR_EVER = """
import asyncio, sys
from pathlib import Path
from storekit import open_store, store_settings, unit

async def main():
    store = open_store(store_settings(Path(sys.argv[1])))
    first = max(store.positions().values(), default=0)
    while True:
        await store.write(unit(first, 50))
        first += 50
        print(first, flush=True)

asyncio.run(main())
"""


def killed_writer(folder: Path, *, commits: int) -> int:
    """A process that writes units of 50 and is killed after so many; returns the last offset that it knew stored."""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    with Warm([sys.executable, "-c", WRITE_FOR_EVER, str(folder)], stdout=subprocess.PIPE, env=env, text=True) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(commits)]
        child.send_signal(signal.SIGKILL)
        child.wait(30)
    return int(said[-1])


async def rows_and_offset(store) -> tuple[set[object], object]:
    tables = ("forecasts", "scores", "bars")
    held = {await value(store, f"SELECT count(*) FROM {name}") for name in tables}
    return held, await value(store, "SELECT coalesce(max(next_offset), 0) FROM offsets")


@pytest.mark.slow
async def test_after_sigkill_rows_and_offsets_agree_and_nothing_acknowledged_is_lost(tmp_path):
    acknowledged = killed_writer(tmp_path, commits=12)
    for _ in range(2):  # and once more after the second run was killed as well
        store = open_store(store_settings(tmp_path))
        held, offset = await rows_and_offset(store)
        assert held == {offset}
        assert offset >= acknowledged
        assert await value(store, "SELECT count(DISTINCT id) FROM forecasts") == offset
        await store.close()
        acknowledged = killed_writer(tmp_path, commits=5)


@pytest.mark.slow
@pytest.mark.parametrize("part", [0.2, 0.5, 0.99])
async def test_of_a_log_cut_short_the_whole_transactions_are_kept_and_offsets_agree(tmp_path, part):
    acknowledged = killed_writer(tmp_path, commits=8)
    log = tmp_path / "s.duckdb.wal"
    os.truncate(log, int(log.stat().st_size * part))
    store = open_store(store_settings(tmp_path))
    held, offset = await rows_and_offset(store)
    assert held == {offset}
    assert 0 < offset <= acknowledged + 50
    await store.write(unit(offset, 50))
    await store.close()
    store = open_store(store_settings(tmp_path))
    assert await rows_and_offset(store) == ({offset + 50}, offset + 50)
    await store.close()


@pytest.mark.slow
async def test_a_log_with_flipped_bytes_is_moved_aside_and_the_next_start_goes_on_from_the_checkpoint(tmp_path):
    settings = store_settings(tmp_path)
    store = open_store(settings)
    await store.write(unit(0, 50))
    await store.close()  # a checkpoint
    killed_writer(tmp_path, commits=6)
    log = tmp_path / "s.duckdb.wal"
    damaged = bytearray(log.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    log.write_bytes(damaged)
    with pytest.raises(BadStore, match=r"write-ahead log .* damaged and was moved to .*quarantine-1\.wal.*start again"):
        open_store(settings)
    assert (tmp_path / "s.duckdb.quarantine-1.wal").read_bytes() == damaged
    store = open_store(settings)
    assert await rows_and_offset(store) == ({50}, 50)
    await store.write(unit(50, 50))
    await store.close()


@pytest.mark.parametrize("where", [4096 + 20, 12_288 + 100])
async def test_a_damaged_database_is_moved_aside_whole_and_the_next_start_makes_a_new_one(tmp_path, where):
    settings = store_settings(tmp_path)
    for number in (1, 2):
        store = open_store(settings)
        await store.write(unit(0, 50))
        await store.close()
        damaged = bytearray(settings.store.path.read_bytes())
        for at in {where, 8192 + 20 if where < 12_288 else where}:
            damaged[at] ^= 0xFF
        settings.store.path.write_bytes(damaged)
        with pytest.raises(BadStore, match=f"damaged and was moved to .*quarantine-{number}.*empty store"):
            open_store(settings)
        assert (tmp_path / f"s.duckdb.quarantine-{number}").read_bytes() == damaged
        assert not settings.store.path.exists()


@pytest.mark.slow
async def test_a_truncated_database_is_moved_aside_with_its_log(tmp_path):
    settings = store_settings(tmp_path)
    store = open_store(settings)
    await store.write(unit(0, 50))
    await store.close()  # a checkpoint
    killed_writer(tmp_path, commits=2)
    os.truncate(settings.store.path, 12_288)
    with pytest.raises(BadStore, match="is damaged and was moved"):
        open_store(settings)
    assert sorted(p.name for p in tmp_path.glob("*quarantine*")) == [
        "s.duckdb.quarantine-1",
        "s.duckdb.quarantine-1.wal",
    ]


async def test_a_byte_flipped_anywhere_ends_in_a_refusal_or_in_what_was_written(tmp_path):
    settings = store_settings(tmp_path)
    path = settings.store.path
    store = open_store(settings)
    await store.write(unit(0, 2000))
    await store.close()
    whole, refused = path.read_bytes(), 0
    for at in range(13, len(whole), len(whole) // 16):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        try:
            store = open_store(settings)
        except BadStore:
            refused += 1
            continue
        with suppress(BadRequest):  # a damaged column is told of when it is read
            assert await value(store, "SELECT sum(anchor) FROM forecasts") == sum(forecasts(0, 2000).anchor)
        await store.close()
    assert refused
    assert len(list(tmp_path.glob("*quarantine*"))) == refused


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"symbol,ts,price\n" * 900, "not a DuckDB file"),
        (b"SQLite format 3\0" + bytes(5000), "not a DuckDB file"),
    ],
)
def test_a_file_of_another_kind_is_refused_and_left_where_it_is(tmp_path, content, says):
    settings = store_settings(tmp_path)
    settings.store.path.write_bytes(content)
    with pytest.raises(BadStore, match=says):
        open_store(settings)
    assert settings.store.path.read_bytes() == content


def test_a_folder_as_path_is_refused(tmp_path):
    (tmp_path / "s.duckdb").mkdir()
    with pytest.raises(BadStore, match="is a folder"):
        open_store(store_settings(tmp_path))


def test_a_path_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadStore, match="cannot make the folder"):
        open_store(store_settings(tmp_path / "file"))


def test_a_database_of_somebody_else_is_refused_and_unchanged(tmp_path):
    settings = store_settings(tmp_path)
    with duckdb.connect(str(settings.store.path)) as theirs:
        theirs.execute("CREATE TABLE mine (a INTEGER)").fetchall()
    before = settings.store.path.read_bytes()
    with pytest.raises(BadStore, match="no store of tickcast"):
        open_store(settings)
    assert settings.store.path.read_bytes() == before


def test_a_store_held_by_another_process_is_refused_with_its_pid(tmp_path, monkeypatch):
    monkeypatch.setattr("tickcast.io.store.store.StoreLock", lambda path: StoreLock(path, wait_s=0.1))
    hold = "import sys, time; from pathlib import Path; from tickcast.io.store.lock import StoreLock; StoreLock(Path(sys.argv[1])); print(1, flush=True); time.sleep(60)"  # noqa: E501
    path = store_settings(tmp_path).store.path
    with Warm([sys.executable, "-c", hold, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(BadStore, match=rf"held by process {holder.pid} \(stop that process, or"):
            open_store(store_settings(tmp_path))
        holder.kill()
    assert not path.exists()


async def test_a_lock_file_left_by_a_killed_process_holds_nobody_up(tmp_path):
    (tmp_path / "s.duckdb.lock").write_text("1\n")
    await open_store(store_settings(tmp_path)).close()
    assert (tmp_path / "s.duckdb.lock").read_text() == ""


async def test_a_refused_start_lets_the_lock_go(tmp_path):
    settings = store_settings(tmp_path)
    settings.store.path.write_text("no database at all")
    with pytest.raises(BadStore):
        open_store(settings)
    settings.store.path.unlink()
    await open_store(settings).close()


def test_a_folder_that_may_not_be_written_is_refused(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(BadStore, match=r"cannot create the lock file .*: Read-only file system"):
        open_store(store_settings(small_disk))


async def fill(store, first: int) -> int:
    """Write units until the disk is full; returns the offset of the unit that failed."""
    while True:
        try:
            await store.write(
                Commit(forecasts=[forecasts(first, 500)], offsets={SOURCE: first + 500}, sources=[SOURCE])
            )
        except StoreStalled:
            return first
        first += 500
        assert first < 500_000


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint_bytes", [1 << 30, 1 << 18], ids=["the log is full", "a checkpoint finds it full"])
async def test_on_a_full_disk_nothing_is_lost_and_nothing_stored_twice(small_disk, monkeypatch, checkpoint_bytes):
    monkeypatch.setattr("tickcast.io.store.writer.CHECKPOINT_BYTES", checkpoint_bytes)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(4 << 20))
    store = open_store(store_settings(small_disk))
    failed = await fill(store, 0)
    again = Commit(forecasts=[forecasts(failed, 500)], offsets={SOURCE: failed + 500}, sources=[SOURCE])
    for _ in range(2):
        with pytest.raises(StoreStalled, match="No space left|cannot be opened again"):
            await store.write(again)
    ballast.unlink()
    await store.write(again)
    last = failed + 500
    assert await value(store, "SELECT next_offset FROM offsets") == last
    assert await value(store, "SELECT count(*) FROM forecasts") == last
    assert await value(store, "SELECT count(DISTINCT id) FROM forecasts") == last
    await store.close()
    store = open_store(store_settings(small_disk))
    assert await value(store, "SELECT count(*) FROM forecasts") == last
    await store.close()


async def test_a_unit_whose_commit_failed_after_it_reached_the_disk_is_not_written_again(tmp_path, monkeypatch):
    store = open_store(store_settings(tmp_path))
    writer = store._writer

    class Treacherous:
        """Commits, and then says that it could not."""

        def __init__(self, real: duckdb.DuckDBPyConnection) -> None:
            self._real = real

        def __getattr__(self, name: str) -> object:
            return getattr(self._real, name)

        def commit(self) -> None:
            self._real.commit()
            raise duckdb.FatalException("FATAL Error: fsync failed")

    await store.write(unit(0, 10))
    monkeypatch.setattr(writer, "_connection", Treacherous(writer._connection))
    second = unit(10, 10)
    with pytest.raises(StoreStalled, match="fsync failed"):
        await store.write(second)
    await store.write(second)
    assert await rows_and_offset(store) == ({20}, 20)
    await store.write(unit(20, 10))
    assert await rows_and_offset(store) == ({30}, 30)
    await store.close()


@pytest.mark.parametrize(
    ("message", "damage"),
    [
        ("Failure while replaying WAL file x: Corrupt WAL file: entry at 58", True),
        ("Corrupt database file: computed checksum 1 does not match stored checksum 2", True),
        ("Failure while replaying WAL file x: Could not write file: No space left on device", False),
        ("Trying to read a database file with version number 99, but we can only read version 64", False),
        ("IO Error: Could not set lock on file", False),
    ],
)
def test_only_damage_is_taken_for_damage(message, damage):
    assert database.is_damage(duckdb.Error(message)) is damage


def test_what_duckdb_says_is_told_on_one_line(tmp_path):
    settings = store_settings(tmp_path)
    (tmp_path / "s.duckdb").symlink_to(tmp_path / "nowhere" / "s.duckdb")
    with pytest.raises(BadStore, match=re.escape(f"cannot open {settings.store.path}: IO Error")) as refused:
        open_store(settings)
    assert "\n" not in str(refused.value)
