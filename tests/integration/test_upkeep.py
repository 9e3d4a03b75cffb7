"""The daemon keeps its models good by itself: it fits, lets the candidate shadow, promotes it on evidence, and steps
down when the market turns against it."""

import asyncio
from pathlib import Path

import duckdb
import msgspec
import polars as pl
import pytest

from livekit import Live, live_settings, running, until
from marketkit import SECOND, Market
from tickcast.clock import fresh_id
from tickcast.io.jobs.folder import BARS
from tickcast.io.jobs.orders import TuneOrder
from tickcast.live import upkeep
from tickcast.live.commands.past_searches import going_on
from tickcast.loop.actions import Action, ActionKind
from tickcast.records import Command
from tickcast.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def upkeep_settings(folder: Path, **more: object) -> Settings:
    given: dict[str, object] = {
        "bars__kind": "tick", "forecast__horizon": 2, "window__lookback": 16, "score__adapt_every_bars": 16,
        "schedule__autonomy": 3, "schedule__kind": "ridge", "schedule__max_new_bars": 1000,
        "schedule__shadow_bars": 4000, "schedule__look_every_s": 1, "store__unit_ms": 50, "score__publish_every_s": 1,
    }  # fmt: skip
    return live_settings(folder, **(given | more))


async def decided(live: Live, kind: str, event: str) -> bool:
    return any(row.kind == kind and row.event == event for row in await live.daemon.session.store.ledger.decisions())


async def feed_until(live: Live, market: Market, kind: str, event: str, *, persistence: float, most: int) -> None:
    for _ in range(most):
        await live.send(market.ticks(100, persistence=persistence))
        if await decided(live, kind, event):
            return
        await asyncio.sleep(1)
    raise AssertionError([*map(str, await live.daemon.session.store.ledger.decisions())])


async def test_it_fits_shadows_promotes_and_steps_down_when_the_market_turns(tmp_path: Path) -> None:
    market = Market()
    async with running(upkeep_settings(tmp_path)) as live:
        await live.send(market.ticks(1200, persistence=-0.6))
        await until(lambda: decided(live, "fit", "done"), "a fit")
        await until(lambda: decided(live, "shadow", "done"), "a shadow")
        await feed_until(live, market, "promote", "done", persistence=-0.6, most=40)
        serving = live.daemon.session.commands.serving_models
        card = await serving.registered(serving.serving_now()["default"])
        assert card.kind == "ridge"
        judged = card.metrics["judged"]  # the same, fitted before the hold-out; it itself was fitted on all bars
        assert judged["trained_to_ns"] < card.trained_to_ns
        await feed_until(live, market, "step_down", "done", persistence=0.9, most=60)
        assert serving.serving_now()["default"] == serving.last_value
        await until(lambda: alerted(live, "stepped_down"), "the alert")
        await assert_not_done_again(live, "step_down")
    with duckdb.connect(str(tmp_path / "store.duckdb")) as store:
        ends = dict(store.execute("SELECT hash, to_ns FROM datasets").fetchall())
    assert ends[card.dataset_hash] == ends[judged["dataset_hash"]] == card.trained_to_ns


async def assert_not_done_again(live: Live, kind: str) -> None:
    """As by a run after one that has changed who serves, and died before it could say so: the contest is over."""
    session = live.daemon.session
    done, begun = await session.store.ledger.decisions(kind)
    promotions = await session.store.ledger.promotions()
    again = await session.commands.upkeep._change(
        Action(id=begun.action, kind=ActionKind(kind), why=tuple(begun.why), waits=False, model=begun.model)
    )
    said = msgspec.json.decode(done.evidence_json)
    assert {name: again[name] for name in said} == said
    assert await session.store.ledger.promotions() == promotions


