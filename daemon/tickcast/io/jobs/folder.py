"""The folder of a job, as whoever asks for one and the child process that does it share it. It starts no process.

`order.json` comes first, `progress.jsonl` grows while the job works, `result.json` appears last and whole.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

ORDER, LIMITS, PROGRESS, RESULT = "order.json", "limits.json", "progress.jsonl", "result.json"
BARS, SOURCE = "bars.parquet", "source.json"  # closed bars, or where the child takes them from
MODEL, START = "model", "start"  # model folders: what is judged or was fitted, and what a fit begins with
CHAMPION = "champion"  # the model that serves, beside which a fit is judged, too
MEMBERS = "members"  # model folders 0, 1, ... that a combination is made of
TRIALS = "trials.jsonl"
DATASETS = ("dataset", "judged_dataset")  # of a result: what its model learnt from, and by which the hold-out was left
OUTPUT = "output.txt"  # what the child printed
SCRATCH, KERNELS = "tmp", "kernels"  # its temporary files, and among them its links to compiled kernels
MOST_READ_BYTES = 1 << 18  # of progress in one look


class FileSource(msgspec.Struct, frozen=True):
    """`source.json`: a file or folder of ticks or bars, read under these settings. Of its bars those are meant that end
    within [from_ns, to_ns)."""

    path: str
    settings: dict[str, Any]
    symbols: list[str]  # none = all
    from_ns: int | None = None
    to_ns: int | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`limits.json`: what a child binds itself to before it imports anything that is heavy or foreign."""

    parent: int  # process id of the daemon, with which the child dies
    cpu_s: int
    memory_bytes: int
    disk_bytes: int  # of one file


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """`result.json`."""

    ok: bool
    model: str = ""  # folder, relative to the job's
    status: str = ""  # how the work ended: done, stopped, stopped_early, out_of_time, ...
    metrics: dict[str, Any] = {}
    content: dict[str, Any] = {}  # what else this kind of job found
    cpu_s: float = 0.0  # processor time that it took
    sandbox: str = ""  # what kept the child within its folder
    error_code: str = ""
    error: str = ""


def read_result(folder: Path) -> Result | None:
    """None where the child left none, or no whole one."""
    try:
        return msgspec.json.decode((folder / RESULT).read_bytes(), type=Result)
    except (OSError, msgspec.DecodeError):
        return None


def write_whole(path: Path, content: bytes) -> None:
    """Whoever reads `path` finds what was there before or all of `content`."""
    partial = path.with_name(f".{path.name}")
    partial.write_bytes(content)
    partial.replace(path)


class ProgressLines:
    """Reads `progress.jsonl` as it grows. A line that is still being written waits for the next look."""

    def __init__(self, folder: Path) -> None:
        """What an earlier run of the same job reported is not told again."""
        self._path = folder / PROGRESS
        self._at = self._path.stat().st_size if self._path.exists() else 0

    def new(self) -> list[dict[str, Any]]:
        """Objects with whole numbers as step and steps. What a killed child left of a line is passed over."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                read = file.read(MOST_READ_BYTES)
        except OSError:
            return []
        end = read.rfind(b"\n") + 1
        if not end and len(read) == MOST_READ_BYTES:  # no line of ours is so long
            end = len(read)
        self._at += end
        return [entry for line in read[:end].splitlines() if (entry := _entry(line)) is not None]


def _entry(line: bytes) -> dict[str, Any] | None:
    with suppress(msgspec.DecodeError):
        entry = msgspec.json.decode(line)
        if isinstance(entry, dict) and all(type(entry.get(key)) is int for key in ("step", "steps")):
            return entry
    return None
