"""Forecasts and feature vectors as JSON: every field there, numbers as near as promised, nothing a parser refuses."""

import json
import math

import msgspec
import numpy as np
import pytest

from tickcast.columns import FeatureRows, Forecasts
from tickcast.engine.codec.pieces import HALVED_ROWS
from tickcast.engine.records.as_json import JsonWriter, find_decimals, write_rows
from tickcast.errors import Quality
from tickcast.records import ModelCard
from tickcast.settings import Settings
from tickcast.settings.engine import ForecastSettings
from tickcast.settings.stream import BarSettings
from tickcast.symbols import SymbolTable

SOURCES = [("ticks", 0), ('od"d', 5)]
FIELDS = [
    "id", "symbol", "as_of_ns", "tie", "target_step", "target_ns", "levels", "quantiles", "point", "anchor", "unit",
    "transform", "scale", "sigma", "model", "version", "rung", "quality", "age_ms", "expires_ns", "source",
    "produced_ns", "kind", "probs", "input_hash", "device", "confidence", "schema",
]  # fmt: skip
AS_OF = 1_700_000_000_000_000_000
PRODUCED = AS_OF + 7_900_000


def card(name, version):
    return ModelCard(
        name=name, kind="k", version=version, digest="d", framework="f", bars={}, transform="log_return", lookback=1,
        horizon=12, levels=[0.5], features=[],
    )  # fmt: skip


CARDS = [card("naive", "1"), card('a"b', "2.0")]


def symbol_table():
    table = SymbolTable(10)
    for name in ("SYM0001USDT", 'q"uote\\', "tab\tÜ😀"):
        table.code(name)
    return table


def forecasts(count=20, horizon=12, *, anchor=27123.45, scale=1e-4, transform="log_return", timed=True, seed=0):
    """Every third has probabilities of classes."""
    rng = np.random.default_rng(seed)
    near = np.full(count, anchor) * (1 + 1e-3 * rng.normal(size=count))
    steps = np.sort(rng.normal(size=(count, horizon, 5)), axis=2) * scale
    shaped = near[:, None, None]
    quantiles = shaped * np.exp(steps) if transform == "log_return" else shaped + steps
    as_of = AS_OF + rng.integers(0, 10**9, count)
    target = as_of[:, None] + np.arange(1, horizon + 1) * 10**9 if timed else np.full((count, horizon), -1)
    small = [rng.integers(0, high, count) for high in (3, 10, 2, 2, 2, 16)]
    symbol, tie, partition, rung, model, flags = small
    wide = [rng.integers(0, 1 << 64, count, np.uint64) for _ in range(3)]
    probs = rng.dirichlet(np.ones(3), count).astype(np.float32)
    probs[np.arange(count) % 3 != 0] = np.nan
    return Forecasts(
        symbol.astype(np.int32), tie + 5, as_of, tie.astype(np.int32), partition.astype(np.int32),
        rng.integers(0, 1 << 62, count), near, np.full(count, scale), rung.astype(np.uint8), model.astype(np.int32),
        flags.astype(np.uint8), *wide, target, quantiles, np.ptp(steps, axis=2) / 3,
        rng.random(count).astype(np.float32), probs, as_of,
    )  # fmt: skip


def values(encoded):
    return [encoded.data[first:last].tobytes() for first, last in zip(encoded.starts, encoded.ends)]


def encode(batch, settings=None, sources=SOURCES):
    writer = JsonWriter(settings or Settings(), CARDS, ["naive", "model"])
    return writer.encode(batch, symbol_table(), produced_ns=PRODUCED, sources=sources)


