"""Sends one message and reads what another topic gets from that moment on: how a command is asked and answered."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from tickcast.io.kafka import client
from tickcast.io.kafka.consumer import Consumer
from tickcast.io.kafka.control import control_group
from tickcast.settings.buses import KafkaSettings

LOOK_S = 0.2


class Question(NamedTuple):
    topic: str
    key: bytes
    message: bytes


class MessagePlace(NamedTuple):
    """Where a message lies."""

    topic: str
    partition: int
    offset: int


async def exchange(
    settings: KafkaSettings,
    question: Question,
    answers: str,
    partitions: int,
    *,
    timeout_s: float,
    more: Callable[[bytes], bool],
) -> MessagePlace:
    """`more` takes each answer and says whether to wait for another; none is waited for beyond `timeout_s`. Returns
    where the question lies.
    """
    async with Consumer.open(settings, [(answers, number) for number in range(partitions)]) as consumer:
        ends = await consumer.bounds()  # before there can be an answer
        consumer.seek({source: held.high for source, held in ends.items()})
        place = await _produce(settings, question)
        with suppress(TimeoutError):  # the caller knows what is missing
            async with asyncio.timeout(timeout_s):
                await _read(consumer, more)
    return place


async def was_read(settings: KafkaSettings, place: MessagePlace) -> bool | None:
    """Whether the slot of these settings has read that message of its commands; None where none of that name ever read
    any, or notes how far it is.
    """
    group = control_group(settings)
    if group is None:
        return None
    source = (place.topic, place.partition)
    found = await client.committed(settings.model_copy(update={"group": group}), [source])
    return found[source].offset > place.offset if source in found else None


async def _read(consumer: Consumer, more: Callable[[bytes], bool]) -> None:
    while True:
        for records in (await consumer.fetch(LOOK_S)).values():
            for record in records:
                if record.value is not None and not more(record.value):
                    return


async def _produce(settings: KafkaSettings, question: Question) -> MessagePlace:
    async with client.producing(settings, f"writing to {question.topic}", remedy="it may have arrived") as producer:
        async with asyncio.timeout(settings.call_timeout_s):
            record = await producer.send_and_wait(question.topic, question.message, key=question.key)
        return MessagePlace(question.topic, record.partition, record.offset)
