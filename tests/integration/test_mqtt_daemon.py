"""The daemon over a real mosquitto and nothing else: the edge profile."""

import asyncio
import contextlib
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiomqtt
import duckdb
import msgspec
import pytest

from livekit import WAIT_S, alive, live_settings
from mosquittokit import Mosquitto
from netkit import HOST
from tickcast.clock import SystemClock
from tickcast.errors import BadBroker, BrokerAway
from tickcast.live.buses.mqtt import MirroredBus, MqttBus
from tickcast.live.daemon import Daemon
from tickcast.settings import Settings

T0 = 1_700_000_000 * 10**9


def edge_settings(folder: Path, broker: Mosquitto, **overrides: object) -> Settings:
    chosen = '["forecasts", "features", "accuracy", "health"]'
    return live_settings(
        folder, bus__kind="mqtt", mqtt__url=broker.url, mqtt__mirror=chosen, mqtt__ticks='["feed/#"]', mqtt__qos=1,
        bars__kind="tick", score__publish_every_s=0.2, features__publish="true", window__lookback=8,
        forecast__horizon=2, **overrides,
    )  # fmt: skip


def edge(settings: Settings) -> AbstractAsyncContextManager[Daemon]:
    return alive(Daemon(settings, MirroredBus(MqttBus(settings), settings), clock=SystemClock()))


def tick(symbol: str, n: int) -> bytes:
    return b'{"symbol":"%s","ts":%d,"price":%.2f,"size":1}' % (symbol.encode(), T0 + n * 10**9, 100 + n % 3)


@pytest.mark.slow
async def test_ticks_come_and_forecasts_go_by_mqtt_alone(mosquitto: Mosquitto, tmp_path: Path) -> None:
    heard: dict[str, list[Any]] = {}
    async with aiomqtt.Client(HOST, mosquitto.port) as client, edge(edge_settings(tmp_path, mosquitto)):
        await client.subscribe("tickcast/#", qos=1)
        for n in range(30):
            for symbol in ("BTC/USD", "ETH"):
                await client.publish("feed/x", tick(symbol, n), qos=1)
        async with asyncio.timeout(WAIT_S):
            while len(heard.get("tickcast/forecasts/ETH", ())) < 25 or "tickcast/health" not in heard:
                message = await anext(client.messages)
                heard.setdefault(message.topic.value, []).append(msgspec.json.decode(bytes(message.payload)))  # type: ignore[arg-type]
    assert heard["tickcast/status"][0]["state"] == "online"
    forecast = heard["tickcast/forecasts/BTC%2FUSD"][-1]
    assert forecast["symbol"] == "BTC/USD"
    assert forecast["source"]["topic"] == "feed/#"
    assert {row["symbol"] for row in heard["tickcast/features/ETH"]} == {"ETH"}
    with duckdb.connect(str(tmp_path / "store.duckdb"), read_only=True) as store:
        stored = {row[0].hex for row in store.execute("SELECT id FROM forecasts").fetchall()}
        ((next_offset,),) = store.execute("SELECT next_offset FROM offsets").fetchall()
    assert {f["id"] for f in heard["tickcast/forecasts/ETH"]} <= stored
    assert next_offset == 60


@pytest.mark.slow
async def test_a_broker_that_dies_stops_nothing_and_ticks_go_on_when_it_is_back(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    async with edge(edge_settings(tmp_path, mosquitto)) as daemon:
        for round in range(2):
            async with asyncio.timeout(WAIT_S):
                while daemon.health().consumed < (round + 1) * 10:
                    with contextlib.suppress(aiomqtt.MqttError):
                        async with aiomqtt.Client(HOST, mosquitto.port) as client:
                            await client.publish("feed/x", tick("A", daemon.health().consumed), qos=1)
                    await asyncio.sleep(0.05)
            mosquitto.restart()
        assert daemon.state == "live"


async def test_a_password_that_the_broker_does_not_take_ends_the_start(
    secure_mosquitto: Mosquitto, tmp_path: Path
) -> None:
    (tmp_path / "word").write_text("wrong")
    settings = edge_settings(
        tmp_path, secure_mosquitto, mqtt__username="edge", mqtt__password_file=tmp_path / "word",
        mqtt__ca_file=secure_mosquitto.certificates.ca,
    )  # fmt: skip
    with pytest.raises(BadBroker, match=r"mqtt\.password_file"):
        async with edge(settings):
            pass


async def test_without_a_broker_the_daemon_gives_up_after_the_longest_wait(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    settings = edge_settings(tmp_path, mosquitto, runtime__max_wait_s=1)
    mosquitto.kill()
    daemon = Daemon(settings, MqttBus(settings), clock=SystemClock())
    with pytest.raises(BrokerAway, match=r"runtime\.max_wait_s"):
        async with asyncio.timeout(WAIT_S):
            await daemon.run()
