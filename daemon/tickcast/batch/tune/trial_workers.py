"""The worker processes of a search: started, given tasks, listened to, replaced when they die. It knows no study."""

import selectors
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from tickcast.batch.tune.trial_worker import EpochReport, Failed, Task, Told, Verdict
from tickcast.clock import Clock
from tickcast.errors import BadModel
from tickcast.io.jobs import host
from tickcast.io.jobs.child import KILLED_WAIT_S, Child
from tickcast.io.jobs.orders import FitOrder, TrialsOrder
from tickcast.io.jobs.prepare import prepare

FOLDER = "workers"  # within that of the search: one for each of them
MOST_DEATHS = 5  # of workers in one search; then something is wrong that another worker will not mend
EXIT_S = 5.0  # from the end of its answers to that of the process
LATE_S = 120.0  # beyond twice its budget, a trial is taken to hang: start, validation and a slow machine are in it


class TrialWorkers:
    """`with TrialWorkers(...) as workers`. A task that is lost with its worker comes back as `Failed`."""

    def __init__(self, folder: Path, size: int, *, budget_s: float, clock: Clock) -> None:
        self._folder, self._started = folder / FOLDER, 0
        self._clock, self._limit_s = clock, 2 * budget_s + LATE_S
        self._selector = selectors.DefaultSelector()
        self._workers: list[Worker] = []
        self._size, self._deaths = size, 0

    def __enter__(self) -> "TrialWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()
        self._selector.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def is_busy(self) -> bool:
        return any(worker.number is not None for worker in self._workers)

    @property
    def has_room(self) -> bool:
        return sum(worker.number is not None for worker in self._workers) < self._size

    def give(self, number: int, order: FitOrder) -> None:
        worker = next((w for w in self._workers if w.number is None), None) or self._start()
        worker.number, worker.began_ns = number, self._clock.monotonic_ns()
        worker.send(Task(number, order))

    def answer(self, number: int, *, go_on: bool) -> None:
        for worker in self._workers:
            if worker.number == number:
                worker.send(Verdict(go_on))

    def told(self, timeout_s: float) -> Iterator[Told]:
        """What came in; nothing after the timeout. After an `Epoch` its worker waits for an answer."""
        for key, _ in self._selector.select(timeout_s):
            worker: Worker = key.data
            yield from worker.told()
            if worker.is_gone:
                yield from self._bury(worker, "worker_died", lambda code: f"its process ended with {code}")
        for worker in [w for w in self._workers if w.number is not None and self._age_s(w) > self._limit_s]:
            yield from self._bury(worker, "hung", lambda _: f"no answer within {self._limit_s:.0f} s")

    def _start(self) -> "Worker":
        worker = Worker(self._folder / str(self._started))
        self._started += 1
        self._workers.append(worker)
        self._selector.register(worker.line, selectors.EVENT_READ, worker)
        return worker

    def _bury(self, worker: "Worker", code: str, why: Callable[[int], str]) -> Iterator[Failed]:
        self._selector.unregister(worker.line)
        self._workers.remove(worker)
        ended_with = worker.end(EXIT_S if worker.is_gone else 0)
        self._deaths += 1
        if worker.number is not None:
            yield Failed(worker.number, code, why(ended_with), self._age_s(worker))
        if self._deaths >= MOST_DEATHS:
            raise BadModel(
                f"{self._deaths} processes of the search died, the last with {ended_with}",
                remedy="give a job more memory, or a smaller space",
            )

    def _age_s(self, worker: "Worker") -> float:
        return (self._clock.monotonic_ns() - worker.began_ns) / 1e9


class Worker:
    """A child with the line to it; `number` is the task that it works on."""

    def __init__(self, folder: Path) -> None:
        prepare(folder, TrialsOrder())
        self.line, its_own = socket.socketpair()
        with its_own:
            self.child = Child(host.WORKER, folder, line=its_own)
        self._unread = b""
        self.number: int | None = None
        self.began_ns, self.is_gone = 0, False

    def send(self, message: Task | Verdict) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # that it died is found when its answers are read
            self.line.sendall(msgspec.json.encode(message) + b"\n")

    def told(self) -> list[Told]:
        """All whole lines that are there."""
        read = b""
        with suppress(ConnectionResetError):
            read = self.line.recv(1 << 16)
        self.is_gone = not read
        *lines, self._unread = (self._unread + read).split(b"\n")
        messages = [msgspec.json.decode(line, type=Told) for line in lines]
        if any(not isinstance(message, EpochReport) for message in messages):
            self.number = None
        return messages

    def end(self, patience_s: float = 0) -> int:
        """Its exit status; killed if it still runs after so long."""
        self.line.close()
        if self.child.wait(patience_s) is None:
            self.child.kill()
        status = self.child.wait(KILLED_WAIT_S)
        return -signal.SIGKILL if status is None else status
