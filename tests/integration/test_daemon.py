"""The live daemon as a whole: it forecasts, stores, answers, drains, comes back warm, and refuses what it must."""

import asyncio
import os
from pathlib import Path

import duckdb
import msgspec
import numpy as np
import pytest

from livekit import Live, live_settings, records, running
from tickcast.batch.replay import ReplayOrder, in_folder, replay
from tickcast.batch.synth import Market, json_messages
from tickcast.errors import BadSettings, BadStore
from tickcast.io.tape.tape import write_ticks
from tickcast.records import WINDOWS, Health

SMALL = {"window__lookback": 12, "forecast__horizon": 4}
SECOND = 10**9


def market(seconds: float, *, symbols: int = 5) -> tuple[Market, list[bytes]]:
    source = Market(seed=3, symbols=symbols, tick_rate_hz=100)
    ticks = source.ticks(source.start_ns + int(seconds * SECOND))
    return source, [message for _, message in json_messages(ticks)]


@pytest.mark.slow
async def test_every_forecast_is_published_once_stored_once_and_scored(tmp_path: Path) -> None:
    settings = live_settings(tmp_path, **SMALL)
    async with running(settings) as live:
        await live.send(market(30)[1])
        published = await live.forecasts()
    ids = [f["id"] for f in published]
    assert len(ids) == len(set(ids)) == live.daemon.session.pump.meter.forecasts > 80
    with duckdb.connect(str(settings.store.path), read_only=True) as store:
        stored = {row[0] for row in store.execute("SELECT id FROM forecasts").fetchall()}
        ((scored,),) = store.execute("SELECT count(*) FROM scores").fetchall()
        ((next_offset,),) = store.execute("SELECT next_offset FROM offsets").fetchall()
    assert len(stored) == len(ids)
    assert scored == live.daemon.health().scored > 50
    assert next_offset == live.daemon.health().consumed


@pytest.mark.slow
async def test_a_batch_without_messages_is_nothing(tmp_path: Path) -> None:
    async with running(live_settings(tmp_path, **SMALL)) as live:
        await live.bus.produce(live.topic, [])
        await live.send(market(2)[1])
        assert live.daemon.health().consumed > 0


async def test_a_forecast_record_names_where_it_came_from_and_who_made_it(tmp_path: Path) -> None:
    async with running(live_settings(tmp_path, **SMALL)) as live:
        await live.send(market(10)[1])
        forecast = (await live.forecasts())[-1]
    assert forecast["source"]["topic"] == "tickcast.ticks"
    assert forecast["rung"] == forecast["model"] == "naive"
    assert len(forecast["quantiles"]) == len(forecast["point"]) == len(forecast["target_ns"]) == 4
    assert forecast["target_ns"][0] == forecast["as_of_ns"] + SECOND
    assert [row[2] for row in forecast["quantiles"]] == forecast["point"]
    assert 0.5 <= forecast["confidence"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["time", "tick"])
async def test_live_on_the_memory_bus_equals_replay_of_the_same_ticks(tmp_path: Path, kind: str) -> None:
    source, messages = market(20)
    ticks = tmp_path / "ticks.parquet"
    write_ticks(ticks, Market(seed=3, symbols=5, tick_rate_hz=100).ticks(source.start_ns + 20 * SECOND))
    settings = live_settings(tmp_path, **SMALL, bars__kind=kind)
    async with running(settings) as live:
        await live.send(messages, chunk=37)
        published = {f["id"]: f for f in await live.forecasts()}
    order = ReplayOrder(ticks, tmp_path / "out", chunk=1000)
    await replay(in_folder(settings, order.out), order)
    import polars as pl

    replayed = pl.read_parquet(tmp_path / "out" / "forecasts.parquet")
    assert {*replayed["id"]} == {*published}
    for row in replayed.iter_rows(named=True):
        ours = published[row["id"]]
        move = row["scale"] * row["anchor"]
        np.testing.assert_allclose(ours["quantiles"], row["quantiles"], rtol=1e-6, atol=1e-4 * move)
        assert ours["input_hash"] == row["input_hash"]


@pytest.mark.slow
async def test_accuracy_and_health_are_published_and_show_naive_beside_the_model(tmp_path: Path) -> None:
    settings = live_settings(tmp_path, **SMALL, score__publish_every_s=0.2)
    async with running(settings) as live:
        accuracy, health = (live.bus.subscribe(settings.topics.prefix + name) for name in ("accuracy", "health"))
        await live.send(market(30)[1])
        await asyncio.sleep(0.5)
        told = await records(accuracy)
        last = msgspec.convert((await records(health))[-1], Health)
    nobody_knows = ("directional", "directional_base", "directional_low")  # last value says no direction
    assert {row[name] for row in told for name in nobody_knows} == {None}
    assert {row["horizon"] for row in told} == {1, 2, 4}
    assert {row["window"] for row in told} == {*WINDOWS}
    assert all(row["n"] > 0 and row["mae"] == pytest.approx(row["mae_naive"]) for row in told)
    assert any(row["mae"] for row in told)
    assert last.state == "live"
    assert last.consumed == last.accepted + last.late + last.rejected + last.held


