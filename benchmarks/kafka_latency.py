"""From the producer's stamp to the consumer's receipt of the forecast, through a real broker, beside a plain echo; and
how soon a restarted daemon forecasts again.

    python benchmarks/run.py kafka_latency      needs Java and the jars (scripts/brokers.sh)

2,000 ticks a second, every tick a bar, NHITS. Producer and consumer are one process, the daemon or the echo another.
The echo is aiokafka's consumer and producer: it sends each tick on as it comes. Runs alternate on the same broker.
"""

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from kafka_job import MOST_S, PARTITIONS
from live import fitted
from stats import Figure, ratio_of
from tickcast.clock import SystemClock

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from brokerkit import KafkaBroker, unique

RATE_HZ, SECONDS, SYMBOLS, WARM_TICKS, PAIRS = 2_000, 8, 100, 130, 5
RESTART_SYMBOLS, RESTARTS = 1_000, 3
SLICE_S = 0.001
OUTPUTS = ("forecasts", "dlq", "accuracy", "drift", "health", "alerts")
CLOCK = SystemClock()


class Latency(NamedTuple):
    p50_ms: float
    p99_ms: float


class Daemon:
    """`tickcast run` in a process of its own."""

    def __init__(self, bootstrap: str, folder: Path, ticks: str, model: Path, **more: str) -> None:
        self.prefix = more.pop("prefix")
        given = {
            "bus.kind": "kafka", "kafka.bootstrap_servers": bootstrap, "kafka.group": self.prefix[:-1],
            "topics.ticks": f'["{ticks}"]', "topics.prefix": self.prefix, "bars.kind": "tick",
            "model.default": str(model), "store.path": str(folder / "t.duckdb"), "runtime.folder": str(folder / "run"),
            "log.level": "error", **more,
        }  # fmt: skip
        options = [text for key, value in given.items() for text in ("--set", f"{key}={value}")]
        self._process = subprocess.Popen([sys.executable, "-m", "tickcast", "run", *options])

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        if self._process.wait(MOST_S):
            raise RuntimeError("the daemon did not drain")


class Echo:
    def __init__(self, bootstrap: str, ticks: str, out: str) -> None:
        self._process = subprocess.Popen([sys.executable, __file__, "echo", bootstrap, ticks, out])

    def end(self) -> None:
        self._process.kill()
        self._process.wait(MOST_S)


