"""Jobs are real child processes: however one ends, its row says why, and nothing of it is left."""

import asyncio
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from numba.core.caching import UserProvidedCacheLocator

import jobkit
from jobkit import Rows, hosting, is_gone, until_gone
from tickcast import symbols
from tickcast.errors import BadData, BadRequest, StoreStalled
from tickcast.io.jobs.child import OUTPUT_BYTES, disk_bytes, drop_beginning
from tickcast.io.jobs.folder import MOST_READ_BYTES, ORDER, OUTPUT, PROGRESS, ProgressLines, read_result
from tickcast.io.jobs.kernel_links import compiled_stamp
from tickcast.io.jobs.limits import CREATE_RULESET, VERSION, libc
from tickcast.io.jobs.orders import FitOrder
from tickcast.io.jobs.prepare import JobInputs
from tickcast.records import JobRow
from tickcast.symbols import SymbolTable

landlocked = pytest.mark.skipif(
    libc.syscall(CREATE_RULESET, None, 0, VERSION) < 1, reason="needs a kernel with Landlock"
)


def stamped() -> None:
    """What children need is compiled as far as they can tell; it takes seconds."""
    stamp = compiled_stamp()
    stamp.parent.mkdir(parents=True)
    stamp.touch()


def refused(code: str) -> Any:
    return pytest.raises(BadRequest, check=lambda error: error.code == code)


async def test_a_job_that_ends_leaves_its_result_and_tells_of_every_state(tmp_path: Path) -> None:
    async with hosting(tmp_path) as hosted:
        row, result = await hosted.done("end")
    assert (row.state, row.why, row.step, row.steps) == ("done", "", 3, 3)
    assert (result["status"], result["metrics"]) == ("done", {"loss": 1 / 3})
    assert row.created_ns <= row.started_ns <= row.ended_ns
    assert hosted.ledger.rows == {row.id: row}
    assert [state for _, state in hosted.ledger.states] == ["queued", "running", "done"]
    states = [event.state for event in hosted.events]
    assert (states[:2], states[-1]) == (["queued", "running"], "done")
    assert hosted.events[-1].figures == {"loss": 1 / 3}
    assert msgspec.json.decode(row.order_json) == {"job": "train", "do": "end"}


async def test_a_child_inherits_no_secret_of_the_daemons_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TICKCAST_KAFKA__PASSWORD", "secret")
    async with hosting(tmp_path) as hosted:
        row, result = await hosted.done("end")
        inherited = result["content"]["env"]
        assert "secret" not in inherited.values()
        assert Path(inherited["TMPDIR"]).parent == hosted.host.folder_of(row.id)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("do", "budget", "why", "said"),
    [
        ("refuse", {}, "bad_data", "bars are empty"),
        ("throw", {}, "job_failed", "ValueError: no such thing"),
        ("leave", {}, "crashed", "last words"),
        ("allocate", {"memory_bytes": 1 << 30}, "out_of_memory", "more memory"),
        ("swell", {"disk_bytes": 4 << 20}, "disk", "disk_bytes"),
        ("hoard", {"disk_bytes": 4 << 20}, "disk", "jobs.disk_bytes"),
        ("burn", {"cpu_s": 2}, "over_cpu", "jobs.cpu_s"),  # what comes after must start within it, beside a busy core
        ("sleep", {"silence_s": 1}, "hung", "jobs.silence_s"),
        ("work_on", {"wall_s": 3}, "over_wall", ""),
        ("tear_the_result", {}, "crashed", "no result"),
    ],
)
async def test_a_job_that_fails_says_why(tmp_path: Path, do: str, budget: dict[str, int], why: str, said: str) -> None:
    async with hosting(tmp_path, grace_s=0.5, **budget) as hosted:
        row, result = await hosted.done(do)
        assert (row.state, row.why) == ("failed", why)
        assert said in result["error"]
        assert (await hosted.done("end"))[0].state == "done"