@pytest.mark.slow
async def test_a_restart_fills_the_windows_from_the_store_and_forecasts_at_once(tmp_path: Path) -> None:
    _, messages = market(60)
    settings = live_settings(tmp_path, **SMALL)
    half = len(messages) // 2
    async with running(settings) as live:
        await live.send(messages[:half])
        before = len(await live.forecasts())
    async with running(settings) as live:
        assert live.daemon.session.serving.engine.builder.bars_held().min() >= 12
        await live.send(messages[half:])
        after = len(await live.forecasts())
    assert before > 50
    assert after > 50
    with duckdb.connect(str(settings.store.path), read_only=True) as store:
        ((stored, distinct),) = store.execute("SELECT count(*), count(DISTINCT id) FROM forecasts").fetchall()
    assert stored == distinct


@pytest.mark.slow
async def test_refused_messages_are_kept_as_dead_letters_with_their_reason(tmp_path: Path) -> None:
    settings = live_settings(tmp_path, **SMALL)
    good = b'{"symbol":"A","ts":1700000000000000000,"price":1.5,"size":1}'
    bad = [b"", b"{", b'{"symbol":"A","ts":1,"price":1}', b'{"symbol":"A","ts":1700000000000000001,"price":-1}']
    async with running(settings) as live:
        dlq = live.bus.subscribe(settings.topics.prefix + "dlq")
        await live.send([good, *bad, good])
        health = live.daemon.health()
        sent = [batch.message(row) for batch in await dlq.next_batches(0.2) for row in range(len(batch))]
    assert (health.accepted, health.rejected) == (2, 4)
    with duckdb.connect(str(settings.store.path), read_only=True) as store:
        letters = store.execute("SELECT source_offset, reason, value FROM dead_letters ORDER BY 1").fetchall()
    assert [(offset, reason) for offset, reason, _ in letters] == [
        (1, "empty"),
        (2, "malformed"),
        (3, "wrong_unit"),
        (4, "non_positive"),
    ]
    assert [bytes(value) for _, _, value in letters] == bad
    assert sent == bad


@pytest.mark.slow
async def test_a_second_daemon_on_the_same_store_is_refused(tmp_path: Path) -> None:
    settings = live_settings(tmp_path, **SMALL)
    async with running(settings):
        with pytest.raises(BadStore, match="process"):
            async with running(settings):
                pass


@pytest.mark.slow
async def test_a_silent_partition_gets_a_heartbeat_whose_bars_and_forecasts_are_stored(tmp_path: Path) -> None:
    settings = live_settings(tmp_path, **SMALL, bars__idle_ms=300, bars__every_ms=100)
    async with running(settings) as live:
        now = live.daemon._clock.now_ns()
        await live.send([b'{"symbol":"A","ts":%d,"price":1.5,"size":1}' % (now + k * SECOND // 10) for k in range(3)])
        async with asyncio.timeout(10):
            while live.daemon.session.pump.meter.bars < 3:
                await asyncio.sleep(0.05)
        published = len(await live.forecasts())
    assert live.daemon.health().consumed == 3
    with duckdb.connect(str(settings.store.path), read_only=True) as store:
        counts = store.execute("SELECT (SELECT count(*) FROM bars), (SELECT count(*) FROM forecasts)").fetchall()
    assert counts == [(3, published)]


async def test_a_drain_that_comes_during_start_up_ends_the_daemon(tmp_path: Path) -> None:
    live = Live(live_settings(tmp_path, **SMALL))
    task = asyncio.create_task(live.daemon.run())
    await asyncio.sleep(0)
    live.daemon.drain()
    async with asyncio.timeout(30):
        await task
    assert live.daemon.state == "stopped"


def test_settings_that_need_more_memory_than_allowed_are_refused(tmp_path: Path) -> None:
    from tickcast.ui.cli import main

    assert main(["run", "--set", "runtime.memory_bytes=1000000", "--set", f"store.path={tmp_path / 's'}"]) == 78


async def test_an_unknown_model_folder_is_refused_with_what_to_do(tmp_path: Path) -> None:
    from tickcast.errors import BadModel

    with pytest.raises(BadModel, match="nor a model folder"):
        async with running(live_settings(tmp_path, **SMALL, model__default=str(tmp_path / "nowhere"))):
            pass
    assert BadSettings.exit_code == BadModel.exit_code == 78
    assert os.listdir(tmp_path) == []
