"""A deployment on a real broker for tests: its topics and settings, ticks that go in, what it has read and written.

It starts no daemon but in this process; `chaos/chaoskit.py` has those that are processes of their own.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin.new_partitions import NewPartitions
from aiokafka.errors import KafkaError

from brokerkit import KafkaCluster, unique
from kafkanode import ask
from livekit import WAIT_S, until
from tickcast.clock import SystemClock
from tickcast.live.daemon import Daemon
from tickcast.live.serve import bus_of
from tickcast.settings import Settings, load

OUTPUTS = ("forecasts", "dlq", "accuracy", "drift", "health", "alerts")
COMMANDS = ("control", "replies", "jobs")


class Message(NamedTuple):
    partition: int
    key: bytes | None
    value: bytes | None


class Deployment:
    """A group over a topic of ticks, with topics of its own for what comes of them and a folder that it leaves
    everything in. `settings` are further ones, `section__key` for `section.key`.
    """

    def __init__(
        self, broker: KafkaCluster, folder: Path, *, partitions: int = 4, ticks: str = "", listener: str = "PLAINTEXT",
        outputs: Iterable[str] = OUTPUTS, **settings: object,
    ) -> None:  # fmt: skip
        self.broker, self.folder, self.partitions = broker, folder, partitions
        self.group = unique("group")
        self.prefix = f"{self.group}."
        self.ticks = ticks or broker.create_topic(unique("ticks"), partitions)
        broker.create_topics(*(self.prefix + name for name in outputs), partitions=partitions)
        self._partitions_of_outputs = partitions
        folder.mkdir(parents=True, exist_ok=True)
        self.settings: dict[str, Any] = {
            "bus.kind": "kafka", "topics.ticks": [self.ticks], "topics.prefix": self.prefix,
            "kafka.bootstrap_servers": broker.address(listener), "kafka.group": self.group, "quality.future_ms": 0,
            "store.path": str(folder / "store.duckdb"), "runtime.folder": str(folder / "run"),
        } | dotted(settings)  # fmt: skip

    @property
    def store(self) -> Path:
        return Path(self.settings["store.path"])

    def loaded(self, **more: object) -> Settings:
        """What a daemon is given."""
        return load(overrides=text_of(self.settings | dotted(more)), environ={})[0]

    def flags(self, **more: object) -> list[str]:
        """The same for a command."""
        given = text_of(self.settings | dotted(more))
        return [part for key, value in given.items() for part in ("--set", f"{key}={value}")]

    def daemon(self, **more: object) -> Daemon:
        settings = self.loaded(**more)
        return Daemon(settings, bus_of(settings, SystemClock()))

    async def send(self, messages: Iterable[Message]) -> list[int]:
        """Returns their offsets."""
        async with self.sending() as send:
            return await send(messages)

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[Callable[[Iterable[Message]], Awaitable[list[int]]]]:
        async with AIOKafkaProducer(bootstrap_servers=self.broker.bootstrap, acks="all") as producer:

            async def send(messages: Iterable[Message]) -> list[int]:
                coming = [
                    await producer.send(self.ticks, value, key=key, partition=partition)
                    for partition, key, value in messages
                ]
                return [record.offset for record in await asyncio.gather(*coming)]

            yield send

    def committed(self) -> dict[int, int]:
        async def positions(admin: Any) -> dict[int, int]:
            found = await admin.list_consumer_group_offsets(self.group)
            return {at.partition: meta.offset for at, meta in found.items() if at.topic == self.ticks}

        return ask(self.broker.bootstrap, positions)

    def ends(self) -> dict[int, int]:
        return ask(self.broker.bootstrap, lambda admin: admin.ends(self.ticks, self.partitions))

    def is_caught_up(self) -> bool:
        """All that the topic holds has been committed; a broker that cannot tell leaves it open."""
        try:
            ends, committed = self.ends(), self.committed()
        except (KafkaError, TimeoutError, OSError):
            return False
        return all(committed.get(partition, 0) >= end for partition, end in ends.items())

    def grow(self, partitions: int) -> None:
        """The topic of ticks."""
        ask(self.broker.bootstrap, lambda admin: admin.create_partitions({self.ticks: NewPartitions(partitions)}))
        self.partitions = partitions

    async def caught_up(self) -> None:
        """While a daemon of this process goes on."""
        await until(lambda: asyncio.to_thread(self.is_caught_up), "all ticks to be committed")

    async def read(self, output: str, *, isolation: str = "read_committed") -> list[ConsumerRecord]:
        """All that one of its topics holds."""
        return await read(self.broker, self.prefix + output, self._partitions_of_outputs, isolation=isolation)

    async def forecasts(self) -> list[dict[str, Any]]:
        return [json.loads(record.value) for record in await self.read("forecasts")]


async def read(
    broker: KafkaCluster, topic: str, partitions: int, *, isolation: str = "read_committed"
) -> list[ConsumerRecord]:
    """All that the topic holds, partition by partition."""
    records: list[ConsumerRecord] = []
    async with (
        asyncio.timeout(WAIT_S),
        AIOKafkaConsumer(
            bootstrap_servers=broker.bootstrap, isolation_level=isolation, auto_offset_reset="earliest"
        ) as reader,
    ):
        places = [TopicPartition(topic, number) for number in range(partitions)]
        reader.assign(places)
        ends: Mapping[TopicPartition, int] = await reader.end_offsets(places)
        while [at for at in places if await reader.position(at) < ends[at]]:
            for found in (await reader.getmany(timeout_ms=100)).values():
                records += found
    return sorted(records, key=lambda record: (record.partition, record.offset))


def dotted(settings: Mapping[str, object]) -> dict[str, Any]:
    return {key.replace("__", "."): value for key, value in settings.items()}


def text_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """As a person gives them; what is text is taken as it is."""
    return {key: str(value) if isinstance(value, str | Path) else as_toml(value) for key, value in settings.items()}


def toml(settings: Mapping[str, Any]) -> str:
    sections: dict[str, list[str]] = {}
    for key, value in settings.items():
        section, name = key.rsplit(".", 1)
        sections.setdefault(section, []).append(f"{name} = {as_toml(value)}")
    return "".join(f"[{section}]\n" + "\n".join(lines) + "\n" for section, lines in sections.items())


def as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {as_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return json.dumps(str(value) if isinstance(value, Path) else value)
