"""The MQTT mirror: copies of what is published, sent beside the pump. It never makes its caller wait.

What waits for the broker is bounded; the oldest messages give way to new ones and are counted.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote_from_bytes

import msgspec
import numpy as np
from aiomqtt import Client, MqttError, Topic, Will

from tickcast import __version__
from tickcast.clock import Clock
from tickcast.columns import I32, U8, Encoded
from tickcast.errors import BadSettings
from tickcast.io.mqtt.link import Link
from tickcast.settings.buses import MqttSettings
from tickcast.symbols import SymbolTable
from tickcast.topics import ALERTS

Single = tuple[str, bytes, bool]  # topic, payload, whether the broker keeps it
AT_ONCE = 32  # messages that wait for their confirmation
POLL_S = 0.01
GOODBYE_S = 2.0  # for what still waits when the daemon ends
PLAIN = " !\"$&'()*,:;<=>?@[\\]^`{|}~"  # beside letters, digits and -._~: harmless within one level of a topic


@lru_cache(maxsize=1 << 16)
def topic_level(name: bytes) -> str:
    """A symbol as one level of a topic: `+ # / %`, control characters and all beyond ASCII become %XX."""
    return quote_from_bytes(name, safe=PLAIN)


@dataclass(slots=True)
class _Batch:
    """Messages as they came, cut into single ones only when they leave. The names are its own: by the time that it
    leaves, another symbol may have a code.
    """

    topic: str
    encoded: Encoded
    names: tuple[U8, I32] | None  # bytes and length, by row
    first: int = 0

    def __len__(self) -> int:
        return len(self.encoded.starts) - self.first

    def next(self) -> Single:
        data, starts, ends, _, _ = self.encoded
        row = self.first
        self.first += 1
        return self._topic_of(row), data[starts[row] : ends[row]].tobytes(), False

    def _topic_of(self, row: int) -> str:
        if self.names is None:
            return self.topic
        names, lengths = self.names
        return f"{self.topic}/{topic_level(names[row, : lengths[row]].tobytes())}"


class Backlog:
    """What waits for the broker: bounded, the oldest gives way. What the broker is to keep goes first; of that only the
    last of a topic waits."""

    def __init__(self, most: int) -> None:
        self.dropped = 0
        self._most = most
        self._waiting = 0
        self._batches: deque[_Batch] = deque()
        self._kept: dict[str, bytes] = {}
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return self._waiting + len(self._kept)

    def keep(self, topic: str, payload: bytes) -> None:
        self._kept.pop(topic, None)
        self._kept[topic] = payload
        if len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]
            self.dropped += 1
        self._arrived.set()

    def add(self, batch: _Batch) -> None:
        self._batches.append(batch)
        self._waiting += len(batch)
        while (surplus := self._waiting - self._most) > 0:
            oldest = self._batches[0]
            gone = min(surplus, len(oldest))
            oldest.first += gone
            self.dropped += gone
            self._left(gone)
        self._arrived.set()

    async def next(self) -> Single:
        while not len(self):
            self._arrived.clear()
            await self._arrived.wait()
        if self._kept:
            topic = next(iter(self._kept))
            return topic, self._kept.pop(topic), True
        message = self._batches[0].next()
        self._left(1)
        return message

    def _left(self, count: int) -> None:
        self._waiting -= count
        while self._batches and not len(self._batches[0]):
            self._batches.popleft()


class MqttMirror:
    """Copies the topics of `mqtt.mirror` to `<mqtt.prefix>/<topic>/<symbol>` and says at `<mqtt.prefix>/status`
    whether it is there."""

    def __init__(self, settings: MqttSettings, clock: Clock) -> None:
        self._settings = settings
        self._status = f"{_checked_prefix(settings)}/status"
        self._chosen = frozenset(settings.mirror) - {ALERTS}
        self._retains = ALERTS in settings.mirror
        self._backlog = Backlog(settings.queue_messages)
        self._held: list[Single | None] = [None] * AT_ONCE
        will = Will(self._status, _status("offline"), qos=1, retain=True)
        self.link = Link(settings, "mirror", clock, will=will, max_inflight_messages=AT_ONCE)

    @property
    def dropped(self) -> int:
        """Messages that gave way to newer ones."""
        return self._backlog.dropped

    @property
    def waiting(self) -> int:
        return len(self._backlog) + sum(held is not None for held in self._held)

    def offer(self, name: str, encoded: Encoded, symbols: SymbolTable) -> None:
        """Messages of one topic, each under its symbol. The buffer must not change afterwards."""
        if name in self._chosen and len(encoded.starts):
            names = symbols.arrays.names[encoded.symbol], symbols.arrays.lengths[encoded.symbol]
            self._backlog.add(_Batch(f"{self._settings.prefix}/{name}", encoded, names))

    def offer_records(self, name: str, records: Iterable[bytes]) -> None:
        """Records of one topic that belong to no symbol."""
        if name in self._chosen:
            topic, one = f"{self._settings.prefix}/{name}", np.zeros(1, np.int64)
            for record in records:
                encoded = Encoded(np.frombuffer(record, np.uint8), one, one + len(record), one.astype(np.int32))
                self._backlog.add(_Batch(topic, encoded, None))

    def retain(self, name: str, subject: str, record: bytes) -> None:
        """The last record of an alert, for whoever comes later; an empty one takes it away."""
        if self._retains:
            self._backlog.keep(f"{self._settings.prefix}/{ALERTS}/{name}/{topic_level(subject.encode())}", record)

    async def run(self) -> None:
        """Until cancelled: then what waits is sent, as far as it goes in a moment, and the status becomes offline."""
        await self.link.keep(self._talk)

    async def _talk(self, client: Client) -> None:
        await client.publish(self._status, _status("online"), qos=1, retain=True)
        self.link.greeted()
        senders = [asyncio.ensure_future(self._send(client, slot)) for slot in range(AT_ONCE)]
        try:
            await asyncio.wait(senders, return_when=asyncio.FIRST_COMPLETED)  # only a failure ends one
        except asyncio.CancelledError:
            with suppress(MqttError, TimeoutError):
                await self._say_goodbye(client)
            raise
        finally:
            for sender in senders:
                sender.cancel()
            await asyncio.gather(*senders, return_exceptions=True)

    async def _send(self, client: Client, slot: int) -> None:
        """One message after the other. What the connection broke off is sent again by the next one."""
        while True:
            topic, payload, retain = self._held[slot] = self._held[slot] or await self._backlog.next()
            if retain:
                self._drop_older(topic, slot)
            await client.publish(topic, payload, qos=max(self._settings.qos, int(retain)), retain=retain)
            self._held[slot] = None

    def _drop_older(self, topic: str, newest: int) -> None:
        """The broker keeps what comes last: what another slot would send again must not come after this."""
        for slot, held in enumerate(self._held):
            if slot != newest and held is not None and held[0] == topic:
                self._held[slot] = None

    async def _say_goodbye(self, client: Client) -> None:
        async with asyncio.timeout(GOODBYE_S):
            while self.waiting and self.link.is_up:
                await asyncio.sleep(POLL_S)
            await client.publish(self._status, _status("offline"), qos=1, retain=True)


def _status(state: str) -> bytes:
    return msgspec.json.encode({"state": state, "version": __version__})


def _checked_prefix(settings: MqttSettings) -> str:
    try:
        Topic(settings.prefix)
    except ValueError:
        raise BadSettings(f"mqtt.prefix '{settings.prefix}' is no name of a topic") from None
    if "\0" in settings.prefix or settings.prefix.startswith("$"):
        raise BadSettings(f"mqtt.prefix {settings.prefix!r} is no name of a topic that we may write")
    return settings.prefix
