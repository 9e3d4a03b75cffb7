"""The JSON Schema of every record that leaves the process, of the envelope of a command, and of what commands take.

It describes what others write and writes no record itself.

Records that are structs are read off their class, forecasts and feature vectors off their tables. The headers of a
dead letter and the status on MQTT are described here. The schema of a command's arguments is open where a
record's is closed: what has a default may be left out.
"""

import json
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from tickcast import records
from tickcast.engine.core.fold import LOUD
from tickcast.engine.records import as_arrow
from tickcast.engine.records.fields import RecordTable
from tickcast.engine.records.published import FEATURES, FORECASTS
from tickcast.errors import BadRequest, Reason
from tickcast.live.commands import arguments
from tickcast.live.commands.envelope import Envelope
from tickcast.ui.documents.reference import TOPIC_MEANING

Schema = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"
POISON = [reason.name.lower() for reason in Reason if LOUD[reason]]

Digits = Annotated[str, Meta(pattern="^[0-9]+$")]


def struct_of(name: str, table: RecordTable) -> type[Struct]:
    """The class that a record in columns would be of."""
    fields = [
        (field.name, Annotated[field.type, Meta(description=field.meaning)] if field.meaning else field.type)
        for field in table.published
    ]
    return msgspec.defstruct(name, fields, namespace={"__doc__": table.meaning})


class DeadLetterHeaders(Struct):
    """The headers of a refused message, each a text; its key and its value are as they came, or the first of them."""

    topic: str
    partition: Digits
    offset: Digits
    reason: Annotated[str, Meta(extra_json_schema={"enum": POISON})]
    stage: Annotated[Literal["codec", "quality", "engine"], Meta(description="what refused it")]
    version: Annotated[str, Meta(description="of tickcast")]
    original_bytes: Annotated[Digits, Meta(description="more than the value has where that is cut")]
    refused: Annotated[Digits, Meta(description="how many of its ticks; of what is no tick, one")]
    ticks: Annotated[str, Meta(description="which of its ticks, counted from 0, as JSON: the first 20")]
    reasons: Annotated[str, Meta(description="how many for each reason, as JSON")]


class StatusRecord(Struct):
    """Whether the daemon is there; retained, and said by the broker where the daemon cannot."""

    state: Literal["online", "offline"]
    version: Annotated[str, Meta(description="of tickcast")]


class Published(NamedTuple):
    """A kind of record: its struct, where it is found, and what `schema` says in it."""

    record: type[Struct]
    meaning: str
    version: int
    undefined: bool = False  # its figures may have nothing to be computed from; JSON says null for that


def _numbered(record: type[Struct]) -> int:
    """What the field `schema` holds in every record of this class."""
    (field,) = (field for field in msgspec.structs.fields(record) if field.name == "schema")
    return int(field.default)


PUBLISHED = {
    "forecasts": Published(struct_of("ForecastRecord", FORECASTS), TOPIC_MEANING["forecasts"], FORECASTS.schema),
    "shadow": Published(struct_of("ShadowRecord", FORECASTS), TOPIC_MEANING["shadow"], FORECASTS.schema),
    "features": Published(struct_of("FeatureVector", FEATURES), TOPIC_MEANING["features"], FEATURES.schema),
    "accuracy": Published(
        records.Accuracy, TOPIC_MEANING["accuracy"], _numbered(records.Accuracy), undefined=True
    ),
    "drift": Published(records.Drift, TOPIC_MEANING["drift"], _numbered(records.Drift)),
    "health": Published(records.Health, TOPIC_MEANING["health"], _numbered(records.Health)),
    "alerts": Published(records.Alert, TOPIC_MEANING["alerts"], _numbered(records.Alert)),
    "dlq": Published(DeadLetterHeaders, f"headers of the topic; {TOPIC_MEANING['dlq']}", 2),
    "status": Published(StatusRecord, "on MQTT only, beside what is mirrored", 1),
    "jobs": Published(records.JobEvent, "what becomes of jobs", _numbered(records.JobEvent)),
    "replies": Published(records.Reply, "the answers to commands", _numbered(records.Reply)),
    "envelope": Published(Envelope, "what `control` takes", 1),
    "models": Published(records.ModelCard, "`card.json` of a model folder", _numbered(records.ModelCard)),
}  # fmt: skip


