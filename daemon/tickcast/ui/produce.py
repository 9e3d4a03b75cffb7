"""`tickcast synth --to kafka`: the synthetic market as live ticks of the first topic that the daemon reads.

Event times are those of the moment. It ends when told to, or after so many seconds, once the broker holds all it sent.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tickcast.batch.synth import Market, json_texts
from tickcast.beside import beside
from tickcast.clock import Clock
from tickcast.columns import Encoded
from tickcast.io.kafka.by_hand import count_partitions, silent_client
from tickcast.io.kafka.topic_writer import TopicWriter
from tickcast.settings import Settings
from tickcast.symbols import SymbolTable

SECOND_NS = 10**9
STEP_S = 0.02  # ticks are sent in slices of so many seconds
FULL_SPEED_HZ = 100_000.0  # of the market's own time, which then runs as fast as the broker takes its ticks
FULL_SPEED_STEP_NS = SECOND_NS // 5
SAY_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Feed:
    """What to send; a rate of 0 is as fast as it goes, no seconds mean until told to stop."""

    symbols: int
    seed: int
    rate_hz: float
    seconds: float | None = None


class LiveMarket:
    """A market whose ticks bear the time at which they are asked for."""

    def __init__(self, feed: Feed, start_ns: int) -> None:
        rate_hz = feed.rate_hz or FULL_SPEED_HZ
        self.names = SymbolTable(feed.symbols)
        self._market = Market(seed=feed.seed, symbols=feed.symbols, start_ns=start_ns, tick_rate_hz=rate_hz)
        self._codes = np.array([self.names.code(name) for name in self._market.symbols], np.int32)
        self._at_full_speed = not feed.rate_hz
        self._own_ns = self._given_ns = start_ns

    def next_messages(self, now_ns: int) -> Encoded:
        """Those that are due; at full speed a slice of the market's own time, spread over the time since the last."""
        if not self._at_full_speed:
            return self._encoded(self._market.ticks(now_ns))
        self._own_ns += FULL_SPEED_STEP_NS
        ticks = self._market.ticks(self._own_ns)
        times = np.linspace(self._given_ns, now_ns, ticks.height, dtype=np.int64)
        self._given_ns = now_ns
        return self._encoded(ticks.with_columns(ts=times))

    def _encoded(self, ticks: pl.DataFrame) -> Encoded:
        texts = json_texts(ticks)
        ends = np.cumsum(texts.str.len_bytes().to_numpy(), dtype=np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]
        code = self._codes[ticks["symbol"].cast(pl.Enum(self._market.symbols)).to_physical().to_numpy()]
        return Encoded(np.frombuffer(texts.str.join().item().encode(), np.uint8), starts, ends, code)


async def produce(settings: Settings, feed: Feed, *, clock: Clock, stop: asyncio.Event) -> int:
    """Returns how many ticks the broker has taken."""
    kafka, topic = settings.kafka, settings.topics.ticks[0]
    partitions = await count_partitions(kafka, topic, named_by="topics.ticks")
    with silent_client():
        async with TopicWriter.open(kafka, topic, partitions=partitions) as writer:
            trade = _Trade(feed, writer, clock)
            async with beside(trade.say_progress()):
                await _run_until(stop, trade.run())
    return trade.sent


async def _run_until(stop: asyncio.Event, body: Coroutine[Any, Any, None]) -> None:
    """Also while the body waits for a broker that is away."""
    running, told = asyncio.ensure_future(body), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({running, told}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
    finally:
        running.cancel()
        told.cancel()
        await asyncio.gather(running, told, return_exceptions=True)


class _Trade:
    """The market's ticks on their way to the broker, at their pace."""

    def __init__(self, feed: Feed, writer: TopicWriter, clock: Clock) -> None:
        self.sent = 0
        self._feed, self._writer, self._clock = feed, writer, clock
        self._start_ns, self._began_ns = clock.now_ns(), clock.monotonic_ns()
        self._market = LiveMarket(feed, self._start_ns)

    async def run(self) -> None:
        """Until the feed's seconds are over."""
        last_ns = 1 << 62 if self._feed.seconds is None else round(self._feed.seconds * SECOND_NS)
        passed_ns = 0
        while passed_ns < last_ns:
            passed_ns = min(self._clock.monotonic_ns() - self._began_ns, last_ns)
            now_ns = self._start_ns + passed_ns
            messages = await asyncio.to_thread(self._market.next_messages, now_ns)
            self.sent += len(messages.starts)
            await self._writer.send(messages, self._market.names, stamp_ms=now_ns // 10**6)
            if self._feed.rate_hz:
                await asyncio.sleep(STEP_S)

    async def say_progress(self) -> None:
        before, then_ns = 0, self._began_ns
        while True:
            await asyncio.sleep(SAY_EVERY_S)
            sent, now_ns = self.sent, self._clock.monotonic_ns()
            rate_hz = (sent - before) * SECOND_NS / (now_ns - then_ns)
            print(f"{sent:,} ticks sent, {rate_hz:,.0f}/s", flush=True)
            before, then_ns = sent, now_ns
