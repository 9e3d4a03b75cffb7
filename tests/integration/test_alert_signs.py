"""What a running daemon knows of itself reaches the rules: signs are made, or put where the daemon looks."""

import asyncio
import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from test_alerts import SECOND, SMALL, alert_settings, end_at_once, is_open, is_over, ticks

from argumentskit import model_in, settings_of
from livekit import Live, running, until
from tickcast.clock import SystemClock
from tickcast.io.jobs.host import Job
from tickcast.io.kafka.delivery import Delivery
from tickcast.io.models.artefacts import artefact_folder
from tickcast.live import alerts
from tickcast.live.alerts import Looking
from tickcast.live.process import memory_limit_bytes
from tickcast.plugin import Runner
from tickcast.questions import Answers, Questions
from tickcast.records import Alert, JobRow
from tickcast.settings.buses import KafkaSettings

LOOKS = {name: value for name, value in SMALL.items() if name.startswith(("score", "alerts"))}
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def subjects(live: Live, name: str) -> list[str]:
    return [alert.subject for alert in live.daemon.session.alerts.open() if alert.name == name]


class Broken(Runner):
    """A model that answers with no numbers."""

    def __init__(self, like: Runner) -> None:
        self.card = like.card

    def answer(self, questions: Questions) -> Answers:
        return Answers(np.full((len(questions), self.card.horizon, len(self.card.levels)), np.nan, np.float32))


async def test_a_model_that_gives_no_numbers_is_failing_and_its_forecasts_are_counted(tmp_path: Path) -> None:
    async with running(alert_settings(tmp_path, alerts__quiet_s=3600)) as live:
        ladder = live.daemon.session.serving.ladder
        assert ladder is not None
        real, ladder.runners[0] = ladder.runners[0], Broken(ladder.runners[0])
        await live.send(ticks(0, 30))
        await until(is_open(live, "model_failing"), "the alert")
        assert subjects(live, "model_failing") == ["naive"]
        assert live.daemon.health().fallbacks == live.daemon.health().forecasts > 20
        ladder.runners[0] = real
        await live.send(ticks(30, 30))
        end_at_once(live)
        await until(is_over(live, "model_failing"), "its end")


async def test_figures_of_who_serves_are_judged_and_those_of_others_are_not(tmp_path: Path) -> None:
    given = {"alerts__least_labels": 20, "alerts__skill_below": 1, "alerts__coverage_off": 0}
    model = model_in(tmp_path / "momentum", "momentum")
    async with running(settings_of(tmp_path, **LOOKS | given, model__default=model)) as live:
        await live.send(ticks(0, 300))
        await until(is_open(live, "skill_low"), "an alert of skill")
        await until(is_open(live, "coverage_off"), "an alert of coverage")
        version = live.daemon.session.serving.cards[0].version
        assert {row.model for row in live.daemon.session.last_accuracy if row.n >= 20} == {"momentum"}
        for name in ("skill_low", "coverage_off"):
            assert subjects(live, name) == [f"momentum@{version}/all"]


@pytest.mark.slow
async def test_a_model_that_cannot_serve_its_route_is_refused_until_another_does(tmp_path: Path) -> None:
    model = model_in(tmp_path / "momentum", "momentum")
    settings = settings_of(tmp_path, **LOOKS, model__default=model)
    other = model_in(tmp_path / "other", "other", description="other")
    async with running(settings) as live:
        models = live.daemon.session.commands.serving_models.models
        card = await models.register(other, origin="import")
        assert (await live.daemon.command("promote", model="other", route="symbol:A", force=True)).ok
        assert live.daemon.session.commands.serving_models.unserved == {}
    (graph,) = (artefact_folder(settings) / card.digest).rglob("model.onnx")
    graph.chmod(0o600)
    graph.write_bytes(b"damaged")
    async with running(settings) as live:
        await until(is_open(live, "model_refused"), "the alert")
        assert subjects(live, "model_refused") == ["symbol:A"]
        assert "bad_model" in live.daemon.session.alerts.open()[0].detail
        assert (await live.daemon.command("promote", model="momentum", route="symbol:A", force=True)).ok
        await until(is_over(live, "model_refused"), "its end")


async def test_two_jobs_of_a_kind_that_failed_are_an_alert_until_one_is_done(tmp_path: Path) -> None:
    async with running(alert_settings(tmp_path)) as live:
        host = live.daemon.session.commands.jobs
        for number, state in enumerate(("failed", "failed", "done")):
            row = JobRow(
                id=f"{number}", kind="train", command_id="", state=state, why="x" * (state == "failed"), order_json="",
                created_ns=number, ended_ns=number,
            )  # fmt: skip
            host._jobs[row.id] = Job(row)
            if number == 1:
                await until(is_open(live, "jobs_failing"), "the alert")
                assert subjects(live, "jobs_failing") == ["train"]
        await until(is_over(live, "jobs_failing"), "its end")


SAID: dict[str, dict[str, Callable[[], Any]]] = {
    "source_behind": {"lag_s": lambda: 61.0}, "broker_away": {"away_s": lambda: {"kafka": 11.0}},
    "partition_stopped": {"stopped": lambda: [("ticks", 3)]},
}  # fmt: skip