async def echo(bootstrap: str, ticks: str, out: str) -> None:
    consumer = AIOKafkaConsumer(ticks, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    await consumer.start()
    await producer.start()
    async for record in consumer:
        await producer.send(out, record.value, key=record.key)


class Market:
    """Sends ticks stamped now and takes the time at which their answers come."""

    def __init__(self, bootstrap: str, ticks: str, answers: str, *, symbols: int = SYMBOLS) -> None:
        self._ticks, self._symbols, self._sent = ticks, symbols, 0
        self._rng = np.random.default_rng(1)
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
        self._consumer = AIOKafkaConsumer(
            answers, bootstrap_servers=bootstrap, auto_offset_reset="earliest", isolation_level="read_committed"
        )
        self.waits_ms: list[float] = []

    async def __aenter__(self) -> "Market":
        await self._producer.start()
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()
        await self._consumer.stop()

    async def send(self, count: int) -> None:
        for _ in range(count):
            name = b"S%05d" % (self._sent % self._symbols)
            self._sent += 1
            text = b'{"symbol":"%b","ts":%d,"price":%.4f,"size":1}' % (name, CLOCK.now_ns(), 100 + self._rng.normal())
            await self._producer.send(self._ticks, text, key=name)

    async def warm_up(self, ticks: int) -> None:
        await self.send(ticks)
        await self._producer.flush()

    async def receive(self, *, until: int | None = None) -> None:
        """For ever, or until so many answers have come."""
        while until is None or len(self.waits_ms) < until:
            for records in (await self._consumer.getmany(timeout_ms=200)).values():
                now = CLOCK.now_ns()
                for record in records:
                    answer = json.loads(record.value)
                    self.waits_ms.append((now - answer.get("as_of_ns", answer.get("ts"))) / 1e6)

    async def measure(self) -> Latency:
        """At the steady rate, after all that came of warming up has arrived."""
        receiving = asyncio.create_task(self.receive())
        seen = -1
        while seen < len(self.waits_ms) or not seen:
            seen = len(self.waits_ms)
            await asyncio.sleep(2)
        self.waits_ms.clear()
        began, sent = time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < SECONDS:
            due = int(passed * RATE_HZ) - sent
            await self.send(due)
            sent += due
            await asyncio.sleep(SLICE_S)
        await asyncio.sleep(1)
        receiving.cancel()
        if len(self.waits_ms) < sent:
            raise RuntimeError(f"{sent} ticks, {len(self.waits_ms)} answers")
        return Latency(*np.percentile(self.waits_ms, (50, 99)))


async def through_echo(broker: KafkaBroker) -> Latency:
    ticks, out = (broker.create_topic(unique(name), PARTITIONS) for name in ("ticks", "echo"))
    side = Echo(broker.bootstrap, ticks, out)
    try:
        async with Market(broker.bootstrap, ticks, out) as market:
            await market.warm_up(SYMBOLS * WARM_TICKS)
            return await market.measure()
    finally:
        side.end()


async def through_daemon(broker: KafkaBroker, model: Path, delivery: str) -> Latency:
    ticks, prefix = broker.create_topic(unique("ticks"), PARTITIONS), outputs(broker)
    with tempfile.TemporaryDirectory() as folder:
        more = {"prefix": prefix, "kafka.delivery": delivery}
        side = Daemon(broker.bootstrap, Path(folder), ticks, model, **more)
        try:
            async with Market(broker.bootstrap, ticks, prefix + "forecasts") as market:
                await market.warm_up(SYMBOLS * WARM_TICKS)
                return await market.measure()
        finally:
            side.end()


async def restart_s(broker: KafkaBroker, model: Path) -> float:
    """From the start of the process to the first forecast of a tick that came after the stop."""
    ticks, prefix = broker.create_topic(unique("ticks"), PARTITIONS), outputs(broker)
    with tempfile.TemporaryDirectory() as folder:
        side = Daemon(broker.bootstrap, Path(folder), ticks, model, prefix=prefix)
        async with Market(broker.bootstrap, ticks, prefix + "forecasts", symbols=RESTART_SYMBOLS) as market:
            await market.warm_up(RESTART_SYMBOLS * WARM_TICKS)
            await market.receive(until=RESTART_SYMBOLS * (WARM_TICKS - 2))
            side.end()
            market.waits_ms.clear()
            await market.warm_up(RESTART_SYMBOLS)
            began = time.perf_counter()
            side = Daemon(broker.bootstrap, Path(folder), ticks, model, prefix=prefix)
            await market.receive(until=1)
            took = time.perf_counter() - began
        side.end()
    return took


def outputs(broker: KafkaBroker) -> str:
    prefix = unique("run") + "."
    for name in OUTPUTS:
        broker.create_topic(prefix + name, PARTITIONS)
    return prefix


def main() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder, KafkaBroker(heap_mb=512, full_speed=True) as broker:
        model = fitted(Path(folder), bars__kind="tick")
        pairs = [
            (uvloop.run(through_daemon(broker, model, "at_least_once")), uvloop.run(through_echo(broker)))
            for _ in range(PAIRS)
        ]
        once = uvloop.run(through_daemon(broker, model, "exactly_once"))
        restarts = [uvloop.run(restart_s(broker, model)) for _ in range(RESTARTS)]
    half = ratio_of([ours.p50_ms / theirs.p50_ms for ours, theirs in pairs])
    tail = ratio_of([ours.p99_ms / theirs.p99_ms for ours, theirs in pairs])
    load = f"{RATE_HZ:,} ticks/s, NHITS"
    return [
        Figure("tick to forecast, p50", median(o.p50_ms for o, _ in pairs), "ms", note=load),
        Figure("tick to forecast, p99", median(o.p99_ms for o, _ in pairs), "ms"),
        Figure("plain aiokafka echo, p50", median(t.p50_ms for _, t in pairs), "ms"),
        Figure("plain aiokafka echo, p99", median(t.p99_ms for _, t in pairs), "ms"),
        Figure("p50 in times of the echo's", half.median, "x", 2.0, "lower", half.low, half.high),
        Figure("p99 in times of the echo's", tail.median, "x", 2.0, "lower", tail.low, tail.high),
        Figure("exactly once: tick to committed forecast, p50", once.p50_ms, "ms"),
        Figure("exactly once: tick to committed forecast, p99", once.p99_ms, "ms"),
        Figure("restart to first new forecast", median(restarts), "s", 5.0, note=f"{RESTART_SYMBOLS:,} symbols, L 96"),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["echo"]:
        uvloop.run(echo(*sys.argv[2:5]))
    else:
        for figure in main():
            print(figure)
