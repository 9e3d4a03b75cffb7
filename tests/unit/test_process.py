"""What the daemon asks of its process. A child is asked, so that this process stays as it is."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, threading
import numpy as np
from tickcast.app.process import keep_memory

def turn():
    return [np.ones(1 << 19) for _ in range(40)]  # 160 MB, as a turn of many symbols takes

def faults():
    turn()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    turn()
    print(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)

if sys.argv[1] == "keep":
    keep_memory()
thread = threading.Thread(target=faults)  # as the engine has its own
thread.start()
thread.join()
"""


def faults(how: str) -> int:
    said = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True, timeout=60)
    return int(said.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told to keep memory")
def test_memory_given_back_serves_the_next_turn_without_a_fault():
    plain, kept = faults("plain"), faults("keep")
    assert kept < plain / 4
