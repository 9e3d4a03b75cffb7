"""A job host for tests, over the children of jobchild.py; its rows and events are kept.

`python tests/jobkit.py FOLDER` hosts one job that works on for ever, with its rows in FOLDER/rows.jsonl.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tickcast.clock import SystemClock
from tickcast.errors import StoreStalled
from tickcast.io.jobs import host
from tickcast.io.jobs.host import JobHost, Keep, keep_nothing
from tickcast.records import JobEvent, JobRow
from tickcast.settings.service import JobSettings

COMMAND = (sys.executable, str(Path(__file__).parent / "jobchild.py"))
WAIT_S = 90.0


class Rows:
    """A ledger in memory; it stalls as often as it is told to."""

    def __init__(self, stalls: int = 0) -> None:
        self.rows: dict[str, JobRow] = {}
        self.states: list[tuple[str, str]] = []  # of which job, in the order of storing
        self.stalls = stalls

    async def put_job(self, row: JobRow) -> None:
        if self.stalls:
            self.stalls -= 1
            raise StoreStalled("the disk is full")
        self.rows[row.id] = row
        self.states.append((row.id, row.state))


class RowsFile:
    def __init__(self, path: Path) -> None:
        self._path = path

    async def put_job(self, row: JobRow) -> None:
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(row) + b"\n")


class Hosted:
    """A running host with what it stored and told."""

    def __init__(
        self, folder: Path, *, ledger: Any = None, grace_s: float = 5.0, keeper: Keep = keep_nothing, **budget: Any,
    ) -> None:  # fmt: skip
        self.ledger = ledger or Rows()
        self.events: list[JobEvent] = []
        self.host = JobHost(
            JobSettings(**budget), folder / "jobs", clock=SystemClock(), ledger=self.ledger,
            on_event=self.events.append, grace_s=grace_s, keep=keeper,
        )  # fmt: skip

    async def submit(self, do: str, **order: Any) -> str:
        play = msgspec.defstruct("Play", ["job", "do", *order])
        return (await self.host.submit(play(job="train", do=do, **order))).id

    async def done(self, do: str, **order: Any) -> tuple[JobRow, Any]:
        return await self.ended(await self.submit(do, **order))

    async def ended(self, job_id: str) -> tuple[JobRow, Any]:
        """(row, its result)"""
        async with asyncio.timeout(WAIT_S):
            row = await self.host.ended(job_id)
        return row, msgspec.json.decode(row.result_json)

    async def working(self, job_id: str) -> int:
        """The process of a `work_on`, once it works."""
        path = self.host.folder_of(job_id) / "pid"
        async with asyncio.timeout(WAIT_S):
            while not (path.exists() and path.read_text()):
                await asyncio.sleep(0.01)
        return int(path.read_text())


@asynccontextmanager
async def hosting(folder: Path, *, command: Sequence[str] = COMMAND, **options: Any) -> AsyncIterator[Hosted]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "WORKER", command)
        hosted = Hosted(folder, **options)
        task = asyncio.create_task(hosted.host.run())
        try:
            yield hosted
        finally:
            task.cancel()
            async with asyncio.timeout(WAIT_S):
                await asyncio.gather(task, return_exceptions=True)


def is_gone(pid: int) -> bool:
    """An orphan that nobody waits for counts: it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:
        return True


async def until_gone(pid: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while not is_gone(pid):
            await asyncio.sleep(0.01)


async def host_for_ever(folder: Path) -> None:
    async with hosting(folder, ledger=RowsFile(folder / "rows.jsonl")) as hosted:
        await hosted.done("work_on")


if __name__ == "__main__":
    asyncio.run(host_for_ever(Path(sys.argv[1])))
