"""What the daemon asks of its process: the interpreter's turns, the collector, memory. It knows nothing of ticks."""

import ctypes
import gc
import resource
import sys

SWITCH_S = 0.0005  # Python's own 5 ms would be seen in every latency
ARENA_MAX, MMAP_THRESHOLD, TOP_PAD, TRIM_THRESHOLD = -8, -3, -2, -1  # as glibc's malloc.h has them
MALLOPT = {ARENA_MAX: 1, MMAP_THRESHOLD: 32 << 20, TOP_PAD: 64 << 20, TRIM_THRESHOLD: 2**31 - 1}


def share_the_interpreter() -> None:
    """Three threads want it: each gets its turn soon, and what start-up made is never collected."""
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()


def keep_memory() -> None:
    """What a batch or a large turn gives back serves the next one: on a virtual machine the faults of fresh pages
    take up to half of either. One arena, so that what one thread gave back serves another."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda option, value: 0)  # other C libraries have none
    for option, value in MALLOPT.items():
        mallopt(option, value)


def resident_bytes() -> int:
    """Memory of this process now; where the system does not tell, the most it ever was."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
