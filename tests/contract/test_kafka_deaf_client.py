"""A client whose fetching died of an error that it only logs, as a cut connection can do to it, is replaced at once."""

import asyncio

import pytest
from aiokafka import AIOKafkaProducer
from structlog.testing import capture_logs

from brokerkit import KafkaBroker, unique
from tickcast.errors import BrokerAway, NoProgress, TransactionLost
from tickcast.io.kafka.consumer import Consumer
from tickcast.io.kafka.control import ControlReader
from tickcast.io.kafka.delivery import Delivery
from tickcast.io.kafka.group import Membership
from tickcast.io.kafka.reader import MOST_REBUILDS, KafkaReader
from tickcast.settings.buses import KafkaSettings

LIMIT_S = 60


def cut(consumer: Consumer | None) -> None:
    """What uvloop raises for a write on a connection that it has closed meanwhile."""

    async def send(*_: object, **__: object) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    assert consumer is not None
    consumer.client._client.send = send


async def produce(kafka: KafkaBroker, topic: str, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all")
    await producer.start()
    try:
        await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def test_ticks_are_read_on(kafka: KafkaBroker) -> None:
    settings, topic = KafkaSettings(bootstrap_servers=kafka.bootstrap), kafka.create_topic(unique("deaf"), 1)
    async with asyncio.timeout(LIMIT_S), KafkaReader.open(settings, [(topic, 0)]) as reader:
        reader.begin({(topic, 0): 0})
        await produce(kafka, topic, b"1")
        while reader.position[topic, 0] < 1:
            await reader.fetch(0.2)
        deaf = reader._consumer
        cut(deaf)
        await produce(kafka, topic, b"2")
        with capture_logs() as log:
            while reader.position[topic, 0] < 2:
                await reader.fetch(0.2)
        assert [entry["is_deaf"] for entry in log if entry["event"] == "client_rebuilt"] == [True]
        assert (reader.replaced, reader.rebuilds) == (1, 0)
        assert all(not conn.connected() for conn in deaf.client._client._conns.values())


async def test_one_that_never_hears_anything_is_given_up(kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, topic = KafkaSettings(bootstrap_servers=kafka.bootstrap), kafka.create_topic(unique("deaf"), 1)
    monkeypatch.setattr(Consumer, "_is_deaf", lambda _: True)
    async with asyncio.timeout(LIMIT_S), KafkaReader.open(settings, [(topic, 0)]) as reader:
        reader.begin({(topic, 0): 0})
        for _ in range(MOST_REBUILDS):
            await reader.fetch(0.1)
        with pytest.raises(NoProgress):
            await reader.fetch(0.1)


async def test_commands_are_heard_on(kafka: KafkaBroker) -> None:
    settings, topic = KafkaSettings(bootstrap_servers=kafka.bootstrap), kafka.create_topic(unique("deaf"), 1)
    async with asyncio.timeout(LIMIT_S), ControlReader.open(settings, topic) as reader:
        messages = reader.messages()
        await produce(kafka, topic, b"1")
        assert (await anext(messages)).raw == b"1"
        cut(reader._consumer)
        coming = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(1)
        await produce(kafka, topic, b"2")
        assert (await coming).raw == b"2"
        await messages.aclose()


async def test_the_commit_of_a_member_is_lost_and_said_in_our_words(kafka: KafkaBroker) -> None:
    topic = kafka.create_topic(unique("deaf"), 1)
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap, group=unique("group"), assignment="group")
    member = await Membership.join(settings, [topic], give_back_s=5, max_away_s=LIMIT_S)
    try:
        async with (
            asyncio.timeout(LIMIT_S),
            Delivery.open(settings, max_away_s=LIMIT_S, commit_by=member.commit) as delivery,
        ):
            share = await member.next_share()
            share.take()
            share.give_back()
            cut(member._consumer)
            delivery.seal()
            with pytest.raises(TransactionLost, match=f"committing {topic}: .*TCPTransport"):
                await delivery.commit({(topic, 0): 1}, {(topic, 0): {}})
    finally:
        await member.leave()


async def test_a_question_about_offsets_is_answered_by_the_broker_being_away(kafka: KafkaBroker) -> None:
    settings, topic = KafkaSettings(bootstrap_servers=kafka.bootstrap), kafka.create_topic(unique("deaf"), 1)
    async with asyncio.timeout(LIMIT_S), KafkaReader.open(settings, [(topic, 0)]) as reader:
        cut(reader._consumer)
        with pytest.raises(BrokerAway, match="TCPTransport"):
            await reader.bounds()
