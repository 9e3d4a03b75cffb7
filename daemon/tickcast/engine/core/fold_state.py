"""What folding remembers, and the rules it goes by: layouts of records and groups of arrays. It folds nothing.

Everything is sized for the limits at start; pages are touched only as symbols appear, so growing costs nothing.
"""

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from tickcast.columns import F64, I32, I64, U8, RawBatch
from tickcast.errors import REASON_COUNT

NEVER = -(1 << 62)
HELD_MOST = 4  # ticks, too far ahead to believe alone, that wait for a known symbol's

SYMBOL = np.dtype(
    [
        ("partition", "i4"), ("ticks", "i4"), ("sequence", "i8"), ("newest", "i8"),
        ("price", "f8"), ("move", "f8"),  # last accepted price, running |one-tick log move|
        ("doubted", "i4"),  # the tick before was refused as an outlier
        ("tie", "i4"), ("as_of", "i8"),  # of the last closed bar
        ("close", "f8"),
        ("next", "i8"),  # ordinal of the next bar
        ("first", "i8"),  # ordinal of the oldest bar since the symbol was last cold
        ("void_before", "i8"),  # questions opened before this ordinal may not be scored at or after it
        ("interval", "i8"),  # start of the last closed time bar
        ("batch", "i8"), ("closed", "i4"),  # bars closed in the current batch
        ("adjust_from", "i4"), ("adjust_to", "i4"),  # its rows in the adjustments
    ],
    align=True,
)  # fmt: skip

OPEN = np.dtype(
    [
        ("interval", "i8"), ("open", "f8"), ("high", "f8"), ("low", "f8"), ("close", "f8"), ("volume", "f8"),
        ("ticks", "i8"), ("open_ts", "i8"), ("close_ts", "i8"), ("next", "i4"),  # next symbol open in this interval
    ],
    align=True,
)  # fmt: skip

PARTITION = np.dtype(
    [
        ("newest", "i8"), ("closed_to", "i8"), ("mark", "i8"), ("marked", "i8"),  # bars since the last mark
        ("symbols", "i4"),  # that live here
        ("holds", "i4"), ("confirmed", "i4"),  # ticks in HELD, and whether another has confirmed them
        ("refused", "i4"),  # held ticks of earlier batches, in this one
    ],
    align=True,
)  # fmt: skip

HELD = np.dtype(
    [("symbol", "i4"), ("ts", "i8"), ("price", "f8"), ("size", "f8"), ("sequence", "i8")], align=True
)  # fmt: skip


class Rules(NamedTuple):
    """The settings that the kernel needs, as numbers and arrays."""

    kind: int
    every_ns: int
    every_ticks: int
    every_size: float
    lateness_ns: int
    on_gap: int
    longest_fill: int  # missing bars beyond this make the symbol cold
    future_ns: int
    ancient_ns: int
    jump_ns: int
    positive: bool
    reject_crossed: bool
    outlier_sigmas: float
    adapt_every: int
    slack: int  # bars that one symbol may close in one batch
    slots: int  # time bars that one symbol may have open
    has_calendar: bool
    adjust_ns: I64  # splits, by symbol and time
    adjust_factor: F64


class FoldState(NamedTuple):
    """All that folding remembers; a snapshot holds every field."""

    symbol: npt.NDArray[np.void]  # SYMBOL [symbols]
    open: npt.NDArray[np.void]  # OPEN [symbols, slots]
    partition: npt.NDArray[np.void]  # PARTITION [partitions]
    head: I32  # [partitions, slots]: first and last symbol that is open in an interval, in order of appearance
    tail: I32
    held: npt.NDArray[np.void]  # HELD [partitions, HELD_MOST]
    counts: I64  # [partitions, REASON_COUNT] ticks by outcome
    crossed: I64  # [1] quotes whose bid was above the ask


PER_SYMBOL = ("symbol", "open")  # what grows with the symbols
PER_PARTITION = ("partition", "head", "tail", "held", "counts")


CLOSED = np.dtype(
    [
        ("ordinal", "i8"), ("as_of", "i8"), ("open", "f8"), ("high", "f8"), ("low", "f8"), ("close", "f8"),
        ("volume", "f8"), ("ticks", "i8"), ("first", "i8"), ("void_before", "i8"), ("mark", "i8"),
        ("offset", "i8"), ("stamp", "i8"),  # of the message that closed it
        ("symbol", "i4"), ("tie", "i4"), ("partition", "i4"), ("row", "i4"),  # the message in its batch
        ("mask", "u1"), ("gap", "u1"),
    ],
    align=True,
)  # fmt: skip


class ClosedColumns(NamedTuple):
    """The same by column."""

    ordinal: I64
    as_of: I64
    open: F64
    high: F64
    low: F64
    close: F64
    volume: F64
    ticks: I64
    first: I64
    void_before: I64
    mark: I64
    offset: I64
    stamp: I64
    symbol: I32
    tie: I32
    partition: I32
    mask: U8
    gap: U8


TYPES = [CLOSED[name] for name in ClosedColumns._fields]


def columns_for(rows: int) -> ClosedColumns:
    return ClosedColumns._make([np.empty(rows, kind) for kind in TYPES])


class Room(NamedTuple):
    """Where bars are put that close, until they are worked off."""

    bars: npt.NDArray[np.void]  # CLOSED
    used: I64  # [1]


def room(rows: int) -> Room:
    return Room(np.zeros(rows, CLOSED), np.zeros(1, np.int64))


def fresh_state(symbols: int, partitions: int, slots: int) -> FoldState:
    symbol = np.zeros(symbols, SYMBOL)
    symbol["partition"] = symbol["sequence"] = -1
    partition = np.zeros(partitions, PARTITION)
    partition["newest"] = partition["closed_to"] = NEVER
    head, tail = (np.full((partitions, slots), -1, np.int32) for _ in range(2))
    return FoldState(
        symbol=symbol, open=np.zeros((symbols, slots), OPEN), partition=partition, head=head, tail=tail,
        held=np.zeros((partitions, HELD_MOST), HELD), counts=np.zeros((partitions, REASON_COUNT), np.int64),
        crossed=np.zeros(1, np.int64),
    )  # fmt: skip


class HeldMessage(NamedTuple):
    """That of a tick which waits to be confirmed, kept for the dead letter that it becomes if it is refused.

    It has memory of its own, because it may be held long after its batch.
    """

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
        starts = np.zeros(1, np.int64)
        return RawBatch(*source, self.data, starts, length, offsets=offset, stamps_ns=stamp_ns, keys=keys)
