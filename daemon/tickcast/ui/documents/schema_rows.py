"""A JSON Schema read as a flat list of rows, for people: name, what it may be, default, meaning. It prints nothing."""

from collections.abc import Iterator
from typing import Any, NamedTuple

Schema = dict[str, Any]

BOUNDS = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
    "minItems": "at least",
}
NOTHING = object()  # the default of what has none


class SchemaRow(NamedTuple):
    """One field; `name` is dotted, with NAME for keys of the user's own and [] for items of a list of tables."""

    name: str
    kind: str
    default: Any
    meaning: str


def rows(schema: Schema) -> Iterator[SchemaRow]:
    """All fields of an object schema, those of its tables in place of the table itself."""
    definitions = schema.get("$defs", {})
    yield from _object(_resolve(schema, definitions), definitions, "")


def _object(schema: Schema, definitions: Schema, prefix: str) -> Iterator[SchemaRow]:
    for key, field in schema.get("properties", {}).items():
        name = prefix + key
        inner, suffix = _table(field, definitions)
        if inner is None or suffix:
            meaning = " ".join(field.get("description", "").split())
            yield SchemaRow(name, kind(field, definitions), field.get("default", NOTHING), meaning)
        if inner is not None:
            yield from _object(inner, definitions, f"{name}{suffix}.")


def _table(field: Schema, definitions: Schema) -> tuple[Schema | None, str]:
    """The object schema that a field holds, and how its own keys are spelled below the field's name."""
    for holder, suffix in ((field, ""), (field.get("additionalProperties"), ".NAME"), (field.get("items"), "[]")):
        if isinstance(holder, dict):
            branches = [_resolve(branch, definitions) for branch in holder.get("anyOf", [holder])]
            tables = [branch for branch in branches if "properties" in branch]
            if tables:
                return tables[0], suffix
    return None, ""


def kind(field: Schema, definitions: Schema) -> str:
    """What a value may be, in words: `time | tick`, `integer > 0`, `list of text`."""
    field = _resolve(field, definitions)
    if "anyOf" in field:
        return " or ".join(kind(branch, definitions) for branch in field["anyOf"])
    if "const" in field:
        return str(field["const"])
    if "enum" in field:
        return " | ".join(str(choice) for choice in field["enum"])
    name = field.get("type", "anything")
    if name == "array":
        return f"list of {kind(field.get('items', {}), definitions)}"
    if name == "object":
        values = field.get("additionalProperties")
        return f"table of {kind(values, definitions)}" if isinstance(values, dict) and values else "table"
    words = {"string": field.get("format", "text"), "null": "nothing", "boolean": "true | false"}
    bounds = " ".join(f"{sign} {field[key]:g}" for key, sign in BOUNDS.items() if key in field)
    return f"{words.get(name, name)} {bounds}".rstrip()


def _resolve(schema: Schema, definitions: Schema) -> Schema:
    """The schema behind a reference; what stands beside the reference (description, default) wins."""
    if "$ref" not in schema:
        return schema
    target: Schema = definitions[schema["$ref"].rsplit("/", 1)[1]]
    return {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