COMMAND = "command-"  # before the name of a command: the schema of its arguments

IN_ARROW = {  # what `kafka.encoding` is about
    name: as_arrow.schema_of(table)
    for name, table in {"forecasts": FORECASTS, "shadow": FORECASTS, "features": FEATURES}.items()
}


def schema_of(name: str) -> Schema:
    """Self-contained; every field is always there, and no other. `x-arrow` is the type of a field's Arrow column."""
    if name.removeprefix(COMMAND) in arguments.ACCEPTED and name.startswith(COMMAND):
        return _of_command(name.removeprefix(COMMAND))
    if name not in PUBLISHED:
        raise BadRequest(f"there is no record '{name}'", remedy=f"there are {', '.join((*PUBLISHED, *commands()))}")
    published = PUBLISHED[name]
    ((reference,), definitions) = msgspec.json.schema_components([published.record], ref_template="{name}")
    body = _closed(reference, definitions, undefined=published.undefined)
    if "schema" in body["properties"]:
        body["properties"]["schema"] = {"type": "integer", "const": published.version}
    for column in IN_ARROW.get(name, ()):
        body["properties"][column.name]["x-arrow"] = str(column.type)
    document: Schema = _titled({"$schema": DRAFT, "$id": f"urn:tickcast:schema:{name}:{published.version}", **body})
    return document


def commands() -> list[str]:
    """The names of the schemas of commands."""
    return [COMMAND + command for command in arguments.ACCEPTED]


def _of_command(command: str) -> Schema:
    schema = arguments.schema(command)
    body = _in_place(schema, schema["$defs"])
    document: Schema = _titled(
        {"$schema": DRAFT, "$id": f"urn:tickcast:schema:{COMMAND}{command}:{arguments.SCHEMA}", **body}
    )
    return document


def _titled(schema: Any) -> Any:
    """A title is the name of its class without what sets that apart from other classes."""
    if isinstance(schema, list | tuple):
        return [_titled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _titled(value) for key, value in schema.items()}
    if isinstance(found.get("title"), str):
        found["title"] = found["title"].removesuffix("Record").removesuffix("Arguments")
    return found


def _in_place(schema: Any, definitions: Schema) -> Any:
    """Definitions in place of references."""
    if isinstance(schema, list | tuple):
        return [_in_place(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return _in_place({**definitions[schema["$ref"].rpartition("/")[2]], **beside}, definitions)
    return {key: _in_place(value, definitions) for key, value in schema.items() if key != "$defs"}


def _closed(schema: Any, definitions: Schema, *, undefined: bool) -> Any:
    """Definitions in place of references; nothing left out and nothing added in any object."""

    def closed(inner: Any) -> Any:
        return _closed(inner, definitions, undefined=undefined)

    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return closed({**definitions[schema["$ref"]], **beside})
    if undefined and schema.get("type") == "number":
        return {**schema, "type": ["number", "null"]}
    found = {key: closed(value) for key, value in schema.items() if key not in ("default", "properties", "required")}
    if "properties" in schema:
        fields = {name: closed(field) for name, field in schema["properties"].items()}
        found |= {"properties": fields, "required": list(fields), "additionalProperties": False}
    return found


def shape_of(schema: Schema) -> Schema:
    """What of a schema decides which records are valid: all but its words."""
    kept = {key: value for key, value in schema.items() if key not in ("title", "description")}
    if "properties" in kept:
        kept["properties"] = {name: shape_of(field) for name, field in kept["properties"].items()}
        kept["required"] = sorted(kept["required"])
    for key in ("items", "additionalProperties"):
        if isinstance(kept.get(key), dict):
            kept[key] = shape_of(kept[key])
    if "anyOf" in kept:
        kept["anyOf"] = [shape_of(branch) for branch in kept["anyOf"]]
    return kept


def text_of(document: Schema) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def listing() -> str:
    """A line per record: name, version, where it is found; and one per command."""
    lines = [(name, one.version, one.meaning) for name, one in PUBLISHED.items()]
    for command, accepted in arguments.ACCEPTED.items():
        lines.append((COMMAND + command, arguments.SCHEMA, f"what `{command}` takes; role {accepted.role}"))
    return "".join(f"{name:<17} {version:>2}  {meaning}\n" for name, version, meaning in lines)
