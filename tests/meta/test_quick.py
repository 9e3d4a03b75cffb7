"""What CONTRIBUTING.md says of `make quick` and TEST_TIMES, tried on a few files."""

import os
import subprocess
import sys

import pytest
from source import ROOT

QUICK = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow"]


def run(*arguments, **environ):
    lane_free = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    command = [*QUICK, *arguments]
    return subprocess.run(command, cwd=ROOT, env=lane_free | environ, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_files_that_need_kafka_are_left_out_unasked_and_how_long_each_test_took_is_kept_where_one_asks(tmp_path):
    files = ("tests/chaos/test_kills.py", "tests/integration/test_topics.py", "tests/unit/test_clock.py")
    done = run(*files, TEST_TIMES=str(tmp_path / "times"))
    assert done.returncode == 0, done.stdout
    assert "deselected" in done.stdout
    lines = [line.split() for line in (tmp_path / "times").read_text().splitlines()]
    assert {when for _, when, _ in lines} == {"setup", "call", "teardown"}
    assert all(float(took) >= 0 and name.startswith("tests/unit/test_clock.py::") for took, _, name in lines)


BUSY = """
import subprocess, sys
CODE = "import time\\nwhile time.process_time() < 5.5: pass"
def test_busy(): subprocess.run([sys.executable, "-c", CODE], check=True)
"""


@pytest.mark.slow
def test_one_that_works_long_and_is_not_marked_fails_in_ci(tmp_path):
    """As the tests that are marked pass, this one among them."""
    (tmp_path / "test_busy.py").write_text(BUSY)
    done = run("-p", "conftest", "-m", "", str(tmp_path / "test_busy.py"), PYTHONPATH="tests", CI="true")
    assert "test_busy - Failed: took 5." in done.stdout, done.stdout
