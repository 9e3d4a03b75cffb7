"""What tests of this folder share: models that are fitted once, what they are asked about, and a disk soon full."""

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelkit import Fitted, fit_small, market
from needs import need
from tickcast.io.tape.tape import write_ticks

KINDS, TAPE = ("time", "tick"), "ticks.parquet"


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A small NHITS for time bars, with features and a calendar, and one for tick bars without."""
    history, ticks = market()

    def fit_both(folder: Path) -> None:
        write_ticks(folder / TAPE, ticks)
        for kind in KINDS:
            fit_small(kind, folder / kind, history)

    folder = made_once(tmp_path_factory, "fitted", fit_both)
    return Fitted({kind: folder / kind / "model" for kind in KINDS}, history, ticks, folder / TAPE)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder for all lanes: the first that needs it makes it, the other waits."""
    in_lane = "PYTEST_XDIST_WORKER" in os.environ
    root = factory.getbasetemp().parent if in_lane else factory.getbasetemp()
    folder, partial = root / name, root / f".{name}"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial.mkdir()
            make(partial)
            partial.rename(folder)
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk in memory; a test that stores 16,000 forecasts needs 9 MB of it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    need(mounted.returncode == 0, f"the right to mount a small disk: run this test as root ({mounted.stderr.strip()})")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
