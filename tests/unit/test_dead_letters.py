"""Letters of refused messages: one a message, with what of it was refused, and never beyond their bound."""

import numpy as np
import pytest

from tickcast.columns import RawBatch, Rejects
from tickcast.engine.core.events import Letters
from tickcast.errors import Reason
from tickcast.loop import publications as letters_of
from tickcast.loop.publications import MOST_NUMBERS, dead_letters
from tickcast.records import DeadLetter

KEYS = [b"a", b"", b"b" * 400]
VALUES = [b"first", b"second", b"x" * 1000]


def letters(*refused: tuple[int, Reason, int], most_bytes: int = 10_000) -> list[DeadLetter]:
    """Of (message, reason, number) in order."""
    pieces = [piece for pair in zip(VALUES, KEYS, strict=True) for piece in pair]
    ends = np.cumsum([len(piece) for piece in pieces])
    starts = ends - [len(piece) for piece in pieces]
    raw = RawBatch(
        "t", 1, np.frombuffer(b"".join(pieces), np.uint8), starts[::2], ends[::2], np.array([7, 8, 9]),
        np.full(3, -1), (starts[1::2], ends[1::2]),
    )  # fmt: skip
    row, reason, number = (np.array(column) for column in zip(*refused, strict=True))
    return dead_letters(Letters(raw, Rejects(row, reason, number)), most_bytes)


def test_a_message_with_many_bad_ticks_is_one_letter() -> None:
    bad = [(0, Reason.EMPTY, 0), (1, Reason.JUMP, 3), *((1, Reason.BAD_NUMBER, n) for n in range(5, 3000))]
    one, many = letters(*bad)
    assert (one.value, one.key, one.refused, one.ticks, one.reasons) == (b"first", b"a", 1, [0], {"empty": 1})
    assert (many.offset, many.value, many.refused) == (8, b"second", 2996)
    assert many.ticks == [3, *range(5, 4 + MOST_NUMBERS)]
    assert (many.reason, many.stage, many.reasons) == ("jump", "quality", {"bad_number": 2995, "jump": 1})


def test_a_tick_that_was_held_alone_has_no_number() -> None:
    (letter,) = letters((0, Reason.JUMP, -1))
    assert (letter.refused, letter.ticks, letter.reasons) == (1, [], {"jump": 1})


@pytest.mark.parametrize("most_bytes", [100, 1000, 1399, 1400, 1600])
def test_key_and_value_together_keep_within_the_bound_and_the_original_length_is_told(most_bytes: int) -> None:
    (letter,) = letters((2, Reason.MALFORMED, 0), most_bytes=most_bytes)
    assert letter.key is not None
    assert len(letter.key) == min(400, most_bytes // 4)
    assert len(letter.key) + len(letter.value) == min(most_bytes, 1000 + len(letter.key))
    assert VALUES[2].startswith(letter.value)
    assert letter.original_bytes == 1000


def test_the_letters_of_one_batch_have_a_bound_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters_of, "BATCH_BYTES", 20)
    found = letters(*((row, Reason.MALFORMED, 0) for row in range(3)))
    assert [letter.offset for letter in found] == [7, 8, 9]
    assert sum(len(letter.value) + len(letter.key or b"") for letter in found) == 20
    assert [letter.original_bytes for letter in found] == [5, 6, 1000]
