"""Constant pieces of a message, and the buffer that kernels write messages into. It knows no message by itself."""

from typing import Any, NamedTuple

import msgspec
import numpy as np

from tickcast.codec.digits import ESCAPED, ROOM, put_bytes
from tickcast.columns import I32, I64, U8, Encoded
from tickcast.compiled import lean_njit
from tickcast.symbols import NAME_BYTES


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


class Writing:
    """An output buffer that grows while a kernel fills it row by row."""

    def __init__(self, count: int, room: int) -> None:
        self.row, self._at, self._room = 0, 0, room
        self._out = np.empty(room + count * room * 2 // 3, np.uint8)  # what rows take; untouched pages cost nothing
        self._starts, self._ends = np.empty(count, np.int64), np.empty(count, np.int64)

    def state(self) -> tuple[U8, I64, I64, int, int, int]:
        return self._out, self._starts, self._ends, self.row, self._at, self._room

    def step(self, reached: tuple[int, int]) -> None:
        self.row, self._at = reached
        if self.row < len(self._starts):
            self._out = np.concatenate([self._out, np.empty(len(self._out), np.uint8)])

    def encoded(self, symbol: I32) -> Encoded:
        return Encoded(self._out[: self._at], self._starts, self._ends, symbol)


@lean_njit
def put_piece(out, o, texts, k):  # type: ignore[no-untyped-def]
    return put_bytes(out, o, texts.data, texts.starts[k], texts.starts[k + 1])
