"""What the daemon asks of its process: signals, the interpreter's turns, memory, signs of life. It knows no ticks."""

import asyncio
import gc
import os
import resource
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tickcast.clock import Clock
from tickcast.errors import EXIT_OK, EXIT_SECOND_SIGNAL
from tickcast.io.telemetry import LastMinute, LoopLag

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


def memory_limit_bytes(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """What this process may take: the least that a control group above it allows, else what the machine has; 0 where
    the system tells neither."""
    limits = []
    with suppress(OSError, ValueError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * resource.getpagesize())
    with suppress(OSError):
        own = next((line[3:] for line in (proc / "self" / "cgroup").read_text().splitlines() if line[:3] == "0::"), "/")
        place = groups / own.lstrip("/")
        for folder in (place, *place.parents):
            with suppress(OSError, ValueError):  # `max`: no limit here
                limits.append(int((folder / "memory.max").read_text()))
            if folder == groups:
                break
    return min(limits, default=0)


class Vitals:
    """Of the process, from its start on: its age, and how late its loop woke."""

    def __init__(self, clock: Clock) -> None:
        self.lag = LoopLag(clock)
        self.recent_lag = LastMinute(self.lag.latency, clock)
        self._clock, self._started_ns = clock, clock.monotonic_ns()

    def uptime_s(self) -> float:
        return (self._clock.monotonic_ns() - self._started_ns) / 1e9


class Liveness:
    """Whether the daemon gets on, for systemd's watchdog. It heals nothing.

    The loop is asked by being asked at all; `passes` counts the turns of the pump; each of `tokens` goes through one
    thread and comes back. A daemon that `waits` by a name of its own, such as for a full disk, is not stuck.
    """

    def __init__(
        self, passes: Callable[[], int], waits: Callable[[], bool], *tokens: Callable[[], Awaitable[object]]
    ) -> None:
        self._passes, self._waits, self._tokens, self._seen = passes, waits, tokens, -1

    async def alive(self) -> bool:
        """Does not come back while a thread is stuck."""
        await asyncio.gather(*(token() for token in self._tokens))
        seen, self._seen = self._seen, self._passes()
        return self._seen != seen or self._waits()


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
