"""The delivery of commit units on a real broker: where it says that publishing failed, and whose producers it has."""

import asyncio

import pytest
from aiokafka.errors import MessageSizeTooLargeError, TopicAuthorizationFailedError

from brokerkit import unique
from kit import settings
from tickcast.errors import BadBroker, TransactionLost
from tickcast.io.kafka import client
from tickcast.io.kafka.delivery import Delivery, Parcel
from tickcast.io.kafka.publish import PlainBatch

LIMIT_S, AWAY_S, STAMP_MS = 60, 30, 1_790_000_000_000
MOST_BYTES = 1_000
HEADERS = [("reason", b"malformed")]


@pytest.fixture
def topic(kafka):
    return kafka.create_topic(unique("out"), 1, max_message_bytes=MOST_BYTES)


def settings_of(broker, **given):
    return settings(kafka__bootstrap_servers=broker.bootstrap, kafka__group=unique("delivery"), **given).kafka


def parcel(topic, size):
    return Parcel(topic, [PlainBatch([(b"key", bytes(size), HEADERS)], STAMP_MS)])


@pytest.mark.parametrize("mode", ["at_least_once", "exactly_once"])
async def test_what_fails_is_raised_when_its_unit_is_settled_and_by_nothing_before(kafka, topic, mode):
    given = settings_of(kafka, kafka__delivery=mode)
    async with Delivery.open(given, max_away_s=AWAY_S) as delivery, asyncio.timeout(LIMIT_S):
        delivery.post([parcel(topic, 2 * MOST_BYTES)])
        with pytest.raises(MessageSizeTooLargeError):
            await delivery._outbox.settle()  # so the client has told it
        delivery.post([parcel(topic, 10)])
        await delivery.room()
        delivery.seal()
        with pytest.raises(TransactionLost, match="publishing: .*MessageSizeTooLarge"):
            await delivery.settle()


async def test_a_transaction_that_fails_between_two_batches_is_told_by_its_cause(kafka, topic):
    given = settings_of(kafka, kafka__delivery="exactly_once")
    async with Delivery.open(given, max_away_s=AWAY_S) as delivery, asyncio.timeout(LIMIT_S):
        refused = TopicAuthorizationFailedError(topic)
        delivery._fence._txn_manager.error_transaction(refused)  # as the client does when the broker says so
        delivery.post([parcel(topic, 10)])  # which the client calls an operation outside of a transaction
        delivery.seal()
        delivery.post([parcel(topic, 10)])
        await delivery.room()
        with pytest.raises(BadBroker, match="publishing: .*TopicAuthorizationFailed"):
            await delivery.settle()


async def test_what_waited_for_a_transaction_to_close_fails_in_its_own_unit(kafka, topic):
    given = settings_of(kafka, kafka__delivery="exactly_once")
    async with Delivery.open(given, max_away_s=AWAY_S) as delivery, asyncio.timeout(LIMIT_S):
        delivery.post([parcel(topic, 10)])
        delivery.seal()
        delivery.post([parcel(topic, 2 * MOST_BYTES)])
        delivery.seal()
        await delivery.settle()
        await delivery.commit({(topic, 0): 1}, {(topic, 0): {}})
        with pytest.raises(TransactionLost, match="publishing"):
            await delivery.settle()
    assert (await client.committed(given, [(topic, 0)]))[topic, 0].offset == 1


async def test_a_member_of_a_group_takes_no_slot(kafka, topic):
    given, seen = settings_of(kafka, kafka__assignment="group"), []

    async def commit_by(offsets):
        seen.append(offsets)

    async with (
        Delivery.open(given.model_copy(update={"assignment": "static"}), max_away_s=AWAY_S) as slot,
        Delivery.open(given, max_away_s=AWAY_S, commit_by=commit_by) as member,
        asyncio.timeout(LIMIT_S),
    ):
        member.post([parcel(topic, 10)])
        member.seal()
        await member.settle()
        await member.commit({(topic, 0): 1}, {(topic, 0): {}})
        slot.seal()
        await slot.commit({(topic, 0): 5}, {(topic, 0): {}})  # it was not fenced
    assert len(seen) == 1
    assert (await client.committed(given, [(topic, 0)]))[topic, 0].offset == 5
