"""What tests of this folder share: models that are fitted once, what they are asked about, and a disk soon full."""

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelkit import Fitted, fit_small, market
from tickcast.edges.tape import write_ticks


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A small NHITS for time bars, with features and a calendar, and one for tick bars without."""
    folder, (history, ticks) = tmp_path_factory.mktemp("fitted"), market()
    tape = folder / "ticks.parquet"
    write_ticks(tape, ticks)
    with ThreadPoolExecutor() as both:
        fits = {kind: both.submit(fit_small, kind, folder / kind, history) for kind in ("time", "tick")}
        models = {kind: job.result() for kind, job in fits.items()}
    return Fitted(models, history, ticks, tape)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk in memory; a test that stores 16,000 forecasts needs 9 MB of it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
