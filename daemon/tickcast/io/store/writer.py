"""Owns the one connection that writes: a unit is one transaction, stored once or not at all. Runs on one thread only.

A failed commit says nothing certain about the disk. So every transaction raises `commits.unit`, and before a unit is
written again that number is read back: where it has risen, the unit was stored.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import duckdb
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tickcast.columns import BarBatch, Forecasts, Scores, Source
from tickcast.engine.core.blocks import BlockRow
from tickcast.errors import StoreStalled
from tickcast.io.store import rolloff, rows
from tickcast.io.store.database import connect
from tickcast.io.store.rows import Names, Origin, Position
from tickcast.io.store.tables import TABLES
from tickcast.records import Accuracy, Alert, DeadLetter, Drift, ModelCard, digest
from tickcast.settings import Settings

MINUTE_NS = 60 * 10**9  # of event time: a watermark is kept so often
CHECKPOINT_BYTES = 24 << 20  # of log; at 16 MB a row costs twice the CPU, at 64 MB memory swings by far more
INVALID = (duckdb.FatalException, duckdb.InternalException)  # after these the database must be opened again
STALLED = (*INVALID, duckdb.IOException, duckdb.TransactionException, duckdb.OutOfMemoryException)

Mask = npt.NDArray[np.bool_]
T = TypeVar("T")
Batch = TypeVar("Batch", Forecasts, Scores)
Joined = TypeVar("Joined", BarBatch, Forecasts, Scores)


@dataclass(slots=True)
class Commit:
    """What one transaction holds."""

    forecasts: list[Forecasts] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    bars: list[BarBatch] = field(default_factory=list)
    accuracy: list[Accuracy] = field(default_factory=list)
    blocks: list[BlockRow] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    drift: list[Drift] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    offsets: dict[Source, int] = field(default_factory=dict)  # next offset
    watermarks: dict[Source, int] = field(default_factory=dict)  # event time reached
    sources: Sequence[Source] = ()  # what the numbers in the columns `partition` stand for; beyond them: no source


class Writer:
    def __init__(
        self, settings: Settings, connection: duckdb.DuckDBPyConnection, *, cards: list[ModelCard], at_ns: int
    ) -> None:
        self.reading = threading.Lock()  # held while a cursor is open: all are closed before the file is opened again
        self.may_checkpoint = True  # not while the database file is copied
        self._settings = settings
        self._connection = connection
        self._invalid = False
        self._cards = cards
        self._at_ns = at_ns
        self._models = np.zeros(0, np.int32)  # the store's number of each card
        self._positions = self._stored_positions()
        self._commits = self._last_commit()
        self._failed = False  # since the number of commits was last known
        self._doubtful: Commit | None = None  # it failed, and perhaps is stored
        self._checkpoint_at = CHECKPOINT_BYTES
        self.at_open = {source: position.next_offset for source, position in self._positions.items()}
        ((settled,),) = connection.execute("SELECT max(settled_ns) FROM scores").fetchall()
        self._settled_at_open = -1 if settled is None else int(settled)
        self._settled: dict[Source, int] = {}  # event time up to which scores were stored by this process
        self._marked = self._stored_marks()  # the newest watermark kept of each source

    def cursor(self) -> duckdb.DuckDBPyConnection:
        return self._connection.cursor()

    def write(self, unit: Commit, names: Names) -> None:
        """Store the unit, or raise StoreStalled with the store unchanged; then it may be given again."""
        self._open_again_if_invalid()
        positions = rows.advanced(self._positions, unit.offsets, unit.watermarks)
        if not self._was_stored_after_all(unit):
            self._adopt_models()
            tables = list(self._tables(unit, names))
            self._doubtful = unit
            with self._transaction(positions):
                for name, table, seen in tables:
                    self._insert(name, table, seen)
            self._doubtful = None
        self._positions = positions
        self._marked |= self._due_marks(unit)
        self._note_settled(unit.scores, unit.sources)
        self._checkpoint_when_due()

    def change(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """One transaction beside the units. StoreStalled: it is not known whether it was stored; give the same again.

        While a unit is in doubt nothing else may be written: by the number of commits it is told whether it is stored.
        """
        self._open_again_if_invalid()
        if self._failed and self._doubtful is not None:
            raise StoreStalled(f"{self._settings.store.path} has a unit to write first")
        with self._transaction(self._positions):
            done = work(self._connection)
        self._checkpoint_when_due()
        return done

    def look(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Read what is stored, between two transactions."""
        self._open_again_if_invalid()
        try:
            return work(self._connection)
        except STALLED as error:
            self._invalid = isinstance(error, INVALID)
            raise StoreStalled(f"{self._settings.store.path} cannot be read: {error}") from None

    def forget(self, moved: rolloff.Moved) -> bool:
        """Delete what stands in the archive, with its entry there, in one transaction."""
        return self.change(lambda connection: rolloff.delete(connection, moved))

    def forget_watermarks(self, before_ns: int) -> None:
        """Delete those that are older; unlike other rows they are of no use in an archive."""
        old = "DELETE FROM watermarks WHERE watermark_ns < ?"
        self.change(lambda connection: connection.execute(old, [before_ns]).fetchall())

    def close(self) -> None:
        with suppress(*STALLED):  # all that was committed is in the log; the next start folds it in
            self._connection.close()

    def _tables(self, unit: Commit, names: Names) -> Iterator[tuple[str, pa.Table, Mask]]:
        """(table, rows, which of them may be stored already)."""
        origin, store = Origin(unit.sources), self._settings.store
        at = np.array([self._next_offset(source) for source in unit.sources], np.int64)
        if unit.bars and store.bars == "all":
            bars = _joined(unit.bars)
            yield "bars", rows.bar_rows(bars, names, origin), rows.seen_before(bars.partition, bars.offset, at)
        if unit.forecasts and store.forecasts != "none":
            f = self._sampled(_joined(unit.forecasts))
            table = rows.forecast_rows(f, names, origin, self._models)
            yield "forecasts", table, rows.seen_before(f.partition, f.offset, at)
        if unit.scores and store.forecasts != "none":
            s = self._sampled(_joined(unit.scores))
            table = rows.score_rows(s, names, self._models, self._settings.scored_horizons())
            upto = np.array([self._settled.get(source, self._settled_at_open) for source in unit.sources], np.int64)
            yield "scores", table, rows.seen_before(s.partition, s.settled_ns, upto + 1)
        if unit.accuracy:
            table = rows.accuracy_rows(unit.accuracy)
            yield "accuracy", table, np.ones(len(table), np.bool_)  # while no tick comes, the same figures come again
        if unit.blocks:
            yield "contest_blocks", rows.block_rows(unit.blocks), np.ones(len(unit.blocks), np.bool_)
        if unit.alerts:
            yield "alerts", rows.alert_rows(unit.alerts), np.zeros(len(unit.alerts), np.bool_)
        if unit.drift:
            table = rows.drift_rows(unit.drift)
            yield "drift", table, np.ones(len(table), np.bool_)
        if unit.dead_letters:
            ends = np.array([self._next_offset((d.topic, d.partition)) for d in unit.dead_letters])
            offsets = np.array([d.offset for d in unit.dead_letters])
            yield "dead_letters", rows.letter_rows(unit.dead_letters, unit.watermarks), offsets < ends
        if due := self._due_marks(unit):
            yield "watermarks", _mark_rows(due, unit.offsets), np.zeros(len(due), np.bool_)

    def _due_marks(self, unit: Commit) -> dict[Source, int | None]:
        """Watermarks to keep: each source's first ever, and the first of every minute after that."""
        return {
            source: unit.watermarks.get(source)
            for source in unit.offsets
            if source not in self._marked or _is_later_minute(self._marked[source], unit.watermarks.get(source))
        }

    def _next_offset(self, source: Source) -> int:
        return self._positions[source].next_offset if source in self._positions else 0

    def _was_stored_after_all(self, unit: Commit) -> bool:
        """Whether the commit of this unit reached the disk although it failed."""
        if not self._failed:
            return False
        before, self._commits = self._commits, self._last_commit()
        stored = self._doubtful is unit and self._commits > before
        self._failed, self._doubtful = False, None
        return stored

    def _note_settled(self, scores: list[Scores], sources: Sequence[Source]) -> None:
        for batch in scores:
            for number in np.unique(batch.partition[batch.partition < len(sources)]):
                source, newest = sources[number], int(batch.settled_ns[batch.partition == number].max())
                self._settled[source] = max(newest, self._settled.get(source, self._settled_at_open))

    def _sampled(self, batch: Batch) -> Batch:
        store = self._settings.store
        return batch.take(rows.keeps(batch.id_low, store.sample_every)) if store.forecasts == "sample" else batch

    def _insert(self, name: str, table: pa.Table, seen: Mask) -> None:
        if not seen.any():
            self._run(f"INSERT INTO {name} BY NAME SELECT * FROM unit_rows", table)
            return
        fresh, again = table.filter(pa.array(~seen)), table.filter(pa.array(seen))
        self._run(f"INSERT INTO {name} BY NAME SELECT * FROM unit_rows", fresh)
        key = TABLES[name].key
        *_, bound = key
        low, high = pa.compute.min_max(again[bound]).as_py().values()
        same = " AND ".join(f"old.{column} = unit_rows.{column}" for column in key)
        self._run(
            f"INSERT INTO {name} BY NAME SELECT * FROM unit_rows WHERE NOT EXISTS "
            f"(SELECT 1 FROM {name} old WHERE old.{bound} BETWEEN {low} AND {high} AND {same})",
            again,
        )

    def _run(self, sql: str, unit_rows: pa.Table) -> None:
        if len(unit_rows):
            self._connection.register("unit_rows", unit_rows)
            self._connection.execute(sql).fetchall()
            self._connection.unregister("unit_rows")

    def _adopt_models(self) -> None:
        """Give every card that is new to this process its number in the store."""
        if len(self._models) == len(self._cards):
            return
        cards = list(self._cards)
        digests = [card.digest or digest(card) for card in cards]
        stored: dict[str, int] = dict(self._connection.execute("SELECT digest, model FROM models").fetchall())
        with self._transaction(self._positions):
            for card, key in zip(cards, digests, strict=True):
                if key not in stored:
                    stored[key] = len(stored) + 1
                    row = self._model_row(stored[key], key, card)
                    self._connection.execute(f"INSERT INTO models VALUES ({', '.join('?' * len(row))})", row).fetchall()
        self._models = np.array([stored[key] for key in digests], np.int32)

    def _model_row(self, number: int, key: str, card: ModelCard) -> list[Any]:
        text = msgspec.json.encode(card).decode()
        named = [card.name, card.version, card.kind, card.transform]
        return [number, key, *named, card.horizon, card.levels, text, self._at_ns]

    @contextmanager
    def _transaction(self, positions: Mapping[Source, Position]) -> Iterator[None]:
        text = msgspec.json.encode(list(positions.values())).decode()
        try:
            self._connection.begin()
            yield
            self._connection.execute("UPDATE commits SET unit = unit + 1, positions = ?", [text]).fetchall()
            self._connection.commit()
        except STALLED as error:
            self._abandon(error)
            raise StoreStalled(
                f"{self._settings.store.path} takes nothing: {error}",
                remedy="free space on its disk; what waits is written then",
            ) from None
        except BaseException:  # not the store's fault: what was begun is undone, and the next may begin
            with suppress(duckdb.Error):
                self._connection.rollback()
            raise
        self._commits += 1

    def _abandon(self, error: duckdb.Error) -> None:
        self._failed, self._invalid = True, isinstance(error, INVALID)
        with suppress(duckdb.Error):  # a failed commit has ended the transaction already
            self._connection.rollback()

    def _open_again_if_invalid(self) -> None:
        if not self._invalid:
            return
        with self.reading:
            self.close()
            try:
                self._connection = connect(self._settings)
            except duckdb.Error as error:
                raise StoreStalled(f"{self._settings.store.path} cannot be opened again: {error}") from None
        self._invalid = False

    def _checkpoint_when_due(self) -> None:
        """Fold the log into the database. A failure loses nothing: the log holds all, and is folded in later."""
        path = self._settings.store.path
        log = path.with_name(path.name + ".wal")
        size = log.stat().st_size if log.exists() else 0
        if size < self._checkpoint_at or not self.may_checkpoint:
            return
        try:
            self._connection.execute("CHECKPOINT").fetchall()
        except STALLED as error:
            self._invalid = isinstance(error, INVALID)
            self._checkpoint_at = size + CHECKPOINT_BYTES
        else:
            self._checkpoint_at = CHECKPOINT_BYTES

    def _last_commit(self) -> int:
        ((unit,),) = self._connection.execute("SELECT unit FROM commits").fetchall()
        return int(unit)

    def _stored_positions(self) -> dict[Source, Position]:
        ((text,),) = self._connection.execute("SELECT positions FROM commits").fetchall()
        positions = msgspec.json.decode(text, type=list[Position])
        return {(position.source_topic, position.source_partition): position for position in positions}

    def _stored_marks(self) -> dict[Source, int | None]:
        newest = "SELECT source_topic, source_partition, max(watermark_ns) FROM watermarks GROUP BY ALL"
        return {(topic, number): ns for topic, number, ns in self._connection.execute(newest).fetchall()}


def _is_later_minute(before_ns: int | None, now_ns: int | None) -> bool:
    return now_ns is not None and (before_ns is None or now_ns // MINUTE_NS > before_ns // MINUTE_NS)


def _mark_rows(marks: Mapping[Source, int | None], offsets: Mapping[Source, int]) -> pa.Table:
    return pa.table(
        {
            "source_topic": [topic for topic, _ in marks], "source_partition": [number for _, number in marks],
            "watermark_ns": pa.array([*marks.values()], pa.int64()),
            "next_offset": [offsets[source] for source in marks],
        }
    )  # fmt: skip


def _joined(batches: list[Joined]) -> Joined:
    return batches[0] if len(batches) == 1 else type(batches[0]).concat(batches)
