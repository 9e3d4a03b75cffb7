"""Arrow IPC stream messages -> tick columns. It does no I/O, and looks at no buffer that it has not validated.

Many ticks in a message, in columns by the names of `codec.fields`. A null is a missing field, as in JSON; NaN is a
value, which `quality` refuses, but for the price of a quote.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tickcast.columns import I64, NO_TIME, RawBatch, Rejects, TickBatch
from tickcast.compiled import lean_njit
from tickcast.engine.codec.arrow_size import unpacked_bytes
from tickcast.engine.codec.json import double, time_ns, whole
from tickcast.engine.codec.parse import UNIT_EXPONENT
from tickcast.engine.codec.ticks import BAD_SYMBOL, BAD_TIME, SYMBOL_LIMIT, TickRows, collect, name_code, naming, rows
from tickcast.errors import Reason
from tickcast.settings.stream import CodecSettings
from tickcast.symbols import FULL, NAME_BYTES, SymbolTable

ROW_BYTES = 4  # no tick takes less, unpacked: a message that claims more rows was made to exhaust memory
UNMET = -3  # the code of a name that no accepted row has had yet
LARGEST = (1 << 63) - 1
NUMBERS = pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null
VIEW_BYTES = 16
VIEWED_BYTES = 1 << 20  # that the names of a message may always have together
BYTES = pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary
UNREADABLE = (pa.ArrowException, ValueError, OverflowError, NotImplementedError, MemoryError, OSError)

Mask = npt.NDArray[np.bool_]


class UnreadableMessage(Exception):
    """A whole message cannot be read."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.name)
        self.reason = reason


class Cells(NamedTuple):
    """A column as numbers, and where it has none."""

    values: Any
    missing: Mask
    bad: Mask


class ArrowDecoder:
    def __init__(self, codec: CodecSettings, symbols: SymbolTable) -> None:
        self._fields, self._max_bytes = codec.fields, codec.max_message_bytes
        self._names = [name for name in codec.fields.model_dump().values() if name]
        self._unit = UNIT_EXPONENT[codec.time_unit]
        self._table, self._naming = symbols.arrays, naming(codec.symbol_prefix)

    def decode(self, raw: RawBatch) -> tuple[TickBatch, Rejects]:
        parts = [self._message(raw, i) for i in range(len(raw))] or [rows(0)]
        counts = [len(part.reason) for part in parts]
        filled = TickRows(*map(np.concatenate, zip(*parts))) if len(parts) > 1 else parts[0]
        return collect(filled, np.repeat(np.arange(len(parts), dtype=np.int32), counts))

    def _message(self, raw: RawBatch, i: int) -> TickRows:
        """The rows of a message, or one with the reason why it has none."""
        try:
            return self._rows(self._read(raw, i), int(raw.stamps_ns[i]))
        except UnreadableMessage as refused:
            refusal = rows(1)
            refusal.reason[0] = refused.reason
            return refusal

    def _read(self, raw: RawBatch, i: int) -> pa.Table:
        first, last = int(raw.starts[i]), int(raw.ends[i])
        if last <= first:
            raise UnreadableMessage(Reason.EMPTY)
        if last - first > self._max_bytes:
            raise UnreadableMessage(Reason.TOO_LARGE)
        packed = pa.py_buffer(raw.data[first:last])
        try:
            unpacked = unpacked_bytes(packed)
            if unpacked > self._max_bytes:
                raise UnreadableMessage(Reason.TOO_LARGE)
            with pa.ipc.open_stream(packed) as stream:
                batches = list(stream)
                for batch in batches:
                    batch.validate(full=True)
                table = pa.Table.from_batches(batches, stream.schema)
        except UNREADABLE:
            raise UnreadableMessage(Reason.MALFORMED) from None
        if table.num_rows * ROW_BYTES > unpacked + last - first:
            raise UnreadableMessage(Reason.TOO_LARGE)
        if not table.num_rows:
            raise UnreadableMessage(Reason.OTHER_EVENT)
        read = table.select(sorted(at for name in self._names if (at := table.schema.get_field_index(name)) >= 0))
        return read if len(batches) == 1 else read.unify_dictionaries().combine_chunks()

    def _rows(self, table: pa.Table, stamp: int) -> TickRows:
        """All cells are read before the first symbol is added."""
        fields, count = self._fields, table.num_rows
        price, size, bid, ask = (
            _cells(table, name, _double, np.nan, Reason.BAD_NUMBER)
            for name in (fields.price, fields.size, fields.bid, fields.ask)
        )
        ts = self._times(table, stamp)
        sequence = _cells(table, fields.sequence, _whole, -1, Reason.BAD_NUMBER)
        index, span, text, nameless = _symbols(table, fields.symbol)
        size.values[size.missing] = 0.0
        unpriced = price.missing & (bid.missing | ask.missing)
        reason = np.zeros(count, np.uint8)
        reason[price.bad | size.bad | bid.bad | ask.bad | sequence.bad] = Reason.BAD_NUMBER
        reason[ts.bad] = Reason.BAD_TIME
        reason[unpriced | nameless | ts.missing] = Reason.MISSING_FIELD
        filled = TickRows(
            symbol=np.empty(count, np.int32), ts=ts.values, price=price.values, size=size.values, bid=bid.values,
            ask=ask.values, sequence=sequence.values, reason=reason,
        )  # fmt: skip
        settle_columns(index, np.full(len(span), UNMET), span, text, self._naming, self._table, filled)
        return filled

    def _times(self, table: pa.Table, stamp: int) -> Cells:
        count = table.num_rows
        if not self._fields.ts:
            return Cells(np.full(count, stamp if stamp >= 0 else NO_TIME), *_nowhere(count))
        return _cells(table, self._fields.ts, lambda column: _time(column, self._unit), NO_TIME, Reason.BAD_TIME)


