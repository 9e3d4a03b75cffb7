"""The streaming job Kafka to Kafka by the daemon, against plain confluent-kafka; and what exactly-once costs.

    python benchmarks/run.py kafka_job          needs Java and the jars (scripts/brokers.sh); makes build/peers by uv

The job: read JSON ticks (lz4, one per message, 1,000 symbols, four partitions), keep a window per symbol, publish every
tenth tick of a symbol with log return, mean and deviation over 64 ticks and an EMA of span 19. Both sides read the same
topic of the same broker from its start, in turn, and what they publish is compared. "On one core" is 1 / CPU seconds
per tick of the whole process, all threads, from the first tenth of the topic to its end.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from peers import python_with
from stats import Figure, Ratio, ratio_of
from tickcast.clock import SystemClock
from tickcast.columns import Encoded
from tickcast.io.kafka.framing import Framer
from tickcast.io.kafka.publish import Outbox
from tickcast.symbols import SymbolTable

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from brokerkit import KafkaBroker, unique

HERE = Path(__file__).parent

TICKS, SYMBOLS, PARTITIONS, PAIRS = 2_000_000, 1_000, 4, 5
T0, STEP_NS = 1_700_000_000 * 10**9, 10**6
CHUNK = 50_000
WARM_TICKS = 200  # of a symbol: from there on outputs are compared
TOLERANCE = 1e-6
MOST_S = 300
NAMES = ["log_return_1", "rolling_mean_64", "rolling_std_64", "ema_19"]
WINDOW, SPAN, EVERY = 64, 19, 10
JOB = {
    "bars.kind": "tick", "bars.every_ticks": "1", "forecast.every_bars": str(EVERY), "features.publish": "true",
    "model.default": "none", "store.bars": "none",
    "features.set": f'[{{kind = "log_return"}}, {{kind = "rolling_mean", window = {WINDOW}}}, '
    f'{{kind = "rolling_std", window = {WINDOW}}}, {{kind = "ema", span = {SPAN}}}]',
}  # fmt: skip
ONE_SECOND_BARS = {"bars.kind": "time", "bars.every_ms": "1000", "model.default": "none", "store.bars": "none"}


class Run(NamedTuple):
    """One side's pass over the topic, without its first tenth."""

    wall_ns: float  # per tick
    cpu_ns: float


def messages(first: int, count: int, symbols: SymbolTable, rng: np.random.Generator) -> Encoded:
    number = np.arange(first, first + count)
    code = (number % SYMBOLS).astype(np.int32)
    price = 100 + rng.integers(0, 10_000, count) / 100
    texts = [
        b'{"symbol":"%b","ts":%d,"price":%.2f,"size":1.5}' % (symbols.name(int(c)).encode(), T0 + n * STEP_NS, p)
        for c, n, p in zip(code, number, price, strict=True)
    ]
    ends = np.cumsum(np.fromiter(map(len, texts), np.int64, count))
    starts = np.concatenate([[0], ends[:-1]])
    return Encoded(np.frombuffer(bytearray(b"".join(texts)), np.uint8), starts, ends, code)


