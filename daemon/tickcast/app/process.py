"""What the daemon asks of its process: the interpreter's turns, the collector, memory. It knows nothing of ticks."""

import gc
import resource
import sys

SWITCH_S = 0.0005  # Python's own 5 ms would be seen in every latency


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
