"""Sends one message and reads what another topic gets from that moment on: how a command is asked and answered."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from tickcast.errors import BrokerAway
from tickcast.io.kafka import client
from tickcast.io.kafka.control import control_group
from tickcast.settings.buses import KafkaSettings

LOOK_MS = 200


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
    try:
        async with _from_now_on(settings, answers, partitions) as reader:  # before there can be an answer
            place = await _produce(settings, question)
            try:
                async with asyncio.timeout(timeout_s):
                    await _read(reader, more)
            except TimeoutError:
                pass  # the caller knows what is missing
    except client.FAILURES as error:
        if isinstance(error, client.NO_RIGHTS):
            raise client.in_our_words(error, f"writing to {question.topic} and reading {answers}") from None
        raise BrokerAway(f"the broker did not take it: {error!r}", remedy="it may have arrived") from None
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


async def _read(reader: AIOKafkaConsumer, more: Callable[[bytes], bool]) -> None:
    while True:
        for records in (await reader.getmany(timeout_ms=LOOK_MS)).values():
            for record in records:
                if record.value is not None and not more(record.value):
                    return


@asynccontextmanager
async def _from_now_on(settings: KafkaSettings, topic: str, partitions: int) -> AsyncIterator[AIOKafkaConsumer]:
    reader = client.consumer(settings)
    wanted = [TopicPartition(topic, number) for number in range(partitions)]
    try:
        async with asyncio.timeout(settings.call_timeout_s):
            await reader.start()
            reader.assign(wanted)
            for at, end in (await reader.end_offsets(wanted)).items():
                reader.seek(at, end)
        yield reader
    finally:
        await client.stop_consumer(reader)


async def _produce(settings: KafkaSettings, question: Question) -> MessagePlace:
    producer = client.producer(settings)
    try:
        async with asyncio.timeout(settings.call_timeout_s):
            await producer.start()
            record = await producer.send_and_wait(question.topic, question.message, key=question.key)
            return MessagePlace(question.topic, record.partition, record.offset)
    finally:
        await client.stop(producer.stop())
