"""The SymbolTable: symbol names as bytes <-> small integer codes, shared by kernels and Python.

All arrays are sized for `limit` at the start; pages are touched only as symbols appear, so growing costs nothing.
Only the engine thread writes.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from tickcast.columns import I32, I64, U8, U64
from tickcast.errors import BadStore
from tickcast.state import State

NAME_BYTES = 48
FULL, UNFIT = -1, -2  # instead of a code: the table is full; the name is empty or too long


class SymbolArrays(NamedTuple):
    """The table as kernels see it."""

    hashes: U64
    codes: I32  # -1 = free slot
    names: U8  # [limit, NAME_BYTES]
    lengths: I32
    used: I64  # [1] symbols so far


@njit(cache=True, nogil=True, inline="always")
def hash_bytes(data, first, last):  # type: ignore[no-untyped-def]
    """FNV-1a with a final mix, so that the low bits are good enough for a mask."""
    h = np.uint64(14695981039346656037)
    for i in range(first, last):
        h = (h ^ np.uint64(data[i])) * np.uint64(1099511628211)
    h ^= h >> np.uint64(32)
    return h


@njit(cache=True, nogil=True)
def find_or_add(table, data, first, last):  # type: ignore[no-untyped-def]
    """Code of the symbol named data[first:last]; a new one is added. Compares the bytes, not only the hash."""
    length = last - first
    if length <= 0 or length > NAME_BYTES:
        return UNFIT
    h = hash_bytes(data, first, last)
    mask = np.int64(table.hashes.shape[0] - 1)
    slot = np.int64(h) & mask
    while True:
        code = table.codes[slot]
        if code < 0:
            break
        if table.hashes[slot] == h and table.lengths[code] == length:
            same = True
            for i in range(length):
                if table.names[code, i] != data[first + i]:
                    same = False
                    break
            if same:
                return np.int64(code)
        slot = (slot + 1) & mask
    code = table.used[0]
    if code >= table.names.shape[0]:
        return FULL
    table.used[0] = code + 1
    table.hashes[slot] = h
    table.codes[slot] = code
    table.lengths[code] = length
    for i in range(length):
        table.names[code, i] = data[first + i]
    return code


class SymbolTable:
    def __init__(self, limit: int) -> None:
        slots = 1 << max(4, (2 * limit - 1).bit_length())
        self.limit = limit
        self.arrays = SymbolArrays(
            np.zeros(slots, np.uint64), np.full(slots, -1, np.int32), np.zeros((limit, NAME_BYTES), np.uint8),
            np.zeros(limit, np.int32), np.zeros(1, np.int64),
        )  # fmt: skip
        self._names: list[str] = []
        self._codes: dict[str, int] = {}  # of `_names`

    def __len__(self) -> int:
        return int(self.arrays.used[0])

    def code(self, name: str) -> int:
        """The code of `name`, added if new; FULL or UNFIT where it cannot be."""
        data = np.frombuffer(name.encode(), np.uint8)
        return int(find_or_add(self.arrays, data, 0, len(data)))

    def names(self) -> list[str]:
        """All names, by code."""
        for code in range(len(self._names), len(self)):
            raw = self.arrays.names[code, : self.arrays.lengths[code]].tobytes()
            self._names.append(raw.decode("utf-8", "replace"))
            self._codes[self._names[-1]] = code
        return self._names

    def find(self, name: str) -> int:
        """The code of a name that is known, else -1; nothing is added."""
        self.names()
        return self._codes.get(name, -1)

    def name(self, code: int) -> str:
        return self.names()[code]

    def snapshot(self) -> State:
        """The names, by code."""
        known = len(self)
        return State({"names": self.arrays.names[:known].copy(), "lengths": self.arrays.lengths[:known].copy()})

    def resume(self, state: State) -> None:
        """Give a table without symbols those of `snapshot`, each with its code."""
        if len(self):
            raise BadStore("a state is resumed before the first symbol is known", remedy="build the engine anew")
        names = np.frombuffer(state.arrays["names"].tobytes(), np.uint8)
        for code, length in enumerate(state.arrays["lengths"].tolist()):
            start = code * NAME_BYTES
            if find_or_add(self.arrays, names, start, start + length) != code:
                raise BadStore(f"symbol {code} of the state finds no room", remedy="raise symbols.limit")
