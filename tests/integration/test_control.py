"""Commands over a real broker: what reads the control topic, and what asks and waits for the replies."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import OffsetAndMetadata
from structlog.testing import capture_logs

from brokerkit import KafkaBroker, unique
from controlkit import KEYS, SECRET, SIGNERS, MemoryLedger, echo
from kafkakit import Deployment
from livekit import live_settings, until
from tickcast.clock import SystemClock
from tickcast.errors import EXIT_DIED, EXIT_OK, EXIT_UNFINISHED, BadBroker, BadRequest, BadSettings
from tickcast.io.control_messages import Message, from_memory
from tickcast.io.kafka import client
from tickcast.io.kafka.control import ControlReader, control_group
from tickcast.io.memory_bus import MemoryBus
from tickcast.live.commands.envelope import own_audience
from tickcast.live.commands.inbox import Context, Gate, Inbox
from tickcast.live.commands.keys import read_signer
from tickcast.records import Reply
from tickcast.settings import Settings
from tickcast.settings.service import ControlSettings
from tickcast.topics import CONTROL, REPLIES
from tickcast.ui.keygen import keygen
from tickcast.ui.send import Replies, SendRequest, make_args, print_replies, refuse_unknown_key, send

LIMIT_S = 60


def deployment(broker: KafkaBroker, folder: Path, *, partitions: int = 1, **overrides: object) -> Settings:
    return Deployment(broker, folder, partitions=partitions, outputs=(CONTROL, REPLIES), **overrides).loaded()


def topic_of(settings: Settings) -> str:
    return settings.topics.prefix + CONTROL


def slot_of(settings: Settings, slot: int) -> Settings:
    return settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"slot": slot})})


class Heard:
    """What a reader of the control topic brought, in their order."""

    def __init__(self) -> None:
        self.texts: list[bytes] = []

    async def follow(self, messages: AsyncIterator[Message]) -> None:
        async for message in messages:
            self.texts.append(message.raw)

    async def has(self, count: int) -> list[bytes]:
        await until(lambda: len(self.texts) >= count, f"{count} messages")
        return self.texts


@asynccontextmanager
async def hearing(settings: Settings) -> AsyncIterator[Heard]:
    heard = Heard()
    async with ControlReader.open(settings.kafka, topic_of(settings)) as reader:
        task = asyncio.create_task(heard.follow(reader.messages()))
        try:
            yield heard
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def produce(settings: Settings, *texts: bytes, partition: int = 0, transactional_id: str | None = None) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap_servers, acks="all", transactional_id=transactional_id
    ) as producer:
        if transactional_id is not None:
            await producer.begin_transaction()
        for text in texts:
            await producer.send_and_wait(topic_of(settings), text, partition=partition)
        if transactional_id is not None:
            await producer.commit_transaction()


async def committed(settings: Settings, partition: int = 0) -> int:
    group = settings.kafka.model_copy(update={"group": control_group(settings.kafka)})
    found = await client.committed(group, [(topic_of(settings), partition)])
    return found[topic_of(settings), partition].offset if found else -1


async def all_committed(settings: Settings, offset: int) -> None:
    async def is_so() -> bool:
        return await committed(settings) == offset

    await until(is_so, f"the position {offset} to be committed")


async def test_reading_begins_at_the_end_and_goes_on_where_it_was(kafka: KafkaBroker, tmp_path: Path) -> None:
    settings = deployment(kafka, tmp_path)
    await produce(settings, b"before the first start")
    async with hearing(settings) as heard:
        await produce(settings, b"1", b"2")
        assert await heard.has(2) == [b"1", b"2"]
        await all_committed(settings, 3)
    await produce(settings, b"3", b"4")  # while nobody reads
    async with hearing(settings) as heard:
        await produce(settings, b"5")
        assert await heard.has(3) == [b"3", b"4", b"5"]
    async with hearing(slot_of(settings, 1)) as heard:  # a slot that never ran: a position of its own
        await produce(settings, b"6")
        assert await heard.has(1) == [b"6"]


async def test_what_was_read_and_not_yet_taken_in_is_read_again(kafka: KafkaBroker, tmp_path: Path) -> None:
    settings = deployment(kafka, tmp_path)
    async with ControlReader.open(settings.kafka, topic_of(settings)) as reader:
        messages = reader.messages()
        await produce(settings, b"1", b"2")
        async with asyncio.timeout(LIMIT_S):
            assert (await anext(messages)).raw == b"1"
            assert (await anext(messages)).raw == b"2"
            assert await committed(settings) <= 1
        await messages.aclose()  # killed while the second was being taken in
    async with hearing(settings) as heard:
        await produce(settings, b"3")
        await until(lambda: heard.texts[-1:] == [b"3"], "the third")
        assert heard.texts[-2:] == [b"2", b"3"]


async def test_all_partitions_are_read_each_in_its_order(kafka: KafkaBroker, tmp_path: Path) -> None:
    settings = deployment(kafka, tmp_path, partitions=3)
    async with hearing(settings) as heard:
        for partition in range(3):
            await produce(settings, *(f"{partition}.{n}".encode() for n in range(5)), partition=partition)
        texts = await heard.has(15)
    for partition in range(3):
        own = [text for text in texts if text.startswith(f"{partition}.".encode())]
        assert own == [f"{partition}.{n}".encode() for n in range(5)]


@pytest.mark.parametrize("offset", [1000, 0])
async def test_a_position_that_the_broker_does_not_hold_is_left_for_the_oldest_message(
    kafka: KafkaBroker, tmp_path: Path, offset: int
) -> None:
    settings = deployment(kafka, tmp_path)
    at = TopicPartition(topic_of(settings), 0)
    await produce(settings, b"1", b"2")
    if not offset:
        async with client.admin(settings.kafka) as admin:
            await admin.delete_records({at: RecordsToDelete(before_offset=1)})
    group = control_group(settings.kafka)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([at])
        await consumer.commit({at: OffsetAndMetadata(offset, "")})
    finally:
        await consumer.stop()
    with capture_logs() as log:
        async with hearing(settings) as heard:
            assert await heard.has(1 if not offset else 2) == ([b"2"] if not offset else [b"1", b"2"])
    assert "control_lost" in {entry["event"] for entry in log}


async def test_the_marks_of_a_transaction_are_not_taken_for_messages_that_do_not_come(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    settings = deployment(kafka, tmp_path, kafka__watchdog_s=1)
    with capture_logs() as log:
        async with hearing(settings) as heard:
            await produce(settings, b"1", transactional_id=unique("t"))
            await heard.has(1)
            await asyncio.sleep(1.6)  # longer than the watchdog waits
            await produce(settings, b"2")
            assert await heard.has(2) == [b"1", b"2"]
    assert not [entry for entry in log if entry["event"] == "control_interrupted"]


@pytest.mark.slow
async def test_it_goes_on_after_the_broker_was_killed(own_kafka: KafkaBroker, tmp_path: Path) -> None:
    settings = deployment(own_kafka, tmp_path, kafka__call_timeout_s=5)
    async with hearing(settings) as heard:
        await produce(settings, b"1")
        await heard.has(1)
        await asyncio.to_thread(own_kafka.kill)
        await asyncio.sleep(1)
        await asyncio.to_thread(own_kafka.restart)
        await produce(settings, b"2")
        assert await heard.has(2) == [b"1", b"2"]
        await all_committed(settings, 2)


async def test_a_missing_topic_or_right_is_refused_at_start(kafka: KafkaBroker, tmp_path: Path) -> None:
    settings = deployment(kafka, tmp_path)
    with pytest.raises(BadBroker, match=r"topics\.prefix"):
        async with ControlReader.open(settings.kafka, unique("gone")):
            pass


async def test_members_of_an_elastic_group_begin_at_the_end_and_commit_nothing(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    settings = deployment(kafka, tmp_path, kafka__assignment="group")
    await produce(settings, b"before")
    async with hearing(settings) as one, hearing(settings) as two:
        await produce(settings, b"now")
        assert await one.has(1) == await two.has(1) == [b"now"]
    assert control_group(settings.kafka) is None


async def test_the_memory_bus_brings_the_same_messages() -> None:
    bus, heard = MemoryBus(SystemClock()), Heard()
    task = asyncio.create_task(heard.follow(from_memory(bus.subscribe(CONTROL))))
    await bus.produce(CONTROL, [b"1", b"2"])
    assert await heard.has(2) == [b"1", b"2"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def train(given: Any, context: Context) -> dict[str, Any]:
    await context.accepted({"job": context.id})
    await asyncio.sleep(0.05)
    return {"job": context.id, "kind": given.kind}


async def never_end(given: Any, context: Context) -> dict[str, Any]:
    await context.accepted({"job": context.id})
    await asyncio.Event().wait()
    return {}


async def refuse(given: Any, context: Context) -> dict[str, Any]:
    raise BadRequest("there is no such model")


HANDLERS = {"status": echo, "forecast": echo, "train": train, "optimize": never_end, "rollback": refuse}


@asynccontextmanager
async def slot(settings: Settings, number: int) -> AsyncIterator[Inbox]:
    """What a daemon has of commands: a reader, an inbox and a producer of replies."""
    of_slot, clock = slot_of(settings, number), SystemClock()
    async with AsyncExitStack() as stack:
        producer = await stack.enter_async_context(
            AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers, acks="all")
        )
        reader = await stack.enter_async_context(ControlReader.open(of_slot.kafka, topic_of(settings)))

        async def reply(answer: Reply) -> None:
            await producer.send_and_wait(settings.topics.prefix + REPLIES, msgspec.json.encode(answer))

        gate = Gate(KEYS, own_audience(settings.kafka.group, number), ControlSettings())
        inbox = Inbox(MemoryLedger(), HANDLERS, reply, clock=clock, gate=gate, note=lambda event, **_: None)

        async def receive() -> None:
            async for raw, at in reader.messages():
                await inbox.receive(raw, at)

        await inbox.start()
        tasks = [asyncio.create_task(inbox.run()), asyncio.create_task(receive())]
        try:
            yield inbox
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def ask(settings: Settings, command: str, *pairs: str, audience: str = "fleet", **given: Any) -> Replies:
    wanted = {"key": "admin", "private": SIGNERS["admin"], "timeout_s": LIMIT_S} | given
    request = SendRequest(command, make_args(command, pairs), audience, **wanted)
    return await send(settings, request, clock=SystemClock())


async def test_a_command_goes_out_and_its_replies_come_back(
    kafka: KafkaBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = str(tmp_path / "{slot}")
    paths = {"store__path": f"{own}/store.duckdb", "snapshot__folder": own, "runtime__folder": own}
    settings = deployment(kafka, tmp_path, partitions=2, kafka__slots=2, **paths)
    group = settings.kafka.group
    async with slot(settings, 0), slot(settings, 1):
        both = await ask(settings, "forecast", "symbols=A,B")
        assert print_replies(both, as_json=True) == EXIT_OK
        printed = json.loads(capsys.readouterr().out)
        assert (printed["ok"], printed["missing"]) == (True, 0)
        assert [reply["served_by"] for reply in printed["replies"]] == [f"{group}/0", f"{group}/1"]
        assert all(reply["result"]["arguments"]["symbols"] == ["A", "B"] for reply in printed["replies"])

        one = await ask(settings, "train", "kind=gru", audience=f"{group}/1", key="shared", private=SECRET)
        (reply,) = one.by.values()
        assert (reply.final, reply.result) == (True, {"job": one.id, "kind": "gru"})
        assert print_replies(one, as_json=False) == EXIT_OK
        assert f"{group}/1: train done" in capsys.readouterr().out

        refused = await ask(settings, "rollback", audience=f"{group}/0")
        assert print_replies(refused, as_json=False) == EXIT_DIED
        assert "there is no such model" in capsys.readouterr().out

        low = await ask(settings, "rollback", audience=f"{group}/0", key="read", private=SIGNERS["read"])
        assert [reply.error_code for reply in low.by.values()] == ["role_too_low"]


async def test_who_does_not_answer_in_time_is_told(
    kafka: KafkaBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = deployment(kafka, tmp_path)
    async with slot(settings, 0):
        stranger = await ask(settings, "status", audience=f"{settings.kafka.group}/7", timeout_s=1)
        forged = await ask(settings, "status", private=SIGNERS["read"], timeout_s=3)
    gone = await ask(settings, "status", timeout_s=1)
    said = ("no daemon of that name ever took commands here", "has no key 'admin' with this secret", "is not running")
    for replies, why in zip((stranger, forged, gone), said, strict=True):
        assert (replies.missing, replies.ok) == (1, False)
        assert print_replies(replies, as_json=False) == EXIT_DIED
        told = capsys.readouterr().err
        assert why in told
        assert replies.id in told


async def test_a_job_that_runs_on_is_told_from_one_that_nobody_took(
    kafka: KafkaBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = deployment(kafka, tmp_path)
    async with slot(settings, 0):
        begun = await ask(settings, "optimize", timeout_s=2)
    assert [reply.final for reply in begun.by.values()] == [False]
    assert print_replies(begun, as_json=False) == EXIT_UNFINISHED
    assert f"tickcast send jobs job={begun.id}" in capsys.readouterr().err


def test_a_key_that_the_daemon_does_not_have_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    for name in ("ops", "other"):
        keys = keygen(name, role="admin", algorithm="ed25519", out=tmp_path / f"{name}.key")
        if name == "ops":
            (tmp_path / "keys.toml").write_text(keys)
    settings = live_settings(tmp_path, control__keys_file=tmp_path / "keys.toml")

    def with_key(id: str, file: str) -> SendRequest:
        return SendRequest("status", {}, "fleet", id, read_signer(tmp_path / file), 1.0)

    refuse_unknown_key(settings, with_key("ops", "ops.key"))
    refuse_unknown_key(live_settings(tmp_path), with_key("who", "ops.key"))
    with pytest.raises(BadRequest, match="no key 'other'.*it has ops"):
        refuse_unknown_key(settings, with_key("other", "other.key"))
    with pytest.raises(BadRequest, match="not that of the key 'ops'"):
        refuse_unknown_key(settings, with_key("ops", "other.key"))


async def test_commands_are_sent_through_kafka_alone(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"bus\.kind"):
        await ask(live_settings(tmp_path), "status")