async def test_what_a_child_prints_is_bounded(tmp_path: Path) -> None:
    async with hosting(tmp_path) as hosted:
        row, _ = await hosted.done("leave")
        assert (hosted.host.folder_of(row.id) / OUTPUT).stat().st_size < OUTPUT_BYTES


def test_while_a_child_prints_only_the_beginning_goes(tmp_path: Path) -> None:
    path = tmp_path / OUTPUT
    with path.open("ab", buffering=0) as child:
        child.write(b"x" * (4 * OUTPUT_BYTES))
        drop_beginning(path)
        child.write(b"last words")
    assert path.stat().st_blocks * 512 < OUTPUT_BYTES
    assert path.read_bytes().endswith(b"xxxlast words")


def test_what_a_folder_takes_is_counted_by_what_lies_on_the_disk(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "one").write_bytes(bytes(3 << 20))
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(1 << 30)
    assert 3 << 20 <= disk_bytes(tmp_path) < 4 << 20
    assert disk_bytes(tmp_path / "nowhere") == 0


async def test_a_job_killed_from_outside_says_by_which_signal(tmp_path: Path) -> None:
    async with hosting(tmp_path) as hosted:
        job = await hosted.submit("work_on")
        os.kill(await hosted.working(job), signal.SIGKILL)
        row, _ = await hosted.ended(job)
        assert (row.state, row.why) == ("failed", "killed_by_signal_9")


@pytest.mark.slow
async def test_a_torn_line_of_progress_is_passed_over_and_the_job_resumed(tmp_path: Path) -> None:
    async with hosting(tmp_path) as hosted:
        row, _ = await hosted.done("tear_a_line")
        assert (row.state, row.why, row.step) == ("failed", "killed_by_signal_9", 1)
        assert (await hosted.host.resume(row.id)).state == "queued"
        row, result = await hosted.ended(row.id)
        assert (row.state, row.why, row.step, result["ok"]) == ("done", "", 3, True)
        with refused("not_resumable"):
            await hosted.host.resume(row.id)


async def test_a_cancelled_job_may_end_with_what_it_has(tmp_path: Path) -> None:
    async with hosting(tmp_path, grace_s=60) as hosted:
        job = await hosted.submit("work_on")
        pid = await hosted.working(job)
        await hosted.host.cancel(job)
        row, result = await hosted.ended(job)
        assert (row.state, row.why, result["status"]) == ("cancelled", "cancelled", "stopped")
        assert is_gone(pid)
        with refused("not_running"):
            await hosted.host.cancel(job)


async def test_who_does_not_listen_is_killed_after_the_grace(tmp_path: Path) -> None:
    async with hosting(tmp_path, grace_s=0.3) as hosted:
        job = await hosted.submit("work_on_deaf")
        pid = await hosted.working(job)
        await hosted.host.cancel(job)
        row, _ = await hosted.ended(job)
        assert (row.state, row.why) == ("cancelled", "cancelled")
        assert is_gone(pid)


async def test_what_a_job_started_ends_with_it(tmp_path: Path) -> None:
    async with hosting(tmp_path) as hosted:
        row, result = await hosted.done("leave_a_child")
        assert row.state == "done"
        await until_gone(result["content"]["child"])


@landlocked
async def test_a_job_writes_nowhere_but_in_its_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "old").write_text("old")
    async with hosting(tmp_path) as hosted:
        row, result = await hosted.done("trespass", outside=str(outside))
    assert row.state == "done", result
    refused, version = result["content"]["refused"], int(result["sandbox"].split()[1])
    assert {"new", "old", "delete", "link", "move"} <= set(refused)
    assert refused["connect"] == errno.EACCES or version < 4
    assert refused.get("signal") == errno.EPERM or version < 6
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("old", "old")]


