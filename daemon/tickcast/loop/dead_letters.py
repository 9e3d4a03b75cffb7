"""Refused messages as records: one a message however much of it was refused, each within a bound. It sends nothing."""

from collections import Counter

import numpy as np

from tickcast.engine.core.events import Letters
from tickcast.errors import Reason
from tickcast.records import DeadLetter

MOST_NUMBERS = 20  # of refused ticks that a letter lists
KEY_SHARE = 4  # a key may take this part of a letter's bytes
BATCH_BYTES = 64 << 20  # that the letters of one batch keep together; beyond it they tell of a message without it


def dead_letters(letters: Letters, most_bytes: int) -> list[DeadLetter]:
    """In the order of their messages; each keeps so many bytes of key and value together."""
    rows, first, counts = np.unique(letters.rejects.row, return_index=True, return_counts=True)
    written, left = [], BATCH_BYTES
    for row, at, count in zip(rows.tolist(), first.tolist(), counts.tolist(), strict=True):
        letter = _letter(letters, row, slice(at, at + count), min(most_bytes, left))
        left -= len(letter.value) + len(letter.key or b"")
        written.append(letter)
    return written


def _letter(letters: Letters, row: int, refused: slice, most_bytes: int) -> DeadLetter:
    raw, rejects = letters.raw, letters.rejects
    reasons = rejects.reason[refused].tolist()
    numbers = rejects.number[refused][:MOST_NUMBERS].tolist()
    key = raw.key(row, most_bytes // KEY_SHARE)
    return DeadLetter(
        topic=raw.topic, partition=raw.partition, offset=int(raw.offsets[row]), key=key,
        value=raw.message(row, most_bytes - len(key or b"")), original_bytes=int(raw.ends[row] - raw.starts[row]),
        reason=_name(reasons[0]), stage=_stage(reasons[0]), refused=len(reasons),
        ticks=[number for number in numbers if number >= 0],
        reasons={_name(reason): count for reason, count in sorted(Counter(reasons).items())},
    )  # fmt: skip


def _name(reason: int) -> str:
    return Reason(reason).name.lower()


def _stage(reason: int) -> str:
    if reason < Reason.LATE:
        return "codec"
    return "quality" if reason < Reason.FATAL else "engine"
