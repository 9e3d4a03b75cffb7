"""The checksum of record batches (CRC-32C), as a kernel that other kernels call. It knows nothing of batches.

Where the processor has an instruction for it, that is four times as fast as tables, which fill its nearest cache.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import config, types
from numba.extending import intrinsic

from tickcast.columns import U64
from tickcast.compiled import inlined_njit, lean_njit
from tickcast.words import word_at

REFLECTED_CASTAGNOLI = 0x82F63B78
FOR_ANOTHER = bool(config.CPU_NAME or config.CPU_FEATURES)  # type: ignore[attr-defined]  # LLVM would abort
HAS_INSTRUCTION = not FOR_ANOTHER and bool(get_host_cpu_features().get("sse4.2"))


def _checksum_tables() -> U64:
    """CRC32C of a byte that 0 to 15 bytes follow."""
    tables = np.zeros((16, 256), np.uint64)
    crc = np.arange(256, dtype=np.uint64)
    for _ in range(8):
        crc = (crc >> np.uint64(1)) ^ np.where(crc & np.uint64(1), np.uint64(REFLECTED_CASTAGNOLI), np.uint64(0))
    for behind in range(16):
        tables[behind] = crc
        crc = (crc >> np.uint64(8)) ^ tables[0][crc & np.uint64(255)]
    return tables


TABLES, BYTE = _checksum_tables(), np.uint64(255)


def _with_word(_typing: Any, crc: Any, word: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        takes = ir.FunctionType(ir.IntType(64), [ir.IntType(64)] * 2)
        return builder.call(builder.module.declare_intrinsic("llvm.x86.sse42.crc32.64.64", (), takes), arguments)

    return types.uint64(types.uint64, types.uint64), generate


with_word: Any = intrinsic(_with_word)
"""The checksum after eight more bytes: one instruction."""


@inlined_njit
def by_instruction(data, p, end, _tables):  # type: ignore[no-untyped-def]
    """The checksum so far and the position behind it, eight bytes a step."""
    crc = np.uint64(0xFFFFFFFF)
    while p + 8 <= end:
        crc = with_word(crc, word_at(data, p))
        p += 8
    return crc, p


@inlined_njit
def by_tables(data, p, end, tables):  # type: ignore[no-untyped-def]
    """The same, sixteen bytes a step."""
    crc = np.uint64(0xFFFFFFFF)
    while p + 16 <= end:
        low, high = word_at(data, p) ^ crc, word_at(data, p + 8)
        crc = np.uint64(0)
        for k in range(8):
            shift = np.uint64(8 * k)
            crc ^= tables[15 - k, (low >> shift) & BYTE] ^ tables[7 - k, (high >> shift) & BYTE]
        p += 16
    return crc, p


_by_words: Any = by_instruction if HAS_INSTRUCTION else by_tables


@lean_njit
def crc32c(data, p, end, tables):  # type: ignore[no-untyped-def]
    """Without a call per batch, and without the GIL."""
    crc, p = _by_words(data, p, end, tables)
    for at in range(p, end):
        crc = (crc >> np.uint64(8)) ^ tables[0, (crc ^ np.uint64(data[at])) & BYTE]
    return np.int64(crc ^ np.uint64(0xFFFFFFFF))