@landlocked
@pytest.mark.parametrize("kept", ["beside the sources", "in a folder that was named"])
async def test_a_job_can_plant_nothing_that_the_daemon_would_run_or_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    SymbolTable(8).code("A")  # compiled by now
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    beside = Path(symbols.__file__).parent / "__pycache__"
    if kept == "in a folder that was named":  # as the unit does it
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
        shutil.copytree(beside, tmp_path / "cache" / "tickcast_0")
        stamped()
    else:
        monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    places = [tmp_path / name for name in ("home", "cache/tickcast_0", "store", "artefacts", "jobs/another")]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        (place / "old").touch()
    places += [beside, beside.parent, Path(symbols.__file__).parent.parent, Path("/tmp"), Path("/dev/shm")]
    compiled = [*beside.glob("*.nbi"), *(tmp_path / "cache").rglob("*.nbi")]
    files = [*compiled, *(place / "old" for place in places[:5]), Path(symbols.__file__)]
    async with hosting(tmp_path) as hosted:
        _, result = await hosted.done("plant", places=[*map(str, places)], files=[*map(str, files)])
    assert compiled
    assert result["content"] == {"planted": [], "opened": [], "started": 1}


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False])
async def test_a_job_runs_the_compiled_kernels_and_keeps_those_that_it_compiles_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    cache = Path(symbols.__file__).parent / "__pycache__"
    SymbolTable(8).code("A")
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    if named:
        place = tmp_path / "cache" / UserProvidedCacheLocator.get_suitable_cache_subpath(symbols.__file__)
        shutil.copytree(cache, place)
        cache = tmp_path / "cache"
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(cache))
        stamped()
    before = {file: file.stat().st_mtime_ns for file in cache.rglob("*.nb?")}
    async with hosting(tmp_path) as hosted:
        _, result = await hosted.done("kernel")
    assert result["content"] == {"loaded": 1, "hash": 1}, result
    assert before == {file: file.stat().st_mtime_ns for file in cache.rglob("*.nb?")}


@landlocked
def test_a_fit_from_the_shell_is_held_as_well(tmp_path: Path) -> None:
    folder, home = tmp_path / "job", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    (home / "old").touch()
    order = {"do": "plant", "places": [str(home), "/tmp"], "files": [str(home / "old")]}
    (folder / ORDER).write_bytes(msgspec.json.encode(order))
    subprocess.run([*jobkit.COMMAND, str(folder)], check=True, timeout=jobkit.WAIT_S)
    result = read_result(folder)
    assert result is not None
    assert result.content == {"planted": [], "opened": [], "started": 1}


async def test_jobs_begin_in_order_as_workers_are_free_and_beyond_the_queue_they_are_refused(tmp_path: Path) -> None:
    async with hosting(tmp_path, workers=1, queue=2) as hosted:
        first = await hosted.submit("work_on")
        await hosted.working(first)
        second, third = await hosted.submit("end"), await hosted.submit("end")
        with refused("too_many"):
            await hosted.submit("end")
        assert [row.state for row in hosted.host.rows()] == ["running", "queued", "queued"]
        await hosted.host.cancel(second)
        assert (await hosted.ended(second))[0].state == "cancelled"
        fourth = await hosted.submit("end")
        await hosted.host.cancel(first)
        await hosted.ended(fourth)
    began = [job for job, state in hosted.ledger.states if state == "running"]
    assert began == [first, third, fourth]


async def test_as_many_jobs_run_at_once_as_there_are_workers(tmp_path: Path) -> None:
    async with hosting(tmp_path, workers=2) as hosted:
        jobs = [await hosted.submit("work_on") for _ in range(3)]
        for job in jobs[:2]:
            await hosted.working(job)
        assert [row.state for row in hosted.host.rows()] == ["running", "running", "queued"]


