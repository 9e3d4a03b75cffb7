"""What raises each alert, what does not, and the setting that moves the line between the two."""

from typing import Any

import msgspec
import pytest

from tickcast.alerts import ALERTS
from tickcast.loop.alert_rules import RULES, AlertLook
from tickcast.records import Accuracy, Health, IntervalFigures, JobRow
from tickcast.settings import Settings, load

HEALTH = Health(
    instance="t", state="live", uptime_s=1.0, consumed=1000, accepted=1000, late=0, rejected=0, held=0,
    reasons={"accepted": 1000}, bars=1, unasked=0, forecasts=1000, scored=0, symbols=1, cold=0, turns=1, batch_mean=1.0,
    loop_lag_ms={"p99": 3.0}, latency_ms={}, loop_lag_life_ms={}, latency_life_ms={}, store_units_behind=0,
    rss_bytes=100 << 20, produced_ns=0,
)  # fmt: skip


def figures(
    *, model: str = "net", horizon: int = 1, n: int = 500, skill: float = 0.1, coverage: float = 0.9
) -> Accuracy:
    plain = dict.fromkeys(Accuracy.__struct_fields__, 0.5)
    band = IntervalFigures(coverage=coverage, coverage_low=0.0, coverage_high=1.0, width=1.0, winkler=1.0)
    words = {"model": model, "version": "1", "group": "all", "window": "rolling", "intervals": {"0.9": band}}
    return Accuracy(**plain | words | {"horizon": horizon, "n": n, "skill": skill, "insufficient": False})


def job(kind: str, state: str, ended_ns: int) -> JobRow:
    why = "out_of_memory" if state == "failed" else ""
    return JobRow(
        id=f"{kind}{ended_ns}", kind=kind, command_id="", state=state, why=why, order_json="", created_ns=0,
        ended_ns=ended_ns,
    )  # fmt: skip


def look(*, health: dict[str, Any] | None = None, **changes: Any) -> AlertLook:
    """All is well, but for the changes."""
    well = AlertLook(
        health=msgspec.structs.replace(HEALTH, **(health or {})), before=HEALTH, live_s=60.0, accuracy=[figures()],
        serving=frozenset({("net", "1")}), model="net", unserved={}, drift={}, proposed={},
        stepped_down={}, jobs=[job("train", "done", 1)],
        silent_s={"ticks/0": 2.0}, away_s={"kafka": 0.0}, rebuilds=0, disk_free={"store": 0.5}, memory_bytes=1 << 30,
    )  # fmt: skip
    return well._replace(**changes)


FAILED = [job("train", "failed", n) for n in (3, 5)]
CASES: dict[str, tuple[AlertLook, dict[str, str], dict[str, str]]] = {  # raised by, says, not raised with
    "source_silent": (
        look(silent_s={"ticks/0": 301.0, "ticks/1": 299.0}), {"ticks/0": "nothing for 301 s"},
        {"alerts.silent_s": "400"},
    ),
    "source_behind": (
        look(health={"lag_s": 61.0, "lag_records": 12_345}), {"source": "12,345 records wait, 61 s old"},
        {"alerts.behind_s": "62"},
    ),
    "partition_late": (look(health={"partitions": {"ticks/0": "late", "ticks/1": "stopped"}}), {"ticks/0": "late"}, {}),
    "partition_stopped": (
        look(health={"partitions": {"ticks/0": "late", "ticks/1": "stopped"}}), {"ticks/1": "stopped"}, {},
    ),
    "ticks_refused": (
        look(health={"reasons": {"accepted": 1080, "empty": 10, "late": 90, "malformed": 1}}),
        {"empty": "10 of 181 ticks were refused (empty): messages without bytes: look at what produces them"},
        {"alerts.bad_share": "0.1"},
    ),
    "store_stalled": (
        look(health={"state": "store_stalled", "store_units_behind": 3}), {"store": "3 units wait"}, {},
    ),
    "disk_low": (
        look(disk_free={"store": 0.04, "jobs": 0.5}), {"store": "4.0% free"}, {"alerts.disk_free_share": "0.03"},
    ),
    "memory_high": (
        look(health={"rss_bytes": 950 << 20}), {"process": "950 of 1,024 MiB"}, {"alerts.memory_share": "0.95"},
    ),
    "loop_lag": (
        look(health={"loop_lag_ms": {"p99": 250.0}}), {"loop": "p99 250 ms in the last minute"},
        {"alerts.loop_lag_ms": "251"},
    ),
    "client_rebuilt": (look(rebuilds=1), {"kafka": "1 new clients"}, {}),
    "broker_away": (look(away_s={"kafka": 11.0, "mqtt_mirror": 9.0}), {"kafka": "no answer for 11 s"}, {}),
    "jobs_failing": (look(jobs=FAILED), {"train": "out_of_memory, out_of_memory"}, {}),
    "model_refused": (look(unserved={"all": "bad_model: it is damaged"}), {"all": "bad_model: it is damaged"}, {}),
    "model_failing": (
        look(health={"forecasts": 1200, "fallbacks": 10}), {"net": "10 of 200 forecasts are another's"},
        {"alerts.bad_share": "0.06"},
    ),
    "skill_low": (
        look(accuracy=[figures(skill=-0.05, horizon=4), figures(skill=-0.03)]),
        {"net@1/all": "-5.0% at step 4, 500 labels"}, {"alerts.skill_below": "-0.1"},
    ),
    "coverage_off": (
        look(accuracy=[figures(coverage=0.75), figures(coverage=0.83)]),
        {"net@1/all": "75.0% in the 90% band at step 1, 500 labels"}, {"alerts.coverage_off": "0.2"},
    ),
    "drift": (look(drift={"range ticks/0": "2 streams"}), {"range ticks/0": "2 streams"}, {}),
    "approval_wanted": (look(proposed={"fit": "1200 new bars"}), {"fit": "1200 new bars"}, {}),
    "stepped_down": (look(stepped_down={"default": "a lost"}), {"default": "a lost"}, {}),
}  # fmt: skip


