"""The schemas of the records: whole, closed, numbered, true of what the writers write, and printed by the command."""

import dataclasses
import itertools
import json
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest

from kit import T0, Served, rung, settings, walk
from schemakit import problems, valid
from tickcast import records
from tickcast.columns import Encoded, FeatureRows
from tickcast.engine.core.ladder import RUNGS
from tickcast.engine.records.as_json import JsonWriter
from tickcast.errors import EXIT_DIED, Quality
from tickcast.live.commands import arguments
from tickcast.settings import Settings
from tickcast.ui.cli import main
from tickcast.ui.documents import schemas
from tickcast.ui.documents.reference import TOPIC_MEANING, record_types
from tickcast.ui.documents.schemas import PUBLISHED, commands, schema_of

SOURCES = [("tickcast.ticks", 0)]
SMALL = {"window__lookback": 8, "forecast__horizon": 3, "symbols__limit": 8}
EXAMPLES = [
    ("replies", records.Reply(id="1", command="status", ok=True, result={"a": [1, None]})),
]


def objects(schema: Any) -> list[dict[str, Any]]:
    """Every object schema with named fields inside a schema."""
    if isinstance(schema, list):
        return [found for item in schema for found in objects(item)]
    if not isinstance(schema, dict):
        return []
    return [*([schema] if "required" in schema else []), *(o for value in schema.values() for o in objects(value))]


def messages(encoded: Encoded) -> list[bytes]:
    spans = zip(encoded.starts.tolist(), encoded.ends.tolist(), strict=True)
    return [encoded.data[start:end].tobytes() for start, end in spans]


