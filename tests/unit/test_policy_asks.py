"""The policy: who must be asked, who shadows, and what a restart goes on from."""

from typing import Any

import pytest

from policykit import HOUR_NS, IDLE, at, policy, restarted
from tickcast.errors import BadSettings, BadStore
from tickcast.loop.actions import Action, ActionKind, Challenger, PolicyFacts
from tickcast.settings import load
from tickcast.settings.schedule import ScheduleSettings
from tickcast.state import State


def kinds(actions: list[Action]) -> list[tuple[str, bool]]:
    return [(one.kind.value, one.waits) for one in actions]


# ---------------------------------------------------------------- who must be asked

CANDIDATE = PolicyFacts(bars=1, challengers=(Challenger(model="new", role="candidate"),))


def of(role: Any, verdict: str, model: str = "x") -> PolicyFacts:
    return PolicyFacts(bars=1, challengers=(Challenger(model=model, role=role, verdict=verdict),))


@pytest.mark.parametrize(
    ("facts", "kind", "alone_from"),
    [
        (CANDIDATE, "shadow", 2), (of("candidate", "better"), "promote", 3),
        (of("candidate", "undecided"), "end_shadow", 1), (of("candidate", "worse"), "end_shadow", 1),
        (of("former", "better"), "rollback", 3), (of("former", "undecided"), "end_shadow", 1),
        (of("last_value", "better"), "step_down", 3), (PolicyFacts(bars=900), "fit", 2),
    ],
)  # fmt: skip
def test_autonomy_says_what_waits_for_a_person(facts: PolicyFacts, kind: str, alone_from: int) -> None:
    for autonomy in range(4):
        held = policy(autonomy=autonomy, max_new_bars=500)
        expected = [(kind, autonomy < alone_from)] if autonomy else []
        assert kinds(held.due(1, facts)) == expected
        assert held.due(2, facts) == []
        assert len(held.proposed) == (0 < autonomy < alone_from)
        assert len(held.begun) == (autonomy >= alone_from)


@pytest.mark.parametrize(
    "facts", [of("candidate", "open"), of("former", "open"), of("last_value", "open"), of("last_value", "worse")]
)
def test_a_contest_that_shows_nothing_changes_nothing(facts: PolicyFacts) -> None:
    assert policy(autonomy=3).due(1, facts) == []


def test_what_was_proposed_is_done_when_it_is_approved_and_once() -> None:
    held = policy(autonomy=1, max_new_bars=5)
    (fit,) = held.due(1, PolicyFacts(bars=5))
    assert held.due(2, PolicyFacts(bars=6)) == []
    assert held.approve(fit.id)
    (done,) = held.due(3, PolicyFacts(bars=7))
    assert (done.id, done.waits, done.begun_bars) == (fit.id, False, 7)
    assert held.due(4, PolicyFacts(bars=7)) == []
    assert not held.approve(fit.id)
    assert not held.approve("fit.unknown")


def test_what_was_dismissed_is_not_proposed_again_for_a_while() -> None:
    held = policy(autonomy=1, max_new_bars=5, rest_s=60)
    (fit,) = held.due(1, PolicyFacts(bars=5))
    assert held.dismiss(fit.id)
    assert not held.dismiss(fit.id)
    assert held.due(59 * 10**9, PolicyFacts(bars=9)) == []
    assert kinds(held.due(61 * 10**9, PolicyFacts(bars=9))) == [("fit", True)]


def test_slots_join_a_proposal_that_stands_and_go_with_it() -> None:
    held = policy(autonomy=1, fit=["0 3 * * *"])
    held.due(at("2024-03-01T00:00"), IDLE)
    (fit,) = held.due(at("2024-03-01T03:00"), IDLE)
    assert held.due(at("2024-03-03T04:00"), IDLE) == []
    held.approve(fit.id)
    (done,) = held.due(at("2024-03-03T04:00"), IDLE)
    assert done.slots == 3
    held.on_ended(done.id, at("2024-03-03T05:00"), failed=False)
    (again,) = held.due(at("2024-03-04T03:00"), IDLE)
    held.due(at("2024-03-05T03:00"), IDLE)
    held.dismiss(again.id)
    assert held.due(at("2024-03-05T09:00"), IDLE) == []


