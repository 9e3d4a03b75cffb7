"""What a tick costs from a real Kafka broker to columns: blobs and kernels, against aiokafka's getmany and msgspec.

    python benchmarks/run.py kafka_ingest

One JSON tick per message over 1,000 symbols, four partitions, all that was produced before is read from its start.
CPU time is that of the whole process: client, checksum, decompression, framing, decoding. Both sides read the same
topic by the same client with the same settings, and their columns are checked equal before they are timed. The plain
side takes 500 records at a time, its best: the garbage collector makes it dearer with all that was fetched at once.
"""

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from decode import Peer, decoder, json_messages, market
from stats import Figure, cpu_ns_per, paired_ratio
from tickcast.columns import F64, I64
from tickcast.io.kafka import fetch
from tickcast.io.kafka.blob import open_blob

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from brokerkit import KafkaBroker

PARTITIONS = 4
PAIRS = 7
PLAIN_RECORDS = 500
MOST_NS, LEAST_TIMES = 320.0, 3.0
FETCH = {"fetch_max_bytes": 16 << 20, "max_partition_fetch_bytes": 2 << 20, "fetch_max_wait_ms": 100}


class Load(NamedTuple):
    name: str
    ticks: int
    per_batch: int
    codec: str | None


LOADS = (
    Load("lz4, 100 ticks a batch", 200_000, 100, "lz4"),
    Load("no compression, 100 ticks a batch", 200_000, 100, None),
    Load("no compression, one tick a batch", 20_000, 1, None),
)


class Seen(NamedTuple):
    symbol: list[str]
    ts: I64
    price: F64
    size: F64


class Reader(ABC):
    """One consumer that reads the whole topic each time it is asked to."""

    most: int | None = None  # records, or blobs, at a time

    def __init__(self, runner: asyncio.Runner, bootstrap: str, load: Load, topic: str, **given: Any) -> None:
        self._runner, self._load = runner, load
        self._partitions = [TopicPartition(topic, p) for p in range(PARTITIONS)]
        self._consumer = runner.run(self._started(bootstrap, given))

    async def _started(self, bootstrap: str, given: dict[str, Any]) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, **FETCH, **given)
        await consumer.start()
        consumer.assign(self._partitions)
        return consumer

    def __call__(self) -> list[Any]:
        return self._runner.run(self._read())

    async def _read(self) -> list[Any]:
        for tp in self._partitions:
            self._consumer.seek(tp, 0)
        read, columns = 0, []
        while read < self._load.ticks:
            for part in self.decode(await self._consumer.getmany(timeout_ms=1000, max_records=self.most)):
                columns.append(part)
                read += len(part[0])
        return columns

    @abstractmethod
    def decode(self, fetched: dict[TopicPartition, list[Any]]) -> Iterator[tuple[np.ndarray, ...]]: ...

    @abstractmethod
    def names(self) -> list[str]:
        """Of the symbols, by the code that their ticks carry."""

    def seen(self) -> Seen:
        """What was read, in the order of time."""
        symbol, ts, price, size = (np.concatenate(column) for column in zip(*self(), strict=True))
        order, names = np.argsort(ts), self.names()
        return Seen([names[code] for code in symbol[order]], ts[order], price[order], size[order])

    def close(self) -> None:
        self._runner.run(self._consumer.stop())


class Ours(Reader):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given, value_deserializer=fetch.BLOBS)
        self._decoder = decoder("json")

    def decode(self, fetched: dict[TopicPartition, list[Any]]) -> Iterator[tuple[np.ndarray, ...]]:
        for (blob,) in fetched.values():
            for raw in open_blob(blob)[0]:
                ticks, _ = self._decoder.decode(raw)
                yield ticks.symbol, ticks.ts, ticks.price, ticks.size

    def names(self) -> list[str]:
        return self._decoder._symbols.names()


class Plain(Reader):
    """What one would write with aiokafka and msgspec: records, structs, then columns."""

    most = PLAIN_RECORDS

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._peer = Peer()

    def decode(self, fetched: dict[TopicPartition, list[Any]]) -> Iterator[tuple[np.ndarray, ...]]:
        for records in fetched.values():
            yield self._peer.decode([record.value for record in records])

    def names(self) -> list[str]:
        return [*self._peer._codes]


async def produce(bootstrap: str, load: Load, topic: str, messages: list[bytes]) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks=1, compression_type=load.codec, max_batch_size=1 << 20
    )
    await producer.start()
    sent = []
    for k, first in enumerate(range(0, load.ticks, load.per_batch)):
        builder = producer.create_batch()
        for message in messages[first : first + load.per_batch]:
            builder.append(key=None, value=message, timestamp=None)
        sent.append(await producer.send_batch(builder, topic, partition=k % PARTITIONS))
    await asyncio.gather(*sent)
    await producer.stop()


@contextmanager
def readers(
    runner: asyncio.Runner, broker: KafkaBroker, load: Load, messages: list[bytes]
) -> Iterator[tuple[Ours, Plain]]:
    topic = broker.create_topic(f"ticks-{load.per_batch}-{load.codec}", PARTITIONS)
    runner.run(produce(broker.bootstrap, load, topic, messages))
    both = Ours(runner, broker.bootstrap, load, topic), Plain(runner, broker.bootstrap, load, topic)
    try:
        yield both
    finally:
        for reader in both:
            reader.close()


def check_equal(ours: Seen, plain: Seen) -> None:
    if ours.symbol != plain.symbol or not all(map(np.array_equal, ours[1:], plain[1:])):
        raise SystemExit("blobs were decoded to other columns than records")


def figures(load: Load, ours: Ours, plain: Plain) -> list[Figure]:
    check_equal(ours.seen(), plain.seen())
    full = load.per_batch >= 100
    ratio = paired_ratio(plain, ours, PAIRS)
    note = f"{cpu_ns_per(load.ticks, plain, runs=3):,.0f} ns a tick the plain way"
    return [
        Figure(f"{load.name}: CPU", cpu_ns_per(load.ticks, ours), "ns/tick", MOST_NS if full else None),
        Figure(f"{load.name}: aiokafka + msgspec over tickcast", ratio.median, "x", LEAST_TIMES if full else 1.0,
               "higher", ratio.low, ratio.high, note),
    ]  # fmt: skip


def main() -> list[Figure]:
    fetch.install()
    messages, made = json_messages(market()), []
    with KafkaBroker(heap_mb=512) as broker, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for load in LOADS:
            with readers(runner, broker, load, messages) as (ours, plain):
                made += figures(load, ours, plain)
    return made


if __name__ == "__main__":
    for figure in main():
        print(figure)
