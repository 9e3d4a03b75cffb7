"""A JSON Schema as rows: tables flattened, references followed, bounds and choices put into words."""

from typing import Annotated, Any, Literal

import msgspec

from tickcast.ui.documents.schema_rows import NOTHING, rows


class Inner(msgspec.Struct):
    depth: Annotated[int, msgspec.Meta(ge=1, lt=9)] = 3


class Outer(msgspec.Struct):
    name: str
    inner: Inner = msgspec.field(default_factory=Inner)
    many: list[Inner] = []
    named: dict[str, Inner] = {}
    maybe: Literal["a", "b"] | None = None
    ratios: list[float] = []
    free: dict[str, Any] = {}
    flag: bool = False


FOUND = {row.name: row for row in rows(msgspec.json.schema(Outer))}


def test_tables_stand_in_place_of_their_key_and_lists_of_tables_keep_it():
    assert list(FOUND) == [
        "name", "inner.depth", "many", "many[].depth", "named", "named.NAME.depth", "maybe", "ratios", "free", "flag",
    ]  # fmt: skip


def test_kinds_are_words_with_their_bounds():
    assert FOUND["name"].kind == "text"
    assert FOUND["inner.depth"].kind == "integer >= 1 < 9"
    assert FOUND["many"].kind == "list of table"
    assert FOUND["maybe"].kind == "a | b or nothing"
    assert FOUND["ratios"].kind == "list of number"
    assert FOUND["free"].kind == "table"
    assert FOUND["flag"].kind == "true | false"


def test_a_field_without_default_is_told_from_one_whose_default_is_nothing():
    assert FOUND["name"].default is NOTHING
    assert FOUND["maybe"].default is None
    assert FOUND["inner.depth"].default == 3
