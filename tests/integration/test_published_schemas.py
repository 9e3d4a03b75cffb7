"""What the daemon really publishes is as the schemas say, and as docs/topics.md shows it; Kafka's part stands in
test_published_on_kafka.py.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiomqtt
import numpy as np
import pytest

from kit import rung
from livekit import WAIT_S, Live, alive, live_settings, running, until
from modelkit import Fitted, model_settings
from mosquittokit import PASSWORD, USER, Mosquitto
from netkit import HOST
from schemakit import problems, valid
from tickcast.batch.synth import Market, json_messages
from tickcast.clock import SystemClock
from tickcast.io.memory_bus import MemoryBus
from tickcast.live.buses.memory import EmbeddedBus
from tickcast.live.buses.mqtt import MirroredBus
from tickcast.live.daemon import Daemon
from tickcast.plugin import Runner
from tickcast.questions import Answers, Questions
from tickcast.records import WINDOWS
from tickcast.settings import Settings
from tickcast.ui.documents.reference import TOPIC_MEANING
from tickcast.ui.documents.schemas import schema_of

SECOND = 10**9
PAGE = (Path(__file__).parents[2] / "docs" / "topics.md").read_text(encoding="utf-8")
EXAMPLES = {name: json.loads(text) for name, text in re.findall(r"^## (\w+)\n.*?```json\n(.*?)```", PAGE, re.M | re.S)}
EVERY_RUNG = {
    "window__lookback": 12, "forecast__horizon": 3, "model__default": "holt", "model__season_bars": 4,
    "model__ladder": '["seasonal", "naive"]', "features__publish": "true", "score__publish_every_s": 0.1,
    "alerts__disk_free_share": 1,
    "features__set": '[{kind = "log_return", period = 3}, {kind = "rolling_std", window = 6}]',
}  # fmt: skip
BAD = [b"", b"{", b'{"symbol":"SYN0","ts":1}', b'{"symbol":"","ts":1700000000000000000,"price":1,"size":1}']


def ticks(seconds: int, *, symbols: int = 3) -> list[tuple[str, bytes]]:
    market = Market(seed=3, symbols=symbols, tick_rate_hz=60)
    return json_messages(market.ticks(market.start_ns + seconds * SECOND))


def values(messages: list[tuple[str, bytes]]) -> list[bytes]:
    return [message for _, message in messages]


async def published(
    settings: Settings, messages: list[bytes], *, broken: Runner | None = None
) -> dict[str, list[bytes]]:
    """Every message of every topic of a whole life of the daemon, in order; `broken` takes the first model's place."""
    async with running(settings) as live:
        subscriptions = {name: live.bus.subscribe(settings.topics.prefix + name) for name in TOPIC_MEANING}
        await shadow(live)
        if broken is not None:
            live.daemon.session.serving.ladder.runners[0] = broken  # type: ignore[union-attr]
        await live.send(messages)
        if settings.alerts.disk_free_share == 1:
            await until(lambda: bool(live.daemon.health().alerts), "an alert")
    return {name: await taken(subscription) for name, subscription in subscriptions.items()}


async def shadow(live: Live) -> None:
    """A rung answers beside whoever serves."""
    session = live.daemon.session
    beside = rung("seasonal" if session.settings.model.default == "holt" else "holt", session.settings)
    await session.thread.call(lambda: session.serving.engine.install(beside))
    await session.commands.serving_models.shadow(beside.card.digest, "default", contest="shown", block_ns=10 * SECOND)


async def taken(subscription: Any) -> list[bytes]:
    return [batch.message(i) for batch in await subscription.next_batches(0.1) for i in range(len(batch))]


@pytest.mark.parametrize(
    ("kind", "seconds", "bars"),
    [("time", 60, {}), ("tick", 20, {"score__adapt_every_bars": 16}), ("volume", 60, {"bars__every_size": 5})],
)
async def test_every_message_of_every_topic_is_as_its_schema_says(
    tmp_path: Path, kind: str, seconds: int, bars: dict[str, Any]
) -> None:
    settings = live_settings(tmp_path, **EVERY_RUNG, **bars, bars__kind=kind)
    found = await published(settings, values(ticks(seconds)) + BAD)
    assert found["dlq"] == BAD
    records = {name: valid(name, messages) for name, messages in found.items() if name != "dlq"}
    for name, messages in records.items():
        assert list(messages[0]) == schema_of(name)["required"]
    forecasts = records["forecasts"]
    assert {f["rung"] for f in forecasts} == {"naive", "seasonal", "holt"}
    assert {tuple(f["quality"]) for f in forecasts} == {(), ("adaptive_cold",)}
    for key in ("target_ns", "expires_ns"):
        assert {f[key] is None for f in forecasts} == {kind != "time"}


async def test_figures_of_too_few_blocks_are_null_and_as_the_schema_says(tmp_path: Path) -> None:
    found = await published(live_settings(tmp_path, **EVERY_RUNG), values(ticks(60)))
    accuracy = valid("accuracy", found["accuracy"])
    assert {row["window"] for row in accuracy} == {*WINDOWS}
    for row in accuracy:
        figures = [row["mae"], row["skill"], *row["coverage"].values(), row["intervals"]["0.9"]["winkler"]]
        assert {value is None for value in figures} == {row["insufficient"]}
    assert {row["insufficient"] for row in accuracy} == {True, False}