def _nowhere(count: int) -> tuple[Mask, Mask]:
    return np.zeros(count, np.bool_), np.zeros(count, np.bool_)


def _column(table: pa.Table, name: str) -> pa.Array | None:
    """The only chunk of a column; None where there is no column, or two, of that name."""
    position = table.schema.get_field_index(name) if name else -1
    return table.column(position).chunk(0) if position >= 0 else None


def _cells(table: pa.Table, name: str, read: Callable[[pa.Array], Cells], absent: float, reason: Reason) -> Cells:
    column, count = _column(table, name), table.num_rows
    if column is None:
        filler = np.full(count, absent)
        return Cells(filler, np.ones(count, np.bool_), np.zeros(count, np.bool_))
    try:
        return read(column)
    except UNREADABLE:  # a type that holds no such thing
        raise UnreadableMessage(reason) from None


def _masked(column: pa.Array, filler: Any) -> tuple[Any, Mask]:
    """A writable copy as numpy, and where the column is null."""
    if not column.null_count:
        return np.array(column.to_numpy(zero_copy_only=False)), np.zeros(len(column), np.bool_)
    missing = column.is_null().to_numpy(zero_copy_only=False)
    return np.array(column.fill_null(filler).to_numpy(zero_copy_only=False)), missing


def _texts(column: pa.Array, read: Callable[[Any], Any], absent: Any) -> Cells:
    """A column of text, read cell by cell as the same text in JSON would be."""
    cells = column.to_pylist()
    found = [None if cell is None else read(cell) for cell in cells]
    missing = np.array([cell is None for cell in cells], np.bool_)
    none = np.array([value is None for value in found], np.bool_)
    return Cells(np.array([absent if value is None else value for value in found]), missing, none & ~missing)


def _is_text(column: pa.Array) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def _is_number(column: pa.Array) -> bool:
    """Or nulls alone. What stands for a value elsewhere, as in a dictionary or a view, could grow when it is cast."""
    return any(is_kind(column.type) for is_kind in NUMBERS)


def _double(column: pa.Array) -> Cells:
    if _is_text(column):
        return _texts(column, double, np.nan)
    if not _is_number(column):
        raise UnreadableMessage(Reason.BAD_NUMBER)
    values, missing = _masked(pc.cast(column, pa.float64(), safe=False), np.nan)
    return Cells(values, missing, np.zeros(len(values), np.bool_))


def _whole(column: pa.Array) -> Cells:
    if _is_text(column):
        return _texts(column, lambda text: whole(text, 0, cut=False), -1)
    if not pa.types.is_integer(column.type):
        raise UnreadableMessage(Reason.BAD_NUMBER)
    values, missing = _masked(pc.cast(column, pa.int64()), -1)
    return Cells(values, missing, np.zeros(len(values), np.bool_))


