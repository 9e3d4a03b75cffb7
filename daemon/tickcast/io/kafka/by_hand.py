"""Kafka for commands that a person typed: a short wait, said on the terminal; the client logs nothing."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tickcast.io.kafka import client, topics
from tickcast.io.kafka.topics import Topic
from tickcast.settings.buses import KafkaSettings

MAX_WAIT_S = 10  # for a broker that was started a moment ago


async def count_partitions(settings: KafkaSettings, topic: str, *, named_by: str) -> int:
    """`named_by` is the setting or the argument that names the topic."""
    await client.reach(settings, max_wait_s=MAX_WAIT_S, waiting=say_waiting)
    counts = await topics.partitions_of(settings, [Topic(topic, named_by)])
    return counts[topic]


@contextmanager
def silent_client() -> Iterator[None]:
    """While a broker is away the client's own log repeats many times a second what a command says once."""
    log = logging.getLogger("aiokafka")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def say_waiting(problem: str, pause_s: float) -> None:
    print(f"{problem}; again in {pause_s:.1f} s", file=sys.stderr)
