"""The topics of a deployment, for commands that a person typed: a short wait, said on the terminal. It moves no record.

`tickcast topics` lists what there is and what is missing, and makes it; `tickcast check` looks at it.
"""

import asyncio

from tickcast.errors import BadSettings, BrokerAway
from tickcast.io.kafka import client, topics
from tickcast.io.kafka.by_hand import MAX_WAIT_S, say_waiting, silent_client
from tickcast.io.kafka.topics import Topic
from tickcast.live.buses.kafka_topics import wanted
from tickcast.settings import Settings

CHECK_S = 5  # that `check` gives a broker in all


async def list_topics(settings: Settings, *, create: bool) -> bool:
    """Print the topics that the settings need; returns whether all are there at the end."""
    if settings.bus.kind != "kafka":
        raise BadSettings(
            f"bus.kind is '{settings.bus.kind}', which has no topics to be made", remedy="set bus.kind = 'kafka'"
        )
    with silent_client():
        await client.reach(settings.kafka, max_wait_s=MAX_WAIT_S, waiting=say_waiting)
        needed = wanted(settings)
        counts = await topics.found(settings.kafka, needed)
        missing = [topic for topic in needed if counts[topic.name] is None]
        if create and missing:
            await topics.create(settings.kafka, missing)
    for topic in needed:
        print(f"{topic.name:40} {_said(counts[topic.name], topic, made=create)}")
    if missing and not create:
        print(f"{len(missing)} missing: `tickcast topics --create`, with the same settings, makes them")
    return create or not missing


def _said(count: int | None, topic: Topic, *, made: bool) -> str:
    if count is not None:
        return _partitions(count)
    compacted = ", compacted" if topic.compacted else ""
    return f"made, {_partitions(topic.partitions)}{compacted}" if made else f"missing ({topic.setting})"


def _partitions(count: int) -> str:
    return f"{count} partition{'' if count == 1 else 's'}"


async def check_broker(settings: Settings) -> bool:
    """Whether the broker answers soon and has all topics, said in a line."""
    where, needed = settings.kafka.bootstrap_servers, wanted(settings)
    try:
        with silent_client():
            async with asyncio.timeout(CHECK_S):
                await client.reach(settings.kafka, max_wait_s=1, waiting=lambda *_: None)
                counts = await topics.found(settings.kafka, needed)
    except (TimeoutError, BrokerAway) as away:
        problem = str(away) or f"none answers within {CHECK_S} s"
        print(f"broker {where}: {problem}; `--offline` leaves it out")
        return False
    if missing := [topic.name for topic in needed if counts[topic.name] is None]:
        print(f"broker {where}: missing {', '.join(missing)}; `tickcast topics --create` makes them")
        return False
    print(f"broker {where}: all {len(needed)} topics are there")
    return True
