"""Daemons that kill themselves: `python killed_jobs.py MODEL SEAM=FOLDER ...` lets a daemon of each folder train and
sends it SIGKILL at that seam; then another of the same folder goes on to the end. Each is a child of its own, forked
after all that is slow to load.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from jobkit import COMMAND
from livekit import Live, alive, live_settings, until
from tickcast.io.jobs import child as job_child
from tickcast.io.jobs import host as jobs
from tickcast.io.models.artefacts import Artefacts
from tickcast.io.store.ledger import Ledger
from tickcast.live.compile_kernels import warm_up
from tickcast.records import JobRow

ROWS = [{"symbol": "A", "ts": "2026-01-01T00:00:00Z", "close": 1.0}]
SEAMS: dict[str, tuple[Any, str]] = {
    "it waits": (jobs.JobHost, "_work"),
    "it runs": (job_child.Watch, "reason"),
    "its result is written": (job_child.Child, "ending"),
    "before its model is kept": (Artefacts, "add"),
    "its files are kept and no row": (Ledger, "add_version"),
    "its model is registered": (Ledger, "add_version"),
    "it is done": (Ledger, "put_job"),
    "its command is done": (Ledger, "finish_command"),
}
AFTER = ("its model is registered", "it is done", "its command is done")  # the call itself has returned


def die(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(seam: str) -> None:
    owner, name = SEAMS[seam]
    call = getattr(owner, name)

    async def then_die(self: Any, *args: Any, **given: Any) -> Any:
        done = await call(self, *args, **given)
        if not (isinstance(args[0], JobRow) and args[0].state != "done"):
            die()
        return done

    def once_it_works(self: Any, look: Any) -> str:
        return die() if look.progress else ""

    replaced: dict[str, Callable[..., Any]] = {"it runs": once_it_works}
    setattr(owner, name, replaced.get(seam, then_die if seam in AFTER else die))


async def train(folder: Path, model: str, seam: str) -> None:
    live = Live(live_settings(folder, jobs__workers=1))
    async with alive(live.daemon):
        do = "made_at_last" if seam == "it runs" else "made"
        await live.daemon.command("train", rows=ROWS, params={"do": do, "model": model})


async def go_on(folder: Path) -> None:
    """To the end of the job; whoever was interrupted is resumed, and what is done is told by resuming it as well."""
    live = Live(live_settings(folder, jobs__workers=1))
    async with alive(live.daemon):
        host = live.daemon.session.commands.jobs
        await until(lambda: host.rows()[0].state not in jobs.ACTIVE, "the job to end")
        was = host.rows()[0].state
        reply = await live.daemon.command("train", resume=host.rows()[0].id)
        (folder / "told.json").write_bytes(msgspec.json.encode({"was": was, "reply": reply}))


def forked(work: Callable[[], Any]) -> int:
    child = os.fork()
    if not child:
        asyncio.run(work())
        os._exit(0)
    return os.waitpid(child, 0)[1]


def killed(seam: str, folder: Path, model: str) -> int:
    def work() -> Any:
        arm(seam)
        return train(folder, model, seam)

    return forked(work)


if __name__ == "__main__":
    jobs.WORKER = COMMAND
    model, *given = sys.argv[1:]
    warm_up(live_settings(Path(given[0].partition("=")[2])))  # and this loads the kernels
    for seam, _, place in (argument.partition("=") for argument in given):
        if not os.WIFSIGNALED(killed(seam, Path(place), model)):
            sys.exit(f"'{seam}' was not reached")
        if forked(partial(go_on, Path(place))):
            sys.exit(f"after '{seam}' it did not go on")
