"""Ticks as packed records, and these as a batch, as a producer of `codec.kind = "packed"` makes them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from tickcast.columns import F64, I64, PACKED, RawBatch
from tickcast.engine.codec.packed import RECORD_BYTES


def pack(
    symbol: list[bytes] | npt.NDArray[np.bytes_], ts: I64, *, price: F64 | float, size: F64 | float = 0.0,
    bid: F64 | float = np.nan, ask: F64 | float = np.nan, sequence: I64 | int = -1,
) -> npt.NDArray[Any]:  # fmt: skip
    """One record per tick."""
    records = np.empty(len(ts), PACKED)
    records["symbol"], records["ts"], records["price"], records["size"] = symbol, ts, price, size
    records["bid"], records["ask"], records["sequence"] = bid, ask, sequence
    return records


def raw_of_packed(
    topic: str, partition: int, records: npt.NDArray[Any], first_offset: int, stamps_ns: I64 | None = None
) -> RawBatch:
    """A batch of one record per message, over the records' own memory."""
    starts = np.arange(len(records), dtype=np.int64) * RECORD_BYTES
    stamps = np.full(len(records), -1, np.int64) if stamps_ns is None else stamps_ns
    offsets = np.arange(first_offset, first_offset + len(records), dtype=np.int64)
    data = np.ascontiguousarray(records).view(np.uint8)
    return RawBatch(topic, partition, data, starts, starts + RECORD_BYTES, offsets, stamps)
