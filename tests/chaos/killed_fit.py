"""Fits that kill themselves: `python killed_fit.py SEAM=FOLDER ...` goes on with the fit of each folder and sends
itself SIGKILL at that seam. Each is a child of its own, forked
after all that is slow to load. The fit has no hooks.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # the first optimiser would import it, in every child anew

from tickcast.batch.train import checkpoint, fit, fit_job, fit_net, train
from tickcast.batch.train.dataset import load_dataset
from tickcast.io.jobs.orders import FitOrder

STEP, CALLS = 7, 7  # the 7th file is last.safetensors of the 4th step, and the 7th of tensors that of an epoch


def die(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def after(calls: int, call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, but for the last time, when the process ends instead."""
    left = calls

    def counted(*args: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        return call(*args, **named) if left else die()

    return counted


def half_written(call: Callable[..., Any]) -> Callable[..., Any]:
    """A file of which only the first half reached the disk."""

    def write(tensors: Any, path: Path, **named: Any) -> None:
        call(tensors, path, **named)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        die()

    left = CALLS

    def counted(*args: Any, **named: Any) -> None:
        nonlocal left
        left -= 1
        (call if left else write)(*args, **named)

    return counted


def arm(seam: str) -> Callable[..., bool]:
    """Put the seam in; returns the report of the fit."""
    train.REPORT_EVERY = 1
    if seam == "half a checkpoint":
        checkpoint.save_file = half_written(checkpoint.save_file)
    elif seam == "before the rename":
        checkpoint.sync = after(2 * CALLS - 1, checkpoint.sync)
    elif seam == "after the rename":
        checkpoint.sync = after(2 * CALLS, checkpoint.sync)
    elif seam == "export":
        fit_net.export = die
    elif seam == "between the fits":
        fit_job.InTwo.go_on = die  # type: ignore[method-assign]

    def report(*, step: int, steps: int, **figures: float) -> bool:
        if seam == "in the final fit" and 2 * step > steps + 2 * STEP:
            die()
        if (seam, step) == ("mid-epoch", STEP) or (seam == "end of an epoch" and figures.get("epoch") == 2):
            die()
        return True

    return report


if __name__ == "__main__":
    torch.set_num_threads(1)
    fits = [argument.split("=", 1) for argument in sys.argv[1:]]
    load_dataset(Path(fits[0][1]), FitOrder.read(Path(fits[0][1])))  # and this loads the kernels
    for seam, folder in fits:
        child = os.fork()
        if not child:
            fit.run(Path(folder), arm(seam))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(f"'{seam}' was not reached")
