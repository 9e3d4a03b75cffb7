"""What a turn publishes is written once, whether one sends it or several, and not at all where nobody does."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from tickcast.clock import SetClock
from tickcast.columns import Encoded, RawBatch, Rejects
from tickcast.engine.core.events import Letters, Outcome
from tickcast.errors import Reason
from tickcast.io.memory_bus import MemoryBus
from tickcast.live.buses.memory import BusSink
from tickcast.live.buses.mqtt import MirroredSink
from tickcast.loop.publications import Publications
from tickcast.settings import Settings
from tickcast.settings.buses import MqttSettings
from tickcast.symbols import SymbolTable

AT = 1_700_000_000 * 10**9


class Writer:
    """Counts what it is asked to write."""

    def __init__(self) -> None:
        self.written: list[tuple[Any, int]] = []

    def encode(self, part: Any, symbols: SymbolTable, *, produced_ns: int, sources: Any) -> Encoded:
        self.written.append((part, produced_ns))
        return text_of(b"forecast")

    def encode_features(self, part: Any, symbols: SymbolTable, *, names: list[str], sources: Any) -> Encoded:
        self.written.append((part, 0))
        return text_of(b"vector")


class Mirror:
    def __init__(self) -> None:
        self.copies: list[tuple[str, Encoded]] = []

    def offer(self, name: str, encoded: Encoded, symbols: SymbolTable) -> None:
        self.copies.append((name, encoded))


def text_of(message: bytes) -> Encoded:
    one = np.zeros(1, np.int64)
    return Encoded(np.frombuffer(message, np.uint8), one, one + len(message), one.astype(np.int32))


def turn(settings: Settings) -> tuple[Publications, Writer, Any]:
    """Two parts of forecasts, one of vectors, one letter."""
    raw = RawBatch("ticks", 0, np.frombuffer(b"{", np.uint8), *(np.array([n], np.int64) for n in (0, 1, 7, -1)))
    letters = [Letters(raw, Rejects.of(0, Reason.MALFORMED))]
    outcome = Outcome(forecasts=cast(Any, ["first", "second"]), vectors=cast(Any, ["vectors"]), letters=letters)
    builder = SimpleNamespace(sources=lambda: [("ticks", 0)])
    serving = SimpleNamespace(
        settings=settings, symbols=SymbolTable(4), features=SimpleNamespace(names=["f"]),
        engine=SimpleNamespace(builder=builder),
    )  # fmt: skip
    writer = Writer()
    return Publications(outcome, cast(Any, serving), cast(Any, writer), AT), writer, serving


def test_a_mirror_sends_the_very_text_that_the_bus_sends() -> None:
    settings = Settings(mqtt=MqttSettings(mirror=["forecasts", "features"]))
    publications, writer, serving = turn(settings)
    mirror, bus = Mirror(), MemoryBus(SetClock(AT))
    read = bus.subscribe(*(settings.topics.prefix + name for name in ("forecasts", "features", "dlq")))
    sink = MirroredSink(BusSink(bus, settings), cast(Any, mirror), serving)
    sink.publish(sink.encode(publications))
    assert writer.written == [("first", AT), ("second", AT), ("vectors", 0)]
    assert [name for name, _ in mirror.copies] == ["forecasts", "forecasts", "features"]
    both = zip([*publications.forecasts, *publications.features], (copy for _, copy in mirror.copies), strict=True)
    assert all(ours is theirs for ours, theirs in both)
    assert read.unread == 4


def test_a_mirror_of_nothing_that_ticks_bring_writes_nothing() -> None:
    settings = Settings(mqtt=MqttSettings(mirror=["health"]))
    publications, writer, serving = turn(settings)
    nowhere = SimpleNamespace(encode=lambda publications: None, publish=lambda encoded: None)
    mirror = Mirror()
    sink = MirroredSink(cast(Any, nowhere), cast(Any, mirror), serving)
    sink.publish(sink.encode(publications))
    assert (writer.written, mirror.copies) == ([], [])


def test_letters_are_written_once_for_the_bus_and_the_store() -> None:
    publications, _, _ = turn(Settings())
    (letter,) = publications.dead_letters
    assert (letter.topic, letter.offset, letter.value, letter.reason) == ("ticks", 7, b"{", "malformed")
    assert publications.dead_letters is publications.dead_letters