async def test_a_job_whose_folder_cannot_be_filled_leaves_nothing(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        raise BadData("no bars")

    async with hosting(tmp_path) as hosted:
        with pytest.raises(BadData, match="no bars"):
            await hosted.host.submit(FitOrder(), JobInputs(fill))
        assert hosted.host.rows() == []
    assert list((tmp_path / "jobs").iterdir()) == []


async def test_a_job_that_could_not_be_stored_is_not_taken(tmp_path: Path) -> None:
    async with hosting(tmp_path, ledger=Rows(stalls=1)) as hosted:
        with pytest.raises(StoreStalled):
            await hosted.submit("end")
        assert hosted.host.rows() == []
        job = await hosted.submit("work_on")
        await hosted.working(job)
        hosted.ledger.stalls = 1
        await hosted.host.cancel(job)
        assert (await hosted.ended(job))[0] == hosted.ledger.rows[job]


async def test_a_command_that_cannot_be_started_is_that_jobs_failure(tmp_path: Path) -> None:
    async with hosting(tmp_path, command=("/nowhere/python",)) as hosted:
        row, _ = await hosted.done("end")
        assert (row.state, row.why) == ("failed", "not_started")


@pytest.mark.slow
async def test_folders_of_ended_jobs_are_kept_up_to_a_number(tmp_path: Path) -> None:
    async with hosting(tmp_path, keep=2) as hosted:
        jobs = [(await hosted.done("refuse"))[0].id for _ in range(3)]
        await hosted.done("end")
        assert jobs[2] in [row.id for row in hosted.host.rows()]
        with refused("unknown_job"):
            await hosted.host.resume(jobs[0])
    assert len(list((tmp_path / "jobs").iterdir())) == 2


async def test_a_daemon_that_stops_leaves_no_child_and_says_what_it_interrupted(tmp_path: Path) -> None:
    async with hosting(tmp_path) as hosted:
        running, waiting = await hosted.submit("work_on"), await hosted.submit("end")
        pid = await hosted.working(running)
    assert is_gone(pid)
    rows = hosted.ledger.rows
    assert (rows[running].state, rows[running].why) == ("interrupted", "daemon_stopped")
    assert rows[waiting].state == "queued"
    async with hosting(tmp_path) as again:
        assert await again.host.recover(rows.values()) == []
        assert (await again.ended(waiting))[0].state == "done"
        assert (await again.host.resume(running)).state == "queued"


async def test_when_the_daemon_is_killed_its_jobs_die_and_can_be_resumed(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(jobkit.__file__)), str(tmp_path)]
    with subprocess.Popen(command) as daemon:
        async with asyncio.timeout(jobkit.WAIT_S):
            while not (rows := stored(tmp_path)) or rows[-1].state != "running":
                await asyncio.sleep(0.02)
            pid_file = tmp_path / "jobs" / rows[-1].id / "pid"
            while not (pid_file.exists() and pid_file.read_text()):
                await asyncio.sleep(0.02)
        daemon.kill()
    await until_gone(int(pid_file.read_text()))
    async with hosting(tmp_path) as hosted:
        (interrupted,) = await hosted.host.recover(stored(tmp_path)[-1:])
        assert (interrupted.state, interrupted.why) == ("interrupted", "daemon_died")
        await hosted.host.resume(interrupted.id)
        pid_file.unlink()
        await hosted.working(interrupted.id)
        await hosted.host.cancel(interrupted.id)
        assert (await hosted.ended(interrupted.id))[0].state == "cancelled"


def test_progress_is_read_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / PROGRESS
    path.write_bytes(b'{"step":1,"steps":9}\n')
    lines = ProgressLines(tmp_path)
    assert lines.new() == []
    with path.open("ab", buffering=0) as file:
        file.write(b'{"step":2,"steps":9}\n\n[1]\n{"step":"3","steps":9}\n{"step":4,"ste')
        assert [line["step"] for line in lines.new()] == [2]
        assert lines.new() == []
        file.write(b'ps":9}\n')
        assert [line["step"] for line in lines.new()] == [4]
        file.write(b"x" * (MOST_READ_BYTES + 5))
        lines.new()
        file.write(b'\n{"step":5,"steps":9}\n')
        assert [line["step"] for line in lines.new()] == [5]
    assert ProgressLines(tmp_path / "nowhere").new() == []


def stored(folder: Path) -> list[JobRow]:
    path = folder / "rows.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [msgspec.json.decode(line, type=JobRow) for line in lines if line.endswith(b"\n")]


def test_the_page_names_only_tests_that_there_are() -> None:
    page = (Path(__file__).parents[2] / "docs" / "jobs.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    assert named
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*jobs.py"))
    assert named <= set(re.findall(r"def (test_\w+)", tests))
