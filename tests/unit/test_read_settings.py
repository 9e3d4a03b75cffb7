"""Settings that no other test changes: each is changed here, and the difference is seen."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from controlkit import NOW_MS, opened, sealed
from kit import SECOND, T0, Served, TickFeed, settings, walk
from storekit import bars, card, forecasts, store_settings, table
from tickcast.clock import SetClock
from tickcast.columns import F64
from tickcast.engine.core.events import Outcome
from tickcast.engine.records.as_json import JsonWriter
from tickcast.errors import BadSettings, CommandRefused, ModelRefused
from tickcast.live.serving_models import ServingModels
from tickcast.loop.commits import CommitQueue
from tickcast.settings.service import ControlSettings

SMALL = {"window__lookback": 6, "forecast__horizon": 3, "bars__every_ms": 500, "symbols__limit": 8}


def test_a_question_past_the_deadline_is_counted_and_not_asked() -> None:
    ticks = [("A", T0 + i * SECOND // 2, 100.0 + i, 1.0) for i in range(40)]
    skipped = {}
    for deadline_ms in (1000, 10_000):
        given = settings(**SMALL, forecast__overload="skip", forecast__deadline_ms=deadline_ms)
        served = Served(given, [], chunk=1)
        assert isinstance(served.feed, TickFeed)
        came = [replace(raw, stamps_ns=np.full(len(raw), T0)) for raw in served.feed.batches(ticks, 1)]
        skipped[deadline_ms] = sum(served.engine.turn([raw], T0 + 5 * SECOND).unasked for raw in came)
    assert skipped[1000] > 0
    assert skipped[10_000] == 0


def widths(**more: object) -> tuple[F64, F64]:
    """How far the outer quantiles are from the median, and their unit, of one tape."""
    made = Served(settings(**SMALL, **more), walk(4000, 3, seed=2), chunk=500).forecasts
    return (made.quantiles[:, :, -1] - made.quantiles[:, :, 2]), made.scale * made.anchor


def test_no_quantile_is_moved_further_than_the_settings_allow() -> None:
    raw, unit = widths(uncertainty__enabled=False)
    most = np.sqrt(np.arange(1, 4)) * unit[:, None]
    for bound in (0.05, 20.0):
        moved = np.abs(widths(uncertainty__max_widening=bound)[0] - raw)
        assert (moved <= bound * most * 1.1).all()  # prices are not quite linear in log moves
    assert (moved > 0.05 * most * 1.1).any()


@pytest.mark.parametrize(("unit_bytes", "due"), [(1 << 20, False), (100, True)])
def test_a_commit_unit_is_closed_by_its_size(tmp_path: Path, unit_bytes: int, due: bool) -> None:
    nobody, given = None, store_settings(tmp_path, store__unit_bytes=unit_bytes)
    commits = CommitQueue(nobody, nobody, given, SetClock(T0))  # type: ignore[arg-type]
    assert not commits.due
    commits.add(Outcome(bars=[bars(0, 5)], forecasts=[forecasts(0, 5)]), [])
    assert commits.due == due


def test_an_envelope_is_as_old_as_the_settings_allow() -> None:
    raw, later = sealed("status", {}), NOW_MS + 20_000
    assert opened(raw, now_ms=later, settings=ControlSettings(max_age_s=30)).command == "status"
    with pytest.raises(CommandRefused, match="behind our clock"):
        opened(raw, now_ms=later, settings=ControlSettings(max_age_s=10))


@pytest.mark.parametrize(("core_share", "code"), [(0.4, "too_costly"), (0.6, "")])
def test_a_model_may_keep_no_more_of_a_core_busy_than_the_settings_say(core_share: float, code: str) -> None:
    serving: Any = SimpleNamespace(settings=settings(inference__core_share=core_share), ladder=None)
    nobody: Any = None
    serving_models = ServingModels(
        serving, nobody, nobody, thread=nobody, commits=nobody, clock=SetClock(T0), questions_per_s=lambda: 1000.0,
        on_change=lambda: None,
    )  # fmt: skip
    costs_half_a_core = card("mine", cost_us=500.0)
    found = ""
    try:
        assert (
            serving_models._evidence(
                costs_half_a_core, {"skill": 0.5, "skill_low": 0.4, "windows": 10_000}, force=False
            )["core_share"]
            == 0.5
        )
    except ModelRefused as refused:
        found = refused.code
    assert found == code


def test_a_forecast_expires_after_so_many_bars_as_the_settings_say() -> None:
    given = store_settings(Path(), forecast__expires_bars=3)
    encoded = JsonWriter(given, [card()], ["naive"]).encode(
        forecasts(0, 1), table(), produced_ns=T0, sources=[("ticks", 0)]
    )
    record = json.loads(encoded.data[encoded.starts[0] : encoded.ends[0]].tobytes())
    assert record["expires_ns"] - record["as_of_ns"] == 3 * given.bars.every_ms * 10**6


def test_a_device_that_no_model_runs_on_is_refused_with_those_that_there_are() -> None:
    assert settings(runtime__device="cpu").runtime.device == "cpu"
    with pytest.raises(BadSettings, match="set auto or cpu"):
        settings(runtime__device="cuda")
