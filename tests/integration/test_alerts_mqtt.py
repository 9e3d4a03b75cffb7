"""On a real mosquitto: open alerts are retained, those that ended are not, whatever the connection does meanwhile."""

import asyncio
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import pytest
from test_alerts import BAD, SMALL, ticks
from test_mqtt import at_work, mirror_settings

from livekit import WAIT_S, alive, live_settings, until
from mosquittokit import Mosquitto
from netkit import HOST
from schemakit import problems
from tickcast.clock import SystemClock
from tickcast.io.memory_bus import MemoryBus
from tickcast.io.mqtt.client import MqttMirror
from tickcast.live.buses.memory import EmbeddedBus
from tickcast.live.buses.mqtt import MirroredBus
from tickcast.live.daemon import Daemon

FLAG = "end/of/retained"


async def retained(port: int) -> dict[str, bytes]:
    """What a latecomer is told at once."""
    async with aiomqtt.Client(HOST, port) as client:
        await client.subscribe("tickcast/alerts/#", qos=1)
        await client.subscribe(FLAG, qos=1)
        await client.publish(FLAG, b"", qos=1)  # comes after all that is retained
        found: dict[str, bytes] = {}
        async with asyncio.timeout(WAIT_S):
            async for message in client.messages:
                if message.topic.value == FLAG:
                    return found
                assert isinstance(message.payload, bytes)
                found[message.topic.value] = message.payload
    raise AssertionError("the connection broke")


async def test_the_last_record_of_each_subject_is_kept_and_an_empty_one_takes_it_away(mosquitto: Mosquitto) -> None:
    settings = mirror_settings(mosquitto.url, mirror=["alerts"], qos=0)
    async with at_work(mirror := MqttMirror(settings, SystemClock())):
        for n in range(300):
            mirror.retain("disk_low", f"a/+#{n % 3}", b"%d" % n)
            if n % 50 == 0:
                await asyncio.sleep(0.001)
        mirror.retain("disk_low", "gone", b"x")
        mirror.retain("disk_low", "gone", b"")
        mirror.offer_records("alerts", [b"no copy of the topic"])
        await until(lambda: not mirror.waiting, "all to be sent")
    kept = {f"tickcast/alerts/disk_low/a%2F%2B%23{n}": b"%d" % (297 + n) for n in range(3)}
    assert await retained(mosquitto.port) == kept
    assert mirror.dropped == 0
    async with at_work(mirror := MqttMirror(mirror_settings(mosquitto.url), SystemClock())):  # which mirrors no alerts
        mirror.retain("disk_low", "a/+#0", b"")
        assert not mirror.waiting
    assert await retained(mosquitto.port) == kept


class Connection:
    """Takes what is published and confirms it, or never does."""

    def __init__(self, *, confirms: bool) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self._confirms = confirms

    async def publish(self, topic: str, payload: bytes, **_: Any) -> None:
        self.sent.append((topic, payload))
        if not self._confirms and topic != "tickcast/status":
            await asyncio.Event().wait()


async def test_what_was_on_its_way_when_a_connection_broke_does_not_come_after_what_followed_it() -> None:
    mirror = MqttMirror(mirror_settings("mqtt://127.0.0.1:1", mirror=["alerts"]), SystemClock())
    first, second = Connection(confirms=False), Connection(confirms=True)
    for connection, awaited in ((first, 3), (second, 2)):
        talking = asyncio.create_task(mirror._talk(connection))  # type: ignore[arg-type]
        if connection is first:
            mirror.retain("disk_low", "store", b"old")
            await until(lambda: len(first.sent) == 2, "the old one to be on its way")
            mirror.retain("disk_low", "store", b"new")
        await until(lambda c=connection, n=awaited: len(c.sent) >= n, "the records")  # type: ignore[misc]
        mirror.link.is_up = False
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
    topic = "tickcast/alerts/disk_low/store"
    assert [payload for name, payload in first.sent if name == topic] == [b"old", b"new"]
    assert [payload for name, payload in second.sent if name == topic] == [b"new"]


@pytest.mark.slow
async def test_after_the_broker_was_away_it_is_told_the_newest_and_nothing_older_comes_after_that(
    mosquitto: Mosquitto,
) -> None:
    settings = mirror_settings(mosquitto.url, mirror=["alerts", "health"], qos=1, queue_messages=50)
    async with at_work(mirror := MqttMirror(settings, SystemClock())):
        await until(lambda: mirror.link.is_up, "a connection")
        mosquitto.kill()
        for n in range(200):  # some of them are on their way while it breaks
            mirror.retain("disk_low", "store", b"%d" % n)
            mirror.offer_records("health", [b"%d" % n])
            await asyncio.sleep(0)
        await until(lambda: mirror.link.away_s() > 0.5, "it to be noticed")
        mirror.retain("disk_low", "jobs", b"open")
        mirror.retain("disk_low", "store", b"the newest")
        mosquitto.restart()
        await until(lambda: mirror.link.is_up and not mirror.waiting, "all to be sent")
        assert mirror.link.away_s() == 0
    assert await retained(mosquitto.port) == {
        "tickcast/alerts/disk_low/store": b"the newest", "tickcast/alerts/disk_low/jobs": b"open",
    }  # fmt: skip


@pytest.mark.slow
async def test_a_daemon_retains_what_is_open_shows_it_again_after_a_restart_and_takes_it_away(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    more: dict[str, Any] = {"mqtt__url": mosquitto.url, "mqtt__mirror": '["alerts"]'}
    topic = "tickcast/alerts/ticks_refused/malformed"

    async def is_kept() -> bool:
        return topic in await retained(mosquitto.port)

    async def is_gone() -> bool:
        return topic not in await retained(mosquitto.port)

    for quiet_s in (3600, 3600, 0):
        settings = live_settings(tmp_path, **SMALL | more | {"alerts__quiet_s": quiet_s})
        bus = MemoryBus(SystemClock())
        async with alive(Daemon(settings, MirroredBus(EmbeddedBus(bus), settings), clock=SystemClock())):
            if quiet_s:
                await bus.produce("tickcast.ticks", ticks(0, 20) + BAD)
                await until(is_kept, "the retained record")
                record = msgspec.json.decode((await retained(mosquitto.port))[topic])
                assert not [*problems("alerts", record)]
            else:
                await until(is_gone, "it to be taken away")
        if quiet_s:
            assert await is_kept()  # nobody has ended it
            mosquitto.restart()  # which forgets all
            assert await is_gone()
