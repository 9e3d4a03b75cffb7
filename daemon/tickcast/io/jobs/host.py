"""Jobs: a queue with limits, children that work it off, rows and events that say what became of each.

It runs on the event loop and never works itself: whatever a job does, serving goes on. A job is `done` only when what
it made is kept: who dies before finds it running, with its result, and keeps that. A person at a shell has one job and
waits for it: see `wait_for`.
"""

import asyncio
import os
import shutil
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import msgspec

from tickcast.clock import Clock, fresh_id
from tickcast.errors import BadModel, CommandFault, CommandRefused, Fatal, JobFault, JobRefused, TickcastError, Waiting
from tickcast.io.jobs.child import KILLED_WAIT_S, OVER_DISK, Child, Ending, Look, Watch, left_behind
from tickcast.io.jobs.folder import ORDER, RESULT, Limits, Result, read_result
from tickcast.io.jobs.orders import Order
from tickcast.io.jobs.prepare import NO_INPUTS, JobInputs, prepare
from tickcast.records import JobEvent, JobRow
from tickcast.settings.service import JobSettings

# What every child is started by, read when it is. -P: nothing in its folder passes for a module.
WORKER: Sequence[str] = (sys.executable, "-P", "-m", f"{__package__}.worker")
POLL_S, GRACE_S, RETRY_S = 0.2, 10.0, 1.0
MOST_FIGURES = 64
ACTIVE = ("queued", "running")
REGISTERED = "registered"  # in the content of a result: what the model that the job made is called

Keep = Callable[[JobRow, Result], Awaitable[Result]]
"""Keeps what a job made, and says so in the result; the same may come again after a death, and is kept once."""


class JobLedger(Protocol):
    async def put_job(self, row: JobRow) -> None:
        """Store the row, over an older one of the same id; StoreStalled: nothing was stored."""


def wait_for(
    folder: Path, tell: Callable[[int, int], object], *, meanwhile: Callable[[], object] = lambda: None
) -> Result:
    """Run the job of this folder to its end, for whoever waits; BadModel where it failed. `meanwhile` is called often.

    It has no limits but those of the person. A Ctrl-C is for this process, which ends the child and what that started.
    """
    child = Child(WORKER, folder)
    try:
        status = None
        while status is None:
            status = child.wait(POLL_S)
            for line in child.progress():
                tell(line["step"], line["steps"])
            meanwhile()
    finally:  # an interrupt must not leave them behind, nor wait for the last epoch
        child.kill()
        child.wait(KILLED_WAIT_S)
        child.clear()
    result = read_result(folder)
    if result is None:
        raise BadModel(f"the training process ended with {status} and left no result")
    if not result.ok:
        raise BadModel(f"the fit failed ({result.error_code}): {result.error}")
    return result


async def keep_nothing(row: JobRow, result: Result) -> Result:
    return result


