"""The child process of one job: its start, its signs of life, its end. It knows neither queue nor store.

What looks into files blocks, so the daemon calls it on a thread; but not the start: a child dies with the thread that
started it (PR_SET_PDEATHSIG), so that must be the event loop's.
"""

import asyncio
import ctypes
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tickcast.clock import Clock
from tickcast.io.jobs.folder import LIMITS, OUTPUT, SCRATCH, Limits, ProgressLines, Result, read_result, write_whole
from tickcast.records import JobState
from tickcast.settings.service import JobSettings

OUTPUT_BYTES, KEPT_BYTES = 1 << 20, 1 << 16  # of what a child prints; beyond the first, the last of it stays
PUNCH_HOLE = 0x03  # of fallocate(2), and keep the size
TAIL_BYTES = 4_000  # of it that a row carries
KILLED_WAIT_S = 10.0
LOOK_S = 0.02  # between two looks whether it has ended
SECOND = 10**9
EVENT_EVERY_NS = SECOND
OVER_DISK = "disk"  # why a job was ended
BEYOND = {OVER_DISK: "disk_bytes", "over_wall": "wall_s", "hung": "silence_s", "over_cpu": "cpu_s"}  # of [jobs]
ENVIRONMENT = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "LD_LIBRARY_PATH", "NUMBA_CACHE_DIR", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
NO_MEMORY = ("MemoryError", "bad_alloc", "out of memory", "Out of memory", "annot allocate memory", "t allocate memory")

libc = ctypes.CDLL(None)


class Look(NamedTuple):
    """What was new since the look before."""

    progress: dict[str, Any] | None  # the newest line
    alive: bool  # it reported something, or it or a process of its own used processor time
    disk_bytes: int  # that its folder takes


class Ending(NamedTuple):
    state: JobState
    why: str
    result: Result


class Child:
    """One process in a session of its own, so that whatever it started can be ended with it.

    `limits` are of a daemon's. Without them it is a person's, who may take what he may, and sees what it prints. With a
    `line` it is the helper of another child, which it talks to over its stdin, and whose session it shares.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, limits: Limits | None = None, *, line: socket.socket | None = None
    ) -> None:
        self._folder, self._leads = folder, line is None
        if limits is not None:
            write_whole(folder / LIMITS, msgspec.json.encode(limits))
        with nullcontext() if limits is None else (folder / OUTPUT).open("ab") as output:
            self._process = subprocess.Popen(
                [*command, str(folder)], stdin=subprocess.DEVNULL if line is None else line.fileno(), stdout=output,
                stderr=output, env=None if limits is None else environment(os.environ), start_new_session=self._leads,
            )  # fmt: skip
        self._lines = ProgressLines(folder)
        self._ticks = 0

    async def ended_within(self, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self._process.poll() is None and loop.time() < until:
            await asyncio.sleep(LOOK_S)
        return self._process.poll() is not None

    def wait(self, seconds: float) -> int | None:
        """Its exit status; None where it has not ended by then."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def ask_to_stop(self) -> None:
        """Its own processes are its own business until it is killed."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        """It and everything in its group, also what outlived it."""
        with suppress(ProcessLookupError):
            if self._leads:
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    async def reap(self) -> None:
        self.kill()
        await self.ended_within(KILLED_WAIT_S)

    def progress(self) -> list[dict[str, Any]]:
        """Its new lines."""
        return self._lines.new()

    def look(self) -> Look:
        lines = self.progress()
        ticks = processor_ticks(self._process.pid)
        alive = bool(lines) or ticks != self._ticks
        self._ticks = ticks
        drop_beginning(self._folder / OUTPUT)
        return Look(lines[-1] if lines else None, alive, disk_bytes(self._folder))

    def ending(self, stopped_for: str) -> Ending:
        """What became of it; `stopped_for` is why the host ended it, empty where it did not."""
        returncode = self._process.returncode
        self.clear()
        keep_end(self._folder / OUTPUT)
        return ending(self._folder, -signal.SIGKILL if returncode is None else returncode, stopped_for)

    def clear(self) -> None:
        shutil.rmtree(self._folder / SCRATCH, ignore_errors=True)


class Watch:
    """How long a job has run and been silent, and when it was last told of."""

    def __init__(self, budget: JobSettings, clock: Clock) -> None:
        self._budget, self._clock = budget, clock
        self._began = self._heard = clock.monotonic_ns()
        self._next_event = self._began

    def reason(self, look: Look) -> str:
        """Why the job must end now, or empty."""
        now = self._clock.monotonic_ns()
        if look.alive:
            self._heard = now
        if look.disk_bytes > self._budget.disk_bytes:
            return OVER_DISK
        if now - self._began > self._budget.wall_s * SECOND:
            return "over_wall"
        return "hung" if now - self._heard > self._budget.silence_s * SECOND else ""

    def may_tell(self) -> bool:
        now = self._clock.monotonic_ns()
        if now < self._next_event:
            return False
        self._next_event = now + EVENT_EVERY_NS
        return True


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Passwords reach the daemon by its environment; a job has no use for them."""
    return {name: inherited[name] for name in ENVIRONMENT if name in inherited} | {"PYTHONUNBUFFERED": "1"}


def ending(folder: Path, returncode: int, stopped_for: str) -> Ending:
    result = read_result(folder)
    if result is None:
        tail = last_output(folder)
        code = stopped_for or death(returncode, tail)
        said = f"it went beyond jobs.{BEYOND[code]}" if code in BEYOND else f"it ended with {returncode} and no result"
        result = Result(ok=False, error_code=code, error=f"{said}: {tail}" if tail else said)
    if stopped_for:
        return Ending("cancelled" if stopped_for == "cancelled" else "failed", stopped_for, result)
    return Ending("done", "", result) if result.ok else Ending("failed", result.error_code, result)


def left_behind(folder: Path) -> Ending:
    """What a job was when its daemon died: perhaps it had its result already."""
    if read_result(folder) is not None:
        return ending(folder, 0, "")
    result = Result(ok=False, error_code="daemon_died", error="the daemon ended while the job ran")
    return Ending("interrupted", "daemon_died", result)


def death(returncode: int, tail: str) -> str:
    """Why a process ended that left no result."""
    if returncode == -signal.SIGXCPU:
        return "over_cpu"
    if any(words in tail for words in NO_MEMORY):
        return "out_of_memory"
    return f"killed_by_signal_{-returncode}" if returncode < 0 else "crashed"


def last_output(folder: Path) -> str:
    try:
        with (folder / OUTPUT).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""


def drop_beginning(path: Path) -> None:
    """Gives the disk back what a chatty child printed, while it goes on printing: its last words must not be lost."""
    with suppress(OSError), path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if os.fstat(file.fileno()).st_blocks * 512 > OUTPUT_BYTES:
            libc.fallocate(file.fileno(), PUNCH_HOLE, ctypes.c_long(0), ctypes.c_long(size - KEPT_BYTES))


def keep_end(path: Path) -> None:
    """Of what a child printed that is gone."""
    with suppress(OSError):
        if path.stat().st_size > OUTPUT_BYTES:
            with path.open("rb") as file:
                file.seek(-KEPT_BYTES, os.SEEK_END)
                end = file.read()
            write_whole(path, end)


def disk_bytes(folder: Path) -> int:
    """Taken by all that lies below; what goes meanwhile counts nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total


def processor_ticks(pid: int) -> int:
    """Used by a process and all that it started; 0 where the system does not tell."""
    return sum(map(_own_ticks, _family(pid)))


def _own_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return sum(map(int, fields[11:15]))  # its own in user and system, and of children that ended


def _family(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from _family(int(child))