def test_a_proposal_that_is_no_longer_true_is_dropped() -> None:
    held = policy(autonomy=1)
    (promote,) = held.due(1, of("candidate", "better"))
    held.due(2, IDLE)
    assert held.proposed == ()
    assert not held.approve(promote.id)


def test_more_autonomy_does_what_less_had_proposed() -> None:
    held = policy(autonomy=1, max_new_bars=5)
    held.due(1, PolicyFacts(bars=5))
    assert kinds(restarted(held, autonomy=2, max_new_bars=5).due(2, PolicyFacts(bars=5))) == [("fit", False)]


def test_an_approved_job_keeps_to_its_bounds() -> None:
    held = policy(autonomy=1, max_new_bars=5, quiet=["00:00-02:00"])
    (fit,) = held.due(1, PolicyFacts(bars=5))
    held.approve(fit.id)
    assert held.due(HOUR_NS, PolicyFacts(bars=5)) == []
    assert len(held.due(2 * HOUR_NS, PolicyFacts(bars=5))) == 1


# ---------------------------------------------------------------- candidates


def test_candidates_shadow_one_by_one_and_each_has_less_to_spend() -> None:
    held, alphas = policy(autonomy=2, shadow_bars=777), []
    for n in range(3):
        new = Challenger(model=f"m{n}", role="candidate")
        waiting = Challenger(model="next", role="candidate")
        (shadow,) = held.due(10 * n, PolicyFacts(bars=1, challengers=(new, waiting)))
        assert (shadow.model, shadow.most_bars) == (f"m{n}", 777)
        alphas.append(shadow.alpha)
        held.on_ended(shadow.id, 10 * n + 1, failed=False)
        running = Challenger(model=f"m{n}", role="candidate", verdict="open")
        assert held.due(10 * n + 2, PolicyFacts(bars=1, challengers=(running, waiting))) == []
    assert alphas == pytest.approx([0.05 / 2, 0.05 / 6, 0.05 / 12])
    assert held.alpha == pytest.approx(0.05 / 20)


def test_the_next_candidate_waits_until_the_shadow_before_it_is_gone() -> None:
    held = policy(autonomy=2)
    for verdict in ("open", "better", "undecided"):
        before = Challenger(model="a", role="candidate", verdict=verdict)
        found = held.due(1, PolicyFacts(bars=1, challengers=(before, Challenger(model="b", role="candidate"))))
        assert "shadow" not in [one.kind for one in found]
    assert [
        one.model for one in held.due(2, PolicyFacts(bars=1, challengers=(Challenger(model="b", role="candidate"),)))
    ] == ["b"]


def test_what_a_contest_on_a_route_shows_is_of_that_route_and_no_candidate_of_another_waits_for_it() -> None:
    held = policy(autonomy=3)
    assert held.spend() == pytest.approx(0.05 / 2)  # a person began the first
    asked = Challenger(model="a", role="candidate", verdict="open", route="group:g")
    (shadow,) = held.due(1, PolicyFacts(bars=1, challengers=(asked, Challenger(model="b", role="candidate"))))
    assert (shadow.model, shadow.route, shadow.alpha) == ("b", "default", pytest.approx(0.05 / 6))
    won = [Challenger(model="a", role="candidate", verdict="better", route=route) for route in ("group:g", "symbol:S")]
    promotions = held.due(2, PolicyFacts(bars=1, challengers=tuple(won)))
    assert [(one.kind, one.route, one.waits) for one in promotions] == [
        ("promote", "group:g", False), ("promote", "symbol:S", False)
    ]  # fmt: skip
    assert len({one.id for one in promotions}) == 2