def test_a_record_has_exactly_the_documented_fields_in_order():
    batch, symbols = forecasts(), symbol_table()
    encoded = encode(batch)
    assert np.array_equal(encoded.symbol, batch.symbol)
    for row, value in enumerate(values(encoded)):
        record = json.loads(value)
        assert list(record) == FIELDS
        assert msgspec.json.decode(value) == record
        names = ("quantiles", "point", "anchor", "scale", "sigma", "confidence", "probs")
        numbers = {name: record.pop(name) for name in names}
        assert record == {
            "id": f"{batch.id_high[row]:016x}{batch.id_low[row]:016x}",
            "symbol": symbols.name(batch.symbol[row]),
            "as_of_ns": batch.as_of[row],
            "tie": batch.tie[row],
            "target_step": list(range(1, 13)),
            "target_ns": batch.target_ns[row].tolist(),
            "levels": [0.05, 0.25, 0.5, 0.75, 0.95],
            "unit": "price",
            "transform": "log_return",
            "model": CARDS[batch.model[row]].name,
            "version": CARDS[batch.model[row]].version,
            "rung": ["naive", "model"][batch.rung[row]],
            "quality": [str(flag.name).lower() for flag in Quality if flag & int(batch.flags[row])],
            "age_ms": (PRODUCED - batch.as_of[row]) // 10**6,
            "expires_ns": batch.as_of[row] + 10**9,
            "source": {
                "topic": SOURCES[batch.partition[row]][0],
                "partition": SOURCES[batch.partition[row]][1],
                "offset": batch.offset[row],
            },
            "produced_ns": PRODUCED,
            "kind": "quantile" if row % 3 else "class",
            "input_hash": f"{batch.input_hash[row]:016x}",
            "device": "cpu",
            "schema": 1,
        }
        assert numbers["point"] == [step[2] for step in numbers["quantiles"]]
        assert math.isclose(numbers["scale"], batch.scale[row], rel_tol=1e-9)
        np.testing.assert_allclose(numbers["sigma"], batch.sigma[row], rtol=0, atol=1e-7 * batch.scale[row])
        assert math.isclose(numbers["confidence"], batch.confidence[row], rel_tol=1e-6)
        if row % 3:
            assert numbers["probs"] is None
        else:
            np.testing.assert_allclose(numbers["probs"], batch.probs[row], atol=1e-7)


@pytest.mark.parametrize("transform", ["log_return", "difference", "level"])
@pytest.mark.parametrize("relative_move", [1e-1, 1e-4, 1e-7])
@pytest.mark.parametrize("anchor", [1e-12, 1.3e-5, 0.7, 1.0, 99.5, 27123.45, 4.1e8, 3.3e14, 7e17, 2e40])
def test_prices_are_within_a_ten_millionth_of_the_one_bar_move(anchor, relative_move, transform):
    scale = relative_move if transform == "log_return" else relative_move * anchor
    batch = forecasts(anchor=anchor, scale=scale, transform=transform)
    settings = Settings(forecast=ForecastSettings(transform=transform))
    bound = 1e-7 * scale * (np.abs(batch.anchor) if transform == "log_return" else 1)
    for row, value in enumerate(values(encode(batch, settings))):
        record, most = json.loads(value), np.broadcast_to(bound, len(batch))[row]
        assert np.abs(np.array(record["quantiles"]) - batch.quantiles[row]).max() <= most
        assert abs(record["anchor"] - batch.anchor[row]) <= most
        if 1e-5 < anchor < 1e15:
            assert b"e" not in value.partition(b'"quantiles":')[2].partition(b',"point"')[0]


@pytest.mark.parametrize(
    ("anchor", "scale", "relative", "wanted"),
    [(100.0, 0.5, False, 8), (100.0, 5.0, False, 7), (100.0, 5.0, True, 5), (1e12, 1.0, True, 0), (1.0, 0.0, False, 40),
     (1.0, math.nan, True, 40), (1.0, math.inf, False, 40), (-1.0, 1e-300, True, 40)],
)  # fmt: skip
def test_decimals_reach_seven_digits_below_the_one_bar_move(anchor, scale, relative, wanted):
    found = np.full(2, -1)
    find_decimals(np.full(2, anchor), np.full(2, scale), relative, found)
    assert found.tolist() == [wanted, wanted]


