"""The store's rows of what was ordered and what serves: commands, versions, promotions, decisions, jobs, trials, data
sets; and the alerts that a run before left open.

Every call is one transaction on the thread that writes. It judges nothing: what may be promoted, models.py knows.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, get_origin

import duckdb
import msgspec
import pyarrow as pa

from tickcast.alerts import ALERTS, AlertKind
from tickcast.engine.core.blocks import BlockRow
from tickcast.io.store.ledger_rows import DatasetRow, DecisionRow, Origin, PromotionRow, TrajectoryRow, VersionRow
from tickcast.io.store.rows import ALERT_COLUMNS
from tickcast.records import Alert, CommandRow, JobRow, ModelCard, Reply, TrialRow

GENESIS = "0" * 64  # the hash before the first command
CHAINED = ("id", "audience", "key", "role", "command", "args_json", "digest", "received_ns")  # they never change
CHUNK_ROWS = 4096

T = TypeVar("T")
Row = TypeVar("Row", bound=msgspec.Struct)
Connection = duckdb.DuckDBPyConnection
Decide = Callable[[list[PromotionRow]], str | None]


class Run(Protocol):
    """Has one of the store's threads do something with its connection."""

    def __call__(self, work: Callable[[Connection], T]) -> Awaitable[T]: ...


class ChainCheck(NamedTuple):
    """How the chain of commands was found."""

    rows: int  # that are sound
    head: str  # hash of the last of them
    broken_at: int | None  # the first row that does not follow from the one before


