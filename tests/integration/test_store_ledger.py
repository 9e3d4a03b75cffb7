"""The ledger in a real store: commands chained and answered once, promotions added only, jobs as they last were."""

import asyncio
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from registrykit import registry_in
from storekit import SOURCE, T0, open_store, store_settings, unit, value
from tickcast.errors import ModelRefused, StoreStalled
from tickcast.io.store.ledger import GENESIS, ChainCheck
from tickcast.io.store.ledger_rows import DatasetRow, TrajectoryRow
from tickcast.io.store.store import Store
from tickcast.io.store.writer import Writer
from tickcast.records import CommandRow, JobRow, Reply, TrialRow


def command(number: int, **changed: Any) -> CommandRow:
    plain: dict[str, Any] = {
        "id": f"c{number}", "audience": "fleet", "key": "ops", "role": "promote", "command": "status",
        "args_json": f'{{"n": {number},  "text": "\u00e9 \\u2028"}}', "digest": f"{number:064x}",
        "received_ns": T0 + number,
    }  # fmt: skip
    return CommandRow(**plain | changed)


def reply(number: int) -> Reply:
    return Reply(id=f"c{number}", command="status", ok=True, result={"n": number}, elapsed_ms=1.5)


@pytest.fixture
async def store(tmp_path):
    opened = open_store(store_settings(tmp_path))
    yield opened
    await opened.close()


async def test_a_command_is_kept_once_and_comes_back_with_its_reply(store: Store) -> None:
    ledger = store.ledger
    assert await ledger.add_command(command(1)) is None
    assert await ledger.add_command(command(1)) == command(1)
    await ledger.finish_command("c1", reply(1))
    known = await ledger.add_command(command(1, digest="another"))
    assert known is not None
    assert (known.digest, known.state, known.done_ns) == (command(1).digest, "done", T0 + 1 + 1_500_000)
    assert msgspec.json.decode(known.reply_json, type=Reply) == reply(1)
    assert await value(store, "SELECT count(*) FROM commands") == 1
    assert (await ledger.ids_since(T0 + 1), await ledger.ids_since(T0 + 2)) == (["c1"], [])


async def test_commands_without_a_reply_are_told_in_order_also_after_a_restart(tmp_path: Path) -> None:
    settings = store_settings(tmp_path)
    store = open_store(settings)
    for number in (3, 1, 2):
        await store.ledger.add_command(command(number))
    await store.ledger.finish_command("c1", reply(1))
    await store.close()
    store = open_store(settings)
    assert await store.ledger.unfinished() == [command(3), command(2)]
    await store.close()


