"""Which topics there are, with how many partitions, and making those that are missing. It moves no record."""

from collections.abc import Iterable
from typing import NamedTuple

from aiokafka import errors as kafka_errors
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tickcast.errors import BadBroker, BrokerAway
from tickcast.io.kafka import client
from tickcast.settings.buses import KafkaSettings

BROKERS_CHOICE = -1  # of replicas
LIMIT, UNKNOWN_BYTES = "max.message.bytes", (1 << 31) - 1
MISSING = kafka_errors.UnknownTopicOrPartitionError.errno
NO_RIGHT = kafka_errors.TopicAuthorizationFailedError.errno
EXISTS = kafka_errors.TopicAlreadyExistsError.errno


class Topic(NamedTuple):
    name: str
    setting: str  # or the argument, that names it
    partitions: int = 1  # that it is made with
    compacted: bool = False


async def found(settings: KafkaSettings, topics: Iterable[Topic]) -> dict[str, int | None]:
    """Partitions of each; None where there is no such topic."""
    named = {topic.name: topic for topic in topics}
    async with client.admin(settings) as admin:
        described = {topic["topic"]: topic for topic in await admin.describe_topics(list(named))}
    counts: dict[str, int | None] = {}
    for name, topic in named.items():
        code = described[name]["error_code"] if name in described else MISSING
        if code == NO_RIGHT:
            raise BadBroker(
                f"no right to the topic '{name}' of {topic.setting}", remedy="see the ACLs in docs/kafka.md"
            )
        if code and code != MISSING:
            raise BrokerAway(f"the topic '{name}' of {topic.setting}: {kafka_errors.for_code(code).__name__}")
        counts[name] = None if code else len(described[name]["partitions"])
    return counts


async def partitions_of(settings: KafkaSettings, topics: Iterable[Topic]) -> dict[str, int]:
    """Partitions of each topic; those that are missing are refused together, each with its setting."""
    wanted = list(topics)
    counts = await found(settings, wanted)
    missing = [f"'{topic.name}' of {topic.setting}" for topic in wanted if counts[topic.name] is None]
    if missing:
        what = "the topic" if len(missing) == 1 else f"{len(missing)} topics:"
        by_settings = all(topic.setting.startswith("topics.") for topic in wanted)
        raise BadBroker(
            f"{what} {', '.join(missing)} {'does' if len(missing) == 1 else 'do'} not exist",
            remedy="`tickcast topics --create`, with the same settings, makes what is missing" if by_settings else "",
        )
    return {name: count for name, count in counts.items() if count is not None}


async def most_bytes(settings: KafkaSettings, topics: Iterable[str]) -> int:
    """The largest batch that each of them takes; UNKNOWN_BYTES where we have no right to ask, or it is too old."""
    wanted = [ConfigResource(ConfigResourceType.TOPIC, name, {LIMIT: None}) for name in topics]
    async with client.admin(settings) as admin:
        try:
            answers = await admin.describe_configs(wanted)
        except (kafka_errors.UnsupportedVersionError, kafka_errors.IncompatibleBrokerVersion):
            return UNKNOWN_BYTES
    found = [
        entry for answer in answers for code, _, _, _, entries in answer.resources if not code for entry in entries
    ]
    return min([int(value) for name, value, *_ in found if name == LIMIT], default=UNKNOWN_BYTES)


async def create(settings: KafkaSettings, topics: Iterable[Topic]) -> None:
    """One that has come into being meanwhile is as good."""
    wanted = [
        NewTopic(
            topic.name, topic.partitions, settings.topic_replicas or BROKERS_CHOICE,
            replica_assignments=None if settings.topic_replicas else {},  # which the client wants to see beside -1
            topic_configs={"cleanup.policy": "compact"} if topic.compacted else {},
        )
        for topic in topics
    ]  # fmt: skip
    async with client.admin(settings) as admin:
        answer = await admin.create_topics(wanted)
    for name, code, *message in answer.topic_errors:
        if code and code != EXISTS:
            said = message[0] if message and message[0] else kafka_errors.for_code(code).__name__
            raise BadBroker(
                f"the topic '{name}' cannot be made: {said}",
                remedy="see kafka.topic_partitions and kafka.topic_replicas",
            )
