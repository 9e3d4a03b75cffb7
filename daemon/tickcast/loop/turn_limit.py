"""Ends the process when a turn takes too long: a thread of machine code, which needs no interpreter lock to see it.

It counts its own sleeps instead of reading a clock: a process that was stopped for an hour is not late when it goes on.
"""

import ctypes
from typing import Any, Self

import numpy as np
from numba import carray, cfunc, types  # type: ignore[attr-defined]

from tickcast.columns import I64, U8
from tickcast.errors import EXIT_DIED

LOOKS = 100  # at the turn's number, within the limit
LONGEST_SLEEP_US, SHORTEST_SLEEP_US = 100_000, 1_000
TURN, STOP, SLEEP_US, MOST_LOOKS, TEXT_BYTES, TEXT, CELLS = 0, 1, 2, 3, 4, 5, 32
STDERR = 2

_sleep: Any = types.ExternalFunction("usleep", types.int32(types.uint32))
_write: Any = types.ExternalFunction("write", types.intp(types.int32, types.voidptr, types.uintp))
_leave: Any = types.ExternalFunction("_exit", types.void(types.int32))


@cfunc(types.void(types.CPointer(types.int64)), cache=True)  # type: ignore[no-untyped-call]
def _watch(order: Any) -> None:
    cells = carray(order, CELLS)
    seen, looks = cells[TURN], 0
    while cells[STOP] == 0:
        _sleep(cells[SLEEP_US])
        now = cells[TURN]
        looks = looks + 1 if now == seen and now % 2 == 1 else 0
        seen = now
        if looks >= cells[MOST_LOOKS]:
            _write(STDERR, cells[TEXT:].ctypes, cells[TEXT_BYTES])
            _leave(EXIT_DIED)


class TurnLimit:
    """`order` is memory that the caller keeps until `stop`; its first cell is the turn's number, odd while one runs."""

    def __init__(self, order: I64, limit_s: float) -> None:
        self._order = order
        self._thread = ctypes.c_ulong()
        sleep_us = int(min(max(limit_s * 1e6 / LOOKS, SHORTEST_SLEEP_US), LONGEST_SLEEP_US))
        text = np.frombuffer(
            f"tickcast: turn_limit: a turn took longer than runtime.turn_limit_s = {limit_s:g}; the next start says "
            "which messages were in it\n".encode(), np.uint8
        )  # fmt: skip
        room: U8 = order[TEXT:].view(np.uint8)
        room[: len(text)] = text
        order[STOP], order[SLEEP_US], order[TEXT_BYTES] = 0, sleep_us, len(text)
        order[MOST_LOOKS] = int(limit_s * 1e6 / sleep_us) + 1

    def __enter__(self) -> Self:
        create = ctypes.CDLL(None).pthread_create
        place = ctypes.c_void_p(self._order.ctypes.data)
        if create(ctypes.byref(self._thread), None, ctypes.c_void_p(_watch.address), place):
            raise OSError("no thread can be started to watch the turns")
        return self

    def __exit__(self, *_: object) -> None:
        """Returns when the thread has ended, after a sleep of it at most."""
        self._order[STOP] = 1
        ctypes.CDLL(None).pthread_join(self._thread, None)
