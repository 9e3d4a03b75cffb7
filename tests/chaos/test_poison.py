"""What nobody can read: it never loops, the dead letter is the exact original with its reason, and the sums add up."""

import asyncio
import json
import struct
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import RecordMetadata
from chaoskit import Deployment
from feeder import START_NS
from ledger import read

from brokerkit import KafkaBroker
from tickcast.errors import EXIT_DIED

pytestmark = pytest.mark.timeout(240)
CRC_AT, CHECKED_FROM, ATTRIBUTES_AT, NO_CODEC = 17, 21, 22, 7
MOST_BYTES = 2000


def tick(number: int, **changes: object) -> bytes:
    fields = {"symbol": "S", "ts": START_NS + number * 10**7, "price": 100 + number % 7, "size": 1}
    return json.dumps(fields | changes).encode()


BARE = b"stands for a message without key and value"
POISON: list[tuple[bytes | None, str]] = [
    (b'{"symbol": "S", "ts": 17', "malformed"),
    (b"\xff\x00\xfe no text at all", "malformed"),
    (b"[1, 2, 3]", "malformed"),
    (None, "tombstone"),
    (b"", "empty"),
    (BARE, "tombstone"),
    (tick(0, note="x" * MOST_BYTES), "too_large"),
    (b'{"s": "S", "time": 1, "p": 2}', "missing_field"),
    (tick(0, price="cheap"), "bad_number"),
    (tick(0, ts="yesterday"), "bad_time"),
    (tick(0, price=-1), "non_positive"),
    (tick(0, ts=START_NS // 10**6), "wrong_unit"),
]


def produce(broker: KafkaBroker, topic: str, messages: list[bytes | None], *, partition: int = 0) -> list[int]:
    """Each as a batch of its own; returns their offsets."""

    async def send() -> list[int]:
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap, acks="all") as producer:
            return [(await (await offer(producer, value))).offset for value in messages]

    async def offer(producer: AIOKafkaProducer, value: bytes | None) -> Awaitable[RecordMetadata]:
        if value is not BARE:
            return await producer.send(topic, value, key=b"key", partition=partition)
        batch = producer.create_batch()  # which takes what the client's `send` does not
        batch.append(key=None, value=None, timestamp=None)
        return await producer.send_batch(batch, topic, partition=partition)

    return asyncio.run(send())


def headers(letter: ConsumerRecord) -> dict[str, str]:
    return {name: value.decode() for name, value in letter.headers}


def last_health(deployment: Deployment) -> dict[str, Any]:
    records = read(deployment, deployment.prefix + "health")
    newest = max(records, key=lambda record: record.timestamp, default=None)
    return {"partitions": {}} if newest is None else json.loads(newest.value)


def segment(broker: KafkaBroker, topic: str, partition: int = 0) -> Path:
    """The file that holds the partition, as it lies on the broker's disk."""
    return broker.nodes[0].data / f"{topic}-{partition}" / "00000000000000000000.log"


def damage(log: Path, marker: bytes, *, codec: int | None = None) -> bytes:
    """Spoil the batch that holds the marker, where it lies; with a codec its checksum fits. Returns the batch."""
    data, start = bytearray(log.read_bytes()), 0
    while True:
        end = start + 12 + struct.unpack_from(">i", data, start + 8)[0]
        if marker in data[start:end]:
            break
        start = end
    if codec is None:
        data[data.index(marker)] ^= 1
    else:
        data[start + ATTRIBUTES_AT] |= codec
        struct.pack_into(">I", data, start + CRC_AT, calc_crc32c(bytes(data[start + CHECKED_FROM : end])))
    with log.open("r+b") as file:
        file.seek(start)
        file.write(data[start:end])
    return bytes(data[start:end])


def test_poison_becomes_exact_dead_letters_and_is_never_read_again(kafka, tmp_path):
    deployment = Deployment(kafka, tmp_path / "daemon", partitions=1, codec__max_message_bytes=MOST_BYTES)
    good = [tick(number) for number in range(40)]
    spoilt = [tick(98, note="checksum"), tick(99, note="nocodec")]
    offsets = produce(kafka, deployment.ticks, [*good[:20], *(value for value, _ in POISON), *spoilt, *good[20:]])
    log = segment(kafka, deployment.ticks)
    corrupt = [damage(log, b"checksum"), damage(log, b"nocodec", codec=NO_CODEC)]
    expected = [(value, b"key", reason) for value, reason in POISON if reason != "tombstone"]
    expected += [(batch, None, "corrupt") for batch in corrupt]
    refused = [at for at, (_, reason) in zip(offsets[20:], [*POISON, ("", ""), ("", "")]) if reason != "tombstone"]
    for _ in range(2):  # the second run reads none of it again
        deployment.run_undisturbed()
        records = read(deployment, deployment.prefix + "dlq")
        assert len(records) == len(expected)
        letters = {int(headers(letter)["offset"]): letter for letter in records}
        found = [(one.value, one.key, headers(one)["reason"]) for _, one in sorted(letters.items())]
        assert found == expected
        assert sorted(letters) == refused
        assert {headers(one)["topic"] for one in letters.values()} == {deployment.ticks}
        assert {headers(one)["partition"] for one in letters.values()} == {"0"}
        assert {headers(one)["stage"] for one in letters.values()} == {"codec", "quality"}
        assert len(read(deployment, deployment.prefix + "forecasts")) == len(good) - 1
    health = last_health(deployment)
    sums = {name: health[name] for name in ("consumed", "accepted", "late", "held", "rejected")}
    assert sums == {"consumed": 54, "accepted": 40, "late": 0, "held": 0, "rejected": 14}


def test_a_partition_of_poison_alone_is_left_and_the_daemon_ends_only_when_all_are(kafka, tmp_path):
    deployment = Deployment(kafka, tmp_path / "daemon", partitions=2, kafka__poison_run=20)
    produce(kafka, deployment.ticks, [tick(number) for number in range(5)], partition=1)
    daemon = deployment.start()
    daemon.wait_for("daemon_started")
    produce(kafka, deployment.ticks, [None] * 25)  # tombstones are no poison
    daemon.wait_until(lambda: deployment.committed().get(0) == 25, "the tombstones")
    assert not daemon.has_logged("partition_poisoned")
    produce(kafka, deployment.ticks, [b"poison"] * 25)
    daemon.wait_for("partition_poisoned")
    stopped = {f"{deployment.ticks}/0": "stopped"}
    daemon.wait_until(lambda: last_health(deployment)["partitions"] == stopped, "health to name the partition")
    assert last_health(deployment)["state"] == "partition_stopped"
    produce(kafka, deployment.ticks, [b"poison"] * 5)
    produce(kafka, deployment.ticks, [tick(number) for number in range(5, 10)], partition=1)
    daemon.wait_until(lambda: deployment.committed().get(1) == 10, "the partition that is well")
    assert deployment.committed()[0] < 55
    produce(kafka, deployment.ticks, [b"poison"] * 25, partition=1)
    assert daemon.ended() == EXIT_DIED
    assert "bad messages in a row" in daemon.log()
