"""Forecasts and feature vectors as Arrow IPC streams, many rows in a message. It judges and publishes nothing.

Columns are the fields of the JSON records, in their order and with their values, but numbers are not rounded. Their
types are the same in every deployment.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from tickcast.columns import I32, I64, U64, Encoded, FeatureRows, Forecasts, Source
from tickcast.direction import KINDS, has_classes
from tickcast.engine.codec.forecasts import QUALITIES, SCHEMA
from tickcast.errors import Quality
from tickcast.records import ModelCard
from tickcast.settings import Settings
from tickcast.symbols import NAME_BYTES, SymbolTable

TEXT, WHOLE, SMALL, NUMBER = pa.utf8(), pa.int64(), pa.int32(), pa.float64()
SOURCE = pa.struct({"topic": TEXT, "partition": SMALL, "offset": WHOLE})
FORECASTS = pa.schema({
    "id": TEXT, "symbol": TEXT, "as_of_ns": WHOLE, "tie": SMALL, "target_step": pa.list_(SMALL),
    "target_ns": pa.list_(WHOLE), "levels": pa.list_(NUMBER), "quantiles": pa.list_(pa.list_(NUMBER)),
    "point": pa.list_(NUMBER), "anchor": NUMBER, "unit": TEXT, "transform": TEXT, "scale": NUMBER, "model": TEXT,
    "version": TEXT, "rung": TEXT, "quality": pa.list_(TEXT), "age_ms": WHOLE, "expires_ns": WHOLE, "source": SOURCE,
    "produced_ns": WHOLE, "kind": TEXT, "probs": pa.list_(NUMBER), "input_hash": TEXT, "device": TEXT,
    "confidence": pa.float32(), "schema": SMALL,
})  # fmt: skip
FEATURES = pa.schema({
    "symbol": TEXT, "as_of_ns": WHOLE, "tie": SMALL, "names": pa.list_(TEXT), "values": pa.list_(NUMBER),
    "source": SOURCE, "schema": SMALL,
})  # fmt: skip
END = bytes.fromhex("ffffffff00000000")  # of a stream
AROUND = 256  # more than batch, key and headers take beside a message

PartitionOf = Callable[[I32, SymbolTable], I32]  # where the records of each symbol go


class ArrowWriter:
    """In the place of a ForecastWriter. A message holds rows of one partition and fits into `kafka.batch_bytes`."""

    def __init__(
        self,
        settings: Settings,
        cards: list[ModelCard],
        rung_names: list[str],
        partition_of: PartitionOf,
        device: str = "cpu",
    ) -> None:
        bars, forecast = settings.bars, settings.forecast
        self._most_bytes, self._partition_of = settings.kafka.batch_bytes - AROUND, partition_of
        self._expires_after_ns = forecast.expires_bars * bars.every_ms * 10**6 if bars.kind == "time" else None
        self._median = forecast.quantiles.index(0.5)
        self._cards = cards
        self._rungs = pa.array(rung_names)
        self._qualities = pa.array([[str(f.name).lower() for f in Quality if f & k] for k in range(QUALITIES)])
        self._same = _one_row(FORECASTS, {
            "target_step": range(1, forecast.horizon + 1), "levels": forecast.quantiles, "unit": "price",
            "transform": forecast.transform, "device": device, "schema": SCHEMA,
        })  # fmt: skip

    def encode(
        self, forecasts: Forecasts, symbols: SymbolTable, *, produced_ns: int, sources: Sequence[Source]
    ) -> Encoded:
        """As ForecastWriter's, but for the number of messages."""
        order, bounds = self._plan(forecasts.symbol, symbols)
        rows, after_ns = forecasts.take(order), self._expires_after_ns
        names, versions = (
            pa.array([getattr(card, what) for card in self._cards], TEXT) for what in ("name", "version")
        )
        classes = pa.array(has_classes(rows.probs))
        columns = {
            "id": _hex(rows.id_high, rows.id_low),
            "target_ns": pa.nulls(len(rows), pa.list_(WHOLE)) if after_ns is None else _lists(rows.target_ns),
            "quantiles": _lists(rows.quantiles), "point": _lists(rows.quantiles[:, :, self._median]),
            "anchor": rows.anchor, "scale": rows.scale, "model": names.take(rows.model),
            "version": versions.take(rows.model), "rung": self._rungs.take(rows.rung),
            "quality": self._qualities.take(rows.flags & (QUALITIES - 1)),
            "age_ms": (produced_ns - rows.as_of) // 10**6,
            "expires_ns": pa.nulls(len(rows), WHOLE) if after_ns is None else rows.as_of + after_ns,
            "produced_ns": np.full(len(rows), produced_ns), "input_hash": _hex(rows.input_hash),
            "confidence": rows.confidence, "kind": pa.array(KINDS).take(classes.cast(SMALL)),
            "probs": pa.compute.if_else(classes, _lists(rows.probs), None),
        }  # fmt: skip
        batch = _batch(FORECASTS, rows, symbols, sources, self._same, columns)
        return self._messages(batch, bounds, rows.symbol, order)

    def encode_features(
        self, rows: FeatureRows, symbols: SymbolTable, *, names: list[str], sources: Sequence[Source]
    ) -> Encoded:
        """As ForecastWriter's, but for the number of messages."""
        order, bounds = self._plan(rows.symbol, symbols)
        rows = rows.take(order)
        same = _one_row(FEATURES, {"names": names, "schema": SCHEMA})
        batch = _batch(FEATURES, rows, symbols, sources, same, {"values": _lists(rows.values)})
        return self._messages(batch, bounds, rows.symbol, order)

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


def _batch(
    schema: pa.Schema, rows: Forecasts | FeatureRows, symbols: SymbolTable, sources: Sequence[Source],
    same: pa.RecordBatch, columns: dict[str, Any],
) -> pa.RecordBatch:  # fmt: skip
    """What both records have, what is the same in all rows, and the columns of its own."""
    topics, partitions = pa.array([topic for topic, _ in sources], TEXT), np.array([p for _, p in sources], np.int32)
    source = [topics.take(rows.partition), partitions[rows.partition], rows.offset]
    repeated = same.take(np.zeros(len(rows), np.int64))
    columns |= dict(zip(repeated.column_names, repeated.columns)) | {
        "symbol": _names(symbols, rows.symbol), "as_of_ns": rows.as_of, "tie": rows.tie,
        "source": pa.StructArray.from_arrays([pa.array(column) for column in source], fields=[*SOURCE]),
    }  # fmt: skip
    return pa.RecordBatch.from_pydict(columns, schema)


def _one_row(schema: pa.Schema, values: dict[str, Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([values], pa.schema([schema.field(name) for name in values]))


def _lists(values: Any) -> pa.Array:
    """An array of several dimensions as lists in each row; what is not finite is null."""
    flat = np.ascontiguousarray(values).reshape(-1)
    lists = pa.array(flat, mask=~np.isfinite(flat))
    for size in reversed(values.shape[1:]):
        lists = pa.ListArray.from_arrays(np.arange(0, len(lists) + 1, size, dtype=np.int32), lists)
    return lists


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