def test_without_autonomy_nothing_is_kept_for_later() -> None:
    held = policy(autonomy=1, fit=["0 * * * *"], max_new_bars=5)
    held.due(HOUR_NS, PolicyFacts(bars=9))
    assert held.proposed
    assert held.next_ns() is not None
    off = restarted(held, autonomy=0, fit=["0 * * * *"])
    assert off.due(9 * HOUR_NS, PolicyFacts(bars=9)) == []
    assert off.next_ns() is policy(autonomy=2).next_ns() is None
    assert restarted(off, autonomy=2, fit=["0 * * * *"]).due(9 * HOUR_NS, PolicyFacts(bars=9)) == []


def test_a_promotion_begins_the_count_of_candidates_anew_and_a_rollback_does_not() -> None:
    held = policy(autonomy=3)
    (shadow,) = held.due(1, CANDIDATE)
    held.on_ended(shadow.id, 2, failed=False)
    assert held.alpha < 0.025
    (back,) = held.due(3, of("former", "better"))
    held.on_ended(back.id, 4, failed=False)
    assert held.alpha < 0.025
    (promote,) = held.due(5, of("candidate", "better", "new"))
    held.on_ended(promote.id, 6, failed=False)
    assert held.alpha == 0.025


def test_a_promotion_that_was_refused_is_tried_again_after_a_rest_and_a_later_one_has_another_id() -> None:
    held, better = policy(autonomy=3, rest_s=60), of("candidate", "better", "new")
    (first,) = held.due(1, better)
    held.on_ended(first.id, 2, failed=True)
    assert held.due(3, better) == []
    (again,) = held.due(200 * 10**9, better)
    assert again.id == first.id
    held.on_ended(again.id, 201 * 10**9, failed=False)
    (later,) = held.due(202 * 10**9, better)
    assert later.id != first.id


# ---------------------------------------------------------------- state and settings


def test_what_was_begun_is_not_begun_again_after_a_restart() -> None:
    held = policy(fit=["0 3 * * *"])
    held.due(at("2024-03-01T02:00"), IDLE)
    older = held.snapshot()
    (fit,) = held.due(at("2024-03-01T03:00"), IDLE)
    again = restarted(held, fit=["0 3 * * *"])
    assert again.due(at("2024-03-01T04:00"), IDLE) == []
    assert [one.id for one in again.begun] == [fit.id]
    behind = policy(fit=["0 3 * * *"])  # its state was saved before: the id says what it was
    behind.resume(older)
    assert [one.id for one in behind.due(at("2024-03-01T09:00"), IDLE)] == [fit.id]


def test_an_older_state_gives_a_fit_for_the_same_data_the_same_id() -> None:
    held = policy(max_new_bars=10)
    older = held.snapshot()
    (fit,) = held.due(1, PolicyFacts(bars=110, fitted_bars=100))
    behind = policy(max_new_bars=10)
    behind.resume(older)
    assert [one.id for one in behind.due(5, PolicyFacts(bars=117, fitted_bars=100))] == [fit.id]


def test_an_end_of_something_unknown_is_no_end() -> None:
    held = policy()
    before = held.snapshot()
    held.on_ended("fit.unknown", 5, failed=True)
    assert held.snapshot() == before


def test_a_state_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(BadStore, match="state of the policy"):
        policy().resume(State(facts={"wall": "noon"}))


def test_settings_name_a_line_a_zone_and_hours_that_make_no_sense() -> None:
    for key, value, why in (
        ("fit", '["0 3 * *"]', "has 4 fields"), ("optimize", '["0 0 31 feb *"]', "never comes"),
        ("zone", '"Mars/Olympus"', "no time zone"), ("quiet", '["22:00-25:00"]', "no span of hours"),
        ("quiet", '["22:00-22:00"]', "no span of hours"), ("autonomy", "4", "autonomy"),
    ):  # fmt: skip
        with pytest.raises(BadSettings, match=why):
            load(overrides={f"schedule.{key}": value}, environ={})
    assert ScheduleSettings(quiet=["22:00-24:00"]).quiet_minutes() == [(22 * 60, 24 * 60)]
    assert ActionKind.FIT == "fit"
