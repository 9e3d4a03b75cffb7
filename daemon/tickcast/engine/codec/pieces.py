"""Constant pieces of a message, and the buffer that kernels write messages into. It knows no message by itself."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tickcast.columns import I32, I64, U8, Encoded
from tickcast.compiled import lean_njit
from tickcast.engine.codec.digits import ESCAPED, ROOM, put_bytes
from tickcast.symbols import NAME_BYTES

HALVED_ROWS = 4096  # 10 ms of work, beside which a thread costs nothing


class Texts(NamedTuple):
    """Constant pieces of a message in one buffer: piece k is data[starts[k]:starts[k + 1]]."""

    data: U8
    starts: I64


def json_of(value: Any) -> bytes:
    return msgspec.json.encode(value)


def texts_of(pieces: list[bytes]) -> Texts:
    starts = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
    return Texts(np.frombuffer(bytearray(b"".join(pieces)), np.uint8), starts)


def room_of(texts: Texts, numbers: int) -> int:
    """More than any row can take."""
    return len(texts.data) + ESCAPED * NAME_BYTES + ROOM * numbers


class Writing(NamedTuple):
    """An output buffer in which any row finds room, whoever writes the rows before it; untouched pages cost nothing."""

    out: U8
    starts: I64
    ends: I64
    room: int  # of a row

    @classmethod
    def of(cls, rows: int, room: int) -> "Writing":
        return cls(np.empty(rows * room, np.uint8), np.empty(rows, np.int64), np.empty(rows, np.int64), room)

    def encoded(self, write: Callable[[int, int], None], symbol: I32) -> Encoded:
        """What `write(first, end)` makes of all rows; of many, the second half on a second core."""
        rows = len(self.starts)
        if rows < HALVED_ROWS:
            write(0, rows)
        else:
            with ThreadPoolExecutor(1) as beside:
                second = beside.submit(write, rows // 2, rows)
                write(0, rows // 2)
                second.result()
        return Encoded(self.out[: self.ends[-1] if rows else 0], self.starts, self.ends, symbol)


@lean_njit
def put_piece(out, o, texts, k):  # type: ignore[no-untyped-def]
    return put_bytes(out, o, texts.data, texts.starts[k], texts.starts[k + 1])
