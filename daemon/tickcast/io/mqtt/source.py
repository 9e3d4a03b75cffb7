"""The MQTT source: ticks of topic filters, as batches, for a deployment without Kafka. It decodes nothing.

What nobody has read yet is bounded; the oldest messages give way to new ones and are counted.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from aiomqtt import Client, Message, Topic, Wildcard
from paho.mqtt.reasoncodes import ReasonCode

from tickcast.clock import Clock
from tickcast.columns import RawBatch
from tickcast.errors import BadBroker, BadSettings
from tickcast.io.mqtt.link import Link
from tickcast.settings.buses import MqttSettings

AT_ONCE = 512  # messages of a turn: so many can be suspected when the process dies in it
NO_POSITIONS: Mapping[tuple[str, int], int] = {}


class _Arrival(NamedTuple):
    source: str
    offset: int
    stamp_ns: int
    payload: bytes


class MqttSource:
    """Ticks of the filters in `mqtt.ticks`. Each filter is a topic with one partition; offsets count what arrived, so
    one that gave way leaves a gap."""

    def __init__(
        self,
        settings: MqttSettings,
        clock: Clock,
        *,
        max_away_s: float,
        positions: Mapping[tuple[str, int], int] = NO_POSITIONS,
    ) -> None:
        self.dropped = 0
        self._settings = settings
        self._clock = clock
        self._max_away_s = max_away_s
        self._filters = _checked_filters(settings)
        self._next_offset = {name: positions.get((name, 0), 0) for name in settings.ticks}
        self._source_of = lru_cache(maxsize=1 << 16)(self._first_match)
        self._arrivals: deque[_Arrival] = deque()
        self._arrived = asyncio.Event()
        options: dict[str, Any] = {"queue_type": self._inbox}
        if settings.client_id and settings.qos:
            options["clean_session"] = False  # the broker keeps what comes while we are away
        self.link = Link(settings, "source", clock, **options)

    @property
    def unread(self) -> int:
        return len(self._arrivals)

    async def run(self) -> None:
        """Until cancelled, or until no broker has been there for `max_away_s`."""
        await self.link.keep(self._talk, max_away_s=self._max_away_s)

    async def next_batches(self, max_wait_s: float) -> list[RawBatch]:
        """What is unread, in order, AT_ONCE messages at most; waits so long for a first one, and then gives an empty
        list."""
        if not self._arrivals:
            self._arrived.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max_wait_s):
                    await self._arrived.wait()
        arrivals = [self._arrivals.popleft() for _ in range(min(len(self._arrivals), AT_ONCE))]
        by_source: dict[str, list[_Arrival]] = {}
        for arrival in arrivals:
            by_source.setdefault(arrival.source, []).append(arrival)
        return [_raw_batch(source, some) for source, some in by_source.items()]

    def take(self, message: Message) -> None:
        source = self._source_of(message.topic.value)
        offset = self._next_offset[source]
        self._next_offset[source] = offset + 1
        if len(self._arrivals) >= self._settings.queue_messages:
            self._arrivals.popleft()
            self.dropped += 1
        self._arrivals.append(_Arrival(source, offset, self._clock.now_ns(), message.payload))
        self._arrived.set()

    async def _talk(self, client: Client) -> None:
        granted = await client.subscribe([(name, int(self._settings.qos)) for name in self._settings.ticks])
        for name, code in zip(self._settings.ticks, granted, strict=True):
            if isinstance(code, ReasonCode) and code.is_failure:
                raise BadBroker(f"{self._settings.url} gives no right to read {name}", remedy="see mqtt.ticks")
        self.link.greeted()
        await asyncio.Event().wait()

    def _first_match(self, topic: str) -> str:
        told = Topic(topic)
        return next((f.value for f in self._filters if told.matches(f)), self._settings.ticks[0])

    def _inbox(self, maxsize: int) -> "asyncio.Queue[Message]":
        return _Inbox(self)


class _Inbox(asyncio.Queue[Message]):
    """Stands where aiomqtt keeps what arrived, and hands it on at once: a task per message is what its own costs."""

    def __init__(self, source: MqttSource) -> None:
        super().__init__()
        self._source = source

    def put_nowait(self, item: Message) -> None:
        self._source.take(item)


def _raw_batch(source: str, arrivals: list[_Arrival]) -> RawBatch:
    _, offsets, stamps, payloads = zip(*arrivals, strict=True)
    lengths = np.fromiter(map(len, payloads), np.int64, len(payloads))
    ends = np.cumsum(lengths)
    data = np.frombuffer(bytearray().join(payloads), np.uint8)  # writable, which the decoders want
    return RawBatch(
        source, 0, data, ends - lengths, ends, np.array(offsets, np.int64), stamps_ns=np.array(stamps, np.int64)
    )


def _checked_filters(settings: MqttSettings) -> list[Wildcard]:
    try:
        return [Wildcard(name) for name in settings.ticks]
    except ValueError as error:
        raise BadSettings(f"mqtt.ticks: {error}", remedy="`+` and `#` stand for whole levels") from None