class Ledger:
    """`change` is one transaction, StoreStalled where the store takes nothing; `look` reads, `study` at length."""

    def __init__(self, change: Run, look: Run, study: Run) -> None:
        self._change, self._look, self._study = change, look, study

    async def add_command(self, row: CommandRow) -> CommandRow | None:
        """Note a command that came in, chained to the one before; the row that has its id already, where one has."""
        return await self._change(lambda connection: _add_command(connection, row))

    async def finish_command(self, id: str, reply: Reply) -> None:
        """The command is done, with this reply, `reply.elapsed_ms` after it was received."""
        text, elapsed_ns = msgspec.json.encode(reply).decode(), round(reply.elapsed_ms * 1e6)
        done = "UPDATE commands SET state = 'done', reply_json = ?, done_ns = received_ns + ? WHERE id = ?"
        await self._change(lambda connection: _run(connection, done, text, elapsed_ns, id))

    async def unfinished(self) -> list[CommandRow]:
        """Commands without a reply, oldest first."""
        rest = "WHERE state = 'received' ORDER BY sequence"
        return await self._look(lambda connection: _rows(connection, CommandRow, "commands", rest))

    async def ids_since(self, received_ns: int) -> list[str]:
        """Of the commands that were received then or later."""
        since = "SELECT id FROM commands WHERE received_ns >= ?"
        return [id for (id,) in await self._look(lambda connection: _run(connection, since, received_ns))]

    async def verify_chain(self) -> ChainCheck:
        """Compute every hash again. A missing end cannot be seen here: compare the head with one noted elsewhere."""
        return await self._study(_verify_chain)

    async def add_version(self, card: ModelCard, *, origin: Origin, at_ns: int) -> VersionRow:
        """A version once; one that was taken away lives again. Returns its row."""
        row = VersionRow.of(card, origin=origin, at_ns=at_ns)
        return await self._change(lambda connection: _add_version(connection, row))

    async def versions(self, name: str = "") -> list[VersionRow]:
        """Of one name or of all, those that were taken away too, in the order in which they came."""
        rest = "WHERE name = ? OR ? = '' ORDER BY registered_ns, digest"
        return await self._look(lambda connection: _rows(connection, VersionRow, "versions", rest, name, name))

    async def stages(self) -> dict[str, str]:
        """Digest -> candidate, active or retired."""
        return dict(await self._look(lambda connection: _run(connection, "SELECT digest, stage FROM stages")))

    async def bury_versions(self, digests: Sequence[str], *, at_ns: int) -> None:
        """Their files go."""
        gone = "UPDATE versions SET tombstone_ns = ? WHERE tombstone_ns IS NULL AND list_contains(?, digest)"
        await self._change(lambda connection: _run(connection, gone, at_ns, [*digests]))

    async def add_promotion(self, row: PromotionRow, decide: Decide) -> PromotionRow:
        """`decide` gets the route's history and gives the digest, in the transaction that notes it; or it refuses.

        One of the same command is there already: that row is returned, and nothing is decided again.
        """
        return await self._change(lambda connection: _add_promotion(connection, row, decide))

    async def promotions(self, route: str = "") -> list[PromotionRow]:
        """Of one route or of all, oldest first."""
        rest = "WHERE route = ? OR ? = '' ORDER BY sequence"
        return await self._look(lambda connection: _rows(connection, PromotionRow, "promotions", rest, route, route))

    async def decide(self, rows: Sequence[DecisionRow], state: str) -> None:
        """Note decisions, and what the daemon goes on from after them, at once."""
        await self._change(lambda connection: _decide(connection, rows, state))

    async def upkeep(self) -> str:
        """What `decide` was last given; empty before."""
        found = await self._look(lambda connection: _run(connection, "SELECT state_json FROM upkeep"))
        return str(found[0][0]) if found else ""

    async def decisions(self, kind: str = "", limit: int = 1000) -> list[DecisionRow]:
        """Of one kind or of all, newest first."""
        rest, given = "WHERE kind = ? OR ? = '' ORDER BY sequence DESC LIMIT ?", (kind, kind, limit)
        return await self._look(lambda connection: _rows(connection, DecisionRow, "decisions", rest, *given))

    async def blocks(self, contest: str, after: int) -> list[BlockRow]:
        """Of a contest, those with a higher number, in order."""
        wanted = (
            f"SELECT {', '.join(BlockRow._fields)} FROM contest_blocks WHERE contest = ? AND number > ? ORDER BY number"
        )
        return [BlockRow(*row) for row in await self._look(lambda connection: _run(connection, wanted, contest, after))]

    async def put_job(self, row: JobRow) -> None:
        """As it is now; the row before of the same job goes."""
        await self._change(lambda connection: _put(connection, "jobs", [row]))

    async def jobs(self, state: str = "", limit: int = 1000) -> list[JobRow]:
        """Newest first."""
        rest, given = "WHERE state = ? OR ? = '' ORDER BY created_ns DESC, id LIMIT ?", (state, state, limit)
        return await self._look(lambda connection: _rows(connection, JobRow, "jobs", rest, *given))

    async def evaluation_of(self, digest: str) -> dict[str, Any] | None:
        """The content of the newest job "evaluate" that judged the model of that digest."""
        wanted = (
            "SELECT result_json ->> '$.content' FROM jobs WHERE kind = 'evaluate' AND state = 'done' "
            "AND result_json ->> '$.content.judged.digest' = ? ORDER BY ended_ns DESC, id LIMIT 1"
        )
        found = await self._look(lambda connection: _run(connection, wanted, digest))
        return msgspec.json.decode(found[0][0]) if found else None

    async def put_trials(self, rows: Sequence[TrialRow]) -> None:
        if rows:
            await self._change(lambda connection: _put(connection, "trials", rows))

    async def trials(self, job: str) -> list[TrialRow]:
        rest = "WHERE job = ? ORDER BY number"
        return await self._look(lambda connection: _rows(connection, TrialRow, "trials", rest, job))

    async def trajectories(self, kind: str = "", limit: int = 1000) -> list[TrajectoryRow]:
        """Of a kind of model or of all, newest first."""
        rest, given = "WHERE kind = ? OR ? = '' ORDER BY at_ns DESC, job LIMIT ?", (kind, kind, limit)
        return await self._look(lambda connection: _rows(connection, TrajectoryRow, "trajectories", rest, *given))

    async def open_alerts(self) -> list[Alert]:
        """As the newest row of each name and subject has them; what a name means is not stored."""
        return await self._look(_open_alerts)

    async def add_dataset(self, row: DatasetRow) -> None:
        """Once; the same bars under the same rule have the same hash."""
        await self._change(lambda connection: _add_dataset(connection, row))


def _add_command(connection: Connection, row: CommandRow) -> CommandRow | None:
    if known := _rows(connection, CommandRow, "commands", "WHERE id = ?", row.id):
        return known[0]
    last = _run(connection, "SELECT sequence, hash FROM commands ORDER BY sequence DESC LIMIT 1")
    sequence, previous = last[0] if last else (0, GENESIS)
    chain = {"sequence": sequence + 1, "previous": previous, "hash": _chained(previous, _values(row))}
    _insert(connection, "commands", _values(row) | chain)
    return None


def _chained(previous: str, values: dict[str, Any]) -> str:
    text = msgspec.json.encode([previous, *(values[name] for name in CHAINED)])
    return hashlib.sha256(text).hexdigest()


def _verify_chain(connection: Connection) -> ChainCheck:
    rows, head = 0, GENESIS
    for sequence, previous, found, *content in _chain(connection):
        if (sequence, previous) != (rows + 1, head) or found != _chained(head, dict(zip(CHAINED, content))):
            return ChainCheck(rows, head, rows + 1)
        rows, head = sequence, found
    return ChainCheck(rows, head, None)


