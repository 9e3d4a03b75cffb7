"""MQTT as the daemon's: a mirror beside any bus, and the edge profile, where MQTT is the bus. It wires.

What is mirrored is all of a turn as JSON, written once for whoever sends it so. The first attempt to connect is over
before the bus counts as open, so that a refusal ends the start.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from tickcast.beside import beside
from tickcast.clock import Clock
from tickcast.columns import Encoded
from tickcast.io.mqtt.client import MqttMirror
from tickcast.io.mqtt.source import MqttSource
from tickcast.io.store.store import Store
from tickcast.live.buses.bus import Bus, OpenBus, Records
from tickcast.live.buses.memory import BatchSource
from tickcast.live.restore import fill_windows
from tickcast.live.suspects import SuspectSource
from tickcast.loop.build import Serving
from tickcast.loop.last_turn import LastTurn
from tickcast.loop.publications import Publications
from tickcast.loop.pump import Sink
from tickcast.settings import Settings


class MirroredBus:
    """Another bus, of which the topics in `mqtt.mirror` are copied to MQTT."""

    def __init__(self, bus: Bus, settings: Settings) -> None:
        self._bus = bus
        self._settings = settings

    @asynccontextmanager
    async def open(self, serving: Serving, store: Store, clock: Clock) -> AsyncIterator[OpenBus]:
        mirror = MqttMirror(self._settings.mqtt, clock)
        async with self._bus.open(serving, store, clock) as opened, beside(mirror.run()):
            await mirror.link.tried.wait()
            yield replace(
                opened, sink=MirroredSink(opened.sink, mirror, serving),
                records=_MirroredRecords(opened.records, mirror, self._settings.topics.prefix),
                dropped=lambda: {**opened.dropped(), "mqtt_mirror": mirror.dropped}, retain=mirror.retain,
                away_s=lambda: {**opened.away_s(), "mqtt_mirror": mirror.link.away_s()},
            )  # fmt: skip


class MqttBus:
    """Ticks by MQTT and nothing else: results are in the store and, where a MirroredBus is put around, on MQTT."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @asynccontextmanager
    async def open(self, serving: Serving, store: Store, clock: Clock) -> AsyncIterator[OpenBus]:
        await fill_windows(serving, store)
        ticks = MqttSource(
            self._settings.mqtt, clock, max_away_s=self._settings.runtime.max_wait_s, positions=store.positions()
        )
        runtime = self._settings.runtime
        source = BatchSource(ticks, self._settings.mqtt.ticks[0], self._settings, clock)
        with LastTurn.open(
            runtime.folder, self._settings.mqtt.ticks, limit_s=runtime.turn_limit_s, by_content=True
        ) as last:
            async with beside(ticks.run()):
                await ticks.link.tried.wait()
                yield OpenBus(
                    SuspectSource(source, last), _Nowhere(), _Nowhere(), last_turn=last, lag=source.lag,
                    dropped=lambda: {"mqtt_ticks": ticks.dropped},
                    away_s=lambda: {"mqtt_ticks": ticks.link.away_s()},
                )  # fmt: skip


class _Nowhere:
    """The end of a bus that has none: dead letters and records are in the store all the same."""

    def encode(self, publications: Publications) -> None:
        pass

    def publish(self, encoded: None) -> None:
        pass

    async def room(self) -> None:
        pass

    async def produce(self, topic: str, messages: list[bytes]) -> bool:
        return True


class MirroredSink:
    def __init__(self, inner: Sink, mirror: MqttMirror, serving: Serving) -> None:
        self._inner = inner
        self._mirror = mirror
        self._symbols = serving.symbols
        self._chosen = frozenset(serving.settings.mqtt.mirror)

    def encode(self, publications: Publications) -> tuple[Any, list[tuple[str, Encoded]]]:
        forecasts = publications.forecasts if "forecasts" in self._chosen else []
        features = publications.features if "features" in self._chosen else []
        copies = [("forecasts", part) for part in forecasts] + [("features", part) for part in features]
        return self._inner.encode(publications), copies

    def publish(self, encoded: tuple[Any, list[tuple[str, Encoded]]]) -> None:
        self._inner.publish(encoded[0])
        for name, copy in encoded[1]:
            self._mirror.offer(name, copy, self._symbols)

    async def room(self) -> None:
        await self._inner.room()


class _MirroredRecords:
    def __init__(self, inner: Records, mirror: MqttMirror, prefix: str) -> None:
        self._inner = inner
        self._mirror = mirror
        self._prefix = prefix

    async def produce(self, topic: str, messages: list[bytes]) -> bool:
        self._mirror.offer_records(topic.removeprefix(self._prefix), messages)
        return await self._inner.produce(topic, messages)
