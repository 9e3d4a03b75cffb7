"""The same job with plain confluent-kafka and msgspec, tuned. Runs in an environment of its own; see kafka_job.py.

usage: kafka_peer.py BOOTSTRAP TOPIC OUT TICKS
"""

import json
import math
import sys
import time
from collections import deque

import msgspec
from confluent_kafka import Consumer, Producer

WINDOW, EVERY, ALPHA = 64, 10, 2 / 20
NAMES = ["log_return_1", "rolling_mean_64", "rolling_std_64", "ema_19"]
CONSUMER = {
    "enable.auto.commit": False, "auto.offset.reset": "earliest", "fetch.queue.backoff.ms": 5,
    "queued.max.messages.kbytes": 65536, "fetch.message.max.bytes": 4 << 20, "check.crcs": True,
}  # fmt: skip
PRODUCER = {"acks": "all", "enable.idempotence": True, "linger.ms": 5, "compression.type": "lz4", "batch.size": 900_000,
            "queue.buffering.max.messages": 1_000_000}  # fmt: skip


class Tick(msgspec.Struct):
    symbol: str
    ts: int
    price: float


class Series:
    __slots__ = ("count", "ema", "last", "prices", "squares", "total")

    def __init__(self, first: float) -> None:
        self.prices: deque[float] = deque()
        self.total = self.squares = 0.0
        self.count, self.ema, self.last = 0, first, first


def main(bootstrap: str, topic: str, out: str, ticks: int) -> None:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "peer-" + out, **CONSUMER})
    producer = Producer({"bootstrap.servers": bootstrap, **PRODUCER})
    consumer.subscribe([topic])
    decode, series, seen, started = msgspec.json.Decoder(Tick).decode, {}, 0, None
    while seen < ticks:
        for message in consumer.consume(10_000, 0.1):
            tick = decode(message.value())
            one = series.get(tick.symbol)
            if one is None:
                one = series[tick.symbol] = Series(tick.price)
            previous, one.last = one.last, tick.price
            one.prices.append(tick.price)
            one.total += tick.price
            one.squares += tick.price * tick.price
            if len(one.prices) > WINDOW:
                old = one.prices.popleft()
                one.total -= old
                one.squares -= old * old
            one.ema += ALPHA * (tick.price - one.ema)
            one.count += 1
            seen += 1
            if one.count % EVERY == 0:
                n = len(one.prices)
                mean = one.total / n
                variance = (one.squares - n * mean * mean) / (n - 1) if n > 1 else 0.0
                values = [math.log(tick.price / previous), mean, math.sqrt(max(variance, 0.0)), one.ema]
                text = msgspec.json.encode(
                    {"symbol": tick.symbol, "as_of_ns": tick.ts, "names": NAMES, "values": values}
                )
                producer.produce(out, text, key=tick.symbol)
        producer.poll(0)
        if started is None and seen >= ticks // 10:
            started = seen, time.perf_counter_ns(), time.process_time_ns()
    producer.flush()
    first, wall, cpu = started
    measured = seen - first
    print(json.dumps({
        "wall_ns": (time.perf_counter_ns() - wall) / measured, "cpu_ns": (time.process_time_ns() - cpu) / measured
    }))  # fmt: skip
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
