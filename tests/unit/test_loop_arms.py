"""The arms of a replay of the loop, what is told of them, and what the page says first."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from tickcast.batch.loop_replay import arm_figures
from tickcast.batch.loop_replay.arms import arms_of
from tickcast.batch.loop_replay.story import DecisionTold, Story
from tickcast.errors import BadData, BadSettings
from tickcast.records import Drift
from tickcast.settings import Settings, load
from tickcast.ui.pages import loop_page, loop_plots
from tickcast.ui.pages.svg import Plot, lane_axis, number_axis

HOUR_NS = 3600 * 10**9


def settings(**schedule: str) -> Settings:
    given = {"max_age_s": "3600", "skill_floor": "0.1", "optimize": '["0 3 * * *"]', **schedule}
    return load(overrides={f"schedule.{name}": value for name, value in given.items()}, environ={})[0]


def test_arms_differ_in_nothing_but_what_they_do_about_their_model_and_their_intervals() -> None:
    arms = {arm.key: arm for arm in arms_of(settings())}
    assert len(arms) == 7
    for arm in arms.values():
        plain = arm.settings.model_copy(update={
            "schedule": settings().schedule, "uncertainty": settings().uncertainty, "model": settings().model
        })  # fmt: skip
        assert plain == settings()
        assert arm.settings.uncertainty.enabled == arm.adaptive
        assert arm.settings.schedule.autonomy == (3 if arm.name in ("scheduled", "triggered") else 0)
        assert arm.settings.schedule.optimize == ([] if arm.name == "triggered" else ["0 3 * * *"])
    by_time, by_need = arms["scheduled"].settings.schedule, arms["triggered"].settings.schedule
    assert (by_time.max_age_s, by_time.skill_floor, arms["scheduled"].hears) == (3600, None, False)
    assert (by_need.max_age_s, by_need.skill_floor, arms["triggered"].hears) == (0, 0.1, True)


def test_a_schedule_that_never_fits_by_the_clock_is_refused() -> None:
    with pytest.raises(BadSettings, match="nothing to compare with"):
        arms_of(settings(max_age_s="0", optimize="[]"))


def test_a_share_of_the_time_for_shadows_is_refused_since_it_would_be_each_machines_own() -> None:
    given = {"schedule.max_age_s": "3600", "inference.shadow_share": "0.1"}
    with pytest.raises(BadSettings, match="shadow_share"):
        arms_of(load(overrides=given, environ={})[0])


def drift(event: str, at: int) -> Drift:
    return Drift(
        family="skill", topic="tape", partition=0, state="alarm", event=event, statistic=0.0, threshold=1.0, bars=0.0,  # type: ignore[arg-type]
        since_ns=at, alarms=1, watched=1, streams=[], as_of_ns=at,
    )  # fmt: skip


def test_a_story_knows_for_how_long_and_how_often() -> None:
    story = Story()
    story.serves("last value", 0)
    story.serves("ridge 1", 10)
    for event, at in (("raised", 20), ("ended", 30), ("raised", 40)):
        story.drift(drift(event, at))
    for kind, refused in (("promote", ""), ("promote", "serves no more"), ("rollback", "")):
        story.decisions.append(DecisionTold(at_ns=0, kind=kind, model="ridge 1", why=[], refused=refused))
    story.end(50)
    assert [(span.model, span.from_ns, span.to_ns) for span in story.served] == [
        ("last value", 0, 10),
        ("ridge 1", 10, 50),
    ]
    assert [(span.from_ns, span.to_ns) for span in story.alarms] == [(20, 30), (40, 50)]
    assert story.counts() == {"fits": 0, "promotions": 1, "rollbacks": 1, "step_downs": 0, "alarmed": 2}


def scores(loss: float, symbols: str = "AB", bars: int = 200) -> pl.DataFrame:
    """Each label costs `loss`, or a little more by turns."""
    n = bars * len(symbols)
    as_of = np.repeat(np.arange(bars) * HOUR_NS, len(symbols))
    turns = np.where(np.arange(n) % 2, 1.0, 1.1)
    return pl.DataFrame({
        "symbol": [*symbols] * bars, "as_of_ns": as_of, "model": ["m"] * n, "anchor": np.ones(n), "scale": np.ones(n),
        "in_sample": np.arange(n) < 20, "horizons": [[1]] * n, "actual": [[1.0]] * n, "point": [[1.0]] * n,
        "loss": (loss * turns).reshape(-1, 1), "loss_naive": np.ones((n, 1)), "covered": [[True]] * n,
    })  # fmt: skip


def test_an_arm_is_judged_by_the_labels_of_another_that_was_asked_the_same() -> None:
    labels = arm_figures.beside(scores(0.5), scores(1.0), log_return=True, from_ns=50 * HOUR_NS)
    assert labels["as_of_ns"].min() == 50 * HOUR_NS
    told = arm_figures.overall(labels)
    assert told["n"] == labels.height == 300
    assert told["skill"] == told["skill_low"] == told["skill_high"] == pytest.approx(0.5)
    assert [row["horizon"] for row in arm_figures.by_horizon(labels)] == [1]
    with pytest.raises(BadData, match="not asked the same"):
        arm_figures.beside(scores(0.5), scores(0.5, "AC"), log_return=True, from_ns=0)


def test_what_any_of_both_was_fitted_on_is_not_judged() -> None:
    labels = arm_figures.beside(scores(0.5).with_columns(in_sample=False), scores(1.0), log_return=True, from_ns=0)
    assert labels.height == 380


def test_stretches_without_labels_have_no_figure() -> None:
    labels = arm_figures.beside(scores(0.5), scores(1.0), log_return=True, from_ns=0)
    edges = arm_figures.edges_of(0, 400 * HOUR_NS)
    told = arm_figures.over_time(labels, (np.array([0, HOUR_NS]), np.array([2.0, 4.0])), edges)
    known = [value for value in told["skill"] if value is not None]
    assert known == pytest.approx([0.5] * len(known))
    assert 40 <= len(known) <= 46
    assert told["width"][0] == 3.0
    assert told["coverage"][-1] is None


def arm(key: str, **more: Any) -> dict[str, Any]:
    name, _, fixed = key.partition("-as-")
    figures = {"skill": 0.1, "skill_low": 0.05, "skill_high": 0.15, "gain": None, "gain_low": None, "gain_high": None}
    return {"key": key, "name": name, "title": key, "adaptive": not fixed, "coverage": 0.9, "fits": 1, "promotions": 0,
            **figures, **more}  # fmt: skip


@pytest.mark.parametrize(
    ("gain", "says"),
    [
        ((0.02, 0.01, 0.03), "Triggered retraining gains over never retraining: +2.00%, +1.00% to +3.00%; 0 fits"),
        ((-0.02, -0.03, -0.01), "Triggered retraining loses to never retraining"),
        ((0.01, -0.01, 0.03), "Triggered retraining is not told apart from never retraining"),
        ((0.0, 0.0, 0.0), "Triggered retraining changed nothing"),
        ((0.1, None, None), "Triggered retraining: too few moments"),
    ],
)
def test_the_verdict_on_retraining_follows_from_its_interval(gain: tuple[float | None, ...], says: str) -> None:
    told = dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True))
    arms = [arm("static"), arm("scheduled", **told), arm("triggered", **told), arm("static-as-fitted", coverage=0.8)]
    said = loop_page.verdicts({"arms": arms, "nominal_coverage": 0.9, "refused": ""})
    assert said[0].startswith(says)
    assert "covered 80.0% as fitted and 90.0% adaptive" in said[-1]


def test_evidence_is_drawn_in_parts_of_what_it_needs() -> None:
    run = {"role": "candidate", "begun_ns": 5, "at_ns": [10, 20], "log_e": [1.0, 3.0], "log_needed": [3.0, 3.0]}
    x, y = loop_plots._evidence(run)
    np.testing.assert_allclose(x, [5, 10, 20])
    np.testing.assert_allclose(y, [0, 1 / 3, 1])


def test_spent_time_is_a_staircase_from_the_first_judged_moment() -> None:
    found = {"from_ns": 10, "to_ns": 40, "spent": {"a": {"of_jobs": [1.0, 2.0]}}}
    x, y = loop_plots._spent(found, {"key": "a", "jobs": [{"ordered_ns": 5}, {"ordered_ns": 20}]})
    assert x.tolist() == [10, 10, 10, 20, 20, 40]
    assert y.tolist() == [0, 0, 1, 1, 3, 3]


def test_a_box_is_never_too_narrow_to_be_seen_and_says_what_it_is() -> None:
    plot = Plot(number_axis(np.array([0.0, 100.0]), "x", margin=0.0), lane_axis(["one", "two"]), title="t")
    plot.box((10, 10), (-0.3, 0.3), "m1", "a < b", inside="not here")
    plot.box((20, 90), (-1.3, -0.7), "m2", "wide", inside="here")
    drawn = plot.svg()
    assert 'width="3.0"' in drawn
    assert "<title>a &lt; b</title>" in drawn
    assert ">here</text>" in drawn
    assert ">not here</text>" not in drawn
