"""Forecasts and feature vectors as Arrow streams: the records of the JSON, of one partition, not too many a message."""

import json

import numpy as np
import pyarrow as pa
import pytest
from aiokafka.partitioner import DefaultPartitioner

from tickcast.columns import FeatureRows, Forecasts
from tickcast.engine.records.as_arrow import ArrowWriter
from tickcast.engine.records.as_arrow import schema_of as arrow_schema
from tickcast.engine.records.as_json import JsonWriter
from tickcast.engine.records.published import FEATURES, FORECASTS
from tickcast.io.kafka.framing import Framer, partitions_of, place
from tickcast.io.kafka.publish import TRACE_BYTES
from tickcast.records import ModelCard
from tickcast.settings import Settings
from tickcast.symbols import SymbolTable
from tickcast.ui.documents.schemas import schema_of

NAMES = ["BTCUSDT", 'q"uote\\', "tab\tÜ😀", *(f"SYM{k:03d}" for k in range(40))]
SOURCES = [("ticks", 0), ('od"d', 5)]
AS_OF = 1_700_000_000_000_000_000
PRODUCED = AS_OF + 7_900_000
PARTITIONS = 7
RUNGS = ["naive", "model"]
CARDS = [
    ModelCard(
        name=name, kind="k", version=version, digest="d", framework="f", bars={}, transform="log_return", lookback=1,
        horizon=12, levels=[0.5], features=[],
    )
    for name, version in (("naive", "1"), ('a"b', "2.0"))
]  # fmt: skip


def symbol_table():
    symbols = SymbolTable(len(NAMES))
    for name in NAMES:
        symbols.code(name)
    return symbols


SYMBOLS = symbol_table()


def settings(**kafka):
    return Settings(kafka=kafka, forecast={"horizon": 3, "quantiles": [0.1, 0.5, 0.9]})


def forecasts(count, *, timed=True):
    rng = np.random.default_rng(1)
    symbol, tie, partition, rung, model, flags = (rng.integers(0, n, count) for n in (len(NAMES), 9, 2, 2, 2, 8))
    as_of, anchor = AS_OF + rng.integers(0, 10**9, count), 27123.45 * (1 + 1e-3 * rng.normal(size=count))
    quantiles = anchor[:, None, None] * np.exp(1e-4 * np.sort(rng.normal(size=(count, 3, 3)), axis=2))
    target = as_of[:, None] + np.arange(1, 4) * 10**9 if timed else np.full((count, 3), -1)
    wide = [rng.integers(0, 1 << 64, count, np.uint64) for _ in range(3)]
    probs = rng.dirichlet(np.ones(3), count).astype(np.float32)
    probs[np.arange(count) % 3 != 0] = np.nan
    return Forecasts(
        symbol.astype(np.int32), tie, as_of, tie.astype(np.int32), partition.astype(np.int32),
        rng.integers(0, 1 << 62, count), anchor, np.full(count, 1e-4), rung.astype(np.uint8), model.astype(np.int32),
        flags.astype(np.uint8), *wide, target, quantiles, rng.random((count, 3)),
        rng.random(count).astype(np.float32), probs, as_of,
    )  # fmt: skip


def partition_of(symbol, symbols):
    return partitions_of(symbol, symbols, partitions=PARTITIONS)


def arrow(s):
    return ArrowWriter(s, CARDS, RUNGS, partition_of)


def messages(encoded):
    return [encoded.data[first:last].tobytes() for first, last in zip(encoded.starts, encoded.ends)]


def tables(encoded):
    found = [pa.ipc.open_stream(message).read_all() for message in messages(encoded)]
    for table in found:
        table.validate(full=True)
    return found


def in_json(s, batch):
    encoded = JsonWriter(s, CARDS, RUNGS).encode(batch, SYMBOLS, produced_ns=PRODUCED, sources=SOURCES)
    return [json.loads(message) for message in messages(encoded)]


def in_arrow(s, batch):
    return arrow(s).encode(batch, SYMBOLS, produced_ns=PRODUCED, sources=SOURCES)


def kafkas_own(name):
    return DefaultPartitioner()(name.encode(), list(range(PARTITIONS)), [])


@pytest.mark.parametrize("kind", ["time", "tick"])
def test_each_row_is_the_record_that_json_would_hold_with_numbers_unrounded(kind):
    s = settings().model_copy(update={"bars": Settings(bars={"kind": kind}).bars})
    batch = forecasts(300, timed=kind == "time")
    rows = {row["id"]: row for table in tables(in_arrow(s, batch)) for row in table.to_pylist()}
    records = in_json(s, batch)
    assert len(rows) == len(records) == 300
    for k, record in enumerate(records):
        row = rows[record["id"]]
        assert list(row) == list(record)
        exact = {"quantiles": batch.quantiles[k].tolist(), "point": batch.quantiles[k, :, 1].tolist()}
        exact |= {"anchor": batch.anchor[k], "scale": batch.scale[k], "confidence": batch.confidence[k]}
        exact |= {"sigma": batch.sigma[k].tolist()}
        exact |= {"probs": None if k % 3 else batch.probs[k].tolist()}
        assert {name: row[name] for name in exact} == exact
        assert {**row, **exact} == {**record, **exact}
        np.testing.assert_allclose(row["sigma"], record["sigma"], rtol=0, atol=1e-7 * batch.scale[k])
        if k % 3 == 0:
            np.testing.assert_allclose(row["probs"], record["probs"], atol=1e-7)
        most = 1e-7 * batch.scale[k] * batch.anchor[k]
        assert np.abs(np.array(row["quantiles"]) - record["quantiles"]).max() <= most


