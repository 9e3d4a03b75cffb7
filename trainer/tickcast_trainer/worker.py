"""The body of the child process of a fit: `python -m tickcast_trainer.worker JOB_FOLDER`.

It holds no broker and no store. Progress goes to `progress.jsonl`, the result to `result.json`, written last and whole.
"""

import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from tickcast.errors import EXIT_DIED, EXIT_OK, BadRequest, TickcastError
from tickcast_trainer.order import read_order

PROGRESS, RESULT = "progress.jsonl", "result.json"
NICE = 19


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """`result.json`."""

    ok: bool
    model: str = ""  # folder, relative to the job's
    status: str = ""  # train.Outcome's
    metrics: dict[str, Any] = {}
    error_code: str = ""
    error: str = ""


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m tickcast_trainer.worker JOB_FOLDER", file=sys.stderr)
        return BadRequest.exit_code
    folder = Path(arguments[0])
    os.nice(NICE)
    result = work(folder)
    partial = folder / f".{RESULT}"
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    partial.replace(folder / RESULT)
    return EXIT_OK if result.ok else EXIT_DIED


def work(folder: Path) -> Result:
    """Every failure becomes a result with a stable code: the parent has nothing else to read."""
    try:
        threads = read_order(folder).threads
        os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is imported
        from tickcast.inference.load import read_card
        from tickcast_trainer import fit

        with (folder / PROGRESS).open("ab", buffering=0) as progress:
            model = fit.run(folder, ProgressFile(progress, os.getppid()))
        card = read_card(model)
    except TickcastError as error:
        return Result(ok=False, error_code=error.code, error=str(error))
    except MemoryError:
        return Result(ok=False, error_code="out_of_memory", error="the fit needs more memory than it was given")
    except Exception as error:  # a plugin may raise anything
        return Result(ok=False, error_code="fit_failed", error=f"{type(error).__name__}: {error}")
    return Result(ok=True, model=model.name, status=card.metrics["fit"]["status"], metrics=card.metrics)


class ProgressFile:
    """One JSON line per report; asks for an early end when the parent is gone."""

    def __init__(self, file: Any, parent: int) -> None:
        self._file, self._parent = file, parent

    def __call__(self, *, step: int, steps: int, **figures: float) -> bool:
        self._file.write(msgspec.json.encode({"step": step, "steps": steps, **figures}) + b"\n")
        return os.getppid() == self._parent


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
