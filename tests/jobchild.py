"""A child process for tests of jobs: the real worker around a body that does what its order's `do` names."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from tickcast.errors import BadData
from tickcast.io.jobs import worker
from tickcast.io.jobs.folder import ORDER, PROGRESS, RESULT
from tickcast.plugin import Report


def end(folder: Path, report: Report, order: Any) -> dict[str, Any]:
    for step in (1, 2, 3):
        report(step=step, steps=3, loss=1 / step)
    return {"status": "done", "metrics": {"loss": 1 / 3}, "env": dict(os.environ)}


def work_on(folder: Path, report: Report, order: Any) -> dict[str, Any]:
    """Until it is told to stop."""
    (folder / "pid").write_text(str(os.getpid()))
    step = 1
    while report(step=step, steps=10**6):
        step += 1
        time.sleep(0.02)
    return {"status": "stopped"}


def work_on_deaf(folder: Path, report: Report, order: Any) -> dict[str, Any]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        work_on(folder, report, order)


def refuse(folder: Path, report: Report, order: Any) -> dict[str, Any]:
    raise BadData("the bars are empty")


def throw(folder: Path, report: Report, order: Any) -> dict[str, Any]:
    raise ValueError("no such thing")


def leave(folder: Path, report: Report, order: Any) -> dict[str, Any]:
    print("x" * (3 << 20), "last words", file=sys.stderr, flush=True)
    sys.exit(3)


def allocate(folder: Path, report: Report, order: Any) -> dict[str, Any]:
    held = []
    while True:
        held.append(bytes(1 << 25))


def swell(folder: Path, report: Report, order: Any) -> dict[str, Any]:
    """One file that grows."""
    with (folder / "large").open("wb") as file:
        while True:
            file.write(bytes(1 << 20))


def hoard(folder: Path, report: Report, order: Any) -> dict[str, Any]:
    """Many files, in folders of their own, and deaf."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for number in range(10**6):
        place = folder / f"d{number % 7}"
        place.mkdir(exist_ok=True)
        (place / str(number)).write_bytes(bytes(1 << 20))
        time.sleep(0.01)
    return {}


def burn(folder: Path, report: Report, order: Any) -> dict[str, Any]:
    while True:
        pass


def sleep(folder: Path, report: Report, order: Any) -> dict[str, Any]:
    while True:
        time.sleep(3600)


def trespass(folder: Path, report: Report, order: Any) -> dict[str, Any]:
    """Tries to write, to delete and to connect; says what was refused."""
    outside = Path(order["outside"])
    tries: dict[str, Callable[[], object]] = {
        "new": lambda: (outside / "new").write_text("x"),
        "old": lambda: (outside / "old").write_text("x"),
        "delete": lambda: (outside / "old").unlink(),
        "link": lambda: os.link(outside / "old", folder / "linked"),
        "move": lambda: (outside / "old").rename(folder / "moved"),
        "connect": lambda: socket.create_connection(("127.0.0.1", 9), timeout=5),
        "signal": lambda: os.kill(os.getppid(), 0),
    }
    refused = {name: error for name, attempt in tries.items() if (error := _refused(attempt))}
    (folder / "tmp" / "own").write_text("x")
    return {"refused": refused}


def plant(folder: Path, report: Report, order: Any) -> dict[str, Any]:
    """Tries to leave a file in each of the places, and to open each of the files for writing."""
    return {
        "planted": [place for place in order["places"] if not _refused(partial(_plant, Path(place)))],
        "opened": [file for file in order["files"] if not _refused(partial(_open, file))],
        "started": subprocess.run(  # what it starts is held as well
            [sys.executable, "-c", "import sys; open(sys.argv[1], 'r+b')", order["files"][0]], stderr=subprocess.DEVNULL
        ).returncode,
    }


def kernel(folder: Path, report: Report, order: Any) -> dict[str, Any]:
    """Calls a kernel that somebody compiled, and one that perhaps nobody did."""
    import numpy as np

    from tickcast.symbols import SymbolTable, find_or_add, hash_bytes

    SymbolTable(8).code("A")
    hash_bytes(np.zeros(4, np.int16), 0, 4)
    return {"loaded": sum(find_or_add.stats.cache_hits.values()), "hash": len(hash_bytes.signatures)}


def _plant(place: Path) -> None:
    file = place / f"planted-{os.getpid()}"
    file.write_text("x")
    file.unlink()


def _open(file: str) -> None:
    with open(file, "r+b"):
        pass


def _refused(attempt: Callable[[], object]) -> int:
    """The number of the error; 0 where it was let."""
    try:
        attempt()
    except OSError as error:
        return error.errno or -1
    return 0


def leave_a_child(folder: Path, report: Report, order: Any) -> dict[str, Any]:
    child = subprocess.Popen(["sleep", "600"])
    return {"child": child.pid}


def tear_a_line(folder: Path, report: Report, order: Any) -> dict[str, Any]:
    """Killed in mid-line the first time; the second time it goes on to the end."""
    with (folder / PROGRESS).open("ab") as file:
        if not (folder / "checkpoint").exists():
            (folder / "checkpoint").touch()
            file.write(b'{"step":1,"steps":3}\n{"step":2,"st')
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    report(step=2, steps=3)  # joins the torn line, and is lost with it
    report(step=3, steps=3)
    return {"status": "done"}


def tear_the_result(folder: Path, report: Report, order: Any) -> dict[str, Any]:
    (folder / RESULT).write_text('{"ok": tr')
    os._exit(0)


def end_and_stay(folder: Path, report: Report, order: Any) -> dict[str, Any]:
    """Its result is whole, and the process is not yet gone."""
    worker.write_whole(folder / RESULT, msgspec.json.encode(worker.as_result({"status": "done"})))
    return work_on(folder, report, order)


def made(folder: Path, report: Report, order: Any) -> dict[str, Any]:
    """A fit that is over at once: its model was made before."""
    shutil.copytree(order["model_params"]["model"], folder / "model")
    report(step=1, steps=1)
    dataset = {"hash": "a" * 64, "rule": {}, "symbols": 1, "bars": 1, "from_ns": 0, "to_ns": 1}
    return {"model": "model", "status": "done", "metrics": {"skill": 0.1}, "dataset": dataset}


def made_at_last(folder: Path, report: Report, order: Any) -> dict[str, Any]:
    """For ever the first time, which somebody must end; over at once when it is resumed."""
    return made(folder, report, order) if (folder / "pid").exists() else work_on(folder, report, order)


def run(folder: Path, report: Report) -> dict[str, Any]:
    order = msgspec.json.decode((folder / ORDER).read_bytes())
    done: dict[str, Any] = globals()[order.get("do") or order["model_params"]["do"]](folder, report, order)
    return done


if __name__ == "__main__":
    worker.body_of = lambda order: run
    sys.exit(worker.main(sys.argv[1:]))
