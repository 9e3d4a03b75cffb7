"""What the daemon asks of its process: signals, the interpreter's turns, the collector, memory. It knows no ticks."""

import asyncio
import gc
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tickcast.errors import EXIT_OK, EXIT_SECOND_SIGNAL

SWITCH_S = 0.0005  # Python's own 5 ms would be seen in every latency
ECHO_S = 0.5  # `timeout`, `make` and the like pass on a signal that their whole group has had


def share_the_interpreter() -> None:
    """Three threads want it: each gets its turn soon, and what start-up made is never collected."""
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()


def resident_bytes() -> int:
    """Memory of this process now; where the system does not tell, the most it ever was."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def ended_at_once() -> Iterator[None]:
    """By SIGINT or SIGTERM, until there is a daemon that can end by itself: nothing has begun."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: os._exit(EXIT_OK)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def drain_on_signals(drain: Callable[[], None]) -> None:
    """The first SIGINT or SIGTERM drains, the second ends the process at once; an echo of the first is no second."""
    loop = asyncio.get_running_loop()
    seen: list[tuple[signal.Signals, float]] = []

    def on_signal(number: signal.Signals) -> None:
        if not seen:
            seen.append((number, loop.time()))
            drain()
        elif number != seen[0][0] or loop.time() - seen[0][1] > ECHO_S:
            os._exit(EXIT_SECOND_SIGNAL)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
