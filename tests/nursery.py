"""Processes without the seconds of a start: one that has its imports and kernels behind it forks one per order.

What it forks is a child of ours like any other: a session, open files, signals, an exit code. `Warm` starts a command
in it; after `hatch_workers` all workers of jobs and of trials start so, but for those of tests that take the fixture
`cold_workers`. Tests of the start itself take a cold one.

As a script it is that process: orders come as JSON with open files on a socket, the process forked goes back.
"""

import atexit
import ctypes
import gc
import importlib
import inspect
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

LIMIT_S = 120.0  # for a fork, the first of which waits for the imports
PR_SET_CHILD_SUBREAPER = 36
DAEMONS, WORKERS, HERE = "daemons", "workers", "here"  # what forks
OF_WORKERS = ("tickcast.io.jobs.worker", "tickcast.batch.tune.trial_worker")
TOLD_AT_START = ("PYTHONPATH", "NUMBA_CACHE_DIR", "LD_LIBRARY_PATH")  # what a running process no longer heeds
libc = ctypes.CDLL(None)
start_cold = subprocess.Popen._execute_child  # type: ignore[attr-defined]  # the one place where a process starts
AT_FIRST = dict(os.environ)
cold = False


class Nursery:
    """The process that forks; what it forks becomes our child, for it has nobody nearer to take it up."""

    def __init__(self, kind: str) -> None:
        self._lock = threading.Lock()
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.settimeout(LIMIT_S)
        with theirs:
            self._process = Cold([sys.executable, __file__, kind, str(theirs.fileno())], pass_fds=[theirs.fileno()])

    def fork(self, order: dict[str, Any], files: list[int]) -> int:
        text = json.dumps({**order, "parent": os.getpid()}).encode()
        with self._lock:
            libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            try:
                socket.send_fds(self._orders, [text], files)
                pid = int(self._orders.recv(32) or b"0")
            finally:
                libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        if not pid:
            raise RuntimeError("the nursery has ended")
        return pid

    def close(self) -> None:
        self._orders.close()
        self._process.wait(LIMIT_S)


def nursery(kind: str) -> Nursery:
    """One for all tests of this process; it ends with us."""
    if kind not in nurseries:
        nurseries[kind] = Nursery(kind)
    return nurseries[kind]


nurseries: dict[str, Nursery] = {}


class Cold(subprocess.Popen):  # type: ignore[type-arg]
    """Started as ever."""

    _execute_child = start_cold


class Warm(subprocess.Popen):  # type: ignore[type-arg]
    """`tickcast ...`, `python SCRIPT ...`, `python -m MODULE ...` or `python -c CODE ...`, forked."""

    kind = DAEMONS

    def _execute_child(self, *given: Any, **named: Any) -> None:
        start_warm(self.kind, self, *given, **named)


class WarmFit(Warm):
    """With torch behind it."""

    kind = WORKERS


def run(
    command: Sequence[str | Path], *, timeout: float, popen: type[Warm] = Warm
) -> "subprocess.CompletedProcess[str]":
    """As `subprocess.run` with what it says."""
    with popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, *said)


def start_warm(kind: str, process: Any, *given: Any, **named: Any) -> None:
    """Of a worker, as ever what it starts is its own: in its limits, and its child."""
    asked = inspect.signature(start_cold).bind(process, *given, **named).arguments
    order = {
        "command": [os.fspath(part) for part in asked["args"]], "cwd": os.fspath(asked["cwd"] or os.getcwd()),
        "env": dict(os.environ if asked["env"] is None else asked["env"]), "umask": _umask(),
        "session": asked["start_new_session"], "group": asked["process_group"],
    }  # fmt: skip
    files = [
        asked[name] if asked[name] != -1 else file for file, name in enumerate(("p2cread", "c2pwrite", "errwrite"))
    ]
    process.pid = fork_here(order, files) if kind == HERE else nursery(kind).fork(order, files)
    process._child_created = True
    pipes = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
    process._close_pipe_fds(*(asked[name] for name in pipes))


def fork_here(order: dict[str, Any], files: list[int]) -> int:
    pid = os.fork()
    if not pid:
        end(partial(become, files, parent=os.getppid(), **order))
    return pid


def _umask() -> int:
    os.umask(now := os.umask(0o022))
    return now


def hatch_workers(kind: str = WORKERS) -> None:
    """From here on."""

    def start(process: Any, *given: Any, **named: Any) -> None:
        asked = inspect.signature(start_cold).bind(process, *given, **named).arguments
        if cold or not _is_worker(asked["args"]) or (kind == WORKERS and _is_told_otherwise(asked["env"])):
            start_cold(process, *given, **named)
        else:
            start_warm(kind, process, *given, **named)

    subprocess.Popen._execute_child = start  # type: ignore[attr-defined]


