"""numpy's switch for huge pages is where we look for it, and an environment that decides is obeyed."""

import os
import subprocess
import sys

import pytest

NAME = "NUMPY_MADVISE_HUGEPAGE"
ASK = "import tickcast.columns; from numpy._core import multiarray; print(multiarray._set_madvise_hugepage(False))"


@pytest.mark.parametrize(("given", "asked"), [({}, "False"), ({NAME: "1"}, "True"), ({NAME: "0"}, "False")])
def test_huge_pages_are_asked_for_where_the_environment_says_so_and_nowhere_else(given, asked):
    environ = {name: value for name, value in os.environ.items() if name != NAME} | given
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == asked
