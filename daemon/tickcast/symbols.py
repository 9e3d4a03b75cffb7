"""The SymbolTable: symbol names as bytes <-> small integer codes, shared by kernels and Python.

All arrays are sized for `limit` at the start; pages are touched only as symbols appear, so growing costs nothing.
Only the engine thread writes. A place that was given back goes to another name, with its code: whoever keeps something
by code looks at `reused`.
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
    spare: I32  # codes that were given back, the next to be given out last
    used: I64  # [3]: codes that were ever given out, how many are in `spare`, how often a name was added


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
    spare = table.used[1]
    if spare > 0:
        code = np.int64(table.spare[spare - 1])
        table.used[1] = spare - 1
    else:
        code = table.used[0]
        if code >= table.names.shape[0]:
            return FULL
        table.used[0] = code + 1
    table.used[2] += 1
    table.hashes[slot] = h
    table.codes[slot] = code
    table.lengths[code] = length
    for i in range(length):
        table.names[code, i] = data[first + i]
    return code


@njit(cache=True, nogil=True)
def enter_names(table):  # type: ignore[no-untyped-def]
    """Find all places anew by the names; those without one are spare, the lowest next."""
    table.codes[:] = -1
    table.used[1] = 0
    mask = np.int64(table.hashes.shape[0] - 1)
    for code in range(table.used[0] - 1, -1, -1):
        if table.lengths[code] == 0:
            table.spare[table.used[1]] = code
            table.used[1] += 1
            continue
        h = hash_bytes(table.names[code], 0, table.lengths[code])
        slot = np.int64(h) & mask
        while table.codes[slot] >= 0:
            slot = (slot + 1) & mask
        table.hashes[slot] = h
        table.codes[slot] = code


class SymbolTable:
    def __init__(self, limit: int) -> None:
        slots = 1 << max(4, (2 * limit - 1).bit_length())
        self.limit = limit
        self.arrays = SymbolArrays(
            np.zeros(slots, np.uint64), np.full(slots, -1, np.int32), np.zeros((limit, NAME_BYTES), np.uint8),
            np.zeros(limit, np.int32), np.zeros(limit, np.int32), np.zeros(3, np.int64),
        )  # fmt: skip
        self.reused = 0  # how often places were given back
        self._told: tuple[int, list[str], dict[str, int]] = 0, [], {}  # additions by then, names, their codes

    def __len__(self) -> int:
        """Places that were ever taken."""
        return int(self.arrays.used[0])

    @property
    def spare(self) -> int:
        """Places among them that have no name now."""
        return int(self.arrays.used[1])

    def code(self, name: str) -> int:
        """The code of `name`, added if new; FULL or UNFIT where it cannot be."""
        data = np.frombuffer(name.encode(), np.uint8)
        return int(find_or_add(self.arrays, data, 0, len(data)))

    def names(self) -> list[str]:
        """All names, by code; a place that is spare has none."""
        return self._all()[0]

    def find(self, name: str) -> int:
        """The code of a name that is known, else -1; nothing is added."""
        return self._all()[1].get(name, -1)

    def name(self, code: int) -> str:
        return self.arrays.names[code, : self.arrays.lengths[code]].tobytes().decode("utf-8", "replace")

    def free(self, codes: I64) -> None:
        """Forget their names: the places go to those who come next."""
        self.arrays.names[codes], self.arrays.lengths[codes] = 0, 0
        enter_names(self.arrays)
        self.reused += 1
        self._told = 0, [], {}

    def _all(self) -> tuple[list[str], dict[str, int]]:
        """Built beside what others may be reading; while no place was given back, only the new ones are added."""
        additions, (known, names, codes) = int(self.arrays.used[2]), self._told
        if known != additions or len(names) < len(self):
            first = 0 if self.reused or "" in names else len(names)
            names = names[:first] + [self.name(code) for code in range(first, len(self))]
            codes = {name: code for code, name in enumerate(names) if name}
            self._told = additions, names, codes
        return names, codes

    def snapshot(self) -> State:
        """The names, by code."""
        known = len(self)
        return State({"names": self.arrays.names[:known].copy(), "lengths": self.arrays.lengths[:known].copy()})

    def resume(self, state: State) -> None:
        """Give a table without symbols those of `snapshot`, each with its code."""
        if len(self):
            raise BadStore("a state is resumed before the first symbol is known", remedy="build the engine anew")
        known = len(state.arrays["lengths"])
        if known > self.limit:
            raise BadStore(f"symbol {self.limit} of the state finds no room", remedy="raise symbols.limit")
        self.arrays.names[:known], self.arrays.lengths[:known] = state.arrays["names"], state.arrays["lengths"]
        self.arrays.used[0] = self.arrays.used[2] = known
        enter_names(self.arrays)