def _is_worker(command: Any) -> bool:
    if isinstance(command, str | bytes | os.PathLike):
        return False
    parts = [os.fspath(part) for part in command]
    return parts[0] == sys.executable and any(
        parts[at : at + 2] == ["-m", name] for name in OF_WORKERS for at in (1, 2)
    )


def _is_told_otherwise(env: Any) -> bool:
    told = os.environ if env is None else env
    return any(told.get(name, "") != AT_FIRST.get(name, "") for name in TOLD_AT_START)


@contextmanager
def cold_workers() -> Iterator[None]:
    global cold
    cold, before = True, cold
    yield
    cold = before


def serve(kind: str, orders: socket.socket) -> None:
    """Fork for each order, until there are no more."""
    (load_daemon if kind == DAEMONS else load_worker)()
    gc.collect()
    gc.freeze()  # no child looks through it again, or copies it
    if threading.active_count() > 1:  # libraries have threads of their own, which know of forks
        raise RuntimeError(f"before the first fork there are {threading.enumerate()}")
    while True:
        text, files, _, _ = socket.recv_fds(orders, 1 << 20, 3)
        if not text:
            os._exit(0)
        told, tell = os.pipe()
        if between := os.fork():
            os.waitpid(between, 0)
            orders.send(os.read(told, 32))
        else:  # it ends at once, so that its child becomes that of who ordered it
            if pid := os.fork():
                os.write(tell, str(pid).encode())
                os._exit(0)
            end(partial(become, files, **json.loads(text)))
        os.close(told)
        os.close(tell)
        for file in files:
            os.close(file)


def end(program: Callable[[], int]) -> NoReturn:
    """As an interpreter ends, but for the seconds in which it would take all apart that was loaded."""
    code: object = 1
    try:
        code = program()
    except SystemExit as ended:
        code = ended.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def load_daemon() -> None:
    from tickcast.io import query_socket  # noqa: F401
    from tickcast.io.store import query_process, snapshot  # noqa: F401
    from tickcast.live import compile_kernels, daemon, serve  # noqa: F401
    from tickcast.live.buses import kafka, kafka_group, mqtt  # noqa: F401

    compile_kernels.warm()


def load_worker() -> None:
    """All that a fit and an export import, which is most when a first graph is written."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch
    import tqdm

    tqdm.tqdm.monitor_interval = 0  # seconds; else a thread watches what the exporter does
    torch.set_num_threads(1)
    from numba.core.caching import Cache

    from tickcast.batch.train import export, fit_net  # noqa: F401
    from tickcast.batch.tune import trial_worker, tune  # noqa: F401
    from tickcast.plugin import find, names
    from trainkit import export_in_haste  # noqa: F401  # to import it is enough
    from zookit import fuzzed

    for group in ("jobs", "features", "models"):
        for name in names(group):
            find(group, name)
    keep = Cache.save_overload

    def keep_if_it_may(*kernel: Any) -> None:
        with suppress(OSError):  # a worker is kept from the folder
            keep(*kernel)

    Cache.save_overload = keep_if_it_may
    export.export(fuzzed("nlinear"), Path(tempfile.mkdtemp()))


def become(
    files: list[int], *, command: list[str], cwd: str, env: dict[str, str], umask: int, session: bool, group: int,
    parent: int,
) -> int:  # fmt: skip
    """The program, as if it had just been started; its exit code."""
    while os.getppid() != parent:  # until the one between us has ended
        os.sched_yield()
    if session:
        os.setsid()
    elif group >= 0:
        os.setpgid(0, group)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, 256)
    os.chdir(cwd)
    os.umask(umask)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None
    sys.path[:] = [place for place in sys.path if place != str(Path(__file__).parent)]
    sys.path[:0] = [place for place in env.get("PYTHONPATH", "").split(os.pathsep) if place]
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    program, *arguments = command
    if Path(program).name == "tickcast":
        from tickcast.__main__ import main

        sys.argv = command
        return main()
    if "-u" in arguments[:2] or env.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    while arguments[0] in ("-P", "-u"):
        arguments.pop(0)
    if arguments[0] == "-m":
        hatch_workers(HERE)
        sys.argv = arguments[1:]
        return int(importlib.import_module(arguments[1]).main(arguments[2:]))
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
        return 0
    sys.argv = arguments
    sys.path.insert(0, str(Path(arguments[0]).parent))
    runpy.run_path(arguments[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
