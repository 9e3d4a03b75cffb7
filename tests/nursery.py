"""Daemons without the seconds of a start: a process that has all imports and kernels behind it forks one per order.

What it forks is a process of its own like any other: a session, a log, signals, an exit code. Tests of the start itself
take a cold one.

As a script it is that process: orders come as JSON lines on stdin, what became of them goes out on stdout.
"""

import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path

LIMIT_S = 120.0  # for a fork, the first of which waits for the imports, and for an end


class Forked:
    """What `subprocess.Popen` is of a process that we have started ourselves, as far as `netkit.Child` asks."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ended = threading.Event()
        self._code: int | None = None

    def end(self, status: int) -> None:
        self._code = os.waitstatus_to_exitcode(status)
        self._ended.set()

    def poll(self) -> int | None:
        return self._code

    @property
    def returncode(self) -> int | None:
        return self._code

    def send_signal(self, number: signal.Signals) -> None:
        if self._code is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self) -> int:
        if not self._ended.wait(LIMIT_S) or self._code is None:
            raise TimeoutError(f"process {self.pid} does not end")
        return self._code


class Nursery:
    """The process that forks, and a thread that hears of those that ended."""

    def __init__(self) -> None:
        self._lock, self._children = threading.Lock(), dict[int, Forked]()
        self._born = threading.Condition(self._lock)
        self._last: Forked | None = None
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        threading.Thread(target=self._listen, name="nursery", daemon=True).start()

    def start(self, command: Sequence[str | Path], log: Path) -> Forked:
        """`tickcast ...` or `python SCRIPT ...`, with what it says appended to `log`."""
        log.touch()
        with self._born:
            self._last = None
            assert self._process.stdin
            self._process.stdin.write(json.dumps({"command": [str(part) for part in command], "log": str(log)}) + "\n")
            self._process.stdin.flush()
            if not self._born.wait_for(lambda: self._last is not None, LIMIT_S):
                raise TimeoutError("the nursery forks nothing")
            assert self._last is not None
            return self._last

    def _listen(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            told = json.loads(line)
            with self._born:
                if "status" in told:
                    self._children.pop(told["pid"]).end(told["status"])
                else:
                    self._last = self._children[told["pid"]] = Forked(told["pid"])
                    self._born.notify()


@cache
def nursery() -> Nursery:
    """One for all tests of this process; it ends with us."""
    return Nursery()


def serve() -> None:
    """Fork for each order, and tell of each that ended, until stdin ends."""
    load()
    if threading.active_count() > 1:  # libraries have threads of their own, which know of forks
        raise RuntimeError(f"before the first fork there are {threading.enumerate()}")
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(awake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    rest = b""
    while True:
        ready, _, _ = select.select([0, awake], [], [])
        if awake in ready:
            os.read(awake, 4096)
            tell_of_ended()
        if 0 in ready:
            got = os.read(0, 65_536)
            if not got:
                return
            *orders, rest = (rest + got).split(b"\n")
            for order in orders:
                pid = os.fork()
                if not pid:
                    sys.exit(become(**json.loads(order)))
                tell({"pid": pid})


def tell(what: dict[str, int]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def tell_of_ended() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        tell({"pid": pid, "status": status})


def load() -> None:
    from tickcast.io import query_socket  # noqa: F401
    from tickcast.io.store import query_process, snapshot  # noqa: F401
    from tickcast.live import compile_kernels, daemon, serve  # noqa: F401
    from tickcast.live.buses import kafka, kafka_group, mqtt  # noqa: F401

    compile_kernels.warm()


def become(command: list[str], log: str) -> int:
    """The program, as if it had just been started; its exit code."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    said, nothing = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644), os.open(os.devnull, os.O_RDONLY)
    for old, new in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(old, new)
    os.closerange(3, 256)
    if Path(command[0]).name == "tickcast":
        from tickcast.__main__ import main

        sys.argv = command
        return main()
    sys.argv = command[1:]
    sys.path.insert(0, str(Path(command[1]).parent))
    runpy.run_path(command[1], run_name="__main__")
    return 0


if __name__ == "__main__":
    serve()
