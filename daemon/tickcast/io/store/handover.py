"""Hands the rows of a partition from the store that has them to the store of its new owner. All daemons are stopped.

Rows are copied first and deleted in a second step, so a crash leaves them twice, never nowhere; doing it again ends it.
Figures of accuracy are those of a whole slot and stay, and so does what has been rolled off to the archive.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import duckdb
import msgspec

from tickcast.columns import Source
from tickcast.errors import StoreStalled
from tickcast.io.store import schema
from tickcast.io.store.database import open_database, refusal
from tickcast.io.store.lock import StoreLock
from tickcast.io.store.rows import Position
from tickcast.io.store.tables import TABLES
from tickcast.io.store.writer import STALLED
from tickcast.settings import Settings

HANDED_OVER = [table.name for table in TABLES.values() if table.handed_over]
WITH_SOURCE = [name for name in HANDED_OVER if name != "scores"]
OF_SOURCE = "(source_topic, source_partition) IN (SELECT (topic, number) FROM moving)"
# Bars that were loaded have no source: they go with their symbol. A score goes with its forecast.
MOVES = dict.fromkeys(WITH_SOURCE, OF_SOURCE) | {
    "bars": f"{OF_SOURCE} OR source_topic IS NULL AND symbol IN (SELECT symbol FROM {{at}}.bars WHERE {OF_SOURCE})",
    "scores": f"id IN (SELECT id FROM {{at}}.forecasts WHERE {OF_SOURCE})",
}

Owner = Callable[[Source], int]


class Move(NamedTuple):
    giver: int
    taker: int
    sources: list[Source]


class Handover:
    """Made by `open`. The stores are attached as s0, s1, ..."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, slots: list[int], owner: Owner) -> None:
        self._connection = connection
        self._moves = [move for giver in slots for move in self._moves_from(giver, owner)]

    @classmethod
    @contextmanager
    def open(cls, settings: Mapping[int, Settings], owner: Owner, *, at_ns: int) -> Iterator["Handover"]:
        """Every store is locked, so none is a running daemon's; those that are missing are made."""
        with ExitStack() as stack:
            for one in settings.values():
                one.store.path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(StoreLock(one.store.path))
                _migrate(one, at_ns)
            connection = duckdb.connect(config={"memory_limit": f"{_memory(settings)}B", "threads": 1})
            stack.callback(connection.close)
            for slot, one in settings.items():
                path = str(one.store.path.absolute()).replace("'", "''")
                connection.execute(f"ATTACH '{path}' AS s{slot}").fetchall()
            yield cls(connection, [*settings], owner)

    def copy(self) -> int:
        """Every row that is in the wrong store is in the right one, too; returns how many were new there."""
        return sum(self._copy(move) for move in self._moves)

    def forget(self) -> int:
        """Delete what `copy` has copied where it came from; returns how many rows."""
        return sum(self._forget(move) for move in self._moves)

    def _moves_from(self, giver: int, owner: Owner) -> Iterator[Move]:
        held = " UNION ".join(f"SELECT source_topic, source_partition FROM s{giver}.{table}" for table in WITH_SOURCE)
        rows = self._connection.execute(f"{held} ORDER BY ALL").fetchall()
        sources = {*self._positions(giver), *((topic, number) for topic, number in rows if topic is not None)}
        for taker in sorted({owner(source) for source in sources} - {giver}):
            yield Move(giver, taker, sorted(source for source in sources if owner(source) == taker))

    def _copy(self, move: Move) -> int:
        self._name(move)
        giver, taker = f"s{move.giver}", f"s{move.taker}"
        with self._transaction():
            self._adopt_models(giver, taker)
            copied = 0
            for table, which in MOVES.items():
                columns = "o.* REPLACE (there.model AS model)" if table in ("forecasts", "scores") else "o.*"
                same = " AND ".join(f"n.{key} = o.{key}" for key in TABLES[table].key)
                copied += self._count(
                    f"INSERT INTO {taker}.{table} BY NAME SELECT {columns} FROM {giver}.{table} o "
                    + (_MODELS.format(giver=giver, taker=taker) if "model" in columns else "")
                    + f"WHERE ({which.format(at=giver)}) AND NOT EXISTS (SELECT 1 FROM {taker}.{table} n WHERE {same})"
                )
            theirs = {source: at for source, at in self._positions(move.giver).items() if source in move.sources}
            self._set_positions(move.taker, _furthest(self._positions(move.taker), theirs))
        return copied

    def _forget(self, move: Move) -> int:
        self._name(move)
        giver = f"s{move.giver}"
        with self._transaction():
            deleted = 0
            for table in ("scores", *WITH_SOURCE):  # scores while their forecasts are there
                deleted += self._count(f"DELETE FROM {giver}.{table} WHERE {MOVES[table].format(at=giver)}")
            ours = {source: at for source, at in self._positions(move.giver).items() if source not in move.sources}
            self._set_positions(move.giver, ours)
        return deleted

    def _name(self, move: Move) -> None:
        """The table `moving` holds the sources of the move."""
        self._connection.execute("CREATE OR REPLACE TEMP TABLE moving (topic VARCHAR, number INTEGER)").fetchall()
        for source in move.sources:
            self._connection.execute("INSERT INTO moving VALUES (?, ?)", [*source]).fetchall()

    def _adopt_models(self, giver: str, taker: str) -> None:
        self._count(
            f"INSERT INTO {taker}.models SELECT o.* REPLACE ((SELECT coalesce(max(model), 0) FROM {taker}.models) "
            f"+ row_number() OVER (ORDER BY o.model) AS model) FROM {giver}.models o "
            f"WHERE digest NOT IN (SELECT digest FROM {taker}.models)"
        )

    def _positions(self, slot: int) -> dict[Source, Position]:
        ((text,),) = self._connection.execute(f"SELECT positions FROM s{slot}.commits").fetchall()
        return {(at.source_topic, at.source_partition): at for at in msgspec.json.decode(text, type=list[Position])}

    def _set_positions(self, slot: int, positions: Mapping[Source, Position]) -> None:
        text = msgspec.json.encode([*positions.values()]).decode()
        self._connection.execute(f"UPDATE s{slot}.commits SET unit = unit + 1, positions = ?", [text]).fetchall()

    def _count(self, statement: str) -> int:
        ((rows,),) = self._connection.execute(statement).fetchall()
        return int(rows)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.begin()
            yield
            self._connection.commit()
        except STALLED as error:
            raise StoreStalled(
                f"rows cannot be handed over: {error}", remedy="free space and run it again; no row is lost"
            ) from None


_MODELS = "JOIN {giver}.models here ON here.model = o.model JOIN {taker}.models there ON there.digest = here.digest "


def _furthest(one: Mapping[Source, Position], other: Mapping[Source, Position]) -> dict[Source, Position]:
    ahead = {at: found for at, found in other.items() if at not in one or found.next_offset > one[at].next_offset}
    return {**one, **ahead}


def _migrate(settings: Settings, at_ns: int) -> None:
    """All stores have the newest schema."""
    try:
        schema.migrate(lambda: open_database(settings), settings.store.path, at_ns=at_ns).close()
    except duckdb.Error as error:
        raise refusal(settings, error) from None


def _memory(settings: Mapping[int, Settings]) -> int:
    return max(one.store.memory_bytes for one in settings.values()) * len(settings)