@pytest.mark.parametrize("noted", [False, True])
async def test_after_a_restart_it_goes_on_with_the_contest_that_was_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noted: bool
) -> None:
    """From what was noted of it and the blocks since; here from all of one, or all of the other."""
    monkeypatch.setattr(upkeep, "NOTE_EVERY_NS", 0 if noted else upkeep.NOTE_EVERY_NS)
    market, settings = Market(), upkeep_settings(tmp_path)
    async with running(settings) as live:
        await live.send(market.ticks(1200, persistence=-0.6))
        await until(lambda: decided(live, "shadow", "done"), "a shadow")
        await live.send(market.ticks(60, persistence=-0.6))
        await until(lambda: contest_blocks(live, least=5), "blocks")
        await asyncio.sleep(1.5)  # noted by the next look
        before = live.daemon.session.commands.upkeep.told()["contests"][0]
        assert before["verdict"] == "open"
    if noted:
        with duckdb.connect(str(settings.store.path)) as store:
            store.execute("DELETE FROM contest_blocks")
    async with running(settings) as live:
        await until(lambda: contest_blocks(live, least=before["blocks"]), "the blocks of before")
        (after,) = live.daemon.session.commands.upkeep.told()["contests"]
        assert (after["contest"], after["digest"]) == (before["contest"], before["digest"])
        await feed_until(live, market, "promote", "done", persistence=-0.6, most=40)
        rows = await live.daemon.session.store.ledger.decisions()
        assert [row.event for row in rows if row.kind == "promote"] == ["done", "begun"]
        assert [row.event for row in rows if row.kind == "fit"] == ["done", "begun"]


def alerted(live: Live, name: str) -> bool:
    return name in live.daemon.health().alerts


async def contest_blocks(live: Live, *, least: int) -> bool:
    return bool(live.daemon.session.commands.upkeep.told()["contests"][0]["blocks"] >= least)


async def test_a_person_is_asked_and_answers(tmp_path: Path) -> None:
    """On level 1 a fit is proposed once; dismissed it is not proposed again for a while; approved it is done."""
    market = Market()
    async with running(upkeep_settings(tmp_path, schedule__autonomy=1)) as live:
        await live.send(market.ticks(1200, persistence=-0.6))
        await until(lambda: decided(live, "fit", "proposed"), "a proposal")
        commands = live.daemon.session.commands
        (proposed,) = commands.upkeep.told()["proposed"]
        await until(lambda: alerted(live, "approval_wanted"), "the alert")
        wrong = await commands.inbox.call(order("approve", action="no such"), by="me", role="promote")
        assert "not proposed" in wrong.error
        reply = await commands.inbox.call(order("approve", action=proposed["id"]), by="me", role="promote")
        assert reply.result["approved"]["kind"] == "fit"
        await until(lambda: decided(live, "fit", "done"), "the fit")
        await until(lambda: decided(live, "shadow", "proposed"), "the next proposal")
        (shadow,) = commands.upkeep.told()["proposed"]
        await commands.inbox.call(order("dismiss", action=shadow["id"]), by="me", role="promote")
        assert not commands.upkeep.told()["proposed"]
        told = await commands.inbox.call(order("history", kind="shadow", limit=1), by="me", role="read")
        assert [(row["event"], row["given_by"]) for row in told.result["decisions"]] == [("dismissed", "me")]
        shown = await commands.inbox.call(order("status", section="decisions"), by="me", role="read")
        assert shown.result["decisions"]["candidates"]
        assert shown.result["decisions"]["next_ns"] > live.daemon.session.clock.now_ns()


def order(command: str, **args: object) -> Command:
    return Command(id=fresh_id(), command=command, args=args)


async def test_a_bad_model_that_a_person_forces_rolls_itself_back(tmp_path: Path) -> None:
    """Who served before answers beside it, and is shown to be better."""
    market = Market()
    async with running(upkeep_settings(tmp_path)) as live:
        await live.send(market.ticks(1200, persistence=-0.6))
        await feed_until(live, market, "promote", "done", persistence=-0.6, most=40)
        commands = live.daemon.session.commands
        good = commands.serving_models.serving_now()["default"]
        trained = await commands.inbox.call(
            order("train", kind="ridge", name="bad", params={"penalties": [1e6]}), by="me", role="train"
        )
        assert trained.ok, trained.error
        forced = await commands.inbox.call(order("promote", model="bad", force=True), by="me", role="promote")
        assert forced.ok, forced.error
        await feed_until(live, market, "rollback", "done", persistence=-0.6, most=60)
        assert commands.serving_models.serving_now()["default"] == good
        (row, *_) = await live.daemon.session.store.ledger.decisions()
        assert msgspec.json.decode(row.evidence_json)["role"] == "former"


async def test_a_shadow_that_takes_more_than_its_share_answers_in_every_nth_block(tmp_path: Path) -> None:
    """And a fit takes the parameters of the schedule before those that a kind has by itself."""
    market, settings = (
        Market(),
        upkeep_settings(tmp_path, inference__shadow_share=1e-7, schedule__params="{penalties = [0.5]}"),
    )
    async with running(settings) as live:
        await live.send(market.ticks(1200, persistence=-0.6))
        await until(lambda: decided(live, "shadow", "done"), "a shadow")
        rows = await live.daemon.session.store.ledger.decisions()
        (shown,) = [row for row in rows if (row.kind, row.event) == ("shadow", "done")]
        assert msgspec.json.decode(shown.evidence_json)["every"] > 1
        card = await live.daemon.session.commands.serving_models.registered(shown.model)
        assert card.model_params["penalties"] == [0.5]