def written(s: Settings, served: Served) -> list[bytes]:
    """The engine's forecasts as text, each with another combination of rung and flags."""
    forecasts = served.forecasts
    every = [*itertools.product(range(len(RUNGS)), range(sum(Quality) + 1))]
    rungs, flags = np.resize(np.array(every), (len(forecasts), 2)).T
    assert len(forecasts) >= len(every)
    varied = dataclasses.replace(forecasts, rung=rungs.astype(np.uint8), flags=flags.astype(np.uint8))
    writer = JsonWriter(s, served.engine.ladder.cards, list(RUNGS))  # type: ignore[union-attr]
    return messages(writer.encode(varied, served.symbols, produced_ns=T0, sources=SOURCES))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_schema_is_valid_self_contained_closed_and_has_its_version(name: str) -> None:
    schema = schema_of(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == jsonschema.Draft202012Validator.META_SCHEMA["$id"]
    assert "$ref" not in json.dumps(schema)
    assert objects(schema)[0] is schema
    for inner in objects(schema):
        assert inner["additionalProperties"] is False
        assert inner["required"] == list(inner["properties"])
    version = schema["$id"].rpartition(":")[2]
    assert schema["properties"].get("schema", {"const": int(version)})["const"] == int(version)


def test_every_topic_and_every_record_with_a_version_has_a_schema() -> None:
    assert set(TOPIC_MEANING) <= set(PUBLISHED)
    numbered = {record for record in record_types() if "schema" in record.__struct_fields__}
    assert numbered <= {published.record for published in PUBLISHED.values()}


def test_what_carries_no_version_itself_is_known() -> None:
    assert [name for name in PUBLISHED if "schema" not in schema_of(name)["properties"]] == [
        "dlq", "status", "envelope",
    ]  # fmt: skip


@pytest.mark.parametrize("transform", ["log_return", "difference", "level"])
@pytest.mark.parametrize("kind", ["time", "tick", "volume"])
def test_every_rung_with_every_flag_is_written_as_the_schema_says(kind: str, transform: str) -> None:
    s = settings(**SMALL, bars__kind=kind, bars__every_ms=500, forecast__transform=transform)
    tape = walk(1500 if kind == "time" else 200, 3, seed=1)
    forecasts = valid("forecasts", written(s, Served(s, tape, chunk=200)))
    assert {f["rung"] for f in forecasts} == set(RUNGS)
    assert {len(f["quality"]) for f in forecasts} == set(range(len(Quality) + 1))
    assert {f["target_ns"] is None for f in forecasts} == {kind != "time"}
    assert {f["transform"] for f in forecasts} == {transform}
    assert list(forecasts[0]) == schema_of("forecasts")["required"]


@pytest.mark.parametrize("transform", ["log_return", "difference", "level"])
def test_prices_as_large_as_they_may_be_are_written_as_the_schema_says(transform: str) -> None:
    s = settings(**SMALL, bars__kind="tick", forecast__transform=transform)
    doubling = [("A", T0 + i * 10**6, 2.0**i, 1.0) for i in range(500)]
    forecasts = valid("forecasts", written(s, Served(s, doubling, chunk=50, runners=[rung("holt", s)])))
    assert max(f["anchor"] for f in forecasts) > 1e149


def test_feature_vectors_are_written_as_the_schema_says_also_where_a_value_is_none() -> None:
    s = settings(**SMALL)
    served = Served(s, walk(50, 2, seed=2), chunk=50)
    n = 4
    column = np.arange(n, dtype=np.int32)
    values = np.array([[1.5, -2e-300], [np.nan, 0.0], [np.inf, 1e300], [-np.inf, 7.0]])
    rows = FeatureRows(column % 2, column.astype(np.int64), column, column * 0, column.astype(np.int64), values)
    writer = JsonWriter(s, [], list(RUNGS))
    text = writer.encode_features(rows, served.symbols, names=["a", 'b"'], sources=SOURCES)
    vectors = valid("features", messages(text))
    assert [v["values"][0] for v in vectors] == [1.5, None, None, None]
    assert list(vectors[0]) == schema_of("features")["required"]


@pytest.mark.parametrize("name", commands())
def test_the_schema_of_a_command_is_valid_self_contained_and_knows_no_other_argument(name: str) -> None:
    schema = schema_of(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert "$ref" not in json.dumps(schema)
    assert schema["additionalProperties"] is False
    assert set(schema.get("required", [])) <= set(schema["properties"])
    assert schema["$id"].endswith(f":{arguments.SCHEMA}")


@pytest.mark.parametrize(("name", "record"), EXAMPLES)
def test_records_that_nothing_publishes_yet_are_encoded_as_their_schema_says(name: str, record: Any) -> None:
    assert valid(name, [msgspec.json.encode(record)])


def test_a_record_with_a_field_more_less_null_or_of_another_version_is_refused() -> None:
    s = settings(**SMALL, bars__every_ms=500)
    (first, *_) = valid("forecasts", written(s, Served(s, walk(1500, 3, seed=1), chunk=200)))
    assert problems("forecasts", {**first, "more": 1})
    assert problems("forecasts", {**first, "source": {**first["source"], "more": 1}})
    assert problems("forecasts", {**first, "schema": first["schema"] + 1})
    assert problems("forecasts", {**first, "rung": "oracle"})
    assert problems("forecasts", {**first, "quality": ["dubious"]})
    assert problems("forecasts", {**first, "quality": ["fallback", "fallback"]})
    assert problems("forecasts", {**first, "id": first["id"].upper() + "0"})
    for key in first:
        assert problems("forecasts", {k: v for k, v in first.items() if k != key}), key
        if key not in ("target_ns", "expires_ns", "probs"):
            assert problems("forecasts", {**first, key: None}), key


def test_only_figures_may_be_undefined() -> None:
    accuracy = schema_of("accuracy")["properties"]
    assert accuracy["skill"] == {"type": ["number", "null"]}
    assert accuracy["coverage"]["additionalProperties"] == {"type": ["number", "null"]}
    assert accuracy["n"] == {"type": "integer"}
    assert schema_of("health")["properties"]["uptime_s"] == {"type": "number"}


def test_words_are_no_part_of_a_shape_and_fields_that_are_named_like_words_are() -> None:
    shape = schemas.shape_of(schema_of("models"))
    assert {"title", "description"}.isdisjoint(shape)
    assert {"description", "name"} <= set(shape["properties"])
    assert "description" not in shape["properties"]["features"]["items"]
    assert shape["properties"]["description"] == {"type": "string"}


def test_the_command_lists_the_records_and_prints_their_schemas(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    lines = capsys.readouterr().out.splitlines()
    numbers = {name: PUBLISHED[name].version for name in PUBLISHED} | dict.fromkeys(commands(), arguments.SCHEMA)
    assert [line.split()[:2] for line in lines] == [[name, str(number)] for name, number in numbers.items()]
    for name in numbers:
        assert main(["schema", name]) == 0
        assert json.loads(capsys.readouterr().out) == schema_of(name)


def test_a_record_that_does_not_exist_is_refused_with_those_that_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "trades"]) == EXIT_DIED
    message = capsys.readouterr().err
    assert "'trades'" in message
    assert all(name in message for name in PUBLISHED)