async def test_what_the_bus_and_the_process_say_of_themselves_is_seen(tmp_path: Path) -> None:
    async with running(alert_settings(tmp_path, alerts__memory_share=1e-9)) as live:
        session = live.daemon.session
        look = await Looking(session, []).look()
        assert look.disk_free.keys() == {"store", "jobs"}  # there is no archive yet
        assert all(0 < free <= 1 for free in look.disk_free.values())
        assert (look.serving, look.model) == ({("naive", "1")}, "naive")
        await until(is_open(live, "memory_high"), "the alert of memory")
        well = session.bus
        for name, said in SAID.items():
            session.bus = dataclasses.replace(well, **said)  # type: ignore[arg-type]
            await until(is_open(live, name), name)
            session.bus = well
            await until(is_over(live, name), "its end")
        session.alerts._book._quiet_ns = 3600 * SECOND
        session.bus = dataclasses.replace(well, rebuilt=lambda: 2)
        await until(is_open(live, "client_rebuilt"), "the alert of a new client")
        assert [alert.detail for alert in session.alerts.open() if alert.name == "client_rebuilt"] == ["2 new clients"]
        end_at_once(live)
        await until(is_over(live, "client_rebuilt"), "its end by itself")


def test_the_least_that_a_control_group_above_the_process_allows_is_the_limit(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    unit = groups / "system.slice" / "tickcast.service"
    unit.mkdir(parents=True)
    machine = memory_limit_bytes(proc, groups)
    (proc / "self" / "cgroup").write_text("4:memory:/other\n0::/system.slice/tickcast.service\n")
    (unit / "memory.max").write_text("max\n")
    assert memory_limit_bytes(proc, groups) == machine > 1 << 20
    (unit.parent / "memory.max").write_text("70000\n")
    assert memory_limit_bytes(proc, groups) == 70_000
    (unit / "memory.max").write_text("60000\n")
    assert memory_limit_bytes(proc, groups) == 60_000
    (tmp_path / "memory.max").write_text("1\n")  # above all groups
    assert memory_limit_bytes(proc, groups) == 60_000


@pytest.mark.slow
async def test_while_the_market_is_closed_nobody_is_silent(tmp_path: Path) -> None:
    now_ns = SystemClock().now_ns()
    open_for_ever = "".join(f'{day} = ["00:00-24:00"]\n' for day in DAYS)
    closed = (
        DAYS[(datetime.fromtimestamp(now_ns // 10**9, UTC).weekday() + 3) % 7] + ' = ["00:00-00:01"]\n'
    )  # but for a minute of another day
    for hours, silent in ((open_for_ever, True), (closed, False)):
        file = tmp_path / "hours.toml"
        file.write_text(f'zone = "UTC"\nholidays = []\n[hours]\n{hours}')
        settings = alert_settings(tmp_path, alerts__silent_s=1, bars__calendar=file, bars__every_ms=100)
        async with running(settings) as live:
            looking = Looking(live.daemon.session, [])
            await asyncio.sleep(0.3)
            ages = looking._silent_s()
            assert [*ages] == ["all partitions"]
            assert (ages["all partitions"] > 0.2) == silent


async def test_what_the_bus_did_not_take_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "RETRY_S", 0.01)
    tries: list[list[bytes]] = []
    async with running(alert_settings(tmp_path, alerts__quiet_s=3600)) as live:
        produce = live.bus.produce

        async def away(topic: str, messages: list[bytes], **more: Any) -> bool:
            if not topic.endswith("alerts"):
                return await produce(topic, messages, **more)
            tries.append(messages)
            return len(tries) > 2

        monkeypatch.setattr(live.bus, "produce", away)
        monkeypatch.setattr(alerts, "_free_shares", lambda places: {"store": 0.0})
        await until(lambda: len(tries) == 3, "the third try")
        monkeypatch.setattr(alerts, "_free_shares", lambda places: {"store": 1.0})
        end_at_once(live)
        await until(lambda: len(tries) == 4, "the next")
    assert tries[0] == tries[1] == tries[2]
    assert [msgspec.json.decode(batch[0], type=Alert).event for batch in tries[2:]] == ["raised", "ended"]


async def test_a_broker_owes_an_answer_from_the_first_record_that_got_none(monkeypatch: pytest.MonkeyPatch) -> None:
    delivery = Delivery(KafkaSettings(), max_away_s=60.0)
    is_away = True

    async def send(topic: str, message: bytes) -> "asyncio.Future[None]":
        if is_away:
            raise TimeoutError
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sent.set_result(None)
        return sent

    monkeypatch.setattr(delivery._plain, "send", send)
    try:
        assert delivery.away_s() == 0
        assert not await delivery.produce("t", [b"1"])
        await asyncio.sleep(0.01)
        first = delivery.away_s()
        assert not await delivery.produce("t", [b"2"])
        assert delivery.away_s() >= first > 0
        is_away = False
        assert await delivery.produce("t", [b"3"])
        assert delivery.away_s() == 0
    finally:
        await asyncio.gather(delivery._fence.stop(), delivery._plain.stop())
