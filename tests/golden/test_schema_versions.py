"""The shape of each version of each record: what readers rely on. A change of shape needs a new version.

`make golden` (GOLDEN=write) adds the versions that are not here yet. It never changes one that is: where no release
has that version, delete its file first.
"""

import os
from pathlib import Path

import msgspec
import pytest

from tickcast.live.commands import arguments
from tickcast.ui.documents.schemas import PUBLISHED, Schema, commands, schema_of, shape_of

KEPT = Path(__file__).parent / "schemas"
REMEDY = "raise the record's version, then `make golden`"
VERSIONS = {name: PUBLISHED[name].version for name in PUBLISHED} | dict.fromkeys(commands(), arguments.SCHEMA)


def kept_as(name: str) -> Path:
    return KEPT / f"{name}.{VERSIONS[name]}.json"


def text_of(shape: Schema) -> bytes:
    return msgspec.json.format(msgspec.json.encode(shape, order="sorted"), indent=1) + b"\n"


@pytest.mark.parametrize("name", VERSIONS)
def test_a_record_has_the_shape_that_is_kept_of_its_version(name: str) -> None:
    path, shape = kept_as(name), shape_of(schema_of(name))
    if os.environ.get("GOLDEN") == "write" and not path.exists():
        path.write_bytes(text_of(shape))
    assert path.exists(), f"{path.name} is missing: `make golden`"
    assert path.read_bytes() == text_of(shape), f"{name} differs from {path.name}: {REMEDY}"


def test_no_shape_is_kept_of_a_record_or_version_that_never_was() -> None:
    for path in KEPT.iterdir():
        name, version, _ = path.name.split(".")
        assert 1 <= int(version) <= VERSIONS[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_field_that_comes_goes_or_changes_is_noticed(name: str) -> None:
    now = text_of(shape_of(schema_of(name)))
    for field in schema_of(name)["required"]:
        gone, other = schema_of(name), schema_of(name)
        gone["required"].remove(field)
        del gone["properties"][field]
        other["properties"][field] = {"type": "object", "minProperties": 99}
        assert text_of(shape_of(gone)) != now
        assert text_of(shape_of(other)) != now
    more = schema_of(name)
    more["properties"]["one_more"] = {"type": "string"}
    assert text_of(shape_of(more)) != now


def test_other_words_need_no_new_version() -> None:
    schema = schema_of("forecasts")
    schema["description"] = schema["properties"]["anchor"]["description"] = "other words"
    assert text_of(shape_of(schema)) == text_of(shape_of(schema_of("forecasts")))