def test_a_message_holds_rows_of_one_partition_in_their_order_and_is_keyed_by_its_first():
    batch = forecasts(400)
    encoded = in_arrow(settings(), batch)
    found = [table.to_pylist() for table in tables(encoded)]
    assert len(found) == len({kafkas_own(name) for name in NAMES})
    wanted = {}
    for record in in_json(settings(), batch):
        wanted.setdefault(kafkas_own(record["symbol"]), []).append(record["id"])
    for rows, symbol, first in zip(found, encoded.symbol, encoded.first, strict=True):
        assert [row["id"] for row in rows] == wanted.pop(kafkas_own(NAMES[symbol]))
        assert rows[0]["symbol"] == NAMES[symbol] == NAMES[batch.symbol[first]]
        assert rows[0]["id"] == f"{batch.id_high[first]:016x}{batch.id_low[first]:016x}"
    assert not wanted


def test_the_kernel_places_a_symbol_where_kafkas_own_partitioner_would():
    symbol, out = np.arange(len(NAMES), dtype=np.int32), np.empty(len(NAMES), np.int32)
    place(symbol, SYMBOLS.arrays.names, SYMBOLS.arrays.lengths, PARTITIONS, out)
    assert out.tolist() == partition_of(symbol, SYMBOLS).tolist() == [kafkas_own(name) for name in NAMES]


@pytest.mark.parametrize("most", [8_000, 9_000, 50_000])
def test_messages_are_cut_below_the_limit_and_lose_no_row(most):
    batch = forecasts(1000)
    encoded = in_arrow(settings(batch_bytes=most), batch)
    assert len(encoded.starts) < 1000
    framer = Framer(PARTITIONS, max_batch_bytes=most, compression="none")
    traces = np.zeros(TRACE_BYTES, np.uint8), np.zeros(len(encoded.starts), np.int64)
    assert sum(batch.record_count() for batch in framer.frame(encoded, SYMBOLS, 1, traces)) == len(encoded.starts)
    assert not framer.take_skipped()
    found = [row["id"] for table in tables(encoded) for row in table.to_pylist()]
    assert sorted(found) == sorted(record["id"] for record in in_json(settings(), batch))


def test_a_row_that_no_batch_can_hold_is_alone_in_its_message():
    encoded = in_arrow(settings(batch_bytes=500), forecasts(10))
    assert [table.num_rows for table in tables(encoded)] == [1] * 10


def test_the_types_do_not_hang_on_the_deployment_and_stand_in_the_published_schema():
    for table in tables(in_arrow(settings(), forecasts(20))):
        assert table.schema == arrow_schema(FORECASTS)
    for name, columns in {table.name: arrow_schema(table) for table in (FORECASTS, FEATURES)}.items():
        fields = schema_of(name)["properties"]
        assert {key: field["x-arrow"] for key, field in fields.items()} == {c.name: str(c.type) for c in columns}
        assert columns.names == schema_of(name)["required"]


def test_no_forecasts_make_no_messages():
    encoded = in_arrow(settings(), forecasts(5).take(slice(0, 0)))
    assert (len(encoded.data), len(encoded.starts), len(encoded.symbol), len(encoded.first)) == (0, 0, 0, 0)


def test_feature_vectors_hold_what_json_would_and_null_where_a_value_is_none():
    names, two = ["ema", 'odd"name', "gap"], np.arange(2)
    numbers = np.array([[1.23456789012345, -0.5, np.nan], [1e-30, 123456789.0, np.inf]])
    rows = FeatureRows(two.astype(np.int32), AS_OF + two, two.astype(np.int32), two.astype(np.int32), two + 40, numbers)
    found = arrow(settings()).encode_features(rows, SYMBOLS, names=names, sources=SOURCES)
    plain = JsonWriter(settings(), CARDS, RUNGS).encode_features(rows, SYMBOLS, names=names, sources=SOURCES)
    assert all(table.schema == arrow_schema(FEATURES) for table in tables(found))
    vectors = sorted((row for table in tables(found) for row in table.to_pylist()), key=lambda row: row["as_of_ns"])
    exact = [[1.23456789012345, -0.5, None], [1e-30, 123456789.0, None]]
    assert vectors == [{**json.loads(record), "values": row} for record, row in zip(messages(plain), exact)]
    assert list(vectors[0]) == list(json.loads(messages(plain)[0]))
