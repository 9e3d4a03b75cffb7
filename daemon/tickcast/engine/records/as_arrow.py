"""Rows as Arrow IPC streams, many of them in a message. It judges and publishes nothing.

Columns are the fields of the JSON records, in their order and with their values, but numbers are not rounded. Their
types are the same in every deployment.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from tickcast.columns import I32, I64, NO_TIME, U64, Encoded, FeatureRows, Forecasts, Source
from tickcast.engine.records.fields import Deployment, Facts, Kind, RecordField, RecordTable
from tickcast.engine.records.published import FEATURES, FORECASTS
from tickcast.records import ModelCard
from tickcast.settings import Settings
from tickcast.symbols import NAME_BYTES, SymbolTable

PLACE = pa.struct({"topic": pa.utf8(), "partition": pa.int32(), "offset": pa.int64()})
END = bytes.fromhex("ffffffff00000000")  # of a stream
AROUND = 256  # more than batch, key and headers take beside a message

PartitionOf = Callable[[I32, SymbolTable], I32]  # where the records of each symbol go


def schema_of(table: RecordTable) -> pa.Schema:
    return pa.schema({field.name: _type(field.arrow) for field in table.published})


def _type(name: str) -> pa.DataType:
    if name == "place":
        return PLACE
    inner = name.removeprefix("list<")
    return pa.type_for_alias(name) if inner == name else pa.list_(_type(inner.removesuffix(">")))


def columns_of(table: RecordTable, facts: Facts) -> dict[str, pa.Array]:
    """Its published fields by name."""
    return {field.name: _column(field, facts) for field in table.published}


def _column(field: RecordField, facts: Facts) -> pa.Array:
    values = field.values(facts)
    match field.kind:
        case Kind.CONSTANT:
            return pa.array([values], _type(field.arrow)).take(pa.array(np.zeros(len(facts.rows), np.int64)))
        case Kind.SYMBOL:
            return _names(facts.symbols, values)
        case Kind.PLACE:
            return _places(facts.sources, *values)
        case Kind.HEX:
            return _hex(*values)
        case Kind.CHOICE if field.choices is not None:
            return pa.array(field.choices(facts.deployment), _type(field.arrow)).take(pa.array(values.astype(np.int32)))
        case Kind.WHOLE:
            numbers = np.broadcast_to(values, len(facts.rows))
            return pa.array(numbers, mask=numbers == NO_TIME)
        case Kind.SHARE:
            return pa.compute.if_else(pa.array(~np.isnan(values[:, 0])), _lists(values), None)
        case Kind.TIMES:
            return pa.compute.if_else(pa.array(values[:, 0] >= 0), _lists(values), None)
    return pa.array(values) if values.ndim == 1 else _lists(values)


class ArrowWriter:
    """In the place of a JsonWriter. A message holds rows of one partition and fits into `kafka.batch_bytes`."""

    def __init__(
        self, settings: Settings, cards: list[ModelCard], rungs: list[str], partition_of: PartitionOf,
    ) -> None:  # fmt: skip
        self._most_bytes, self._partition_of = settings.kafka.batch_bytes - AROUND, partition_of
        self._deployment = Deployment.of(settings, cards, rungs)
        self._schemas = {table.name: schema_of(table) for table in (FORECASTS, FEATURES)}

    def encode(
        self, forecasts: Forecasts, symbols: SymbolTable, *, produced_ns: int, sources: Sequence[Source]
    ) -> Encoded:
        """As JsonWriter's, but for the number of messages."""
        return self._encode(FORECASTS, Facts(forecasts, symbols, sources, produced_ns, self._deployment))

    def encode_features(
        self, rows: FeatureRows, symbols: SymbolTable, *, names: list[str], sources: Sequence[Source]
    ) -> Encoded:
        """As JsonWriter's, but for the number of messages."""
        return self._encode(FEATURES, Facts(rows, symbols, sources, 0, self._deployment, names))

    def _encode(self, table: RecordTable, facts: Facts) -> Encoded:
        order, bounds = self._plan(facts.rows.symbol, facts.symbols)
        columns = columns_of(table, facts._replace(rows=facts.rows.take(order)))
        batch = pa.RecordBatch.from_pydict(columns, self._schemas[table.name])
        return self._messages(batch, bounds, facts.rows.symbol[order], order)

    def _plan(self, symbol: I32, symbols: SymbolTable) -> tuple[I64, list[int]]:
        """The rows partition by partition, and where in that order each partition's begin and the last one's end."""
        places = self._partition_of(symbol, symbols)
        order = np.argsort(places, kind="stable")
        return order, [0, *(np.flatnonzero(np.diff(places[order])) + 1).tolist(), len(order)]

    def _messages(self, batch: pa.RecordBatch, bounds: list[int], symbol: I32, order: I64) -> Encoded:
        head = batch.schema.serialize()
        most = self._most_bytes - len(head) - len(END)
        parts = [part for span in pairwise(bounds) for part in _fitting(batch, *span, most)]
        texts = [b"".join([head, batch.slice(first, count).serialize(), END]) for first, count in parts]
        lengths, firsts = (np.array(found, np.int64) for found in ([*map(len, texts)], [first for first, _ in parts]))
        ends = np.cumsum(lengths)
        data = np.frombuffer(b"".join(texts), np.uint8)
        return Encoded(data, ends - lengths, ends, symbol[firsts], order[firsts])


def _fitting(batch: pa.RecordBatch, first: int, last: int, most: int) -> Iterator[tuple[int, int]]:
    """Parts of the span, as first row and count; one row may be larger than `most`, which the framer then says."""
    if last - first > 1 and pa.ipc.get_record_batch_size(batch.slice(first, last - first)) > most:
        middle = (first + last) // 2
        yield from _fitting(batch, first, middle, most)
        yield from _fitting(batch, middle, last, most)
    elif last > first:
        yield first, last - first


def _lists(values: Any) -> pa.Array:
    """An array of several dimensions as lists in each row; what is not finite is null."""
    flat = np.ascontiguousarray(values).reshape(-1)
    lists = pa.array(flat, mask=~np.isfinite(flat))
    for size in reversed(values.shape[1:]):
        lists = pa.ListArray.from_arrays(np.arange(0, len(lists) + 1, size, dtype=np.int32), lists)
    return lists


def _places(sources: Sequence[Source], number: I32, offset: I64) -> pa.Array:
    topics = pa.array([topic for topic, _ in sources], pa.utf8()).take(pa.array(number))
    partitions = pa.array(np.array([partition for _, partition in sources], np.int32)[number])
    return pa.StructArray.from_arrays([topics, partitions, pa.array(offset)], fields=[*PLACE])


def _hex(*words: U64) -> pa.Array:
    """The words of a row as one text."""
    digits = np.stack(words, axis=1).astype(">u8").tobytes().hex().encode()
    return _texts(digits, np.arange(0, len(digits) + 1, 16 * len(words)))


def _names(symbols: SymbolTable, symbol: I32) -> pa.Array:
    lengths = symbols.arrays.lengths[symbol]
    names = symbols.arrays.names[symbol][np.arange(NAME_BYTES) < lengths[:, None]]
    return _texts(names.tobytes(), np.append(0, np.cumsum(lengths)))


def _texts(data: bytes, ends: I64) -> pa.Array:
    """Texts that follow each other in `data`."""
    return pa.StringArray.from_buffers(len(ends) - 1, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(data))