async def test_a_fit_that_tunes_who_serves_tells_news_from_what_that_saw(tmp_path: Path) -> None:
    """Here of a kind that has no weights to go on with: what was ordered is what matters."""
    market, given = Market(), {"schedule__mode": "finetune", "schedule__old_share": 0.25}
    async with running(upkeep_settings(tmp_path, **given)) as live:
        await live.send(market.ticks(700, persistence=-0.6))
        await live.stored()
        commands = live.daemon.session.commands
        for given_order in (order("train", kind="ridge", name="first"), order("promote", model="first", force=True)):
            reply = await commands.inbox.call(given_order, by="me", role="promote")
            assert reply.ok, reply.error
        await live.send(market.ticks(1000, persistence=-0.6))
        await until(lambda: decided(live, "fit", "failed"), "a fit")
        start = msgspec.json.decode(commands.jobs.rows()[-1].order_json)["start"]
        assert (start["mode"], start["old_share"]) == ("finetune", 0.25)


async def test_what_goes_wrong_in_it_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that fails is one later; a fit that fails is noted, and forecasts go on."""
    market = Market()
    async with running(upkeep_settings(tmp_path, schedule__params="{penalties = []}")) as live:
        looks = live.daemon.session.commands.upkeep
        working, failed = looks._look, list[bool]()

        async def fails() -> upkeep.EngineFacts:
            failed.append(True)
            if len(failed) < 3:
                raise ZeroDivisionError("no such thing")
            return await working()

        monkeypatch.setattr(looks, "_look", fails)
        await live.send(market.ticks(1200, persistence=-0.6))
        await until(lambda: decided(live, "fit", "failed"), "a fit that fails")
        await live.send(market.ticks(10, persistence=-0.6))
        assert live.daemon.health().forecasts > 2400
        assert len(failed) >= 3


async def test_a_search_that_comes_due_looks_for_what_the_schedule_leaves_open(tmp_path: Path) -> None:
    """What it found is a candidate, as any fit is; it serves nobody, and the next search can begin with it."""
    market = Market()
    given = {"schedule__max_new_bars": 0, "schedule__optimize": '["* * * * *"]'}
    given["schedule__params"] = "{penalties = [0.5]}"
    given["schedule__keep_bars"] = "700"
    async with running(upkeep_settings(tmp_path, **given, jobs__workers=1)) as live:
        await live.send(market.ticks(1200, persistence=-0.6))
        jobs = live.daemon.session.commands.jobs
        await until(lambda: [row.kind for row in jobs.rows()] == ["optimize"], "a search")
        (row,) = jobs.rows()
        order = msgspec.json.decode(row.order_json)
        assert order["fit"]["against"]["most_bars"] == 4000
        assert order["fit"]["model_params"] == {"penalties": [0.5]}
        assert order["space"] == {"penalties": None}
        seen = pl.read_parquet(jobs.folder_of(row.id) / BARS)
        assert len(seen) == 2 * 700
        await until(lambda: decided(live, "optimize", "done"), "its end")
        session = live.daemon.session
        ended = next(row for row in await session.store.ledger.decisions("optimize") if row.event == "done")
        made, told = msgspec.json.decode(ended.evidence_json)["model"], session.commands.upkeep.told()
        assert made in [*(one["model"] for one in told["candidates"]), *(one["digest"] for one in told["contests"])]
        assert session.commands.serving_models.serving_now()["default"] != made
        assert not await session.store.ledger.promotions()
        (known,) = await session.store.ledger.trajectories("ridge")
        assert (known.job, known.made_by, known.skill is None) == (row.id, "optimize", False)
        assert known.signature["turning"] < -0.3
        again = msgspec.json.decode(row.order_json, type=TuneOrder)
        _, past = await going_on(again, session.store.ledger)
        assert past.trajectories == [known]


async def test_a_model_shadows_on_a_route_as_a_person_asked_and_comes_to_serve_that_alone(tmp_path: Path) -> None:
    market, settings = Market(), upkeep_settings(tmp_path, schedule__max_new_bars=0, symbols__groups='{"g" = ["Z*"]}')
    async with running(settings) as live:
        await live.send(market.ticks(700, persistence=-0.6))
        await live.stored()
        commands = live.daemon.session.commands

        async def told(command: str, **args: object) -> str:
            reply = await commands.inbox.call(order(command, **args), by="me", role="promote")
            return reply.error_code or str(reply.result.get("contest", reply.result))

        await told("train", kind="ridge", name="mine")
        asked = {"model": "mine", "route": "symbol:A"}
        assert await told("shadow", **asked | {"model": "nobody"}) == "unknown_model"
        assert await told("shadow", **asked | {"route": "group:nobody"}) == "bad_request"
        assert await told("shadow", **asked | {"route": "30%:default"}) == "bad_argument"
        assert await told("shadow", **asked | {"model": ""}) == "bad_request"  # there is none to end
        assert "'route': 'symbol:A'" in await told("shadow", **asked, note="try it")
        assert await told("shadow", **asked) == "bad_request"  # it is on
        await told("shadow", route="symbol:A")
        assert commands.upkeep.told()["contests"] == []
        await told("shadow", **asked)
        await live.send(market.ticks(60, persistence=-0.6))
        await until(lambda: contest_blocks(live, least=5), "blocks")
        (before,) = commands.upkeep.told()["contests"]
        rows = await live.daemon.session.store.ledger.decisions("shadow")
        assert [(row.given_by, row.route, row.why) for row in rows] == [
            ("me", "symbol:A", ["asked for"]), ("me", "symbol:A", ["try it"])
        ]  # fmt: skip
    async with running(settings) as live:
        serving, upkeep = live.daemon.session.commands.serving_models, live.daemon.session.commands.upkeep
        (after,) = upkeep.told()["contests"]
        assert (after["contest"], after["route"]) == (before["contest"], "symbol:A")
        assert 0.004 < after["alpha"] < 0.0084  # of the second that was asked for
        await feed_until(live, market, "promote", "done", persistence=-0.6, most=40)
        card = await serving.models.resolve("mine")
        assert serving.serving_now() == {"default": serving.last_value, "symbol:A": card.digest}
        await until(
            lambda: [one["role"] for one in upkeep.told()["contests"]] == ["last_value"], "the contest after it"
        )
        assert [one["route"] for one in upkeep.told()["contests"]] == ["symbol:A"]
        await feed_until(live, market, "step_down", "done", persistence=0.9, most=60)
        assert upkeep.stepped_down().keys() == {"symbol:A"}


async def test_only_slot_0_keeps_the_models(tmp_path: Path) -> None:
    market = Market()
    other = upkeep_settings(tmp_path, kafka__slots=2, kafka__slot=1)
    async with running(other) as live:
        await live.send(market.ticks(1200, persistence=-0.6))
        commands = live.daemon.session.commands
        assert not commands.keeps_models
        reply = await commands.inbox.call(order("shadow", model="naive"), by="me", role="promote")
        assert "slot 0" in reply.error
        await asyncio.sleep(2.5)  # in slot 0 a look comes each second
        assert not await live.daemon.session.store.ledger.decisions()


@pytest.mark.parametrize("harm", ["no JSON of ours", "of another version", "a contest whose model is gone"])
async def test_a_start_does_not_fail_for_what_was_noted(tmp_path: Path, harm: str) -> None:
    market, settings = Market(), upkeep_settings(tmp_path)
    async with running(settings) as live:
        await live.send(market.ticks(50, persistence=-0.6))
        await until(lambda: bool(live.daemon.session.commands.upkeep._contests.champion), "a look")
        champion = live.daemon.session.commands.upkeep._contests.champion
    contest = {
        "id": "c", "model": "0" * 64, "champion": champion, "role": "candidate", "block_ns": SECOND,
        "terms": {"alpha": 0.05, "block_bars": 2, "most_blocks": 9}, "last_value": {},
    }  # fmt: skip
    noted = {
        "no JSON of ours": '"x"', "of another version": '{"policy": {"now_ns": "later"}, "contests": []}',
        "a contest whose model is gone": msgspec.json.encode({"champion": champion, "contests": [contest]}).decode(),
    }  # fmt: skip
    with duckdb.connect(str(settings.store.path)) as store:
        store.execute("DELETE FROM upkeep")
        store.execute("INSERT INTO upkeep VALUES (?)", [noted[harm]])
    async with running(settings) as live:
        assert not live.daemon.session.commands.upkeep.told()["contests"]
        await live.send(market.ticks(50, persistence=-0.6))
        assert live.daemon.health().forecasts > 0
