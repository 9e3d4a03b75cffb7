"""docs/asyncapi.json: what the daemon reads and writes, as an AsyncAPI 3.0 document. It renders and decides nothing.

Names are those of the default settings. `make docs` writes it; a test fails when the committed file differs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from tickcast import __version__
from tickcast.settings import Settings
from tickcast.settings.buses import MqttSettings
from tickcast.topics import ALERTS, OWN_TOPICS
from tickcast.ui.documents.reference import TOPIC_MEANING
from tickcast.ui.documents.schemas import IN_ARROW, PUBLISHED, Schema, schema_of, text_of

BY_SYMBOL = [topic.name for topic in OWN_TOPICS.values() if topic.by_symbol]
ESCAPED = "with %XX for `+ # / %` and the like"
LEVELS_BELOW = {name: {"symbol": ESCAPED} for name in BY_SYMBOL}  # of their MQTT topics
LEVELS_BELOW[ALERTS] = {"name": "one of docs/alerts.md", "subject": ESCAPED}  # retained; an empty one ends it
MIRRORED = [
    name for name in get_args(get_args(MqttSettings.model_fields["mirror"].annotation)[0]) if name in TOPIC_MEANING
]
KAFKA_BINDING = "0.5.0"
TRACE = {"type": "string", "description": "W3C trace context of the record that closed the bar, where it had one"}
ARROW_TYPE = "application/vnd.apache.arrow.stream"
ARROW_MEANING = (
    "With `kafka.encoding = arrow`: rows of one partition, whose columns are the fields of the JSON message, of the "
    "types that its `x-arrow` names. The key is the first row's symbol, the traceparent the first row's."
)


def document() -> Schema:
    """Messages are described once; Kafka's channels and MQTT's refer to them."""
    on_kafka, on_mqtt = _kafka_channels(), _mqtt_channels()
    messages = {name: _message(name) for name in (*TOPIC_MEANING, "status")}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "tickcast",
            "version": __version__,
            "description": "Ticks in; forecasts, their accuracy and the daemon's health out. docs/topics.md explains.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": _servers(),
        "channels": {**on_kafka, **on_mqtt},
        "operations": _operations([*on_kafka, *on_mqtt]),
        "components": {
            "messages": {"ticks": _tick(), **messages, **{_arrow(name): _in_arrow(messages[name]) for name in IN_ARROW}}
        },
    }


def _servers() -> Schema:
    settings = Settings()
    return {
        "kafka": {"host": settings.kafka.bootstrap_servers, "protocol": "kafka"},
        "mqtt": {
            "host": urlsplit(settings.mqtt.url).netloc,
            "protocol": "mqtt",
            "description": "a mirror of chosen topics; with `bus.kind = mqtt` ticks come from here too",
        },
    }


def _kafka_channels() -> Schema:
    topics = Settings().topics
    ticks = {"ticks": _channel("kafka", topics.ticks[0], "ticks", "the topics of `topics.ticks`: ticks, yours")}
    channels = {name: _channel("kafka", topics.prefix + name, name, meaning) for name, meaning in TOPIC_MEANING.items()}
    for name in IN_ARROW:
        channels[name]["messages"][_arrow(name)] = {"$ref": f"#/components/messages/{_arrow(name)}"}
    return ticks | channels


def _mqtt_channels() -> Schema:
    prefix, channels = Settings().mqtt.prefix, {}
    for name in (*MIRRORED, "status"):
        meaning = f"`{name}`, mirrored" if name in MIRRORED else PUBLISHED[name].meaning
        below = LEVELS_BELOW.get(name, {})
        levels = (prefix, name, *(f"{{{level}}}" for level in below))
        channels[f"mqtt_{name}"] = _channel("mqtt", "/".join(levels), name, meaning)
        if below:
            channels[f"mqtt_{name}"]["parameters"] = {level: {"description": what} for level, what in below.items()}
    return channels


def _channel(server: str, address: str, message: str, meaning: str) -> Schema:
    return {
        "address": address,
        "description": meaning,
        "servers": [{"$ref": f"#/servers/{server}"}],
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
    }


def _operations(channels: Sequence[str]) -> Schema:
    """One per channel, as seen by the daemon."""
    return {
        f"receive_{name}" if name == "ticks" else f"send_{name}": {
            "action": "receive" if name == "ticks" else "send",
            "channel": {"$ref": f"#/channels/{name}"},
        }
        for name in channels
    }


def _message(name: str) -> Schema:
    """A dead letter's value is whatever came, so its record is in the headers."""
    schema = {key: value for key, value in schema_of(name).items() if not key.startswith("$")}
    if name == "dlq":
        return {"contentType": "application/octet-stream", "headers": schema, "bindings": _key(["string", "null"])}
    message: Schema = {"title": schema["title"], "payload": schema}
    if name in BY_SYMBOL:
        message["headers"] = {"type": "object", "properties": {"traceparent": TRACE}}
        message["bindings"] = _key("string")
    return message


def _arrow(name: str) -> str:
    return f"{name}_arrow"


def _in_arrow(message: Schema) -> Schema:
    """The same records, many in a message."""
    shared = {key: message[key] for key in ("headers", "bindings")}
    return {"title": f"{message['title']}s", "contentType": ARROW_TYPE, "description": ARROW_MEANING, **shared}


def _key(kind: Any) -> Schema:
    return {"kafka": {"key": {"type": kind}, "bindingVersion": KAFKA_BINDING}}


def _tick() -> Schema:
    """A tick as the default codec reads it: a trade or a quote; what else stands in it is passed over."""
    fields = Settings().codec.fields
    number = {"type": ["number", "string"]}
    properties: Schema = {fields.symbol: {"type": "string", "minLength": 1}}
    properties[fields.ts] = {**number, "description": "ns since 1970, or RFC 3339"}
    properties |= dict.fromkeys((fields.price, fields.size, fields.bid, fields.ask), number)
    payload = {
        "type": "object",
        "properties": properties,
        "required": [fields.symbol, fields.ts],
        "anyOf": [{"required": [fields.price]}, {"required": [fields.bid, fields.ask]}],
    }
    return {"title": "Tick", "payload": payload, "bindings": _key("string")}


def write(root: Path) -> Path:
    """The document, below the root of a checkout."""
    page = root / "docs" / "asyncapi.json"
    page.write_text(text_of(document()), encoding="utf-8")
    return page


if __name__ == "__main__":
    print(f"written: {write(Path(__file__).parents[4]).name}")
