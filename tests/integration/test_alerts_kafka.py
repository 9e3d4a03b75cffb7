"""Alerts over a real Kafka: what its topic says across restarts, and while the broker is away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from test_alerts import BAD, SMALL, ticks

from brokerkit import KafkaBroker, unique
from livekit import WAIT_S, alive, live_settings, until
from schemakit import valid
from tickcast.clock import SystemClock
from tickcast.live.buses.kafka import KafkaBus
from tickcast.live.daemon import Daemon
from tickcast.loop import alert_rules
from tickcast.topics import OWN_TOPICS

Told = tuple[str, str, str]


class Deployment:
    def __init__(self, broker: KafkaBroker, folder: Path) -> None:
        self._broker, self._folder = broker, folder
        self.prefix = unique("alerts") + "."
        for name in ("ticks", *(topic.name for topic in OWN_TOPICS.values() if not topic.of_commands)):
            broker.create_topic(self.prefix + name, 1)

    @asynccontextmanager
    async def running(self, **more: object) -> AsyncIterator[Daemon]:
        given: dict[str, Any] = {
            "bus__kind": "kafka", "kafka__bootstrap_servers": self._broker.bootstrap, "kafka__group": self.prefix[:-1],
            "topics__prefix": self.prefix, "topics__ticks": f'["{self.prefix}ticks"]', "bars__kind": "tick",
        }  # fmt: skip
        settings = live_settings(self._folder, **SMALL | given | more)
        async with alive(Daemon(settings, KafkaBus(settings), clock=SystemClock())) as daemon:
            yield daemon

    async def send(self, messages: list[bytes]) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self._broker.bootstrap) as producer:
            for message in messages:
                await producer.send(self.prefix + "ticks", message, key=b"A")

    async def told(self) -> list[Told]:
        """All that is in the topic."""
        async with AIOKafkaConsumer(
            self.prefix + "alerts", bootstrap_servers=self._broker.bootstrap, auto_offset_reset="earliest"
        ) as consumer:
            records: list[bytes] = []
            async with asyncio.timeout(WAIT_S):
                ends = await consumer.end_offsets(consumer.assignment())
                while any([await consumer.position(partition) < end for partition, end in ends.items()]):
                    for got in (await consumer.getmany(timeout_ms=200)).values():
                        records += [record.value for record in got]
        decoded = valid("alerts", records)
        assert {record["raised_by"] for record in decoded} <= {f"{self.prefix[:-1]}/0"}
        return [(record["name"], record["subject"], record["event"]) for record in decoded]


def is_open(daemon: Daemon, name: str, *, wanted: bool = True) -> Any:
    return lambda: (name in daemon.health().alerts) == wanted


@pytest.mark.slow
async def test_over_restarts_the_topic_has_one_story_of_each_subject(kafka: KafkaBroker, tmp_path: Path) -> None:
    place = Deployment(kafka, tmp_path)
    source = place.prefix + "ticks/0"
    async with place.running(alerts__quiet_s=3600, alerts__silent_s=1) as daemon:
        await place.send(ticks(0, 20) + BAD)
        await until(is_open(daemon, "ticks_refused"), "the alert")
        await until(is_open(daemon, "source_silent"), "silence")
    first = [("ticks_refused", "malformed", "raised"), ("source_silent", source, "raised")]
    assert [told for told in await place.told() if told[1] != "all partitions"] == first
    async with place.running(alerts__quiet_s=0, alerts__silent_s=3600) as daemon:
        await until(is_open(daemon, "ticks_refused", wanted=False), "the end of what is over")
        passes = daemon.session.pump.passes
        await until(lambda: daemon.session.pump.passes > passes + 3, "some looks")
        assert is_open(daemon, "source_silent")()  # nothing came since, so it goes on
        await place.send(ticks(20, 5))
        await until(is_open(daemon, "source_silent", wanted=False), "the end of the silence")
    story = [*first, ("ticks_refused", "malformed", "ended"), ("source_silent", source, "ended")]
    assert [told for told in await place.told() if told[1] != "all partitions"] == story


@pytest.mark.slow
async def test_what_began_while_the_broker_was_away_is_in_the_topic_when_it_is_back(
    own_kafka: KafkaBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_rules, "AWAY_S", 0.5)
    place = Deployment(own_kafka, tmp_path)
    async with place.running() as daemon:
        await place.send(ticks(0, 20))
        await until(lambda: daemon.health().consumed == 20, "the ticks")
        own_kafka.pause()
        try:
            await until(is_open(daemon, "broker_away"), "the alert")
            assert daemon.health().alerts["broker_away"] == "error"
        finally:
            own_kafka.resume()
        await until(is_open(daemon, "broker_away", wanted=False), "its end")
    assert await place.told() == [("broker_away", "kafka", "raised"), ("broker_away", "kafka", "ended")]
