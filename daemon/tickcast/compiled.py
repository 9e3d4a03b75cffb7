"""How kernels of many arrays are compiled. It compiles nothing itself.

Numba counts references to every array that a kernel hands to another, atomically: for a scanner made of many small
kernels that is four fifths of its time. These kernels keep no array beyond the call and allocate none, so counting
is left out, as numba does in its own string and sorting code.
"""

from typing import Any

from numba import njit

lean_njit: Any = njit(cache=True, nogil=True, _nrt=False)  # type: ignore[call-overload]
inlined_njit: Any = njit(cache=True, nogil=True, _nrt=False, inline="always")  # type: ignore[call-overload]
"""For what is called per value with many arrays: passing those costs more than the work."""
