"""Every command carried out by a live daemon, its results against an independent computation."""

import json
import math
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import polars as pl
import pytest

from livekit import Live, records, running, until
from modelkit import QUICK, Fitted, model_settings
from storekit import value
from tickcast.batch.synth import json_messages
from tickcast.engine.inference.model_folder import CARD, read_card
from tickcast.errors import StoreStalled
from tickcast.records import Reply, digest
from tickcast.settings import Settings

TINY = {key: value for key, value in QUICK.items() if key != "epochs"} | {"epochs": 1, "windows_per_epoch": 256}


@pytest.fixture(scope="module")
def world(fitted: Fitted) -> tuple[list[bytes], list[bytes], Path]:
    """Messages of the past, those after them, and a model that was fitted on the past."""
    past, later = ([message for _, message in json_messages(ticks)] for ticks in (fitted.history, fitted.ticks))
    return past, later, fitted.models["time"]


def of_model(folder: Path, **more: object) -> Settings:
    return model_settings("time", folder, **more)


async def ok(live: Live, command: str, **args: Any) -> dict[str, Any]:
    reply: Reply = await live.daemon.command(command, **args)
    assert reply.ok, f"{reply.error_code}: {reply.error}"
    assert json.loads(msgspec.json.encode(reply.result)) == as_in_json(msgspec.to_builtins(reply.result))
    return reply.result


