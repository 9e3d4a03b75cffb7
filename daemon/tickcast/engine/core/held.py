"""The message of a tick that waits to be confirmed, kept for the dead letter that it becomes if it is refused.

It has memory of its own, because it may be held long after its batch.
"""

from typing import NamedTuple, Self

import numpy as np

from tickcast.columns import U8, RawBatch


class Held(NamedTuple):
    data: U8  # the message, and its key behind it
    length: int  # of the message
    key_start: int  # -1 = no key
    offset: int
    stamp_ns: int

    @classmethod
    def of(cls, raw: RawBatch, row: int) -> Self:
        message, key = raw.data[raw.starts[row] : raw.ends[row]], raw.data[:0]
        keyed = raw.keys is not None and bool(raw.keys[0][row] >= 0)
        if raw.keys is not None and keyed:
            key = raw.data[raw.keys[0][row] : raw.keys[1][row]]
        n = len(message)
        data, key_start = np.concatenate([message, key]), n if keyed else -1
        return cls(data, n, key_start, int(raw.offsets[row]), int(raw.stamps_ns[row]))

    def batch(self, source: tuple[str, int]) -> RawBatch:
        """The message alone, as it came."""
        _, length, key_start, offset, stamp_ns = (np.atleast_1d(part) for part in self)
        keys = key_start, np.array([len(self.data)])
        return RawBatch(*source, self.data, np.zeros(1, np.int64), length, offset, stamp_ns, keys)
