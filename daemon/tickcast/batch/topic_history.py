"""What a topic held between two times as the history of a replay. It reads, and tells the broker nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tickcast.columns import RawBatch
from tickcast.engine.codec.decode import Decoder
from tickcast.engine.core.events import Event
from tickcast.errors import BadData
from tickcast.io.kafka.by_hand import count_partitions, silent_client
from tickcast.io.kafka.events import letter_of as letter_of
from tickcast.io.kafka.range_reader import Item, RangeReader
from tickcast.io.tape.columns import Cut
from tickcast.settings import Settings
from tickcast.symbols import SymbolTable


class TopicHistory:
    """Made by `open`. Its rows are offsets."""

    def __init__(self, settings: Settings, reader: RangeReader, topic: str, cut: Cut, chunk: int) -> None:
        self.settings = settings
        self.rows: int | None = reader.offsets
        self.first_time = self.mixed = ""
        self._reader, self._topic, self._chunk = reader, topic, chunk
        self._wanted = MessageFilter(settings, cut)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, topic: str, cut: Cut, *, chunk: int) -> AsyncIterator[TopicHistory]:
        partitions = await count_partitions(settings.kafka, topic, named_by="--from-kafka")
        with silent_client():
            async with RangeReader.open(
                settings.kafka, topic, partitions=partitions, from_ns=cut.from_ns, to_ns=cut.to_ns
            ) as reader:
                yield cls(settings, reader, topic, cut, chunk)

    async def turns(self) -> AsyncIterator[tuple[list[Item], int]]:
        passed = 0
        async for items in self._reader.turns(self._chunk):
            before, passed = passed, self._reader.passed
            yield items, passed - before
        if not self._wanted.kept:
            raise BadData(
                f"the topic {self._topic} holds no message with that time and symbol",
                remedy="widen --start, --end or --symbols",
            )

    def events(self, fetched: list[Item]) -> list[Event]:
        events = [self._wanted.of(item) if isinstance(item, RawBatch) else letter_of(item) for item in fetched]
        return [event for event in events if not isinstance(event, RawBatch) or len(event)]


class MessageFilter:
    """Leaves out messages whose ticks are all of another time or symbol; what is no tick goes by its stamp."""

    def __init__(self, settings: Settings, cut: Cut) -> None:
        self.kept = 0  # messages
        self._cut = cut
        self._symbols = SymbolTable(settings.symbols.limit)  # not the engine's, which holds what is wanted only
        self._decoder = Decoder(settings.codec, self._symbols)
        self._by_code: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)

    def of(self, raw: RawBatch) -> RawBatch:
        wanted = raw if not self._cut else _only(raw, self._rows(raw))
        self.kept += len(wanted)
        return wanted

    def _rows(self, raw: RawBatch) -> npt.NDArray[np.bool_]:
        ticks, rejects = self._decoder.decode(raw)
        new = self._symbols.names()[len(self._by_code) :]
        self._by_code = np.append(self._by_code, np.array([self._cut.wants(name) for name in new], np.bool_))
        rows = np.zeros(len(raw), np.bool_)
        rows[ticks.row[self._cut.within(ticks.ts) & self._by_code[ticks.symbol]]] = True
        stamps = raw.stamps_ns[rejects.row]
        rows[rejects.row[(stamps < 0) | self._cut.within(stamps)]] = True
        return rows


def _only(raw: RawBatch, rows: npt.NDArray[np.bool_]) -> RawBatch:
    keys = None if raw.keys is None else (raw.keys[0][rows], raw.keys[1][rows])
    return replace(
        raw, starts=raw.starts[rows], ends=raw.ends[rows], offsets=raw.offsets[rows], stamps_ns=raw.stamps_ns[rows],
        keys=keys, trace=None if raw.trace is None else raw.trace[rows],
    )  # fmt: skip
