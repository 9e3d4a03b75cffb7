"""What the arguments of commands say, they do: each is changed against a live daemon, and the difference is seen.

One daemon on the memory bus serves a model folder of momentum: its median of the next move is the last one.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from argumentskit import LATER_S, QUICK, SECOND, SYMBOLS, T0, World, messages, model_in, settings_of, time_of
from livekit import running, until
from registrykit import HORIZON
from tickcast.engine.inference.model_folder import read_card
from tickcast.errors import BadData
from tickcast.figures import LEAST_BLOCKS
from tickcast.io.jobs.folder import MODEL, START
from tickcast.io.jobs.orders import FEE_BPS, SLIPPAGE_BPS

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("deployment")
    model, data = model_in(folder / "momentum", "momentum", tags=["fast"], cost_us=5.0), folder / "data"
    data.mkdir()
    settings = settings_of(folder, model__default=model, control__data_folder=data)
    async with running(settings) as live:
        await live.send(messages(T0, 1))
        await live.send(messages(T0 + LATER_S * SECOND, 2))
        await live.stored()
        yield World(live, live.daemon.session.serving.cards[0].digest, model, data)


@pytest_asyncio.fixture(loop_scope="module")
async def waiting(world: World) -> AsyncIterator[World]:
    """Its one worker is taken: what is ordered waits, and costs nothing."""
    jobs = world.live.daemon.session.commands.jobs
    jobs._working += 1
    yield world
    jobs._working -= 1


# ---------------------------------------------------------------- models


@pytest.mark.slow
async def test_a_folder_that_serves_is_a_version_like_any_other(world: World) -> None:
    (told,) = (await world.ok("status", section="models", model="momentum"))["models"]
    assert (told["digest"], told["origin"], told["stage"]) == (world.digest, "folder", "active")
    assert told["routes"] == ["default"]
    judged = await world.ok("evaluate", params=QUICK)
    assert judged["judged"]["digest"] == world.digest
    assert "nothing_to_roll_back" in await world.refused("rollback")
    (told,) = (await world.ok("status", model="momentum"))["models"]
    assert told["evaluated"]["headline"] == judged["headline"]
    serving_models = world.live.daemon.session.commands.serving_models
    card = await serving_models.models.resolve("momentum")  # without a hold-out of its own
    figures = await serving_models._figures(card)
    skill = judged["headline"]["skill"]
    assert figures == {
        "skill": skill["value"], "skill_low": skill["low"], "skill_high": skill["high"],
        "windows": judged["windows"], "moments": judged["moments"],
    }  # fmt: skip
    found = (await world.ok("jobs", kind="evaluate", state="done", limit=1))["jobs"]
    assert [row["id"] for row in found] == [judged["job"]]
    assert await world.ok("evaluate", resume=judged["job"]) == judged  # what is done is told again


async def test_a_recommendation_is_of_the_symbols_that_were_asked_for(world: World) -> None:
    found = await world.ok("recommend", symbols=["A", "B"])
    assert found["signature"]["symbols"] == pytest.approx(np.log10(2))
    assert found["signature"] != (whole := await world.ok("recommend"))["signature"]
    assert whole["signature"]["symbols"] == pytest.approx(np.log10(len(SYMBOLS)))
    assert whole["signature"]["interval"] == 0
    assert any("nothing is known of such data" in line for line in whole["says"])
    assert "bad_data" in await world.refused("recommend", symbols=["Z"])


async def test_it_is_registered_once_however_often_it_is_served(tmp_path: Path) -> None:
    model = model_in(tmp_path / "momentum", "momentum")
    for _ in range(2):
        async with running(settings_of(tmp_path, model__default=model)) as live:
            serving_models = live.daemon.session.commands.serving_models
            assert [row.name for row in await serving_models.models.versions()] == ["momentum"]


async def test_status_tells_all_of_one_model_and_lists_those_of_a_tag(world: World, tmp_path: Path) -> None:
    models = world.live.daemon.session.commands.serving_models.models
    other = await models.register(model_in(tmp_path / "other", "other", tags=["slow", "new"]), origin="import")
    listed = {row["name"]: row for row in (await world.ok("status", section="models"))["models"]}
    assert {"momentum", "other"} <= listed.keys()
    assert "card" not in listed["other"]
    (told,) = (await world.ok("status", model=f"other@{other.version}"))["models"]
    assert told["card"]["tags"] == ["slow", "new"]
    assert told["bytes"] == sum((tmp_path / "other" / name).stat().st_size for name in other.artefacts)
    assert (told["stage"], told["routes"], told["accuracy"]) == ("candidate", [], [])
    (own,) = (await world.ok("status", model=world.digest[:12]))["models"]
    assert {row["horizon"] for row in own["accuracy"]} == {1, 2, 3}
    tagged = [[row["name"] for row in (await world.ok("status", tag=tag))["models"]] for tag in ("slow", "fast", "no")]
    assert tagged == [["other"], ["momentum"], []]
    everyone = (await world.ok("status", section="accuracy"))["accuracy"]
    assert {row["model"] for row in everyone} > {"momentum"}
    figures = (await world.ok("status", section="accuracy", model="momentum"))["accuracy"]
    assert {row["model"] for row in figures} == {"momentum"}
    assert "unknown_model" in await world.refused("status", model="nobody")
    assert "bad_argument" in await world.refused("status", section="health", model="momentum")


async def test_no_more_models_stay_loaded_than_the_settings_say(world: World, tmp_path: Path) -> None:
    models = world.live.daemon.session.commands.serving_models.models
    for name in ("one", "two"):
        await models.register(model_in(tmp_path / name, name, description=name), origin="import")
        await world.ok("forecast", symbols=["A"], model=name)
    loaded = {
        name: (await world.ok("status", model=name))["models"][0]["loaded"] for name in ("one", "two", "momentum")
    }
    assert loaded == {"one": False, "two": True, "momentum": True}


async def test_a_note_stands_in_the_history_of_a_route(world: World, tmp_path: Path) -> None:
    models = world.live.daemon.session.commands.serving_models.models
    await models.register(model_in(tmp_path / "noted", "noted", description="noted"), origin="import")
    with capture_logs() as logs:
        await world.ok("promote", model="noted", route="symbol:C", force=True, note="try it")
        assert (await world.ok("forecast", symbols=["C"]))["forecasts"][0]["model"] == "noted"
        await world.ok("rollback", route="symbol:C", note="it was no good")
    told = [(line["route"], line["action"]) for line in logs if line["event"] == "route_changed"]
    assert told == [("symbol:C", "promote"), ("symbol:C", "rollback")]
    notes = [json.loads(row.evidence_json)["note"] for row in await models.history("symbol:C")]
    assert notes == ["try it", "it was no good"]


# ---------------------------------------------------------------- forecasts


async def test_a_forecast_reaches_as_far_and_is_as_sure_as_was_asked(world: World) -> None:
    (whole,) = (await world.ok("forecast", symbols=["A"]))["forecasts"]
    (short,) = (await world.ok("forecast", symbols=["A"], horizon=2))["forecasts"]
    assert (len(whole["point"]), short["point"]) == (HORIZON, whole["point"][:2])
    assert (short["target_ns"], "interval" in short) == (whole["target_ns"][:2], False)
    assert "bad_argument" in await world.refused("forecast", symbols=["A"], horizon=HORIZON + 1)
    told = {
        level: (await world.ok("forecast", symbols=["A"], horizon=2, confidence_level=level))["forecasts"][0]
        for level in (0.5, 0.8, 0.95)
    }
    assert told[0.8]["interval"] == [
        [row[0], row[-1]] for row in short["quantiles"]
    ]  # levels 0.1 and 0.9 are published
    widths = [np.diff(each["interval"], axis=1).ravel() for each in told.values()]
    assert (np.diff(widths, axis=0) > 0).all()
    assert told[0.5]["confidence_level"] == 0.5
    for level in (0, 1, 1.5):
        assert "bad_argument" in await world.refused("forecast", symbols=["A"], confidence_level=level)


async def test_a_forecast_tells_how_likely_a_price_leaves_what_was_named(world: World) -> None:
    asked = {"symbols": ["A"], "model": "naive"}
    (plain,) = (await world.ok("forecast", **asked))["forecasts"]
    assert "leaving" not in plain
    low, high = (plain["anchor"] * (1 + sign * plain["scale"]) for sign in (-1, 1))
    bounds = {"low": {"low": low}, "high": {"high": high}, "both": {"low": low, "high": high}}
    told = {name: (await world.ok("forecast", **asked, **b))["forecasts"][0]["leaving"] for name, b in bounds.items()}
    assert len(told["both"]) == HORIZON
    for step in range(HORIZON):
        one, other, both = (told[name][step] for name in ("low", "high", "both"))
        assert 0 < max(one, other) < both <= min(one + other, 1)
    assert (np.diff(told["both"]) >= 0).all()
    assert "which way" in await world.refused("forecast", symbols=["A"], low=low)  # of momentum
    assert "has left" in await world.refused("forecast", **asked, low=high)
    for wrong in ({"low": high, "high": low}, {"symbols": ["A", "B"], "low": low}):
        assert "bad_argument" in await world.refused("forecast", **(asked | wrong))


# ---------------------------------------------------------------- reports


async def test_a_report_is_of_the_hours_the_symbols_and_the_model_that_were_asked_for(world: World) -> None:
    day, hour = await world.ok("report"), await world.ok("report", hours=1)
    two, one = await world.ok("report", symbols=["A", "B"]), await world.ok("report", symbols=["A"], hours=1)
    own = await world.ok("report", model="momentum")
    seen = [(told["symbols"], told["first_as_of_ns"] < T0 + LATER_S * SECOND) for told in (day, hour, two, one, own)]
    assert seen == [(3, True), (3, False), (2, True), (1, False), (3, True)]
    assert {row["model"] for row in day["figures"]} == {"momentum", "naive"}
    assert {row["model"] for row in own["figures"]} == {row["model"] for row in own["accuracy"]} == {"momentum"}
    assert hour["forecasts"] < day["forecasts"]
    none = await world.ok("report", symbols=["NOBODY"])
    assert (none["forecasts"], none["figures"], none["trading"]) == (0, [], [])


async def test_the_figures_of_a_report_are_those_of_the_stored_scores(world: World) -> None:
    told = await world.ok("report", hours=1, model="momentum")
    frame = pl.DataFrame(await world.rows(
        f"SELECT * FROM score_steps WHERE model = 'momentum' AND as_of_ns >= {T0 + (LATER_S - 60) * SECOND}"
    ))  # fmt: skip
    for row in told["figures"]:
        step = frame.filter(pl.col("step") == row["horizon"])
        actual, point, anchor = (
            step.filter(~pl.col("void"))[name].to_numpy() for name in ("actual", "point", "anchor")
        )
        assert (row["n"], row["void"]) == (len(actual), step["void"].sum())
        assert row["blocks"] >= LEAST_BLOCKS
        assert not row["insufficient"]
        assert row["mae"] == pytest.approx(np.abs(actual - point).mean(), rel=1e-4)
        assert row["mae_naive"] == pytest.approx(np.abs(actual - anchor).mean(), rel=1e-4)
        assert row["rmse"] == pytest.approx(np.sqrt(((actual - point) ** 2).mean()), rel=1e-4)
        losses = [step.filter(~pl.col("void"))[name].mean() for name in ("loss", "loss_naive")]
        assert [row["pinball"], row["pinball_naive"]] == pytest.approx(losses, rel=1e-6)
        assert row["skill"] == pytest.approx(1 - losses[0] / losses[1], rel=1e-6, abs=1e-9)
        said = (actual != anchor) & (point != anchor)
        hits = ((actual - anchor) * (point - anchor) > 0)[said]
        assert row["directional"] == pytest.approx(hits.mean(), rel=1e-6)
        assert row["directional_low"] < row["directional"] < row["directional_high"]
        assert row["mape"] == pytest.approx(100 * np.abs((actual - point) / actual).mean(), rel=1e-4)
    (earned,) = told["trading"]
    assert (earned.pop("model"), earned.pop("version")) == ("momentum", frame["version"][0])
    assert earned == pytest.approx(traded(frame.filter((pl.col("step") == 1) & ~pl.col("void"))), rel=1e-3)


def traded(frame: pl.DataFrame) -> dict[str, Any]:
    """Bar by bar: the sign of the median move, held for one bar."""
    earned: dict[int, list[float]] = {}
    positions = won = 0
    for symbol in frame["symbol"].unique():
        before = 0.0
        for row in frame.filter(pl.col("symbol") == symbol).sort("as_of_ns").iter_rows(named=True):
            side = float(np.sign(row["point"] - row["anchor"]))
            net = side * (row["actual"] / row["anchor"] - 1) - abs(side - before) * (FEE_BPS + SLIPPAGE_BPS) * 1e-4
            earned.setdefault(row["as_of_ns"], []).append(net)
            positions, won, before = positions + (side != 0), won + (side != 0 and net > 0), side
    at = sorted(earned)
    net = np.array([np.mean(earned[moment]) for moment in at])
    worth = np.cumprod(1 + net)
    per_year = (len(at) - 1) * 31_557_600 * SECOND / (at[-1] - at[0])
    return {
        "moments": len(at), "positions": positions,
        "return": worth[-1] - 1, "max_drawdown": (1 - worth / np.maximum(np.maximum.accumulate(worth), 1)).max(),
        "win_rate": won / positions, "sharpe": net.mean() / net.std(ddof=1) * np.sqrt(per_year),
    }  # fmt: skip


# ---------------------------------------------------------------- what a job is done on

SPAN = (T0 + 20 * SECOND, T0 + 90 * SECOND)
WITHIN = {"from": time_of(SPAN[0]), "to": time_of(SPAN[1]), "symbols": ["A", "C"]}


def spans(bars: pl.DataFrame) -> tuple[list[str], bool, int]:
    return sorted(bars["symbol"].unique()), bool(bars["as_of_ns"].is_between(*SPAN, closed="left").all()), bars.height


async def test_stored_bars_a_file_and_rows_are_cut_to_the_span_and_the_symbols(waiting: World) -> None:
    file = (await waiting.ok("export", table="bars", to=time_of(T0 + 3600 * SECOND)))["file"]
    stored = await waiting.rows("SELECT * FROM bars ORDER BY symbol, as_of_ns")
    rows = [
        {name: row[name] for name in ("symbol", "open", "high", "low", "close", "volume")}
        | {"ts": time_of(row["as_of_ns"])}
        for row in stored if row["as_of_ns"] < T0 + 3600 * SECOND
    ]  # fmt: skip
    for where in ({}, {"data": file}, {"rows": rows}):
        assert spans((await waiting.ordered("evaluate", **WITHIN, **where)).bars()) == (["A", "C"], True, 140)
    whole = (await waiting.ordered("evaluate", data=file)).bars()
    assert sorted(whole["symbol"].unique()) == [*SYMBOLS]
    nowhere = {"from": time_of(T0 + 99 * 86_400 * SECOND)}
    for where in ({}, {"rows": rows}):
        assert "span" in await waiting.refused("evaluate", **nowhere, **where)
    job = await waiting.ordered("evaluate", data=file, **nowhere)
    with pytest.raises(BadData, match="within that span"):
        job.bars()


async def test_a_job_keeps_to_its_seed_its_model_and_its_costs(waiting: World) -> None:
    judge = [(await waiting.ordered("evaluate", model="momentum", seed=seed, params=QUICK)).order for seed in (1, 2)]
    assert [(order["seed"], order["draws"]) for order in judge] == [(1, 100), (2, 100)]
    assert "unknown_model" in await waiting.refused("evaluate", model="nobody")
    backtest = await waiting.ordered("backtest")
    plain = backtest.order
    assert read_card(backtest.folder / MODEL).digest == waiting.digest
    told = await waiting.ordered(
        "backtest", model="holt", fee_bps=0.0, slippage_bps=2.0, trials=50, params={"tosses": 2}
    )
    assert [plain[name] for name in ("fee_bps", "slippage_bps", "trials")] == [FEE_BPS, SLIPPAGE_BPS, 1]
    assert [told.order[name] for name in ("fee_bps", "slippage_bps", "trials", "tosses")] == [0.0, 2.0, 50, 2]
    assert (told.order["settings"]["model"]["default"], (told.folder / MODEL).exists()) == ("holt", False)


async def test_what_cannot_be_ordered_is_refused_before_there_is_a_job(waiting: World) -> None:
    jobs = waiting.live.daemon.session.commands.jobs
    before = [row.id for row in jobs.rows()]
    for command, args in (
        ("train", {"params": {"learning_rate": -1}}), ("train", {"kind": "nobody"}),
        ("evaluate", {"params": {"draws": 1}}), ("backtest", {"params": {"tosses": 0}}),
        ("backtest", {"retrain_every_bars": 5, "retrain_kind": "nobody"}),
        ("optimize", {"params": {"split": "odd"}}), ("optimize", {"kind": "nobody"}),
    ):  # fmt: skip
        assert "invalid_config" in await waiting.refused(command, **args), (command, args)
    assert [row.id for row in jobs.rows()] == before


async def test_jobs_are_found_by_kind_and_state_and_resumed_as_they_were(waiting: World) -> None:
    first = await waiting.ordered("optimize", trials=3)
    found = (await waiting.ok("jobs", kind="optimize", state="cancelled", limit=1))["jobs"]
    assert [json.loads(row["order_json"])["trials"] for row in found] == [3]
    assert (await waiting.ok("jobs", state="queued"))["jobs"] == []
    assert (await waiting.ok("jobs", kind="train", state="done"))["jobs"] == []
    job = first.folder.name
    assert [row["id"] for row in (await waiting.ok("jobs", job=job))["jobs"]] == [job]
    assert "leave out seed" in await waiting.refused("optimize", resume=job, seed=4)
    jobs = waiting.live.daemon.session.commands.jobs
    with capture_logs() as logs:
        again = asyncio.create_task(waiting.live.daemon.command("optimize", resume=job))
        await until(
            lambda: any(row.id == job and row.state in ("queued", "running") for row in jobs.rows()), "its return"
        )
        await waiting.ok("cancel", job=job)
        assert not (await again).ok
        await until(lambda: any(line.get("state") == "cancelled" for line in logs), "a line of its end")
    assert [line["state"] for line in logs if line["event"] == "job_changed"] == ["queued", "cancelled"]


async def test_a_fit_is_of_the_kind_name_tags_and_start_that_were_asked_for(waiting: World) -> None:
    plain = (await waiting.ordered("train")).order
    assert (plain["kind"], plain["name"], plain["tags"], plain["start"]) == ("nhits", "nhits", [], None)
    begin = {"model": "momentum", "mode": "transfer", "freeze": ["a.*"]}
    job = await waiting.ordered("train", kind="micro", name="mine", tags=["one", "two"], start_with=begin)
    told = job.order
    assert (told["kind"], told["name"], told["tags"]) == ("micro", "mine", ["one", "two"])
    assert read_card(job.folder / START).name == "momentum"
    asked = {"mode": "transfer", "folder": START, "freeze": ["a.*"]}
    assert told["start"] == asked | {"old_share": None, "most_forgotten": 0.02}


async def test_a_search_is_as_it_was_asked_for(waiting: World) -> None:
    width = {"hidden": {"kind": "choice", "choices": [4, 8]}}
    asked: dict[str, Any] = {"trials": 7, "metric": "sharpe", "sampler": "random", "pruner": "none", "seconds": 9}
    plain = (await waiting.ordered("optimize")).order
    told = (await waiting.ordered("optimize", kind="micro", name="mine", space=width, **asked)).order
    assert {name: told[name] for name in asked} == asked
    assert not [name for name in asked if plain[name] == asked[name]]
    assert (told["fit"]["kind"], told["fit"]["name"]) == ("micro", "mine")
    assert (plain["space"], told["space"]["hidden"]["choices"]) == ({}, [4, 8])


async def test_a_run_of_auto_is_as_it_was_asked_for(waiting: World) -> None:
    plain = (await waiting.ordered("auto")).order
    told = (await waiting.ordered("auto", kinds=["ridge", "ar"], name="mine", budget_s=9, seed=3, symbols=["A"])).order
    assert (plain["kinds"], plain["budget_s"], plain["seed"], plain["fit"]["name"]) == ([], 600, 0, "auto")
    assert (told["kinds"], told["budget_s"], told["seed"], told["fit"]["name"]) == (["ridge", "ar"], 9, 3, "mine")
    assert "there is no `params.epochs`" in await waiting.refused("auto", params={"epochs": 3})
    assert "no model named 'nosuch'" in await waiting.refused("auto", kinds=["nosuch"])


async def test_a_walk_fits_anew_as_often_as_was_asked(waiting: World) -> None:
    assert (await waiting.ordered("backtest")).order["retrain"] is None
    told = await waiting.ordered("backtest", retrain_every_bars=40, retrain_kind="ridge")
    assert told.order["retrain"].items() >= {"every_bars": 40, "kind": "ridge"}.items()


# ---------------------------------------------------------------- the others


async def test_predict_looks_at_what_it_is_given(world: World) -> None:
    closes = [100.0, 101.0, 99.0, 102.0, 100.5, 101.5, 100.0, 103.0, 104.0, 102.5] * 3
    bars = [{"close": close} for close in closes]
    plain = (await world.ok("predict", closes=closes))["forecast"]
    assert (await world.ok("predict", bars=bars))["forecast"] == plain
    assert plain["point"] == pytest.approx([closes[-1] ** 2 / closes[-2]] * HORIZON, rel=1e-6)
    named = (await world.ok("predict", closes=closes, symbol="A", model="naive", horizon=1, as_of=time_of(T0)))[
        "forecast"
    ]
    assert (named["symbol"], named["model"], named["point"], named["target_ns"]) == (
        "A", "naive", [closes[-1]], [T0 + SECOND],
    )  # fmt: skip


async def test_lists_are_of_what_was_asked_for(world: World) -> None:
    assert [row["symbol"] for row in (await world.ok("symbols", like="[AB]"))["symbols"]] == ["A", "B"]
    page = await world.ok("symbols", after="A", limit=1)
    assert ([row["symbol"] for row in page["symbols"]], page["more"]) == (["B"], True)
    assert (await world.ok("diagnose", symbol="A"))["findings"][-1]["subject"] == "A"


async def test_an_export_is_of_the_table_the_span_and_the_symbols(world: World) -> None:
    told = await world.ok(
        "export", table="scores", symbols=["B"], format="parquet", **{"from": time_of(SPAN[0]), "to": time_of(SPAN[1])}
    )
    frame = pl.read_parquet(world.data / told["file"])
    assert frame["symbol"].unique().to_list() == ["B"]
    assert frame["as_of_ns"].is_between(*SPAN, closed="left").all()
    assert frame.height == told["rows"] > 50
    comma = await world.ok("export", table="jobs", format="csv")
    assert comma["file"].endswith(".csv")