async def produce(bootstrap: str, topic: str) -> None:
    symbols = SymbolTable(SYMBOLS)
    for code in range(SYMBOLS):
        symbols.code(f"SYM{code:04d}USDT")
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, max_request_size=8 << 20
    )
    await producer.start()
    framer, outbox = (
        Framer(PARTITIONS, max_batch_bytes=64 << 10, compression="lz4"),
        Outbox(producer, max_in_flight_bytes=32 << 20),
    )
    rng = np.random.default_rng(1)
    for first in range(0, TICKS, CHUNK):
        outbox.post(topic, framer.frame(messages(first, CHUNK, symbols, rng), symbols, SystemClock().now_ns() // 10**6))
        await outbox.room()
    await outbox.settle()
    await producer.stop()


def daemon_run(bootstrap: str, topic: str, **settings: str) -> Run:
    """The daemon in a process of its own, from the start of the topic to its end."""
    with tempfile.TemporaryDirectory() as folder:
        given = {
            "bus.kind": "kafka", "kafka.bootstrap_servers": bootstrap, "kafka.group": unique("bench"),
            "topics.ticks": f'["{topic}"]',
            "store.path": f"{folder}/job.duckdb", "runtime.folder": folder, "quality.future_ms": "0",
            "log.level": "error", "snapshot.every_s": "3600", **settings,
        }  # fmt: skip
        return measured([sys.executable, str(HERE / "kafka_child.py"), json.dumps(given), str(TICKS)])


def peer_run(bootstrap: str, topic: str, out: str) -> Run:
    python = python_with("peers", "confluent-kafka", "msgspec")
    return measured([str(python), str(HERE / "kafka_peer.py"), bootstrap, topic, out, str(TICKS)])


def measured(command: list[str]) -> Run:
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_S)
    if done.returncode:
        raise RuntimeError(f"{command[1]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return Run(**json.loads(done.stdout.splitlines()[-1]))


async def published(bootstrap: str, topic: str) -> dict[tuple[str, int], list[float]]:
    """(symbol, time) -> the four numbers."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed", enable_auto_commit=False)
    await consumer.start()
    partitions = [TopicPartition(topic, p) for p in range(PARTITIONS)]
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    ends, found = await consumer.end_offsets(partitions), {}
    while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
        for records in (await consumer.getmany(timeout_ms=500)).values():
            for record in records:
                value = json.loads(record.value)
                numbers = dict(zip(value["names"], value["values"], strict=True))
                found[value["symbol"], value["as_of_ns"]] = [numbers[name] for name in NAMES]
    await consumer.stop()
    return found


def worst_difference(ours: dict[tuple[str, int], list[float]], theirs: dict[tuple[str, int], list[float]]) -> float:
    """Over all outputs from each symbol's 200th tick on; both must have published the same ones."""
    from_ns = T0 + WARM_TICKS * SYMBOLS * STEP_NS
    keys = {key for key in theirs if key[1] >= from_ns}
    if not keys or keys != {key for key in ours if key[1] >= from_ns}:
        raise AssertionError("the two sides did not publish the same outputs")
    a, b = (np.array([side[key] for key in sorted(keys)]) for side in (ours, theirs))
    return float((np.abs(a - b) / np.maximum(1, np.abs(b))).max())


@contextmanager
def filled_broker() -> Iterator[tuple[KafkaBroker, str]]:
    with KafkaBroker(heap_mb=768, full_speed=True, message_max_bytes=10_000_000) as broker:
        topic = broker.create_topic(unique("ticks"), PARTITIONS)
        for name in ("forecasts", "features", "dlq", "accuracy", "drift", "health", "alerts"):
            broker.create_topic(f"tickcast.{name}", PARTITIONS)
        uvloop.run(produce(broker.bootstrap, topic))
        yield broker, topic


def pairs(broker: KafkaBroker, topic: str, a: dict[str, str], b: dict[str, str] | None) -> list[tuple[Run, Run]]:
    """The daemon with settings `a` and, in turn, with `b`, or the peer."""
    runs = []
    for _ in range(PAIRS):
        ours = daemon_run(broker.bootstrap, topic, **a)
        if b is None:
            theirs = peer_run(broker.bootstrap, topic, broker.create_topic(unique("peer"), PARTITIONS))
        else:
            theirs = daemon_run(broker.bootstrap, topic, **b)
        runs.append((ours, theirs))
    return runs


def check_equal(broker: KafkaBroker, topic: str) -> float:
    prefix = unique("job") + "."
    for name in ("forecasts", "features", "dlq", "accuracy", "drift", "health", "alerts"):
        broker.create_topic(prefix + name, PARTITIONS)
    out = broker.create_topic(unique("peer"), PARTITIONS)
    daemon_run(broker.bootstrap, topic, **JOB, **{"topics.prefix": prefix})
    peer_run(broker.bootstrap, topic, out)
    ours, theirs = (asyncio.run(published(broker.bootstrap, name)) for name in (prefix + "features", out))
    return worst_difference(ours, theirs)


def main() -> list[Figure]:
    with filled_broker() as (broker, topic):
        worst = check_equal(broker, topic)
        windows = median(daemon_run(broker.bootstrap, topic, **ONE_SECOND_BARS).cpu_ns for _ in range(PAIRS))
        job = pairs(broker, topic, JOB, None)
        promises = pairs(broker, topic, JOB, {**JOB, "kafka.delivery": "exactly_once"})
    faster = ratio_of([theirs.wall_ns / ours.wall_ns for ours, theirs in job])
    slower = ratio_of([once.wall_ns / least.wall_ns for least, once in promises])
    load = f"{TICKS:,} ticks, {SYMBOLS:,} symbols"
    return [
        Figure("broker to windows, 1 s bars, on one core", 1e3 / windows, "M ticks/s", 1.5, "higher", note=load),
        Figure("the job, ticks per second", 1e3 / median(o.wall_ns for o, _ in job), "M ticks/s", better="higher"),
        Figure("the job, CPU", median(o.cpu_ns for o, _ in job), "ns/tick", note="all threads, client included"),
        Figure("confluent-kafka in Python, ticks per second", 1e3 / median(t.wall_ns for _, t in job), "M ticks/s"),
        Figure("the job, times faster than confluent-kafka", *_bar(faster, 3.0, "higher")),
        Figure("worst relative difference of the outputs", worst, "", TOLERANCE),
        Figure("exactly once, time in times of at least once", *_bar(slower, 1 / 0.7, "lower")),
    ]


def _bar(ratio: Ratio, bar: float, better: Any) -> tuple[Any, ...]:
    return ratio.median, "x", bar, better, ratio.low, ratio.high


if __name__ == "__main__":
    for figure in main():
        print(figure)