def as_in_json(value: Any) -> Any:
    """What is no number is null there: a figure of which nothing is known."""
    if isinstance(value, dict):
        return {key: as_in_json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [as_in_json(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


async def refused(live: Live, command: str, **args: Any) -> str:
    reply: Reply = await live.daemon.command(command, **args)
    assert not reply.ok
    assert reply.error
    return reply.error_code


@pytest.fixture
async def live(world: Any, tmp_path: Path) -> AsyncIterator[Live]:
    async with running(of_model(tmp_path)) as live:
        await live.send(world[0][-4000:], chunk=1000)
        yield live


async def test_forecast_tells_what_was_published_last(live: Live) -> None:
    published = {f["symbol"]: f for f in await live.forecasts()}
    asked = sorted(published)
    told = (await ok(live, "forecast", symbols=asked))["forecasts"]
    assert [f["symbol"] for f in told] == asked
    for f in told:
        last = published[f["symbol"]]
        assert (f["as_of_ns"], f["target_ns"], f["model"]) == (last["as_of_ns"], last["target_ns"], last["model"])
        np.testing.assert_allclose(f["point"], last["point"], rtol=1e-6)
    assert await refused(live, "forecast", symbols=["NOBODY"]) == "bad_request"
    assert await refused(live, "forecast", symbols=asked, model="nothing") == "unknown_model"


async def test_predict_of_the_naive_rung_is_last_value_with_the_spread_of_the_window(live: Live) -> None:
    closes = (100 * np.exp(np.cumsum(np.random.default_rng(3).normal(0, 0.01, 60)))).tolist()
    at = "2026-01-05T10:00:00Z"
    told = (await ok(live, "predict", closes=closes, horizon=3, as_of=at))["forecast"]
    assert told["target_ns"] == [1767607200 * 10**9 + step * 10**9 for step in (1, 2, 3)]
    assert told["point"] == pytest.approx([closes[-1]] * 3, rel=1e-6)
    window = live.daemon.settings.window.lookback
    moves = np.diff(np.log(closes))[-window:]
    scale = float(np.sqrt((moves**2).mean()))
    assert told["scale"] == pytest.approx(scale, rel=1e-9)
    assert told["anchor"] == closes[-1]
    rows = np.array(told["quantiles"])
    assert (np.diff(rows, axis=1) > 0).all()
    assert await refused(live, "predict", closes=[1.0, 2.0], as_of=at) == "bad_request"
    assert await refused(live, "predict", closes=closes) == "bad_request"  # the features look at the calendar
    assert await refused(live, "predict", closes=closes, horizon=99, as_of=at) == "bad_argument"
    assert await refused(live, "predict") == "bad_argument"


async def test_status_symbols_report_and_diagnose_tell_what_the_daemon_counts(live: Live) -> None:
    health = live.daemon.health()
    status = await ok(live, "status")
    assert status["health"]["consumed"] == health.consumed
    assert status["routes"] == {"default": live.daemon.session.serving.cards[0].digest}
    everything = await ok(live, "symbols")
    assert [entry["symbol"] for entry in everything["symbols"]] == sorted(live.daemon.session.serving.symbols.names())
    first = await ok(live, "symbols", limit=2)
    rest = await ok(live, "symbols", after=first["symbols"][-1]["symbol"])
    assert first["more"]
    assert first["symbols"] + rest["symbols"] == everything["symbols"]
    figures = (await ok(live, "report"))["accuracy"]
    assert {f["model"] for f in figures} == {"naive"}
    assert all(f["mae"] == pytest.approx(f["mae_naive"]) for f in figures)
    told = await ok(live, "diagnose")
    assert {f["code"] for f in told["findings"]} <= {"rejected", "lag", "store_behind", "worst_tenth"}
    assert await refused(live, "diagnose", symbol="NOBODY") == "bad_request"


async def test_what_is_stored_says_why_and_the_worst_are_kept(live: Live) -> None:
    await live.stored()
    session = live.daemon.session
    kept = await value(session.store, "SELECT count(*) FROM scores WHERE NOT in_sample")
    why = (await ok(live, "report", hours=1))["why"]
    assert why["forecasts"] == kept > 100
    assert {row["regime"] for row in why["regimes"]} <= {"calm", "normal", "wild"}
    assert sum(row["n"] for row in why["regimes"] if row["step"] == 1) <= kept
    symbols = sorted(session.serving.symbols.names())
    one = (await ok(live, "diagnose", symbol=symbols[0]))["why"]
    assert 0 < one["forecasts"] < kept
    assert (await ok(live, "diagnose"))["why"]["forecasts"] == kept
    assert sum(live.daemon.health().regimes.values()) == len(symbols)
    await session.looking_back.look()
    rows = await value(session.store, "SELECT count(*) FROM postmortems")
    await session.looking_back.look()
    assert await value(session.store, "SELECT count(*) FROM postmortems") == rows


async def test_a_store_that_cannot_be_looked_back_on_fails_no_diagnosis(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stalled(at: object) -> None:
        raise StoreStalled("it waits for its disk")

    monkeypatch.setattr(live.daemon.session.store, "why", stalled)
    told = await ok(live, "diagnose")
    assert told["why"] is None
    assert told["findings"][-1] == {"code": "no_causes", "subject": "store", "detail": "it waits for its disk"}


@pytest.mark.slow
async def test_a_row_of_the_commands_that_was_changed_behind_its_back_is_told(tmp_path: Path) -> None:
    settings = of_model(tmp_path)
    async with running(settings) as live:
        for limit in (1, 2, 3):
            await ok(live, "symbols", limit=limit)
        assert "chain_broken" not in {f["code"] for f in (await ok(live, "diagnose"))["findings"]}
    with duckdb.connect(str(settings.store.path)) as store:
        store.execute("UPDATE commands SET args_json = '{\"limit\":9}' WHERE sequence = 2").fetchall()
    async with running(settings) as live:
        told = {f["code"]: f["detail"] for f in (await ok(live, "diagnose"))["findings"]}
    assert told["chain_broken"].startswith("row 2 ")


async def test_paused_it_reads_nothing_and_then_goes_on_without_a_loss(live: Live, world: Any) -> None:
    await ok(live, "pause")
    before = live.daemon.health().consumed
    await live.bus.produce(live.topic, world[1][:300])
    assert (await ok(live, "status"))["health"]["consumed"] <= before + 300  # what was being fetched may come
    stood = live.daemon.health().consumed
    await live.bus.produce(live.topic, world[1][300:600])
    pump = live.daemon.session.pump
    passes = pump.passes
    await until(lambda: pump.passes > passes + 2, "what would have been read by now")
    assert live.daemon.health().consumed == stood
    await ok(live, "resume")
    live._consumed = before + 600
    await live.send([])


@pytest.mark.slow
async def test_drain_is_answered_and_ends_the_daemon(world: Any, tmp_path: Path) -> None:
    async with running(of_model(tmp_path)) as live:
        assert await ok(live, "drain") == {"draining": True}
    assert live.daemon.state == "stopped"


@pytest.mark.slow
async def test_export_writes_the_rows_of_the_store(world: Any, tmp_path: Path) -> None:
    out = tmp_path / "data"
    out.mkdir()
    async with running(of_model(tmp_path, control__data_folder=out)) as live:
        await live.send(world[0][-2000:])
        await live.stored()
        told = await ok(live, "export", table="bars")
        comma = await ok(live, "export", table="versions", format="csv")
        assert await refused(live, "export", table="forecasts", format="csv") == "bad_argument"
    frame = pl.read_parquet(out / told["file"])
    with duckdb.connect(str(live.daemon.settings.store.path), read_only=True) as store:
        stored = store.execute("SELECT symbol, as_of_ns, close FROM bars ORDER BY as_of_ns, symbol").fetchall()
    exported = frame.select("symbol", "as_of_ns", "close").sort("as_of_ns", "symbol").rows()
    assert set(exported) <= set(stored)
    assert told["rows"] == frame.height > 0
    assert (out / comma["file"]).read_text().startswith('"digest"')


@pytest.mark.slow
async def test_a_promoted_model_answers_from_the_command_on_and_after_a_restart_and_rollback_takes_it_back(
    world: Any, tmp_path: Path
) -> None:
    past, later, model = world
    settings = of_model(tmp_path)
    async with running(settings) as live:
        await live.send(past[-4000:], chunk=1000)
        card = await live.daemon.session.commands.serving_models.models.register(model, origin="import")
        assert await refused(live, "rollback") == "nothing_to_roll_back"
        await live.forecasts()
        row = (await ok(live, "promote", model=card.name, force=True))["promotion"]
        assert (row["digest"], row["route"], row["action"]) == (card.digest, "default", "promote")
        assert await refused(live, "promote", model=card.name, force=True) == "already_active"
        await live.send(later[:1500])
        assert {f["model"] for f in await live.forecasts()} == {card.name}
    async with running(settings) as live:
        await live.send(later[1500:2500])
        assert card.name in {f["model"] for f in await live.forecasts()}
        assert (await ok(live, "status", section="routes"))["routes"] == {"default": card.digest}
        stages = {entry["digest"]: entry["stage"] for entry in (await ok(live, "status", section="models"))["models"]}
        assert stages == {card.digest: "active"}
        await ok(live, "rollback")
        await live.forecasts()
        await live.send(later[2500:3500])
        assert {f["model"] for f in await live.forecasts()} == {"naive"}
    with duckdb.connect(str(settings.store.path), read_only=True) as store:
        history = store.execute("SELECT action, digest FROM promotions ORDER BY sequence").fetchall()
    assert history == [("promote", card.digest), ("rollback", None)]


def with_figures(model: Path, folder: Path, **figures: float | None) -> Path:
    """The same model with other figures of its hold-out."""
    shutil.copytree(model, folder)
    card = read_card(model)
    card = msgspec.structs.replace(card, metrics={**card.metrics, **figures})
    card = msgspec.structs.replace(card, digest=digest(card))
    (folder / CARD).write_bytes(msgspec.json.encode(card))
    return folder


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        ({"skill": -0.02, "skill_low": -0.03, "skill_high": -0.01}, "lies between -3.0% and -1.0%"),
        ({"skill": 0.006, "skill_low": -0.012, "skill_high": 0.02}, "9.0 times as many windows"),
        ({"skill": 0.1, "skill_low": None, "skill_high": None, "moments": 12}, "12 moments, too few"),
        ({"skill": 0.02, "skill_low": 0.01, "skill_high": 0.03}, ""),
    ],
)
async def test_a_model_whose_skill_is_not_shown_is_promoted_only_by_force(
    world: Any, tmp_path: Path, figures: dict[str, Any], says: str
) -> None:
    async with running(of_model(tmp_path)) as live:
        model = with_figures(world[2], tmp_path / "model", **figures)
        card = await live.daemon.session.commands.serving_models.models.register(model, origin="import")
        reply = await live.daemon.command("promote", model=card.digest[:12])
        assert reply.error_code == ("no_evidence" if says else "")
        assert says in reply.error
        if says:
            assert (await live.daemon.command("promote", model=card.digest[:12], force=True)).ok


async def test_a_route_of_a_group_that_is_not_there_is_refused(world: Any, tmp_path: Path) -> None:
    async with running(of_model(tmp_path)) as live:
        card = await live.daemon.session.commands.serving_models.models.register(world[2], origin="import")
        assert await refused(live, "promote", model=card.name, route="group:nobody", force=True) == "bad_request"


async def test_a_route_of_one_symbol_leaves_the_others_to_the_default(world: Any, tmp_path: Path) -> None:
    async with running(of_model(tmp_path)) as live:
        await live.send(world[0][-4000:], chunk=1000)
        card = await live.daemon.session.commands.serving_models.models.register(world[2], origin="import")
        name = live.daemon.session.serving.symbols.names()[0]
        await live.forecasts()
        await ok(live, "promote", model=card.name, route=f"symbol:{name}", force=True)
        await live.send(world[1][:1500])
        who = {(f["symbol"] == name, f["model"]) for f in await live.forecasts()}
    assert who == {(True, card.name), (False, "naive")}


@pytest.mark.slow
async def test_train_fits_on_stored_bars_and_the_model_can_be_asked_at_once(live: Live) -> None:
    jobs = live.bus.subscribe("tickcast.jobs")
    await live.stored()
    told = await ok(live, "train", kind="ridge", name="mine", seed=5)
    assert told["status"] in ("done", "stopped_early")
    assert told["model"].startswith("mine@")
    states = [event["state"] for event in await records(jobs)]
    assert [state for i, state in enumerate(states) if state not in states[:i]] == ["queued", "running", "done"]
    symbol = live.daemon.session.serving.symbols.names()[0]
    (forecast,) = (await ok(live, "forecast", symbols=[symbol], model="mine"))["forecasts"]
    assert forecast["model"] == "mine"
    assert forecast["rung"] == "model"
    (row,) = (await ok(live, "jobs", job=told["job"]))["jobs"]
    assert row["state"] == "done"
    await dataset_is_what_was_stored(live, told)
    judged = await ok(live, "evaluate", model="mine")
    assert judged["headline"]["n"] > 0 or judged["in_sample"]["windows"] > 0
    assert await refused(live, "train", kind="ridge", params={"no_such": 1}) == "invalid_config"
    assert await refused(live, "evaluate", model="nobody") == "unknown_model"
    assert await refused(live, "evaluate") == "bad_request"


async def dataset_is_what_was_stored(live: Live, told: dict[str, Any]) -> None:
    """`train` was the daemon's only order for bars, and no bar came meanwhile."""
    store = live.daemon.session.store
    card = await live.daemon.session.commands.serving_models.models.resolve(told["digest"])
    found = await store.query("SELECT hash, source, symbols, bars, from_ns, to_ns FROM datasets")
    asked = await value(store, "SELECT 'command ' || id FROM commands WHERE command = 'train'")
    bars = await store.query("SELECT count(DISTINCT symbol), count(*), min(as_of_ns), max(as_of_ns) FROM bars")
    assert [(card.dataset_hash, asked, *row) for row in bars.rows] == [tuple(row) for row in found.rows]


async def test_what_no_job_may_ask_is_refused_before_a_folder_is_made(live: Live) -> None:
    assert await refused(live, "train", params={"threads": 3000}) == "bad_argument"
    assert await refused(live, "train", name="naive") == "bad_request"
    assert await refused(live, "train", kind="holt") == "bad_request"
    assert await refused(live, "optimize", params={"hidden": 10**9}) == "bad_argument"
    assert await refused(live, "evaluate", model="m", params={"groups": {}}) == "bad_argument"
    outside = {"settings": {"bars": {"history": "/etc/passwd"}}}
    assert await refused(live, "backtest", model="naive", params=outside) == "bad_argument"
    assert live.daemon.session.commands.jobs.rows() == []


@pytest.mark.slow
async def test_optimize_and_backtest_run_as_jobs_of_the_daemon(live: Live) -> None:
    await live.stored()
    told = await ok(
        live, "optimize", kind="micro", trials=2, sampler="random", params={"epochs": 1, "windows_per_epoch": 128}
    )
    assert told["model"].startswith("micro@")
    path = live.daemon.settings.store.path
    trials = await live.daemon.session.store.ledger.trials(told["job"])
    assert [t.number for t in trials] == [0, 1]
    assert path.exists()
    back = await ok(live, "backtest", fee_bps=1.0, params={"tosses": 2, "draws": 100})
    assert back["status"] == "done"
