"""A seeded stream of ticks and its producer, a thread that goes on while everything around it is broken.

Among the good ticks are ties, late ones, text that is no JSON, and tombstones.
"""

import asyncio
import json
from collections.abc import Iterator
from threading import Event, Thread
from types import TracebackType
from typing import Self

import numpy as np
from aiokafka import AIOKafkaProducer

from kafkakit import Message

START_NS = 1_700_000_000_000_000_000
STEP_NS = 10_000_000
LATE_BY_NS = 10_000_000_000
TIE_EVERY, LATE_EVERY, BROKEN_EVERY, TOMBSTONE_EVERY = 7, 97, 101, 103
TURN_S = 0.02
PATIENCE_MS = 180_000  # a broker may be away for so long before the producer gives a tick up


def tape(seed: int, *, partitions: int, symbols: int = 40) -> Iterator[Message]:
    """For ever, and the same for the same seed; a symbol stays in its partition."""
    rng = np.random.default_rng(seed)
    prices, newest = np.full(symbols, 100.0), np.full(symbols, START_NS)
    number = 0
    while True:
        number += 1
        symbol = int(rng.integers(symbols))
        prices[symbol] *= np.exp(rng.normal(0, 0.001))
        late, tie = number % LATE_EVERY == 0, number % TIE_EVERY == 0
        at = newest[symbol] if tie else START_NS + number * STEP_NS
        newest[symbol] = max(newest[symbol], at)
        yield Message(
            symbol % partitions, f"S{symbol}".encode(),
            _value(number, f"S{symbol}", int(at - LATE_BY_NS * late), round(float(prices[symbol]), 4)),
        )  # fmt: skip


def _value(number: int, symbol: str, at_ns: int, price: float) -> bytes | None:
    if number % TOMBSTONE_EVERY == 0:
        return None
    text = json.dumps({"symbol": symbol, "ts": at_ns, "price": price, "size": 1.0}).encode()
    return text[:-1] if number % BROKEN_EVERY == 0 else text


class Feeder:
    """Produces the tape at a steady pace from `with` on, until `finish` or the end of the block."""

    def __init__(self, bootstrap: str, topic: str, messages: Iterator[Message], *, per_s: int = 500) -> None:
        self.sent = 0
        self._bootstrap, self._topic, self._messages = bootstrap, topic, messages
        self._per_turn = max(int(per_s * TURN_S), 1)
        self._stop = Event()
        self._error: Exception | None = None
        self._thread = Thread(target=self._run, name="feeder", daemon=True)

    def finish(self) -> int:
        """Stop; returns how many the broker has acknowledged, all of them."""
        self._stop.set()
        self._thread.join(PATIENCE_MS / 1000)
        if self._error:
            raise self._error
        assert not self._thread.is_alive(), "the producer does not end"
        return self.sent

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, where: TracebackType | None) -> None:
        self._stop.set()
        if kind is None:
            self.finish()

    def _run(self) -> None:
        try:
            asyncio.run(self._feed())
        except Exception as error:
            self._error = error

    async def _feed(self) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap, acks="all", enable_idempotence=True, request_timeout_ms=PATIENCE_MS
        )
        async with producer:
            while not self._stop.is_set():
                await self.send(producer, self._per_turn)
                await asyncio.sleep(TURN_S)

    async def send(self, producer: AIOKafkaProducer, count: int) -> None:
        coming = [
            await producer.send(self._topic, m.value, key=m.key, partition=m.partition)
            for m, _ in zip(self._messages, range(count), strict=False)
        ]
        await asyncio.gather(*coming)
        self.sent += len(coming)


def feed_at_once(bootstrap: str, topic: str, messages: Iterator[Message], count: int) -> None:
    """Produce so many and return when all are there."""

    async def send() -> None:
        async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True) as producer:
            await Feeder(bootstrap, topic, messages).send(producer, count)

    asyncio.run(send())
