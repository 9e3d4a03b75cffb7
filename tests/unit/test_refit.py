"""What a fit of the schedule is told, live and in replay."""

from pathlib import Path

import msgspec
import pytest

from tickcast.io.jobs.orders import FitOrder, TuneOrder
from tickcast.loop.actions import Action, ActionKind
from tickcast.loop.facts import EngineFacts
from tickcast.loop.refit import Refit, refit_models, refit_of, refit_order
from tickcast.records import ModelCard
from tickcast.settings import Settings, load
from tickcast.settings.schedule import ScheduleSettings

TOLD = EngineFacts(bars=900, fitted_bars=0, bar_ns=10, newest_ns=9_000, skill=0.0, alarm=False)
CARD = ModelCard(
    name="mine", kind="ridge", version="1", digest="d", framework="onnx", bars={}, transform="log_return", lookback=8,
    horizon=2, levels=[0.5], features=[], future=[], need_bars=8, model_params={"rows": 500, "penalties": [1.0]},
    seed=0, created_ns=0, dataset_hash="", settings_digest="", code_version="",
)  # fmt: skip


def refit(
    kind: ActionKind = ActionKind.FIT, champion: ModelCard | None = CARD, mode: str = "full", **schedule: object
) -> Refit:
    action = Action(id="a", kind=kind, why=(), waits=False, mode=mode)
    return refit_of(action, ScheduleSettings.model_validate(schedule), champion, TOLD, alpha=0.02)


def test_it_is_of_the_kind_that_serves_with_its_parameters_and_those_of_the_schedule() -> None:
    found = refit(params={"rows": 700}, kind="nhits")
    assert (found.kind, found.name, found.params) == ("ridge", "mine", {"rows": 700, "penalties": [1.0]})
    assert refit(champion=None, kind="nhits").kind == "nhits"
    assert refit(ActionKind.OPTIMIZE, params={"rows": 700}).params == {"rows": 700}


@pytest.mark.parametrize(("keep_bars", "from_ns"), [(0, 0), (100, 8_001), (10_000, 0)])
def test_it_sees_the_newest_bars_alone_where_so_many_are_to_be_kept(keep_bars: int, from_ns: int) -> None:
    assert refit(keep_bars=keep_bars).from_ns == from_ns


@pytest.mark.parametrize(
    ("mode", "begins"), [("full", False), ("warm", True), ("finetune", True), ("partial", True), ("", False)]
)
def test_it_begins_with_the_weights_of_who_serves_where_the_mode_says_so(mode: str, begins: bool) -> None:
    asked, folder = refit(mode=mode), Path("served")
    order = refit_order(Settings(), asked)
    assert isinstance(order, FitOrder)
    assert (order.start is not None) == begins
    assert refit_models(asked, folder) == {"champion": folder, **({"start": folder} if begins else {})}
    assert order.against is not None
    assert (order.against.champion, order.against.alpha) == (True, 0.02)


def test_beside_a_rung_it_is_judged_against_last_value() -> None:
    asked = refit(champion=None, kind="ridge")
    order = refit_order(Settings(), asked)
    assert isinstance(order, FitOrder)
    assert order.against is not None
    assert not order.against.champion
    assert refit_models(asked, None) == {}


def test_a_search_looks_for_what_the_schedule_leaves_open() -> None:
    order = refit_order(Settings(), refit(ActionKind.OPTIMIZE, params={"rows": 700}))
    assert isinstance(order, TuneOrder)
    assert msgspec.to_builtins(order.fit)["model_params"] == {"rows": 700}


@pytest.mark.parametrize(
    ("jobs", "cpu_s", "seconds"),
    [
        ({}, 0, 2700), ({"wall_s": 100_000}, 0, 3000), ({"wall_s": 400}, 0, 300), ({"cpu_s": 1000}, 0, 750),
        ({"workers": 2}, 800, 300),
    ],
)  # fmt: skip
def test_a_search_ends_before_the_limits_of_its_job_would_end_it(
    jobs: dict[str, int], cpu_s: int, seconds: float
) -> None:
    asked = refit(ActionKind.OPTIMIZE)._replace(cpu_s=cpu_s)
    order = refit_order(Settings.model_validate({"jobs": jobs}), asked)
    assert isinstance(order, TuneOrder)
    assert order.seconds == seconds


def test_a_search_begins_with_as_many_past_ones_as_the_settings_say() -> None:
    for given, most in (({}, 5), ({"jobs.past_searches": "0"}, 0)):
        order = refit_order(load(overrides=given, environ={})[0], refit(ActionKind.OPTIMIZE))
        assert isinstance(order, TuneOrder)
        assert order.past_searches == most
