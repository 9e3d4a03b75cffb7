"""Packed fixed-width records -> tick columns. It does no I/O and trusts no length.

A message holds one or more records of `columns.PACKED` back to back; bid and ask are NaN and sequence -1 when absent.
"""

import numpy as np
import numpy.typing as npt

from tickcast.columns import NO_TIME, PACKED, RawBatch, Rejects, TickBatch
from tickcast.compiled import inlined_njit, lean_njit
from tickcast.engine.codec.ticks import BAD_SYMBOL, BAD_TIME, SYMBOL_LIMIT, TickRows, collect, name_code, naming, rows
from tickcast.errors import Reason
from tickcast.symbols import FULL, SymbolTable
from tickcast.words import word_at

RECORD_BYTES = PACKED.itemsize
EMPTY, TOO_LARGE, MALFORMED = int(Reason.EMPTY), int(Reason.TOO_LARGE), int(Reason.MALFORMED)
SYMBOL_AT, SYMBOL_BYTES = PACKED.fields["symbol"][1], PACKED["symbol"].itemsize  # type: ignore[index]
TS_AT, SEQUENCE_AT = PACKED.fields["ts"][1], PACKED.fields["sequence"][1]  # type: ignore[index]
PRICE_AT, SIZE_AT = PACKED.fields["price"][1], PACKED.fields["size"][1]  # type: ignore[index]
BID_AT, ASK_AT = PACKED.fields["bid"][1], PACKED.fields["ask"][1]  # type: ignore[index]


class PackedDecoder:
    def __init__(self, symbols: SymbolTable, *, symbol_prefix: str, max_message_bytes: int) -> None:
        self._table, self._naming, self._max_bytes = symbols.arrays, naming(symbol_prefix), max_message_bytes

    def decode(self, raw: RawBatch) -> tuple[TickBatch, Rejects]:
        total = count_records(raw.starts, raw.ends, self._max_bytes)
        filled, message = rows(total), np.empty(total, np.int32)
        read_packed(
            raw.data, raw.starts, raw.ends, self._max_bytes, self._naming, self._table, filled, _bits(filled), message
        )
        return collect(filled, message)


def _bits(filled: TickRows) -> tuple[npt.NDArray[np.uint64], ...]:
    """The 64-bit columns in the order of a record, as bare bits."""
    columns = filled.ts, filled.price, filled.size, filled.bid, filled.ask, filled.sequence
    return tuple(column.view(np.uint64) for column in columns)


@inlined_njit
def _fault(length, max_bytes):  # type: ignore[no-untyped-def]
    """Why a message of this length holds no records."""
    if length <= 0:
        return EMPTY
    if length > max_bytes:
        return TOO_LARGE
    return MALFORMED if length % RECORD_BYTES else 0


@lean_njit
def count_records(starts, ends, max_bytes):  # type: ignore[no-untyped-def]
    """Rows that the messages become; a bad one becomes one."""
    total = 0
    for m in range(len(starts)):
        length = ends[m] - starts[m]
        total += 1 if _fault(length, max_bytes) else length // RECORD_BYTES
    return total


@lean_njit
def read_packed(data, starts, ends, max_bytes, naming, table, rows, bits, message):  # type: ignore[no-untyped-def]
    """Fill a row per record, or one with the reason where the whole message is bad."""
    i = 0
    for m in range(len(starts)):
        length = ends[m] - starts[m]
        fault = _fault(length, max_bytes)
        for p in range(starts[m], starts[m] + RECORD_BYTES if fault else ends[m], RECORD_BYTES):
            message[i] = m
            rows.reason[i] = fault
            if fault == 0:
                _read_record(data, p, naming, table, rows, bits, i)
            i += 1


@inlined_njit
def _read_record(data, p, naming, table, rows, bits, i):  # type: ignore[no-untyped-def]
    ts, price, size, bid, ask, sequence = bits
    ts[i] = word_at(data, p + TS_AT)
    if rows.ts[i] == NO_TIME:
        rows.reason[i] = BAD_TIME
        return
    price[i], size[i], sequence[i] = (
        word_at(data, p + PRICE_AT),
        word_at(data, p + SIZE_AT),
        word_at(data, p + SEQUENCE_AT),
    )
    bid[i], ask[i] = word_at(data, p + BID_AT), word_at(data, p + ASK_AT)
    first = p + SYMBOL_AT
    last = first + SYMBOL_BYTES
    while last > first and word_at(data, last - 8) == 0:
        last -= 8
    while last > first and data[last - 1] == 0:
        last -= 1
    code = name_code(naming, data, first, last, table)
    if code < 0:
        rows.reason[i] = SYMBOL_LIMIT if code == FULL else BAD_SYMBOL
        return
    rows.symbol[i] = code
    if np.isnan(rows.price[i]):  # a quote without a trade; stays NaN where a side is absent
        rows.price[i] = 0.5 * (rows.bid[i] + rows.ask[i])
