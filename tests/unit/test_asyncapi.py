"""docs/asyncapi.json is what the code renders, holds together, and names the topics that the daemon really uses."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tickcast.batch.synth import Market, json_messages
from tickcast.settings import Settings
from tickcast.ui.documents import asyncapi
from tickcast.ui.documents.reference import TOPIC_MEANING
from tickcast.ui.documents.schemas import schema_of, text_of

PAGE = Path(__file__).parents[2] / "docs" / "asyncapi.json"
DOCUMENT = asyncapi.document()


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for item in node for found in references(item)]
    if not isinstance(node, dict):
        return []
    return [*([node["$ref"]] if "$ref" in node else []), *(r for value in node.values() for r in references(value))]


def target(reference: str) -> Any:
    node = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


def test_the_file_is_what_the_code_renders() -> None:
    assert PAGE.read_text(encoding="utf-8") == text_of(DOCUMENT), "run `make docs`"


def test_no_text_of_it_has_lines_whose_indent_differs_between_pythons() -> None:
    assert "\\n" not in text_of(DOCUMENT)


def test_write_puts_the_document_below_the_docs(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    assert json.loads(asyncapi.write(tmp_path).read_text(encoding="utf-8")) == DOCUMENT


def test_what_asyncapi_requires_is_there() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(DOCUMENT["info"])
    assert all({"host", "protocol"} <= set(server) for server in DOCUMENT["servers"].values())
    for operation in DOCUMENT["operations"].values():
        assert operation["action"] in ("send", "receive")
        assert operation["channel"]["$ref"].startswith("#/channels/")
    for name, channel in DOCUMENT["channels"].items():
        assert channel["messages"], name
        placeholders = {part[1:-1] for part in channel["address"].split("/") if part.startswith("{")}
        assert set(channel.get("parameters", {})) == placeholders


def test_every_reference_leads_somewhere_and_every_channel_has_one_operation() -> None:
    found = references(DOCUMENT)
    assert found
    assert all(isinstance(target(reference), dict) for reference in found)
    used = [operation["channel"]["$ref"] for operation in DOCUMENT["operations"].values()]
    assert sorted(used) == sorted(f"#/channels/{name}" for name in DOCUMENT["channels"])
    messages = {r for r in found if r.startswith("#/components/messages/")}
    assert messages == {f"#/components/messages/{name}" for name in DOCUMENT["components"]["messages"]}


def test_the_channels_are_the_topics_of_the_default_settings() -> None:
    settings = Settings()
    kafka = {c["address"] for c in DOCUMENT["channels"].values() if c["servers"] == [{"$ref": "#/servers/kafka"}]}
    assert kafka == {*settings.topics.ticks, *(settings.topics.prefix + name for name in TOPIC_MEANING)}
    mqtt = {c["address"] for c in DOCUMENT["channels"].values() if c["servers"] == [{"$ref": "#/servers/mqtt"}]}
    assert mqtt == {
        "tickcast/forecasts/{symbol}", "tickcast/features/{symbol}", "tickcast/accuracy", "tickcast/drift",
        "tickcast/health",
        "tickcast/status", "tickcast/alerts/{name}/{subject}",
    }  # fmt: skip


@pytest.mark.parametrize("name", [*TOPIC_MEANING, "status"])
def test_a_message_is_described_by_its_schema(name: str) -> None:
    message = DOCUMENT["components"]["messages"][name]
    own = {key: value for key, value in schema_of(name).items() if not key.startswith("$")}
    assert message["headers" if name == "dlq" else "payload"] == own


def test_a_tick_of_the_synthetic_market_is_as_described_and_one_without_a_price_is_not() -> None:
    described = jsonschema.Draft202012Validator(DOCUMENT["components"]["messages"]["ticks"]["payload"])
    market = Market(seed=1, symbols=2, tick_rate_hz=20)
    ticks = [json.loads(m) for _, m in json_messages(market.ticks(market.start_ns + 2 * 10**9))]
    assert ticks
    assert all(described.is_valid(tick) for tick in ticks)
    assert described.is_valid({"symbol": "A", "ts": "2026-01-31T09:30:00Z", "bid": "1.5", "ask": 2})
    assert not described.is_valid({"symbol": "A", "ts": 1, "bid": 1})
    assert not described.is_valid({"ts": 1, "price": 1})
