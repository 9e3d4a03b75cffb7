"""Frozen groups of equally long numpy columns: how ticks, bars and forecasts travel. Never one object per row."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
from numpy._core import multiarray

if "NUMPY_MADVISE_HUGEPAGE" not in os.environ:
    # For large arrays numpy asks for huge pages, which the kernel clears in the middle of a turn: one over 10,000
    # symbols took twice as long for it.
    getattr(multiarray, "_set_madvise_hugepage", bool)(False)

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

Source = tuple[str, int]  # topic and partition


class Columns:
    """What every group can do: count its rows, pick some, and be joined. Its slots are its columns, in order."""

    __slots__: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(getattr(self, self.__slots__[0]))

    def take(self, rows: I64 | slice | npt.NDArray[np.bool_]) -> Self:
        return type(self)(*(getattr(self, name)[rows] for name in self.__slots__))

    @classmethod
    def concat(cls, parts: "list[Self]") -> Self:
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in cls.__slots__))


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Undecoded messages of one partition: `data[starts[i]:ends[i]]` is message i. What every source yields."""

    topic: str
    partition: int
    data: U8
    starts: I64  # -1, as its end, where Kafka's value is null: it reads as empty
    ends: I64
    offsets: I64
    stamps_ns: I64  # the broker's timestamps; -1 where the source has none
    keys: tuple[I64, I64] | None = None  # key i is `data[keys[0][i]:keys[1][i]]`; starts at -1 where there is none
    trace: I64 | None = None  # where the 55 bytes of a W3C traceparent start, -1 = none; None where no message has one

    def __len__(self) -> int:
        return len(self.starts)

    def message(self, row: int, most_bytes: int | None = None) -> bytes:
        """Its bytes, or so many of the first."""
        return self.data[self.starts[row] : self.ends[row]][:most_bytes].tobytes()

    def is_null(self, row: int) -> bool:
        return bool(self.starts[row] < 0)

    def key(self, row: int, most_bytes: int | None = None) -> bytes | None:
        if self.keys is None or self.keys[0][row] < 0:
            return None
        return self.data[self.keys[0][row] : self.keys[1][row]][:most_bytes].tobytes()

    @classmethod
    def join(cls, batches: "Sequence[RawBatch]") -> "RawBatch":
        """Batches of one partition that follow each other, without keys and nulls."""
        data = np.concatenate([batch.data for batch in batches])
        begin = np.cumsum([0, *(len(batch.data) for batch in batches[:-1])])
        return cls(
            topic=batches[0].topic, partition=batches[0].partition, data=data,
            starts=np.concatenate([batch.starts + at for batch, at in zip(batches, begin, strict=True)]),
            ends=np.concatenate([batch.ends + at for batch, at in zip(batches, begin, strict=True)]),
            offsets=np.concatenate([batch.offsets for batch in batches]),
            stamps_ns=np.concatenate([batch.stamps_ns for batch in batches]),
        )  # fmt: skip

    def part(self, first: int, last: int) -> "RawBatch":
        return RawBatch(
            topic=self.topic, partition=self.partition, data=self.data, starts=self.starts[first:last],
            ends=self.ends[first:last], offsets=self.offsets[first:last], stamps_ns=self.stamps_ns[first:last],
            keys=None if self.keys is None else (self.keys[0][first:last], self.keys[1][first:last]),
            trace=None if self.trace is None else self.trace[first:last],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TickBatch(Columns):
    """Decoded ticks in arrival order. A quote has bid and ask and its mid as price; a trade has NaN there."""

    symbol: I32
    ts: I64  # event time, ns
    price: F64
    size: F64  # 0 where the feed gives none
    bid: F64
    ask: F64
    sequence: I64  # -1 where no sequence field is mapped
    row: I32  # the message of the RawBatch that it came in (one message may hold many ticks)
    number: I32  # which of its message's ticks it is


@dataclass(frozen=True, slots=True)
class Rejects(Columns):
    """Messages or ticks that were refused."""

    row: I32
    reason: U8  # errors.Reason
    number: I32  # which of its message's ticks it is; -1 = not known

    @classmethod
    def of(cls, row: int, reason: int, *, number: int = 0) -> "Rejects":
        """One alone."""
        return cls(np.array([row], np.int32), np.array([reason], np.uint8), np.array([number], np.int32))


@dataclass(frozen=True, slots=True)
class BarBatch(Columns):
    """Closed bars in the order in which they closed."""

    symbol: I32
    ordinal: I64  # counts the symbol's bars, carried ones too
    as_of: I64  # ns; for time bars the end of the interval
    tie: I32  # ordinal among the symbol's bars of the same as_of
    open: F64
    high: F64
    low: F64
    close: F64
    volume: F64
    ticks: I64
    mask: U8  # 1 = real, 0 = carried over a gap
    gap: U8  # 1 = a gap lies between this bar and the one before
    partition: I32
    offset: I64  # the record that closed it
    mark: I64  # the adaptation mark of its partition that settles it


class Bars(NamedTuple):
    """Bars by symbol in flat columns: bar k of symbol s lies at `start[s] + (k & wrap)`.

    The live rings and a training file on disk are both of this shape, so kernels and features run over either.
    """

    open: F64
    high: F64
    low: F64
    close: F64
    volume: F64
    mask: U8
    as_of: I64
    start: I64
    wrap: int


@dataclass(frozen=True, slots=True)
class Inputs(Columns):
    """What a model is asked: named arrays, one row per question. DESIGN section 5."""

    past: F32  # [B, L, F]; channel 0 is the target's own channel
    mask: F32  # [B, L]; 1 = real bar
    future: F32  # [B, H, K]; calendar of the target bars
    static: F32  # [B, S]; of a card with symbols, the symbol's place among them from 1 on, 0 = none of them


@dataclass(frozen=True, slots=True)
class Forecasts(Columns):
    """Answered questions. Quantiles are in the series' own unit (prices)."""

    symbol: I32
    ordinal: I64
    as_of: I64
    tie: I32
    partition: I32
    offset: I64
    anchor: F64
    scale: F64
    rung: U8
    model: I32  # index into the engine's list of model cards
    flags: U8  # Quality bits
    id_high: U64
    id_low: U64
    input_hash: U64
    target_ns: I64  # [B, H]
    quantiles: F64  # [B, H, Q]
    sigma: F64  # [B, H] `figures.spread_of` them, in the unit of `scale`
    confidence: F32
    probs: F32  # [B, C], by direction.LABELS: of the move to the last step; NaN where who answered has no classes
    stamp_ns: I64  # broker's timestamp of the record that closed the bar; -1 = none


@dataclass(frozen=True, slots=True)
class Scores(Columns):
    """Forecasts whose last scored horizon has been settled. All per scored horizon: [N, J]."""

    symbol: I32
    as_of: I64
    model: I32
    partition: I32
    id_high: U64
    id_low: U64
    settled_ns: I64  # event time at which the last horizon was settled
    anchor: F64
    scale: F64
    actual: F64  # NaN = void: the target was carried or lies across a gap
    point: F64
    pinball: F64  # mean over levels, in the series' unit
    loss: F64  # the same in one-bar moves; NaN = void, or a window that never moved
    loss_naive: F64  # that of last value, whose quantiles were widened by its own labels
    covered: U8  # actual within the outermost pair of quantiles
    in_sample: U8
    regime: U8  # regimes.REGIMES, of the symbol at as_of
    odd: U8  # % of the inputs beyond the central 90 % of the reference that inputs are held against; 255 = not known


@dataclass(frozen=True, slots=True)
class FeatureRows(Columns):
    """Feature vectors, published when asked for."""

    symbol: I32
    as_of: I64
    tie: I32
    partition: I32
    offset: I64
    values: F64  # [N, F]


class Encoded(NamedTuple):
    """Finished messages in one buffer: value i is `data[starts[i]:ends[i]]`, its key the name of `symbol[i]`."""

    data: U8
    starts: I64
    ends: I64
    symbol: I32
    first: I64 | None = None  # where a message holds several rows, the first of each


NO_TIME = -(1 << 63)  # the event time of a row that has none: the codec rejects it

PACKED = np.dtype(
    [("ts", "<i8"), ("price", "<f8"), ("size", "<f8"), ("bid", "<f8"), ("ask", "<f8"), ("sequence", "<i8"),
     ("symbol", "S48")]
)  # fmt: skip
"""One tick as a fixed-width record: what a packed message is made of, and what data files are replayed as."""
