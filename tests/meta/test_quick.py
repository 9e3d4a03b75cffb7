"""What CONTRIBUTING.md says of `make quick` and TEST_TIMES, tried on a few files."""

import os
import subprocess
import sys

from source import ROOT

QUICK = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
NOTHING_TO_RUN = 5


def run(*arguments, **environ):
    lane_free = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    command = [*QUICK, *arguments]
    return subprocess.run(command, cwd=ROOT, env=lane_free | environ, capture_output=True, text=True, timeout=120)


def test_files_that_need_kafka_are_left_out_unasked():
    done = run("--collect-only", "tests/chaos/test_kills.py", "tests/integration/test_topics.py")
    assert done.returncode == NOTHING_TO_RUN, done.stdout


def test_how_long_each_test_took_is_kept_where_one_asks(tmp_path):
    done = run("tests/unit/test_clock.py", TEST_TIMES=str(tmp_path / "times"))
    assert done.returncode == 0, done.stdout
    lines = [line.split() for line in (tmp_path / "times").read_text().splitlines()]
    assert {when for _, when, _ in lines} == {"setup", "call", "teardown"}
    assert all(float(took) >= 0 and name.startswith("tests/unit/test_clock.py::") for took, _, name in lines)