def _time(column: pa.Array, unit: int) -> Cells:
    """Timestamps of any unit, numbers in the topic's, and text as in JSON."""
    if _is_text(column):
        return _texts(column, lambda text: time_ns(text, unit), NO_TIME)
    if pa.types.is_timestamp(column.type):
        unit = UNIT_EXPONENT[column.type.unit]
        column = column.view(pa.int64())
    elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise UnreadableMessage(Reason.BAD_TIME)
    values, missing = _masked(column, 0)
    factor = 10**unit
    with np.errstate(invalid="ignore"):
        bad = ~(np.abs(values) <= LARGEST // factor) if values.dtype.kind == "f" else _beyond(values, LARGEST // factor)
    values[bad] = 0
    if values.dtype.kind == "f":
        return Cells((values.astype(np.float64) * factor).astype(np.int64), missing, bad)
    return Cells(values.astype(np.int64) * factor, missing, bad)


def _beyond(values: Any, most: int) -> Mask:
    mask: Mask = (values > most) | (values < -most) if values.dtype.itemsize == 8 else np.zeros(len(values), np.bool_)
    return mask


def _symbols(table: pa.Table, name: str) -> tuple[I64, I64, Any, Mask]:
    """(index, span, text, nameless): the name of row i is text[span[k]:span[k + 1]] with k = index[i]."""
    column = _column(table, name)
    if column is None:
        raise UnreadableMessage(Reason.MISSING_FIELD)
    try:
        if pa.types.is_dictionary(column.type):
            index, nameless = _masked(column.indices.cast(pa.int64()), 0)
            names = _binary(column.dictionary)
            if names.null_count:
                nameless |= names.is_null().to_numpy(zero_copy_only=False)[index]
        else:
            names = _binary(column)
            index, nameless = np.arange(len(column)), names.is_null().to_numpy(zero_copy_only=False)
    except UNREADABLE:
        raise UnreadableMessage(Reason.BAD_SYMBOL) from None
    _, offsets, text = names.buffers()
    span = np.frombuffer(offsets, np.int32)[names.offset : names.offset + len(names) + 1].astype(np.int64)
    return index, span, np.frombuffer(bytearray(text or b"\0"), np.uint8), nameless


def _binary(names: pa.Array) -> pa.Array:
    if _is_view(names):
        if _viewed_bytes(names) > max(NAME_BYTES * len(names), VIEWED_BYTES):
            raise UnreadableMessage(Reason.TOO_LARGE)
        names = _without_stray_views(names)
    elif not (_is_text(names) or any(is_kind(names.type) for is_kind in BYTES)):
        raise UnreadableMessage(Reason.BAD_SYMBOL)
    return pc.cast(names, pa.binary())


def _is_view(names: pa.Array) -> bool:
    return bool(pa.types.is_string_view(names.type) or pa.types.is_binary_view(names.type))


def _without_stray_views(names: pa.Array) -> pa.Array:
    """Where a text is null its view may be anything. Nothing checks it, and a cast follows it out of its buffers."""
    if not names.null_count:
        return names
    valid, views, *texts = names.buffers()
    end = names.offset + len(names)
    kept = np.frombuffer(views, np.uint8, end * VIEW_BYTES).reshape(end, VIEW_BYTES).copy()
    kept[names.offset :][names.is_null().to_numpy(zero_copy_only=False)] = 0
    return pa.Array.from_buffers(names.type, len(names), [valid, pa.py_buffer(kept), *texts], offset=names.offset)


def _viewed_bytes(names: pa.Array) -> int:
    """How long the texts are together: any number of views may show the same bytes. A view begins with its length."""
    lengths = np.frombuffer(names.buffers()[1], np.int32)[:: VIEW_BYTES // 4][names.offset : names.offset + len(names)]
    return int(lengths[names.is_valid().to_numpy(zero_copy_only=False)].sum(dtype=np.int64))


@lean_njit
def settle_columns(index, code, span, text, naming, table, rows):  # type: ignore[no-untyped-def]
    """Name the symbols of rows that have no reason yet, and make the mid of a quote. Names met are kept in `code`."""
    for i in range(len(index)):
        if rows.reason[i] != 0:
            continue
        if rows.ts[i] == NO_TIME:
            rows.reason[i] = BAD_TIME
            continue
        k = index[i]
        if code[k] == UNMET:
            code[k] = name_code(naming, text, span[k], span[k + 1], table)
        if code[k] < 0:
            rows.reason[i] = SYMBOL_LIMIT if code[k] == FULL else BAD_SYMBOL
            continue
        rows.symbol[i] = code[k]
        if np.isnan(rows.price[i]):  # stays NaN where a side is absent
            rows.price[i] = 0.5 * (rows.bid[i] + rows.ask[i])