@pytest.mark.parametrize("extreme", [0.0, -0.0, 5e-324, -1.7976931348623157e308, math.nan, math.inf, 1e22, -3.0])
@pytest.mark.parametrize("scale", [0.0, 1e-300, 1.0, 1e300, math.nan, math.inf])
def test_no_value_makes_invalid_json(extreme, scale):
    batch = forecasts(3, 2, scale=1.0, transform="level")
    for column in (batch.quantiles, batch.sigma, batch.anchor, batch.confidence):
        with np.errstate(over="ignore"):
            column[:] = extreme
    batch.scale[:] = scale
    for value in values(encode(batch)):
        record = msgspec.json.decode(value)
        if not math.isfinite(extreme):
            assert record["anchor"] is None
        elif abs(extreme) < 1e16 and scale not in (1e300, math.inf):
            assert record["anchor"] == pytest.approx(extreme, abs=1e-7)


def test_tick_bars_have_neither_target_times_nor_an_expiry():
    settings = Settings(bars=BarSettings(kind="tick"))
    record = json.loads(values(encode(forecasts(1, timed=False), settings))[0])
    assert (record["target_ns"], record["expires_ns"]) == (None, None)


def test_levels_and_horizon_are_the_deployments():
    settings = Settings(forecast=ForecastSettings(quantiles=[0.5], horizon=3))
    batch = forecasts(2, 3)
    batch = Forecasts(*(getattr(batch, name) for name in Forecasts.__dataclass_fields__))
    object.__setattr__(batch, "quantiles", np.ascontiguousarray(batch.quantiles[:, :, :1]))
    record = json.loads(values(encode(batch, settings))[1])
    assert (record["levels"], record["target_step"]) == ([0.5], [1, 2, 3])
    assert np.array(record["quantiles"]).shape == (3, 1)
    assert record["point"] == [step[0] for step in record["quantiles"]]


def test_no_forecasts_make_no_messages():
    encoded = encode(forecasts(20).take(slice(0, 0)))
    assert (len(encoded.data), len(encoded.starts)) == (0, 0)


def test_many_rows_are_written_by_two_threads_as_by_one(monkeypatch):
    batch = forecasts(2 * HALVED_ROWS + 1)
    halved = values(encode(batch))
    monkeypatch.setattr("tickcast.engine.codec.pieces.HALVED_ROWS", len(batch) + 1)
    assert values(encode(batch)) == halved
    assert len(set(halved)) == len(batch)


def test_a_long_horizon_and_many_rows_find_room():
    batch = forecasts(300, 200, anchor=-1.234567890123e17, scale=1e-3)
    found = values(encode(batch))
    assert len(found) == 300
    assert json.loads(found[-1])["id"] == f"{batch.id_high[-1]:016x}{batch.id_low[-1]:016x}"
    assert [json.loads(value)["tie"] for value in found] == batch.tie.tolist()


def test_a_writer_serves_new_sources_as_they_appear():
    writer = JsonWriter(Settings(), CARDS, ["naive", "model"])
    batch = forecasts(5)
    batch.partition[:] = 0
    first = writer.encode(batch, symbol_table(), produced_ns=PRODUCED, sources=SOURCES[:1])
    batch.partition[:] = 1
    second = writer.encode(batch, symbol_table(), produced_ns=PRODUCED, sources=SOURCES)
    assert [json.loads(values(encoded)[0])["source"]["topic"] for encoded in (first, second)] == ["ticks", 'od"d']


def test_feature_vectors_carry_names_values_and_their_source():
    names = ["ema", 'odd"name', "gap"]
    numbers = np.array([[1.23456789012345, -0.5, np.nan], [1e-30, 123456789.0, np.inf]])
    two = np.arange(2)
    rows = FeatureRows(two.astype(np.int32), AS_OF + two, two.astype(np.int32), two.astype(np.int32), two + 40, numbers)
    writer = JsonWriter(Settings(), CARDS, ["naive"])
    encoded = writer.encode_features(rows, symbol_table(), names=names, sources=SOURCES)
    assert [json.loads(value) for value in values(encoded)] == [
        {
            "symbol": symbol_table().name(k), "as_of_ns": AS_OF + k, "tie": k, "names": names, "values": wanted,
            "source": {"topic": SOURCES[k][0], "partition": SOURCES[k][1], "offset": 40 + k}, "schema": 1,
        }
        for k, wanted in enumerate([[1.234567890, -0.5, None], [1e-30, 123456789, None]])
    ]  # fmt: skip


def test_the_writer_releases_the_interpreter_lock():
    assert write_rows.targetoptions["nogil"]
