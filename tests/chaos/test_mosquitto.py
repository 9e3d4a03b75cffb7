"""The MQTT broker dies while forecasts are mirrored to it: Kafka goes on, and the mirror comes back."""

import asyncio

import aiomqtt
import msgspec
import pytest
from chaoskit import Deployment, Supervisor, seed_of
from feeder import Feeder, tape
from ledger import assert_promises_kept

from mosquittokit import Mosquitto
from netkit import HOST
from tickcast.errors import EXIT_OK

pytestmark = pytest.mark.timeout(240)
LIMIT_S = 60


def next_offset_mirrored(mosquitto: Mosquitto) -> int:
    """Of the tick that the next mirrored forecast answers."""

    async def listen() -> int:
        async with asyncio.timeout(LIMIT_S), aiomqtt.Client(HOST, mosquitto.port) as client:
            await client.subscribe("tickcast/forecasts/#")
            message = await anext(client.messages)
        return int(msgspec.json.decode(bytes(message.payload))["source"]["offset"])

    return asyncio.run(listen())


def test_kafka_goes_on_while_mosquitto_is_dead_and_the_mirror_comes_back(kafka, mosquitto, tmp_path):
    deployment = Deployment(kafka, tmp_path / "daemon", mqtt__url=mosquitto.url, mqtt__mirror=["forecasts"])
    messages = tape(seed_of("mosquitto"), partitions=4)
    with Feeder(kafka.bootstrap, deployment.ticks, messages) as feeder, Supervisor(deployment) as supervisor:
        before = next_offset_mirrored(mosquitto)
        mosquitto.kill()
        supervisor.wait_for(lambda daemon: daemon.has_logged("mqtt_away"), "the loss to be noticed")
        ends = deployment.ends()
        supervisor.wait_for(
            lambda _: all(deployment.committed()[p] > end for p, end in ends.items()), "commits without mosquitto"
        )
        mosquitto.restart()
        assert next_offset_mirrored(mosquitto) > before
        supervisor.end(feeder)
    assert supervisor.exits == [EXIT_OK]
    assert_promises_kept(deployment)