def settings(**given: str) -> Settings:
    return load(overrides=given, environ={})[0]


def test_there_is_a_rule_and_a_case_for_every_alert_of_the_list() -> None:
    assert [*RULES] == [*ALERTS]
    assert CASES.keys() == RULES.keys()


@pytest.mark.parametrize("name", RULES)
def test_it_is_raised_by_its_sign_alone_and_by_no_sign_of_health(name: str) -> None:
    seen, subjects, _ = CASES[name]
    assert RULES[name](look(), settings()) == {}
    assert RULES[name](seen, settings()) == subjects
    if not name.startswith("partition_"):
        assert [other for other, rule in RULES.items() if rule(seen, settings())] == [name]


@pytest.mark.parametrize("name", [name for name, (*_, changed) in CASES.items() if changed])
def test_its_setting_moves_the_line(name: str) -> None:
    seen, subjects, changed = CASES[name]
    assert RULES[name](seen, settings()) == subjects
    assert RULES[name](seen, settings(**changed)) == {}


@pytest.mark.parametrize(
    ("name", "key"),
    [("source_silent", "silent_s"), ("loop_lag", "loop_lag_ms"), ("disk_low", "disk_free_share")],
)
def test_zero_turns_it_off(name: str, key: str) -> None:
    assert RULES[name](CASES[name][0], settings(**{f"alerts.{key}": "0"})) == {}


def test_a_partition_of_long_bars_may_be_silent_for_three_of_them() -> None:
    hour = {"bars.every_ms": "3600000"}
    assert not RULES["source_silent"](look(silent_s={"ticks/0": 10_799.0}), settings(**hour))
    assert RULES["source_silent"](look(silent_s={"ticks/0": 10_800.0}), settings(**hour))
    assert RULES["source_silent"](look(silent_s={"ticks/0": 301.0}), settings(**hour, **{"bars.kind": "tick"}))


@pytest.mark.parametrize("name", ["skill_low", "coverage_off"])
def test_figures_of_few_labels_or_of_who_does_not_serve_raise_nothing(name: str) -> None:
    bad = {"skill": -0.5, "coverage": 0.45}
    assert RULES[name](look(accuracy=[figures(**bad)]), settings())
    assert not RULES[name](look(accuracy=[figures(n=499, **bad)]), settings())
    assert RULES[name](look(accuracy=[figures(n=499, **bad)]), settings(**{"alerts.least_labels": "499"}))
    assert not RULES[name](look(accuracy=[figures(model="other", **bad)]), settings())
    nothing = figures(n=0, skill=float("nan"), coverage=float("nan"))
    assert not RULES[name](look(accuracy=[nothing]), settings())


def test_what_was_late_while_it_started_says_nothing_of_the_loop() -> None:
    assert not RULES["loop_lag"](CASES["loop_lag"][0]._replace(live_s=59.0), settings())


def test_a_few_refused_ticks_are_no_share() -> None:
    assert not RULES["ticks_refused"](look(health={"reasons": {"accepted": 1000, "empty": 9}}), settings())
    assert RULES["ticks_refused"](look(health={"reasons": {"accepted": 1000, "empty": 10}}), settings())
    assert not RULES["model_failing"](look(health={"forecasts": 1009, "fallbacks": 9}), settings())


@pytest.mark.parametrize(
    "jobs",
    [
        FAILED[:1], [*FAILED, job("train", "done", 9)], [job("train", "failed", 3), job("evaluate", "failed", 5)],
        [job("train", "failed", 3), job("train", "cancelled", 4), job("train", "running", 0)],
    ],
)  # fmt: skip
def test_one_failure_or_failures_of_two_kinds_or_a_success_after_them_is_no_series(jobs: list[JobRow]) -> None:
    assert not RULES["jobs_failing"](look(jobs=jobs), settings())


def test_without_a_known_limit_memory_is_never_high() -> None:
    assert not RULES["memory_high"](look(health={"rss_bytes": 1 << 40}, memory_bytes=0), settings())
