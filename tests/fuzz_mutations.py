"""Bytes that were valid -> bytes that somebody might send instead. It knows lengths, numbers and texts, no format."""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

LEAST, MOST = -(1 << 63), (1 << 63) - 1
WHOLE = [
    0,
    1,
    -1,
    LEAST,
    LEAST + 1,
    MOST,
    MOST - 1,
    1 << 31,
    -(1 << 31),
    (1 << 31) - 1,
    1 << 32,
    1 << 62,
    -(1 << 62),
    255,
]
NUMBERS = [
    *map(str, WHOLE), str(1 << 64), str(-(1 << 64)), "9" * 400, "-0", "1e400", "1e-400", "1e308", "0." + "1" * 400,
    "1e", "NaN", "-Infinity", "007", "0x10", "1_000", "99999999999999999999e-1",
]  # fmt: skip
NOT_TEXT = [
    b"\xff",
    b"\xfe\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xe2\x82",
    b"\0",
    b"\\ud800",
    b"\\u0000",
]
OPENING = [b"[", b"{", b'{"a":', b"[[", b'{"data":', b'"\\"']
DIGITS = re.compile(rb"-?\d+(?:\.\d+)?")
MOST_BYTES = 1 << 17  # more is only slower
DEEP = 20_000

Item = TypeVar("Item")


class Dice:
    """Draws by the thousand what numpy is slow to draw one by one."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._drawn: list[float] = []

    def share(self) -> float:
        if not self._drawn:
            self._drawn = self._rng.random(4096).tolist()
        return self._drawn.pop()

    def below(self, count: int) -> int:
        return int(self.share() * count)

    def between(self, first: int, last: int) -> int:
        return first + self.below(last - first + 1)

    def pick(self, items: Sequence[Item]) -> Item:
        return items[self.below(len(items))]


Mutation = Callable[[Dice, bytearray, Sequence[bytes]], None]


def mutated(dice: Dice, corpus: Sequence[bytes]) -> bytes:
    """One of the corpus with one to four changes."""
    data = bytearray(dice.pick(corpus))
    for _ in range(dice.pick((1, 1, 2, 3, 4))):
        if data:
            dice.pick(MUTATIONS)(dice, data, corpus)
    return bytes(data[:MOST_BYTES])


def _flip(dice: Dice, data: bytearray, corpus: Sequence[bytes]) -> None:
    for _ in range(dice.between(1, 8)):
        data[dice.below(len(data))] ^= 1 << dice.below(8)


def _cut(dice: Dice, data: bytearray, corpus: Sequence[bytes]) -> None:
    del data[dice.below(len(data)) :]


def _drop(dice: Dice, data: bytearray, corpus: Sequence[bytes]) -> None:
    at = dice.below(len(data))
    del data[at : at + dice.between(1, 16)]


def _splice(dice: Dice, data: bytearray, corpus: Sequence[bytes]) -> None:
    other = dice.pick(corpus)
    if other:
        data[dice.below(len(data)) :] = other[dice.below(len(other)) :]


def _repeat(dice: Dice, data: bytearray, corpus: Sequence[bytes]) -> None:
    at = dice.below(len(data))
    piece = data[at : at + dice.between(1, 200)]
    data[at:at] = piece * dice.pick((1, 2, 10, 100))


def _number(dice: Dice, data: bytearray, corpus: Sequence[bytes]) -> None:
    """An extreme where a length, a count or a time may be."""
    size, order = dice.pick((1, 2, 4, 8)), dice.pick(("little", "big"))
    at = dice.below(len(data))
    if dice.share() < 0.5:
        at -= at % size
    number = (dice.pick(WHOLE) + dice.between(-2, 2)) & ((1 << 8 * size) - 1)
    data[at : at + size] = number.to_bytes(size, order)  # type: ignore[arg-type]


def _literal(dice: Dice, data: bytearray, corpus: Sequence[bytes]) -> None:
    """A number in text gives way to another."""
    found = list(DIGITS.finditer(data[:4096]))
    if found:
        first, end = dice.pick(found).span()
        data[first:end] = dice.pick(NUMBERS).encode()


def _nest(dice: Dice, data: bytearray, corpus: Sequence[bytes]) -> None:
    at = dice.below(len(data))
    data[at:at] = dice.pick(OPENING) * dice.pick((1, 17, 65, 1100, DEEP))


def _no_text(dice: Dice, data: bytearray, corpus: Sequence[bytes]) -> None:
    at = dice.below(len(data))
    data[at:at] = dice.pick(NOT_TEXT)


def _erase(dice: Dice, data: bytearray, corpus: Sequence[bytes]) -> None:
    at = dice.below(len(data))
    end = min(at + dice.between(1, 32), len(data))
    data[at:end] = bytes([dice.pick((0, 255, 32))]) * (end - at)


MUTATIONS: list[Mutation] = [_flip, _cut, _drop, _splice, _repeat, _number, _literal, _nest, _no_text, _erase]