class Broken(Runner):
    """A model that answers with no numbers."""

    def __init__(self, like: Runner) -> None:
        self.card = like.card

    def answer(self, questions: Questions) -> Answers:
        return Answers(np.full((len(questions), self.card.horizon, len(self.card.levels)), np.nan, np.float32))


async def test_a_fitted_models_forecasts_and_its_failures_are_as_the_schema_says(
    fitted: Fitted, tmp_path: Path
) -> None:
    settings = model_settings("time", tmp_path, model__default=fitted.models["time"], quality__future_ms=0)
    history, later = (values(json_messages(part.head(2000))) for part in (fitted.history, fitted.ticks))
    forecasts = valid("forecasts", (await published(settings, history + later))["forecasts"])
    assert {f["rung"] for f in forecasts} == {"naive", "model"}
    assert any("in_sample" in f["quality"] for f in forecasts)
    like = Live(settings).daemon.session.serving.ladder.runners[0]  # type: ignore[union-attr]
    again = tmp_path / "again"
    again.mkdir()
    settings = model_settings("time", again, model__default=fitted.models["time"], quality__future_ms=0)
    failed = valid("forecasts", (await published(settings, later, broken=Broken(like)))["forecasts"])
    assert {f["rung"] for f in failed} == {"naive", "fallback"}
    assert all(("fallback" in f["quality"]) == (f["rung"] == "fallback") for f in failed)


@pytest.mark.parametrize("kind", ["time", "tick"])
def test_the_card_in_a_model_folder_is_as_its_schema_says(fitted: Fitted, kind: str) -> None:
    assert valid("models", [(fitted.models[kind] / "card.json").read_bytes()])


async def test_on_mqtt_status_and_mirrored_topics_are_as_their_schemas_say(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    settings = live_settings(
        tmp_path, **EVERY_RUNG, mqtt__url=mosquitto.url, mqtt__qos=1,
        mqtt__mirror='["forecasts", "features", "accuracy", "drift", "health", "alerts"]',
    )  # fmt: skip
    bus, heard = MemoryBus(SystemClock()), dict[str, list[bytes]]()
    async with aiomqtt.Client(HOST, mosquitto.port, username=USER, password=PASSWORD) as client:
        await client.subscribe("tickcast/#", qos=1)
        async with alive(Daemon(settings, MirroredBus(EmbeddedBus(bus), settings), clock=SystemClock())):
            await bus.produce(settings.topics.ticks[0], values(ticks(60)))
            await hear(client, heard, names={*TOPIC_MEANING, "status"} - {"dlq", "shadow"})
        while b"offline" not in heard["status"][-1]:
            await hear(client, heard, names={"status"})
    assert [record["state"] for record in valid("status", heard["status"])] == ["online", "offline"]
    assert all(valid(name, messages) for name, messages in heard.items())


async def hear(client: aiomqtt.Client, heard: dict[str, list[bytes]], *, names: set[str]) -> None:
    """At least one more message, and on until each of the names was heard."""
    async with asyncio.timeout(WAIT_S):
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            heard.setdefault(message.topic.value.split("/")[1], []).append(message.payload)
            if names <= heard.keys():
                return


def test_the_page_has_a_section_and_a_valid_example_for_every_topic_and_the_status() -> None:
    assert list(EXAMPLES) == [*TOPIC_MEANING, "status"]
    assert not {name: found for name, example in EXAMPLES.items() if (found := problems(name, example))}


def same(found: Any, shown: Any) -> bool:
    """Equal, but for what another processor may round otherwise."""
    if isinstance(shown, Mapping):
        return found.keys() == shown.keys() and all(same(found[key], shown[key]) for key in shown)
    if isinstance(shown, list):
        return len(found) == len(shown) and all(map(same, found, shown))
    return bool(found == pytest.approx(shown, rel=1e-6) if isinstance(shown, float) else found == shown)


OF_THE_CLOCK = {
    "forecasts": {"produced_ns", "age_ms"}, "shadow": {"produced_ns", "age_ms"}, "features": set(), "accuracy": set(),
    "drift": set(),
    "health": {
        "instance", "state", "uptime_s", "turns", "batch_mean", "loop_lag_ms", "loop_lag_life_ms", "latency_ms",
        "latency_life_ms", "store_units_behind", "rss_bytes", "produced_ns",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", OF_THE_CLOCK)
async def test_the_examples_are_messages_of_a_real_run(tmp_path: Path, name: str) -> None:
    """The daemon that the page names is asked again: all that does not hang on the clock is found again."""
    seconds = 60 if name in ("drift", "accuracy") else 20  # they count in blocks
    found = valid(name, (await published(page_settings(tmp_path), values(ticks(seconds)) + BAD))[name])

    def lasting(record: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in record.items() if key not in OF_THE_CLOCK[name]}

    assert list(found[-1]) == list(EXAMPLES[name])
    assert any(same(lasting(record), lasting(EXAMPLES[name])) for record in found), json.dumps(found[-1])


def page_settings(folder: Path) -> Settings:
    """The settings that the page names beside its examples."""
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    pairs, section = {}, ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line:
            key, _, value = line.partition(" = ")
            pairs[f"{section}__{key}"] = value
    return live_settings(folder, **pairs)