def _chain(connection: Connection) -> Iterator[tuple[Any, ...]]:
    columns = ", ".join(("sequence", "previous", "hash", *CHAINED))
    found = connection.execute(f"SELECT {columns} FROM commands ORDER BY sequence")
    while chunk := found.fetchmany(CHUNK_ROWS):
        yield from chunk


def _add_version(connection: Connection, row: VersionRow) -> VersionRow:
    if not _known(connection, "versions", "digest", row.digest):
        _insert(connection, "versions", _values(row))
    _run(connection, "UPDATE versions SET tombstone_ns = NULL WHERE digest = ?", row.digest)
    return _rows(connection, VersionRow, "versions", "WHERE digest = ?", row.digest)[0]


def _add_promotion(connection: Connection, row: PromotionRow, decide: Decide) -> PromotionRow:
    known = _rows(connection, PromotionRow, "promotions", "WHERE command_id = ?", row.command_id)
    if row.command_id and known:
        return known[0]
    history = _rows(connection, PromotionRow, "promotions", "WHERE route = ? ORDER BY sequence", row.route)
    ((last,),) = _run(connection, "SELECT coalesce(max(sequence), 0) FROM promotions")
    added = msgspec.structs.replace(row, sequence=last + 1, digest=decide(history))
    _insert(connection, "promotions", _values(added))
    return added


def _decide(connection: Connection, rows: Sequence[DecisionRow], state: str) -> None:
    ((last,),) = _run(connection, "SELECT coalesce(max(sequence), 0) FROM decisions")
    for number, row in enumerate(rows, last + 1):
        _insert(connection, "decisions", _values(msgspec.structs.replace(row, sequence=number)))
    _run(connection, "DELETE FROM upkeep")
    _run(connection, "INSERT INTO upkeep VALUES (?)", state)


def _add_dataset(connection: Connection, row: DatasetRow) -> None:
    if not _known(connection, "datasets", "hash", row.hash):
        _insert(connection, "datasets", _values(row))


def _open_alerts(connection: Connection) -> list[Alert]:
    found = _run(
        connection,
        f"SELECT {', '.join(ALERT_COLUMNS)} FROM alerts QUALIFY event <> 'ended' AND row_number() OVER "
        "(PARTITION BY name, subject ORDER BY at_ns DESC, rowid DESC) = 1 ORDER BY first_ns, name, subject",
    )
    return [_alert(dict(zip(ALERT_COLUMNS, row, strict=True))) for row in found]


def _alert(row: dict[str, Any]) -> Alert:
    """Of a name that the list has no more there are no words."""
    kind = ALERTS.get(row["name"], AlertKind(row["name"], row["severity"], "", ""))
    return Alert(meaning=kind.meaning, remedy=kind.remedy, runbook=kind.runbook, **row)


def _known(connection: Connection, table: str, key: str, value: str) -> bool:
    return bool(_run(connection, f"SELECT 1 FROM {table} WHERE {key} = ?", value))


def _put(connection: Connection, table: str, rows: Sequence[msgspec.Struct]) -> None:
    """All at once: row by row each would cost a millisecond."""
    given = [_values(row) for row in rows]
    connection.register("given", pa.Table.from_pylist(given))
    try:
        _run(connection, f"INSERT OR REPLACE INTO {table} BY NAME SELECT * FROM given")
    finally:
        connection.unregister("given")


def _insert(connection: Connection, table: str, values: dict[str, Any]) -> None:
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    _run(connection, f"INSERT INTO {table} ({names}) VALUES ({marks})", *values.values())


def _values(row: msgspec.Struct) -> dict[str, Any]:
    """A row's columns are its fields; what is no plain value is JSON, and JSON without text is NULL."""
    values = msgspec.structs.asdict(row)
    for name, value in values.items():
        if isinstance(value, dict | list):
            values[name] = msgspec.json.encode(value).decode()
        elif name.endswith("_json"):
            values[name] = value or None
    return values


def _rows(connection: Connection, kind: type[Row], table: str, rest: str, *given: Any) -> list[Row]:
    fields = msgspec.structs.fields(kind)
    found = _run(connection, f"SELECT {', '.join(field.name for field in fields)} FROM {table} {rest}", *given)
    is_json = [get_origin(field.type) in (dict, list) for field in fields]
    names = [field.name for field in fields]
    return [
        kind(**{
            name: msgspec.json.decode(value) if decode else value
            for name, value, decode in zip(names, row, is_json)
            if value is not None or not name.endswith("_json")
        })
        for row in found
    ]  # fmt: skip


def _run(connection: Connection, sql: str, *given: Any) -> list[Any]:
    return connection.execute(sql, [*given]).fetchall()