TAMPERING = {
    "another argument": ("UPDATE commands SET args_json = '{}' WHERE sequence = 3", 3),
    "another role": ("UPDATE commands SET role = 'admin' WHERE sequence = 2", 2),
    "another time": ("UPDATE commands SET received_ns = received_ns + 1 WHERE sequence = 5", 5),
    "a row less": ("DELETE FROM commands WHERE sequence = 4", 4),
    "the first row less": ("DELETE FROM commands WHERE sequence = 1", 1),
    "a hash made up": ("UPDATE commands SET hash = previous WHERE sequence = 2", 2),
    "rows swapped": ("UPDATE commands SET id = CASE id WHEN 'c2' THEN 'x' ELSE 'c2' END WHERE id IN ('c2', 'c3')", 2),
    "a row more": (
        "INSERT INTO commands SELECT * REPLACE (6 AS sequence, 'c9' AS id) FROM commands WHERE sequence = 5", 6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERING)
async def test_a_chain_that_was_tampered_with_is_broken_where_it_was(tmp_path: Path, what: str) -> None:
    settings = store_settings(tmp_path)
    store = open_store(settings)
    for number in range(1, 6):
        await store.ledger.add_command(command(number))
    await store.ledger.finish_command("c2", reply(2))
    sound = await store.ledger.verify_chain()
    assert (sound.rows, sound.broken_at) == (5, None)
    await store.close()
    statement, at = TAMPERING[what]
    with duckdb.connect(str(settings.store.path)) as database:
        database.execute(statement).fetchall()
    store = open_store(settings)
    assert (await store.ledger.verify_chain()).broken_at == at
    await store.close()


async def test_an_end_that_was_cut_off_shows_in_the_head(tmp_path: Path) -> None:
    settings = store_settings(tmp_path)
    store = open_store(settings)
    assert await store.ledger.verify_chain() == ChainCheck(0, GENESIS, None)
    for number in range(1, 4):
        await store.ledger.add_command(command(number))
    head = (await store.ledger.verify_chain()).head
    await store.close()
    with duckdb.connect(str(settings.store.path)) as database:
        database.execute("DELETE FROM commands WHERE sequence = 3").fetchall()
    store = open_store(settings)
    cut = await store.ledger.verify_chain()
    assert (cut.broken_at, cut.rows) == (None, 2)
    assert cut.head != head
    await store.close()


async def test_a_job_is_what_it_last_said_of_itself(store: Store) -> None:
    queued = JobRow(
        id="j1", kind="train", command_id="c1", state="queued", why="", order_json='{"kind": "nhits"}', created_ns=T0
    )
    running = msgspec.structs.replace(queued, state="running", started_ns=T0 + 1, step=3, steps=9)
    done = msgspec.structs.replace(running, state="done", ended_ns=T0 + 2, result_json='{"ok": true}')
    later = msgspec.structs.replace(queued, id="j2", created_ns=T0 + 5)
    for row in (queued, running, later, done):
        await store.ledger.put_job(row)
    assert await store.ledger.jobs() == [later, done]
    assert await store.ledger.jobs("queued") == [later]
    assert await store.ledger.jobs(limit=1) == [later]


async def test_trials_come_back_with_what_has_no_value(store: Store) -> None:
    rows = [
        TrialRow(job="j", number=n, state=state, params={"hidden": n}, value=of, epochs=2, seconds=0.5, why=why)
        for n, (state, of, why) in enumerate([("complete", 0.1, ""), ("failed", None, "crashed")])
    ]
    await store.ledger.put_trials([])
    await store.ledger.put_trials(rows[1:])
    await store.ledger.put_trials([msgspec.structs.replace(rows[0], value=9.0)])
    await store.ledger.put_trials(rows)
    assert await store.ledger.trials("j") == rows
    assert await store.ledger.trials("other") == []


async def test_a_data_set_is_kept_once(store: Store) -> None:
    row = DatasetRow(
        hash="h", source="store", rule={"lookback": 96}, symbols=2, bars=500, from_ns=1, to_ns=2, added_ns=T0
    )
    await store.ledger.add_dataset(row)
    await store.ledger.add_dataset(msgspec.structs.replace(row, added_ns=T0 + 9))
    answer = await store.query("SELECT * REPLACE (CAST(rule AS VARCHAR) AS rule) FROM datasets")
    assert [tuple(found) for found in answer.rows] == [("h", "store", '{"lookback":96}', 2, 500, 1, 2, T0, "{}")]


def trajectory(job: str, kind: str, order: dict[str, Any], content: dict[str, Any], **changed: Any) -> JobRow:
    result = {"ok": True, "metrics": {"skill": 0.02, "skill_low": 0.01, "skill_high": None}, "content": content}
    plain: dict[str, Any] = {
        "id": job, "kind": kind, "command_id": "", "state": "done", "why": "", "created_ns": T0, "ended_ns": T0 + 7,
        "order_json": msgspec.json.encode(order).decode(), "result_json": msgspec.json.encode(result).decode(),
    }  # fmt: skip
    return JobRow(**plain | changed)


async def test_a_trajectory_is_what_a_job_that_is_done_found_on_data_of_a_known_kind(store: Store) -> None:
    data = DatasetRow(
        hash="h", source="store", rule={}, symbols=2, bars=500, from_ns=1, to_ns=2, added_ns=T0,
        signature={"symbols": 0.3},
    )  # fmt: skip
    unknown = msgspec.structs.replace(data, hash="old")
    for row in (data, unknown):
        await store.ledger.add_dataset(row)
    before = "UPDATE datasets SET signature = NULL WHERE hash = 'old'"
    await store.ledger._change(lambda connection: connection.execute(before).fetchall())
    fit, found = {"kind": "ridge", "model_params": {"rows": 5}, "horizon": 3}, {"dataset": {"hash": "h"}}
    search = {"fit": fit, "metric": "mae"}
    best = {**found, "best": {"params": {"rows": 9}}}
    jobs = [
        trajectory("j1", "train", fit, found), trajectory("j2", "optimize", search, best, ended_ns=T0 + 9),
        trajectory("j3", "train", {**fit, "kind": "ar"}, found, ended_ns=T0 + 8),
        trajectory("failed", "train", fit, found, state="failed"), trajectory("judged", "evaluate", fit, found),
        trajectory("unknown", "train", fit, {"dataset": {"hash": "old"}}), trajectory("none", "train", fit, {}),
        trajectory("odd", "optimize", search, {**found, "best": {"params": [1]}}),
        trajectory("odder", "train", {**fit, "model_params": "x"}, found), trajectory("oddest", "optimize", {}, best),
    ]  # fmt: skip
    for job in jobs:
        await store.ledger.put_job(job)
        await store.ledger.put_job(job)  # whoever says it twice, it is there once
    rows = await store.ledger.trajectories()
    assert [row.job for row in rows] == ["j2", "j3", "j1"]
    assert rows[0] == TrajectoryRow(
        job="j2", made_by="optimize", kind="ridge", fit=fit, params={"rows": 9}, metric="mae", skill=0.02,
        skill_low=0.01, skill_high=None, cost_us=None, signature={"symbols": 0.3}, at_ns=T0 + 9,
    )  # fmt: skip
    assert (rows[2].params, rows[2].metric) == ({"rows": 5}, "")
    assert [row.job for row in await store.ledger.trajectories("ridge", limit=1)] == ["j2"]
    no_number = '{"content": {"dataset": {"hash": "h"}}, "metrics": {"skill": "x"}}'
    await store.ledger.put_job(msgspec.structs.replace(jobs[0], result_json=no_number))
    assert [row.skill for row in await store.ledger.trajectories() if row.job == "j1"] == [None]


async def test_a_refusal_within_a_transaction_leaves_the_store_as_it_was_and_open(tmp_path: Path) -> None:
    async with registry_in(tmp_path) as registry:
        digest = await registry.add()
        await registry.promote(digest)
        with pytest.raises(ModelRefused):
            await registry.promote(digest)
        await registry.store.write(unit(0, 10))
        assert len(await registry.models.history()) == 1
        assert await value(registry.store, "SELECT count(*) FROM bars") == 10


async def test_units_and_the_ledger_take_turns(tmp_path: Path) -> None:
    async with registry_in(tmp_path) as registry:

        async def units() -> None:
            for first in range(0, 100, 10):
                await registry.store.write(unit(first, 10))

        async def commands() -> None:
            for number in range(20):
                await registry.store.ledger.add_command(command(number))

        await asyncio.gather(units(), commands())
        assert await value(registry.store, "SELECT count(*) FROM bars") == 100
        assert (await registry.store.ledger.verify_chain()).rows == 20
    store = open_store(store_settings(tmp_path))
    assert store.positions() == {SOURCE: 100}
    await store.close()


def stalls(monkeypatch: pytest.MonkeyPatch, *, stored: bool) -> None:
    """The next commit fails, though its transaction may have reached the disk."""
    real = Writer._transaction

    class Once:
        def __init__(self, writer: Writer, positions: Any) -> None:
            self._writer, self._inner = writer, real(writer, positions)

        def __enter__(self) -> None:
            self._inner.__enter__()

        def __exit__(self, *raised: Any) -> None:
            monkeypatch.setattr(Writer, "_transaction", real)
            if stored:
                self._inner.__exit__(*raised)
                self._writer._commits -= 1
            error = duckdb.IOException("No space left on device")
            if not stored:
                self._inner.gen.throw(error)
            self._writer._abandon(error)
            raise StoreStalled(str(error))

    monkeypatch.setattr(Writer, "_transaction", lambda writer, positions: Once(writer, positions))


@pytest.mark.parametrize("stored", [True, False])
async def test_a_command_whose_commit_failed_is_given_again_and_kept_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    stalls(monkeypatch, stored=stored)
    with pytest.raises(StoreStalled):
        await store.ledger.add_command(command(1))
    assert (await store.ledger.add_command(command(1)) is None) is not stored
    assert await value(store, "SELECT count(*) FROM commands") == 1


@pytest.mark.parametrize("stored", [True, False])
async def test_while_a_unit_is_in_doubt_the_ledger_waits_so_that_the_unit_is_stored_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    await store.write(unit(0, 10))  # it numbers the models, in a transaction of its own
    doubtful = unit(10, 10)
    stalls(monkeypatch, stored=stored)
    with pytest.raises(StoreStalled):
        await store.write(doubtful)
    with pytest.raises(StoreStalled, match="a unit to write first"):
        await store.ledger.add_command(command(1))
    await store.write(doubtful)
    assert await store.ledger.add_command(command(1)) is None
    assert await value(store, "SELECT count(*) FROM forecasts") == 20


async def test_the_registry_is_there_again_after_a_restart(tmp_path: Path) -> None:
    async with registry_in(tmp_path) as registry:
        one, two = await registry.add(), await registry.add()
        await registry.promote(one)
        await registry.promote(two)
    async with registry_in(tmp_path) as again:
        assert again.artefacts.digests() == {one, two}
        active = await again.models.active()
        assert active is not None
        assert active.digest == two
        assert await again.models.folder(two)
