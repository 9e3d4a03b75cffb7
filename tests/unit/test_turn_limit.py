"""The thread that ends a process whose turn takes too long, in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tickcast.errors import EXIT_DIED

LIMIT_S = 0.5
CHILD = f"""
import ctypes, os, signal
import numpy as np
from tickcast.loop.turn_limit import CELLS, TURN, TurnLimit

order = np.zeros(CELLS, np.int64)
with TurnLimit(order, {LIMIT_S}):
    order[TURN] += 1
    os.kill(os.getpid(), signal.SIGSTOP)
    order[TURN] += 1
    print("went on", flush=True)
with TurnLimit(order, {LIMIT_S}):
    order[TURN] += 1
    ctypes.PyDLL(None).sleep(60)  # nobody else gets the interpreter
"""


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "TZ"


@pytest.mark.slow
def test_a_hang_that_holds_the_interpreter_is_ended_and_a_process_that_was_stopped_is_not():
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while not is_stopped(child.pid):
            time.sleep(0.02)
        time.sleep(3 * LIMIT_S)
        os.kill(child.pid, signal.SIGCONT)
        said, errors = child.communicate(timeout=60)
    finally:
        child.kill()
    assert said == "went on\n"
    assert child.returncode == EXIT_DIED
    assert errors == (
        f"tickcast: turn_limit: a turn took longer than runtime.turn_limit_s = {LIMIT_S}; the next start says which "
        "messages were in it\n"
    )
