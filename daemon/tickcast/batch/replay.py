"""Replay: history, of a tape or of a topic, through the live engine, pump and store, with files for a sink."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tickcast.batch.frames import TableFile, bar_table, forecast_table, score_table
from tickcast.beside import beside
from tickcast.clock import SetClock
from tickcast.columns import F64, U64, RawBatch
from tickcast.engine.core.events import Event, Outcome
from tickcast.errors import Reason
from tickcast.io.store.store import Store
from tickcast.io.tape.columns import Cut
from tickcast.io.tape.tape import Tape
from tickcast.loop.build import Serving, build
from tickcast.loop.closed_bars import refusal, refuse_spacing
from tickcast.loop.commits import CommitQueue
from tickcast.loop.engine_thread import EngineThread
from tickcast.loop.publications import Publications
from tickcast.loop.pump import Pump
from tickcast.progress import Progress, Shown, unshown
from tickcast.records import Command
from tickcast.settings import Settings

FILES = ("forecasts", "scores", "bars")
STORE, STORE_LOG = "replay.duckdb", "replay.duckdb.wal"
FILES_OF_REPLAY = (
    *(f"{name}.parquet" for name in FILES), *(f"{name}.parquet.partial" for name in FILES), STORE, STORE_LOG,
    "replay.duckdb.lock", "report.json", "report.html",
)  # fmt: skip
TOLD_BY = (STORE, "bars.parquet")
OF_MODEL = ("name", "version", "kind", "digest", "trained_from_ns", "trained_to_ns")  # in report.json
NS_PER_S = 10**9
CHUNK = 50_000  # messages of a turn


@dataclass(frozen=True, slots=True)
class ReplayOrder:
    """What to replay and where to leave the results."""

    data: Path | str  # a file or folder, or the name of a topic
    out: Path
    chunk: int = CHUNK
    speed: float = 0.0  # event seconds per second; 0 = as fast as it goes
    from_ns: int | None = None
    to_ns: int | None = None
    symbols: list[str] | None = None


class ReplayHistory(Protocol):
    """What is replayed."""

    settings: Settings  # those given, with the codec that its batches are decoded by
    rows: int | None  # in all, where that is known before they are read
    first_time: str  # as the history writes it, where that is known
    mixed: str  # what may be two venues under one name

    def turns(self) -> AsyncIterator[tuple[list[Any], int]]:
        """What comes next, and how many rows that was."""

    def events(self, fetched: list[Any]) -> Sequence[Event]:
        """Called on the engine thread."""


class Walk(Protocol):
    """What goes along with a replay: it sees what each turn did, and may put commands between two turns."""

    def begin(self, serving: Serving, rows: int | None) -> None:
        """Called once, before the first turn; `rows` in all, where that is known."""

    def saw(self, outcome: Outcome) -> None:
        """Called on the engine thread, after each turn."""

    def before(self, rows: int) -> list[Command] | None:
        """Called between two turns: commands that take effect before the next `rows` rows; None ends the replay."""


class TapeHistory:
    def __init__(self, settings: Settings, order: ReplayOrder) -> None:
        assert isinstance(order.data, Path)
        self._tape = Tape(
            order.data, settings, chunk=order.chunk, from_ns=order.from_ns, to_ns=order.to_ns, symbols=order.symbols
        )
        refuse_spacing(self._tape, order.data)
        self.settings, self.rows, self.first_time = self._tape.settings, self._tape.rows, self._tape.first_time
        self.mixed = self._tape.mixed

    async def turns(self) -> AsyncIterator[tuple[list[RawBatch], int]]:
        for batch in self._tape:
            yield [batch], len(batch)

    def events(self, fetched: list[RawBatch]) -> list[RawBatch]:
        return fetched


@asynccontextmanager
async def open_history(settings: Settings, order: ReplayOrder) -> AsyncIterator[ReplayHistory]:
    if isinstance(order.data, Path):
        yield TapeHistory(settings, order)
    else:
        from tickcast.batch.topic_history import TopicHistory  # a replay of files loads no client of Kafka

        cut = Cut(order.from_ns, order.to_ns, tuple(order.symbols or ()))
        async with TopicHistory.open(settings, order.data, cut, chunk=order.chunk) as history:
            yield history


class HistorySource:
    """History as events, paced by event time where a speed is asked for."""

    def __init__(
        self, history: ReplayHistory, serving: Serving, clock: SetClock, *, speed: float, progress: Progress,
        walk: Walk | None,
    ) -> None:  # fmt: skip
        self._history = history
        self._walk = walk
        self._commands: list[Command] = []
        self._turns = history.turns()
        self._engine = serving.engine
        self._clock = clock
        self._speed = speed
        self._progress = progress
        self._began: tuple[int, int] | None = None  # event time and monotonic time of the first paced batch

    async def next_fetched(self, max_wait_s: float) -> list[Any] | None:
        newest = self._engine.newest_ns()
        self._clock.advance_to(newest)
        if self._speed:
            wait_s = self._ahead_s(newest)
            if wait_s > 0:
                await asyncio.sleep(min(wait_s, max_wait_s))
                return []
        turn = await anext(self._turns, None)
        if turn is None:
            return None
        fetched, rows = turn
        if self._walk is not None:
            commands = self._walk.before(rows)
            if commands is None:
                return None
            self._commands = commands
        self._progress.advance(rows)
        return fetched

    def events(self, fetched: list[Any]) -> Sequence[Event]:
        return [*self._commands, *self._history.events(fetched)]

    def _ahead_s(self, newest: int) -> float:
        """How far event time has run ahead of the pace."""
        now = self._clock.monotonic_ns()
        if self._began is None:
            if newest:
                self._began = newest, now
            return 0.0
        event, began = self._began
        return (newest - event) / self._speed / NS_PER_S - (now - began) / NS_PER_S


class FileSink:
    """Forecasts, scores and bars into Parquet, and a digest over all that was forecast and scored."""

    def __init__(self, folder: Path, serving: Serving, stack: AsyncExitStack, walk: Walk | None) -> None:
        self._forecast_bits, self._score_bits = hashlib.blake2b(), hashlib.blake2b()
        self._serving = serving
        self._walk = walk
        self._files = {name: stack.enter_context(TableFile(folder / f"{name}.parquet")) for name in FILES}

    def encode(self, publications: Publications) -> None:
        outcome = publications.outcome
        for forecasts in outcome.forecasts:
            self._files["forecasts"].write(forecast_table(forecasts, self._serving))
            self._forecast_bits.update(_row_bits(forecasts.id_high, forecasts.id_low, forecasts.quantiles))
        for scores in outcome.scores:
            self._files["scores"].write(score_table(scores, self._serving))
            self._score_bits.update(_row_bits(scores.id_high, scores.id_low, scores.actual, scores.pinball))
        for bars in outcome.bars:
            self._files["bars"].write(bar_table(bars, self._serving))
        if self._walk is not None:
            self._walk.saw(outcome)

    def publish(self, encoded: None) -> None:
        """All was done on the engine thread."""

    async def room(self) -> None:
        """Files always take more."""

    def digest(self) -> str:
        """Over all forecasts and all scores, each row by row, so that it does not show in what chunks they came."""
        both = self._forecast_bits.digest() + self._score_bits.digest()
        return hashlib.blake2b(both, digest_size=16).hexdigest()


def _row_bits(*columns: F64 | U64) -> bytes:
    """The bits of 8-byte columns, row after row."""
    flat = [np.ascontiguousarray(column).reshape(len(column), -1).view(np.uint64) for column in columns]
    return np.concatenate(flat, axis=1).tobytes()


async def replay(
    settings: Settings, order: ReplayOrder, *, walk: Walk | None = None, shown: Shown = unshown
) -> dict[str, Any]:
    """Run the history to its end; returns the summary, with files left in `order.out`."""
    order.out.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        history = await stack.enter_async_context(open_history(settings, order))
        settings = history.settings
        serving, clock = build(settings), SetClock()
        if walk is not None:
            walk.begin(serving, history.rows)
        thread = EngineThread()
        stack.callback(thread.stop, float(settings.runtime.drain_s))
        began = clock.monotonic_ns()
        for name in FILES:
            (order.out / f"{name}.parquet").unlink(missing_ok=True)
        store = Store.open(settings, symbols=serving.symbols, cards=serving.cards, at_ns=0)
        stack.push_async_callback(store.close)
        progress = stack.enter_context(shown(history.rows, "replay"))
        sink = FileSink(order.out, serving, stack, walk)
        commits = CommitQueue(store, serving.engine, settings, clock)
        source = HistorySource(history, serving, clock, speed=order.speed, progress=progress, walk=walk)
        pump = Pump(serving, source, sink, thread=thread, commits=commits, clock=clock)
        async with beside(commits.write_all()):
            await pump.run()
            await pump.close_unit(last=True)
            await commits.idle()
    seconds = (clock.monotonic_ns() - began) / NS_PER_S
    found = summary(serving, pump, digest=sink.digest(), seconds=seconds, order=order) | {"mixed": history.mixed}
    refused = refusal(settings, serving.engine.builder.counts(), history.first_time)
    why, nearly_all = refused or ("", False)
    return {**found, "refused": why, "nearly_all_refused": nearly_all}


def summary(serving: Serving, pump: Pump, *, digest: str, seconds: float, order: ReplayOrder) -> dict[str, Any]:
    """What report.json holds beside the figures that are computed from the scores."""
    builder = serving.engine.builder
    counts = builder.counts()
    accepted, late, held = (int(counts[r]) for r in (Reason.ACCEPTED, Reason.LATE, Reason.HELD))
    consumed = int(counts.sum())
    name = order.data.name if isinstance(order.data, Path) else order.data
    return {
        "title": f"Replay of {name}", "data": str(order.data), "model": serving.settings.model.default,
        "models": [{name: getattr(card, name) for name in OF_MODEL} for card in serving.cards],
        "consumed": consumed, "accepted": accepted, "late": late, "rejected": consumed - accepted - late - held,
        "held": held, "crossed": builder.crossed,
        "reasons": {Reason(i).name.lower(): int(n) for i, n in enumerate(counts) if n and i != Reason.ACCEPTED},
        "symbols": len(serving.symbols) - serving.symbols.spare, "bars": pump.meter.bars, "unasked": pump.meter.unasked,
        "pending": serving.engine.scorekeeper.pending(), "to_ns": serving.engine.newest_ns(),
        "wall_s": round(seconds, 3),
        "ticks_per_s": round(consumed / seconds) if seconds else 0, "turn_ms": pump.turn_time.summary_ms(),
        "digest": digest,
    }  # fmt: skip


def in_folder(settings: Settings, out: Path) -> Settings:
    """Settings whose store is a fresh file beside the report: what an earlier replay left there is removed."""
    path = out / STORE
    for leftover in (path, out / STORE_LOG):
        leftover.unlink(missing_ok=True)
    return settings.model_copy(update={"store": settings.store.model_copy(update={"path": path})})


def storing_nothing(settings: Settings) -> Settings:
    """Of forecasts and bars: the replay's tables are files, a store beside them would hold the same again."""
    store = settings.store.model_copy(update={"bars": "none", "forecasts": "none"})
    return settings.model_copy(update={"store": store})