@dataclass(slots=True, eq=False)
class Job:
    row: JobRow
    cpu_s: int = 0  # its own limit; 0 = that of the settings
    figures: dict[str, Any] = field(default_factory=dict)
    stopped_for: str = ""  # why it is to end, or has been ended
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class JobHost:
    """`run` beside the daemon's body; the rest is called on the same loop."""

    def __init__(
        self,
        budget: JobSettings,
        folder: Path,
        *,
        clock: Clock,
        ledger: JobLedger,
        on_event: Callable[[JobEvent], None],
        keep: Keep = keep_nothing,
        grace_s: float = GRACE_S,
    ) -> None:
        self._budget, self._folder, self._clock = budget, folder.absolute(), clock
        self._ledger, self._on_event, self._keep = ledger, on_event, keep
        self._grace_s = grace_s
        self._jobs: dict[str, Job] = {}
        self._waiting: deque[Job] = deque()
        self._left: list[tuple[Job, Ending]] = []  # whole results of the daemon before
        self._entering = self._working = 0
        self._wake = asyncio.Event()

    def rows(self) -> list[JobRow]:
        """All that wait or run and the ended ones whose folder stays; in the order in which they were asked for."""
        return [job.row for job in self._jobs.values()]

    def row(self, job_id: str) -> JobRow:
        return self._known(job_id).row

    def folder_of(self, job_id: str) -> Path:
        return self._folder / self._known(job_id).row.id

    async def run(self) -> None:
        """Until cancelled; then no child is left, and what ran is `interrupted`."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._left:
                    group.create_task(self._end(*self._left.pop(0)))
                while self._waiting and self._working < self._budget.workers:
                    self._working += 1
                    group.create_task(self._work(self._waiting.popleft()))

    async def submit(
        self, order: Order, inputs: JobInputs = NO_INPUTS, *, command_id: str = "", cpu_s: int = 0
    ) -> JobRow:
        """Queue a job, its folder filled on a thread. Stored when this returns. `cpu_s`: a limit below jobs.cpu_s."""
        self._refuse_beyond_queue()
        row = JobRow(
            id=fresh_id(), kind=order.job, command_id=command_id, state="queued", why="",
            order_json=msgspec.json.encode(order).decode(), created_ns=self._clock.now_ns(),
        )  # fmt: skip
        self._entering += 1
        try:
            await asyncio.to_thread(prepare, self._folder / row.id, order, inputs)
            await self._ledger.put_job(row)
        except BaseException:  # cancelled or not: a folder without a row would stay for ever
            await asyncio.to_thread(shutil.rmtree, self._folder / row.id, ignore_errors=True)
            raise
        finally:
            self._entering -= 1
        self._enter(Job(row, cpu_s=cpu_s))
        return row

    async def cancel(self, job_id: str) -> JobRow:
        """A waiting one ends at once; a running one is asked to stop and after a grace killed: see `ended`."""
        job = self._known(job_id)
        if job.row.state not in ACTIVE:
            raise JobRefused(JobFault.NOT_RUNNING, f"job {job_id} has ended: {job.row.state}")
        if job in self._waiting:
            self._waiting.remove(job)
            result = Result(ok=False, error_code="cancelled", error="it was cancelled before it began")
            await self._end(job, Ending("cancelled", "cancelled", result))
        else:
            job.stopped_for = job.stopped_for or "cancelled"
        return job.row

    async def resume(self, job_id: str) -> JobRow:
        """Queue an ended job again in its own folder: it goes on from the checkpoints that it left there."""
        job = self._known(job_id)
        folder = self._folder / job_id
        if job.row.state in (*ACTIVE, "done") or not (folder / ORDER).exists():
            raise JobRefused(JobFault.NOT_RESUMABLE, f"job {job_id} is {job.row.state}, or its folder is gone")
        self._refuse_beyond_queue()
        again = Job(msgspec.structs.replace(job.row, state="queued", why="", started_ns=0, ended_ns=0, result_json=""))
        self._jobs[job_id] = again  # from here on nobody else resumes it or drops its folder
        try:
            (folder / RESULT).unlink(missing_ok=True)
            await self._ledger.put_job(again.row)
        except BaseException:  # cancelled or not: it is what it was before
            self._jobs[job_id] = job
            raise
        self._enter(again)
        return again.row

    async def ended(self, job_id: str) -> JobRow:
        """Its row when it has ended."""
        job = self._known(job_id)
        await job.ended.wait()
        return job.row

    async def recover(self, rows: Iterable[JobRow]) -> list[JobRow]:
        """Take over the rows of the daemon before, once and before `run`; gives those that were interrupted.

        What waited, waits again; a result that was whole is kept once `run` is. Rows without a folder are of no use any
        more and stay as they are, if they ended.
        """
        interrupted = []
        for row in sorted(rows, key=lambda row: row.created_ns):
            folder = self._folder / row.id
            there = await asyncio.to_thread((folder / ORDER).exists)
            if row.state == "queued" and there:
                self._enter(Job(row))
            elif row.state in ACTIVE or (there and _was_never_kept(row, folder)):
                job = self._jobs[row.id] = Job(msgspec.structs.replace(row, state="running"))
                end = await asyncio.to_thread(left_behind, folder)
                if end.state == "done":
                    self._left.append((job, end))
                    self._wake.set()
                    continue
                await self._end(job, end)
                if job.row.state == "interrupted":
                    interrupted.append(job.row)
            elif there:
                job = self._jobs[row.id] = Job(row)
                job.ended.set()
        return interrupted

    def _known(self, job_id: str) -> Job:
        job = self._jobs.get(job_id)
        if job is None:
            raise JobRefused(JobFault.UNKNOWN_JOB, f"there is no job {job_id!r}")
        return job

    def _refuse_beyond_queue(self) -> None:
        active = sum(job.row.state in ACTIVE for job in self._jobs.values()) + self._entering
        if active >= self._budget.queue + self._budget.workers:
            said = f"{active} jobs wait or run already"
            raise CommandRefused(CommandFault.TOO_MANY, said, remedy="wait for one to end, or raise jobs.queue")

    def _enter(self, job: Job) -> None:
        self._jobs[job.row.id] = job
        self._waiting.append(job)
        self._wake.set()
        self._tell(job)

    async def _work(self, job: Job) -> None:
        """One job from its start to its end; whatever goes wrong is that job's own end."""
        try:
            await self._change(job, state="running", started_ns=self._clock.now_ns())
            end = await self._supervise(job)
        except asyncio.CancelledError:
            if job.stopped_for or read_result(self._folder / job.row.id) is None:  # else the next start keeps it
                stopped = Result(ok=False, error_code="daemon_stopped", error="the daemon stopped")
                await self._end(job, Ending("interrupted", "daemon_stopped", stopped), retry=False)
            raise
        except Exception as error:  # a full disk, no more processes
            result = Result(ok=False, error_code="not_started", error=f"{type(error).__name__}: {error}")
            end = Ending("failed", "not_started", result)
        finally:
            self._working -= 1
            self._wake.set()
        await self._end(job, end)

    async def _supervise(self, job: Job) -> Ending:
        folder = self._folder / job.row.id
        budget = self._budget
        limits = Limits(
            parent=os.getpid(),
            cpu_s=min(budget.cpu_s, job.cpu_s or budget.cpu_s),
            memory_bytes=budget.memory_bytes,
            disk_bytes=budget.disk_bytes,
        )
        child = Child(WORKER, folder, limits)
        watch = Watch(budget, self._clock)
        kill_at: int | None = None
        try:
            while not await child.ended_within(POLL_S):
                look = await asyncio.to_thread(child.look)
                self._note(job, look, watch)
                job.stopped_for = job.stopped_for or watch.reason(look)
                now = self._clock.monotonic_ns()
                if job.stopped_for and kill_at is None:
                    child.ask_to_stop()
                    kill_at = now + (0 if job.stopped_for == OVER_DISK else int(self._grace_s * 1e9))
                if kill_at is not None and now >= kill_at:
                    child.kill()
        finally:
            await child.reap()
        self._note(job, await asyncio.to_thread(child.look), watch)
        return await asyncio.to_thread(child.ending, job.stopped_for)

    def _note(self, job: Job, look: Look, watch: "Watch") -> None:
        if look.progress is not None:
            told = dict(look.progress)
            job.row = msgspec.structs.replace(job.row, step=told.pop("step"), steps=told.pop("steps"))
            numbers = [(name, value) for name, value in told.items() if isinstance(value, int | float)]
            job.figures = dict(numbers[:MOST_FIGURES])
            if watch.may_tell():
                self._tell(job)

    async def _end(self, job: Job, end: Ending, *, retry: bool = True) -> None:
        if end.state == "done":
            end = await self._kept(job.row, end)
        result = msgspec.json.encode(end.result).decode()
        now = self._clock.now_ns()
        await self._change(job, retry=retry, state=end.state, why=end.why, ended_ns=now, result_json=result)
        await self._forget_oldest()
        job.ended.set()

    async def _kept(self, row: JobRow, end: Ending) -> Ending:
        """Tried until the store takes it; what can never be kept is the job's failure."""
        while True:
            try:
                return end._replace(result=await self._keep(row, end.result))
            except Waiting:
                await asyncio.sleep(RETRY_S)
            except Fatal:
                raise
            except Exception as error:  # a child may have written anything
                code = error.code if isinstance(error, TickcastError) else "not_kept"
                said = str(error) if isinstance(error, TickcastError) else f"{type(error).__name__}: {error}"
                return Ending("failed", code, Result(ok=False, error_code=code, error=said))

    async def _change(self, job: Job, *, retry: bool = True, **changes: Any) -> None:
        """In memory at once; in the store as soon as it takes it."""
        job.row = msgspec.structs.replace(job.row, **changes)
        self._tell(job)
        while True:
            try:
                return await self._ledger.put_job(job.row)
            except Waiting:
                if not retry:  # the next start finds it running, and ends it
                    return None
                await asyncio.sleep(RETRY_S)

    def _tell(self, job: Job) -> None:
        row = job.row
        event = JobEvent(
            job=row.id, kind=row.kind, state=row.state, step=row.step, steps=row.steps, figures=job.figures,
            detail=row.why, at_ns=self._clock.now_ns(),
        )  # fmt: skip
        self._on_event(event)

    async def _forget_oldest(self) -> None:
        """Rows stay in the store; what goes are the folders of ended jobs beyond `jobs.keep`."""
        ended = sorted((row for row in self.rows() if row.state not in ACTIVE), key=lambda row: row.ended_ns)
        oldest = [row.id for row in ended[: max(0, len(ended) - self._budget.keep)]]
        for job_id in oldest:
            del self._jobs[job_id]
        for job_id in oldest:
            await asyncio.to_thread(shutil.rmtree, self._folder / job_id, ignore_errors=True)


def _was_never_kept(row: JobRow, folder: Path) -> bool:
    """As a job that outlived its daemon, before there was a rule for that."""
    result = read_result(folder) if row.state == "done" and row.result_json else None
    if result is None or not result.model:
        return False
    return REGISTERED not in msgspec.json.decode(row.result_json, type=Result).content
