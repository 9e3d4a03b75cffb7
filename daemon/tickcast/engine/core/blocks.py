"""Blocks: what two models lost over the same labels, span by span of event time, as evidence of which is better.

A label belongs to the block in which its question was opened. A block is closed when every partition has gone on for a
whole block more, for by then its labels are in: a block is no shorter than the horizon.
"""

from typing import NamedTuple

import numpy as np

from tickcast.columns import F64, I64
from tickcast.state import State

MOST_OPEN = 8  # of a contest; where a partition stands still, the oldest is closed without what it owes


class BlockRow(NamedTuple):
    """A closed block of a contest."""

    contest: str
    number: int  # since 1970, in blocks
    ended_ns: int  # event time
    labels: int
    failed: int  # questions for which the challenger had no answer
    loss: float  # of the champion, the sum over the labels
    loss_challenger: float


class Blocks:
    """Of one contest."""

    def __init__(self, contest: str, block_ns: int) -> None:
        self.contest, self.block_ns = contest, block_ns
        self._open: dict[int, list[float]] = {}  # number -> labels, failed, loss, loss of the challenger
        self._closed_to = -1  # numbers up to this one are closed: what comes of them later is left out

    def number(self, as_of: I64) -> I64:
        return as_of // self.block_ns

    def add(self, as_of: I64, loss: F64, loss_challenger: F64) -> None:
        """Labels [N, J] of questions that were opened then; those that either has no loss for are left out."""
        both = np.isfinite(loss) & np.isfinite(loss_challenger)
        columns = both.sum(axis=1), np.zeros(len(as_of)), *(
            np.where(both, of, 0.0).sum(axis=1) for of in (loss, loss_challenger)
        )  # fmt: skip
        self._add(as_of, np.column_stack(columns))

    def add_failed(self, as_of: I64) -> None:
        """Questions to which the challenger had no usable answer."""
        self._add(as_of, np.tile([0.0, 1.0, 0.0, 0.0], (len(as_of), 1)))

    def close(self, newest_ns: int) -> list[BlockRow]:
        """Those that end a whole block before `newest_ns`, the event time that every partition has reached."""
        ready = sorted(number for number in self._open if (number + 2) * self.block_ns <= newest_ns)
        others = sorted(self._open.keys() - {*ready})
        ready += others[: max(len(others) - MOST_OPEN, 0)]
        self._closed_to = max([self._closed_to, *ready])
        return [self._row(number, self._open.pop(number)) for number in ready]

    def snapshot(self) -> State:
        numbers = np.array([*self._open], np.int64)
        sums = np.array([*self._open.values()], np.float64).reshape(-1, 4)
        return State({"number": numbers, "sums": sums}, {"block_ns": self.block_ns, "closed_to": self._closed_to})

    def resume(self, state: State) -> None:
        numbers, sums = state.arrays["number"].tolist(), state.arrays["sums"].tolist()
        self._open = dict(zip(numbers, sums, strict=True))
        self._closed_to = state.facts["closed_to"]

    def _add(self, as_of: I64, columns: F64) -> None:
        numbers, row = np.unique(self.number(as_of), return_inverse=True)
        for at, number in enumerate(numbers.tolist()):
            if number > self._closed_to:
                sums = self._open.setdefault(number, [0.0] * 4)
                self._open[number] = [a + float(b) for a, b in zip(sums, columns[row == at].sum(axis=0), strict=True)]

    def _row(self, number: int, sums: list[float]) -> BlockRow:
        labels, failed, loss, challenger = sums
        return BlockRow(
            self.contest, number, (number + 1) * self.block_ns, labels=int(labels), failed=int(failed), loss=loss,
            loss_challenger=challenger,
        )  # fmt: skip
