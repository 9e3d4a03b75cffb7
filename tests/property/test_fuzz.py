"""The short form of `make fuzz`, once more with kernels that check their bounds; the driver sees what fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fuzz

FOLD = [str(Path(__file__).parent / name) for name in ("test_fold_extremes.py", "test_bars.py")]
SEED = int(os.environ.get("FUZZ_SEED", "1"))
FAULTY = """
import os, time

def target(rng, n, note):
    for number in range(n):
        note(b"input %d" % number)
        if number == 5:
            {fault}

TARGETS = {{"faulty": (target, 1)}}
"""


@pytest.mark.slow
@pytest.mark.parametrize("bounds", [False, pytest.param(True, marks=pytest.mark.timeout(900))])
def test_what_reads_the_bytes_of_others_takes_any_of_them(tmp_path: Path, *, bounds: bool) -> None:
    count = 2_000 if bounds else 4_000
    result = fuzz.drive("all", SEED, count, folder=tmp_path, bounds=bounds)
    assert not result.fault, result
    assert result.seen.begun > count // 4  # most targets are given eight inputs at once
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("os.abort()", "crashed it by signal 6"),
        ("raise ValueError('no such thing')", "ValueError: no such thing"),
        ("class Panic(BaseException): pass\n            raise Panic", "Panic"),
        ("time.sleep(600)", "input 6 hangs"),
    ],
)
def test_the_driver_tells_what_fails_and_keeps_its_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, told: str
) -> None:
    (tmp_path / "faulty_targets.py").write_text(FAULTY.format(fault=fault))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    folder = tmp_path / "kept"
    result = fuzz.drive("faulty", 7, 100, module="faulty_targets", folder=folder, stuck_s=1.0)
    assert told in result.fault
    assert result.seen.begun == 6
    assert (folder / "faulty-7.bin").read_bytes() == b"input 5"


def test_a_target_that_ends_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faulty_targets.py").write_text(FAULTY.format(fault="pass"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = fuzz.drive("faulty", 7, 100, module="faulty_targets", folder=tmp_path / "kept")
    assert (result.fault, result.seen.begun) == ("", 100)
    assert not list((tmp_path / "kept").iterdir())


@pytest.mark.slow
def test_the_kernels_touch_nothing_outside_their_arrays(tmp_path: Path) -> None:
    """Tests of the fold once more, by the kernels with bounds checks that the fuzzing above has compiled."""
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'child'}"]
    environment = fuzz.environment(bounds=True)
    done = subprocess.run([*command, *FOLD], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout
