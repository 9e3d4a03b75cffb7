"""The store: one DuckDB file, one thread that writes, one that reads. Nobody else may open the file meanwhile.

The event loop only ever awaits; all work on the file happens on the two threads.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import duckdb

from tickcast.clock import fresh_id
from tickcast.columns import BarBatch, Source
from tickcast.errors import BadStore, StoreStalled
from tickcast.io.store import history, postmortems, rolloff, schema
from tickcast.io.store.database import archive_folder, open_database, refusal
from tickcast.io.store.export import Format, export
from tickcast.io.store.history import BarsOfPartition, Kept
from tickcast.io.store.ledger import Ledger
from tickcast.io.store.lock import StoreLock
from tickcast.io.store.postmortems import Looked
from tickcast.io.store.query import QueryResult, select
from tickcast.io.store.rolloff import RollOff
from tickcast.io.store.rows import Names
from tickcast.io.store.scored import Said, ScoreFilter, Trading, in_time, scored
from tickcast.io.store.shares import SharedRoute, share_figures
from tickcast.io.store.snapshot import StoreMark
from tickcast.io.store.writer import Commit, Writer
from tickcast.records import ModelCard
from tickcast.settings import Settings
from tickcast.symbols import SymbolTable

__all__ = ["Commit", "RollOff", "Store"]

T = TypeVar("T")
HOLD_S = 2.0  # what is written waits for a copy of its log at most


class Store:
    """Made by `open`."""

    def __init__(self, settings: Settings, writer: Writer, lock: StoreLock, symbols: SymbolTable) -> None:
        self._settings = settings
        self._writer = writer
        self._lock = lock
        self._names = Names(symbols)
        self._id = writer.look(_id_of)
        self._writing = ThreadPoolExecutor(1, "store-writer")
        self._reading = ThreadPoolExecutor(1, "store-reader")
        self._cursor: duckdb.DuckDBPyConnection | None = None
        self._closed = threading.Event()
        self.ledger = Ledger(change=self._change, look=self._look, study=self._on_reader)

    @classmethod
    def open(cls, settings: Settings, *, symbols: SymbolTable, cards: list[ModelCard], at_ns: int) -> Self:
        """Lock, open, migrate. `cards` is the engine's own list: models that are added to it later are stored, too."""
        path = settings.store.path
        _make_folder(path)
        with ExitStack() as undo:
            lock = StoreLock(path)
            undo.callback(lock.release)
            try:
                writer = _open_writer(settings, cards, at_ns)
            except duckdb.Error as error:
                raise refusal(settings, error) from None
            undo.pop_all()
        return cls(settings, writer, lock, symbols)

    async def write(self, unit: Commit, *, symbols: SymbolTable | None = None) -> None:
        """One unit, one transaction. StoreStalled: nothing was stored, give the same unit again.

        `symbols` names the codes of a unit that does not come from the daemon's own engine.
        """
        names = self._names if symbols is None else Names(symbols)
        await self._on_writer(lambda: self._writer.write(unit, names))

    async def answer(self) -> None:
        """Returns once the writer has done all that it was asked before."""
        await self._on_writer(lambda: None)

    async def query(self, sql: str) -> QueryResult:
        """One SELECT by this process itself: what others ask is answered by a process of its own (query_process)."""
        store = self._settings.store
        return await self._on_reader(
            lambda cursor: select(cursor, sql, max_rows=store.query_rows, timeout_s=store.query_timeout_s)
        )

    @contextmanager
    def without_checkpoint(self) -> Iterator[None]:
        """The database file stays as it is; what is stored meanwhile is in its log."""
        self._writer.may_checkpoint = False
        try:
            yield
        finally:
            self._writer.may_checkpoint = True

    @asynccontextmanager
    async def between_transactions(self) -> AsyncIterator[None]:
        """Nothing is written; StoreStalled where that was to last too long."""
        loop, leave = asyncio.get_running_loop(), threading.Event()
        entered: asyncio.Future[None] = loop.create_future()

        def enter() -> None:
            if not entered.done():  # who waited may be gone
                entered.set_result(None)

        def hold() -> bool:
            loop.call_soon_threadsafe(enter)
            return leave.wait(HOLD_S)

        holding = loop.run_in_executor(self._writing, hold)
        try:
            await entered
            yield
        finally:
            leave.set()
        if not await holding:
            raise StoreStalled(
                f"the log of {self._settings.store.path} was not copied in {HOLD_S} s", remedy="ask again"
            )

    async def export(
        self, table: str, target: Path, *, format: Format, from_ns: int | None, to_ns: int | None, symbols: list[str]
    ) -> int:
        """Rows of a span of time as a file; see export.export."""
        return await self._on_reader(
            partial(
                export, table=table, target=target, settings=self._settings, format=format, from_ns=from_ns,
                to_ns=to_ns, symbols=symbols,
            )
        )  # fmt: skip

    async def scored(self, wanted: ScoreFilter, trading: Trading) -> dict[str, Any]:
        """How stored scores turned out; see scored.scored."""
        settings, forecast = self._settings, self._settings.forecast
        said = Said(forecast.quantiles, forecast.transform == "log_return")
        archive, timeout_s = archive_folder(settings), settings.store.query_timeout_s
        return await self._on_reader(
            partial(scored, wanted=wanted, trading=trading, said=said, archive=archive, timeout_s=timeout_s)
        )

    async def share(self, share: SharedRoute, from_ns: int, to_ns: int) -> dict[str, Any]:
        """How two models did that share out a route; see shares.share_figures."""
        archive, timeout_s = archive_folder(self._settings), self._settings.store.query_timeout_s
        return await self._on_reader(
            partial(share_figures, share=share, span_ns=(from_ns, to_ns), archive=archive, timeout_s=timeout_s)
        )

    async def why(self, at: Looked) -> dict[str, Any]:
        """What was so of the worst forecasts more often than of all; see postmortems.why."""
        return await self._looking_back(partial(postmortems.why, at=at))

    async def look_back(self, at: Looked, a_day: int) -> int:
        """Keep post-mortems of the worst forecasts that have none, of a day at most so many; returns how many."""
        found = await self._looking_back(partial(postmortems.worst, at=at, a_day=a_day))
        if len(found):
            await self._change(partial(postmortems.keep, found=found))
        return len(found)

    async def _looking_back(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        def within_time(cursor: duckdb.DuckDBPyConnection) -> T:
            try:
                with in_time(cursor, self._settings.store.query_timeout_s):
                    return work(cursor)
            except duckdb.Error as error:
                raise StoreStalled(f"{self._settings.store.path} cannot be looked back on: {error}") from None

        return await self._on_reader(within_time)

    async def roll_off(self, now_event_ns: int) -> RollOff:
        """Move the days that are older than `store.keep_days` to the archive; watermarks of that age are dropped."""
        archive = archive_folder(self._settings)
        before_ns = rolloff.midnight_before(now_event_ns, self._settings.store.keep_days)
        rows, files = 0, list[Path]()
        try:
            await self._on_writer(partial(self._writer.forget_watermarks, before_ns))
            for what in await self._on_reader(lambda cursor: rolloff.due(cursor, before_ns)):
                moved = await self._on_reader(partial(rolloff.export, archive=archive, what=what))
                if moved is not None and await self._on_writer(partial(self._writer.forget, moved)):
                    rows, files = rows + moved.rows, [*files, moved.file]
        except (duckdb.Error, OSError, BadStore, StoreStalled) as error:
            return RollOff(rows, tuple(files), str(error))
        return RollOff(rows, tuple(files))

    def positions(self) -> dict[Source, int]:
        """The next offset of each partition, as it was when the store was opened."""
        return dict(self._writer.at_open)

    def mark(self) -> StoreMark:
        """What tells it from other stores, and its positions as it was opened."""
        return StoreMark(self._id, self.positions())

    def kept(self, below: Mapping[Source, int]) -> dict[Source, Kept]:
        """What a restart at these offsets can build on; see history.kept. Blocks."""
        return self._with_cursor(lambda cursor: history.kept(cursor, below, self.positions()))

    def bars_tail(
        self, symbols: SymbolTable, count: int, parts: Mapping[Source, BarsOfPartition] | None = None
    ) -> BarBatch:
        """The newest stored bars of each symbol, to fill windows with; see history.bars_tail. Blocks."""
        return self._with_cursor(lambda cursor: history.bars_tail(cursor, symbols, count, parts))

    def save_bars(self, path: Path, from_ns: int, to_ns: int, symbols: list[str] | None = None) -> int:
        """Bars of a span of event time, stored and archived, as a file for training; see history.save_bars. Blocks."""
        archive = archive_folder(self._settings)
        return self._with_cursor(partial(
            history.save_bars, from_ns=from_ns, to_ns=to_ns, symbols=symbols, archive=archive, path=path
        ))  # fmt: skip

    def count_bars(self, from_ns: int, to_ns: int, symbols: list[str] | None = None) -> int:
        """How many these are. Blocks."""
        archive = archive_folder(self._settings)
        return self._with_cursor(partial(
            history.count_bars, from_ns=from_ns, to_ns=to_ns, symbols=symbols, archive=archive
        ))  # fmt: skip

    async def close(self) -> None:
        """Waits for what is being written, breaks off what is being read, and lets the file go."""
        if not self._closed.is_set():
            self._closed.set()
            await asyncio.to_thread(self._close)

    def _close(self) -> None:
        if self._cursor is not None:
            self._cursor.interrupt()
        self._reading.shutdown(wait=True, cancel_futures=True)
        self._writing.submit(self._writer.close).result()
        self._writing.shutdown()
        self._lock.release()

    async def _change(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        return await self._on_writer(partial(self._writer.change, work))

    async def _look(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        return await self._on_writer(partial(self._writer.look, work))

    async def _on_writer(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writing, work)

    async def _on_reader(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reading, self._with_cursor, work)

    def _with_cursor(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        with self._writer.reading:
            self._cursor = self._writer.cursor()
            try:
                return work(self._cursor)
            finally:
                self._cursor.close()
                self._cursor = None


def _open_writer(settings: Settings, cards: list[ModelCard], at_ns: int) -> Writer:
    connection = schema.migrate(lambda: open_database(settings), settings.store.path, at_ns=at_ns)
    with ExitStack() as undo:
        undo.callback(connection.close)
        _refuse_other_bars(connection, settings)
        _give_id(connection)
        writer = Writer(settings, connection, cards=cards, at_ns=at_ns)
        undo.pop_all()
    return writer


def _id_of(connection: duckdb.DuckDBPyConnection) -> str:
    ((found,),) = connection.execute("SELECT value FROM deployment WHERE name = 'id'").fetchall()
    return str(found)


def _give_id(connection: duckdb.DuckDBPyConnection) -> None:
    """Once, and folded in at once: a log that is cut short takes no name away."""
    if not connection.execute("SELECT 1 FROM deployment WHERE name = 'id'").fetchall():
        connection.execute("INSERT INTO deployment VALUES ('id', ?)", [fresh_id()]).fetchall()
        connection.execute("CHECKPOINT").fetchall()


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadStore(f"cannot make the folder {path.parent}: {error.strerror}", remedy="see store.path") from None


def _refuse_other_bars(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """A store holds bars of one kind: windows filled from others would be wrong without anybody noticing."""
    if settings.store.bars == "none":
        return
    bars = settings.bars
    size = {"time": bars.every_ms, "tick": bars.every_ticks, "volume": bars.every_size}[bars.kind]
    ours = json.dumps({"kind": bars.kind, "size": size})
    connection.execute("INSERT INTO deployment VALUES ('bars', ?) ON CONFLICT DO NOTHING", [ours]).fetchall()
    ((theirs,),) = connection.execute("SELECT value FROM deployment WHERE name = 'bars'").fetchall()
    if theirs == ours:
        return
    if connection.execute("SELECT 1 FROM bars LIMIT 1").fetchall():
        raise BadStore(
            f"{settings.store.path} holds bars of {theirs}, the settings say {ours}",
            remedy="give these settings another store.path",
        )
    connection.execute("UPDATE deployment SET value = ? WHERE name = 'bars'", [ours]).fetchall()
