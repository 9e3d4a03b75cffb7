"""A retained message that the process dies over comes again at each start: it is known by its bytes, and set aside."""

import asyncio
import signal
import sys
from pathlib import Path

import aiomqtt
import duckdb
import msgspec
import pytest
from chaoskit import HERE, Daemon
from test_fatal import ends

from kafkakit import toml
from mosquittokit import Mosquitto
from netkit import HOST
from tickcast.io.mqtt.source import AT_ONCE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
SURVIVED = [sys.executable, HERE / "deadly.py"]
LIMIT_S, RETAINED = 60, AT_ONCE + 200
T0 = 1_700_000_000 * 10**9
DEADLY = b'{"symbol":"S0", deadly kill'


def tick(symbol: str, n: int) -> bytes:
    return b'{"symbol":"%s","ts":%d,"price":%d,"size":1}' % (symbol.encode(), T0 + n * 10**9, 100 + n % 3)


async def publish(broker: Mosquitto, messages: dict[str, bytes], *, retain: bool) -> None:
    async with asyncio.timeout(LIMIT_S), aiomqtt.Client(HOST, broker.port) as client:
        for topic, message in messages.items():
            await client.publish(topic, message, retain=retain)


async def answered(broker: Mosquitto) -> str:
    """The symbol of a forecast that ticks of now bring."""
    async with asyncio.timeout(LIMIT_S), aiomqtt.Client(HOST, broker.port) as client:
        await client.subscribe("tickcast/forecasts/LIVE")
        for n in range(10, 20):
            await client.publish("feed/live", tick("LIVE", n))
        message = await anext(client.messages)
    return str(msgspec.json.decode(bytes(message.payload))["symbol"])


def test_a_retained_message_that_kills_at_each_start_is_set_aside(mosquitto: Mosquitto, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(toml({
        "bus.kind": "mqtt", "mqtt.url": mosquitto.url, "mqtt.ticks": ["feed/#"], "mqtt.mirror": ["forecasts"],
        "bars.kind": "tick", "quality.future_ms": 0, "store.path": str(tmp_path / "store.duckdb"),
        "runtime.folder": str(tmp_path / "run"), "log.format": "json",
    }))  # fmt: skip
    retained = {f"feed/{n:04}": tick(f"S{n}", 0) for n in range(RETAINED)} | {f"feed/{RETAINED - 5:04}": DEADLY}
    asyncio.run(publish(mosquitto, retained, retain=True))
    for life in range(2):  # the second begins with what the first left, and the message comes once more
        daemon = Daemon([*SURVIVED, "run", "--config", config], tmp_path / f"log-{life}")
        daemon.wait_for("daemon_started", limit_s=LIMIT_S)
        if not life:
            daemon.wait_for("message_set_aside", limit_s=LIMIT_S)
        assert asyncio.run(answered(mosquitto)) == "LIVE"
        assert daemon.drain() == 0, daemon.log()[-4000:]
        *deaths, last = ends(daemon)
        assert (set(deaths), last) == (set() if life else {-signal.SIGKILL}, 0)
        assert len(deaths) <= 3  # two alone, and one among others unless it came alone at once
    with duckdb.connect(str(tmp_path / "store.duckdb"), read_only=True) as store:
        assert (
            store.execute("SELECT value, reason, stage FROM dead_letters").fetchall()
            == [(DEADLY, "fatal", "engine")] * 2
        )
        assert store.execute("SELECT count(DISTINCT symbol) FROM bars").fetchall() == [(RETAINED,)]
