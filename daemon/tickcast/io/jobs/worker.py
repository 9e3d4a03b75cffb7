"""The body of the child process of a job: `python -m tickcast.io.jobs.worker JOB_FOLDER`.

It holds no broker and no store. Progress goes to `progress.jsonl`, the result to `result.json`, written last and whole.
It writes nowhere but in that folder, and a `limits.json` there binds it further; SIGTERM asks it to end early with what
it has.
"""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tickcast.errors import EXIT_DIED, EXIT_OK, BadData, BadRequest, BadSettings, TickcastError
from tickcast.extras import missing_package
from tickcast.io.jobs import limits
from tickcast.io.jobs.folder import BARS, LIMITS, ORDER, PROGRESS, RESULT, SOURCE, Limits, Result, write_whole
from tickcast.io.jobs.kernel_links import compile_ours
from tickcast.plugin import find, names

NICE = 19
MOST_ERROR = 4_000  # characters
NO_MEMORY = ("out of memory", "allocate memory")  # torch raises a RuntimeError that says so
NO_DISK = os.strerror(errno.EFBIG)  # libraries raise their own that say so


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m tickcast.io.jobs.worker JOB_FOLDER", file=sys.stderr)
        return BadRequest.exit_code
    folder = Path(arguments[0])
    os.nice(NICE)
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    compile_ours()
    sandbox = bind(folder)
    result = msgspec.structs.replace(work(folder, asked.is_set), sandbox=sandbox, cpu_s=cpu_s())
    write_whole(folder / RESULT, msgspec.json.format(msgspec.json.encode(result)))
    return EXIT_OK if result.ok else EXIT_DIED


def cpu_s() -> float:
    """That this process took, and those that it waited for."""
    took = os.times()
    return took.user + took.system + took.children_user + took.children_system


def bind(folder: Path) -> str:
    """A fit from the shell has no limits: it may take what its person may, but writes no more than a job."""
    path = folder / LIMITS
    if not path.exists():
        return limits.confine(folder)
    return limits.bind(folder, msgspec.json.decode(path.read_bytes(), type=Limits))


def work(folder: Path, asked_to_stop: Callable[[], bool] = lambda: False) -> Result:
    """Every failure becomes a result with a stable code: the parent has nothing else to read."""
    try:
        order = read(folder)
        os.environ["OMP_NUM_THREADS"] = str(order.get("threads", 1))  # read when torch is imported
        body = body_of(order)
        if (folder / SOURCE).exists() and not (folder / BARS).exists():
            find("preparations", "bars")(folder)
        with (folder / PROGRESS).open("ab", buffering=0) as progress:
            found = body(folder, ProgressFile(progress, os.getppid(), asked_to_stop))
        return as_result(found)
    except TickcastError as error:
        return failed(error.code, str(error))
    except Exception as error:  # a plugin may raise anything
        if isinstance(error, ModuleNotFoundError) and (missing := missing_package(error)):
            return failed(missing.code, str(missing))
        if is_lack_of_memory(error):
            return failed("out_of_memory", "the job needs more memory than it was given")
        if NO_DISK in str(error):
            return failed("disk", "a file of the job grew beyond jobs.disk_bytes")
        return failed("job_failed", f"{type(error).__name__}: {error}")


def read(folder: Path) -> dict[str, Any]:
    path = folder / ORDER
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise BadData(f"cannot read {path}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise BadSettings(f"{path}: {error}") from None


def body_of(order: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """What the job named in the order is: `run(folder, report)`, which returns the result."""
    job, known = str(order.get("job", "train")), names("jobs")
    if job not in known:
        raise BadSettings(f"{ORDER}: there is no job named '{job}'", remedy=f"known: {', '.join(known)}")
    return find("jobs", job)


def as_result(found: dict[str, Any]) -> Result:
    named = {name: found[name] for name in ("model", "status", "metrics") if name in found}
    return Result(ok=True, content={name: found[name] for name in found if name not in named}, **named)


def failed(code: str, error: str) -> Result:
    return Result(ok=False, error_code=code, error=error[:MOST_ERROR])


def is_lack_of_memory(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)
    return isinstance(error, MemoryError) or said


class ProgressFile:
    """One JSON line per report; asks for an early end when it was told to stop or the parent is gone."""

    def __init__(self, file: Any, parent: int, asked_to_stop: Callable[[], bool] = lambda: False) -> None:
        self._file, self._parent, self._asked_to_stop = file, parent, asked_to_stop

    def __call__(self, *, step: int, steps: int, **figures: float) -> bool:
        self._file.write(msgspec.json.encode({"step": step, "steps": steps, **figures}) + b"\n")
        return os.getppid() == self._parent and not self._asked_to_stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
