"""The policy: what comes due when, and within which bounds."""

import math

from policykit import DAY_S, HOUR_NS, IDLE, at, policy, restarted
from tickcast.loop.actions import PolicyFacts

DRIFT = "drift with worse skill"

# ---------------------------------------------------------------- cron


def test_a_slot_begins_its_job_once_and_names_it() -> None:
    held = policy(fit=["0 3 * * *"], optimize=["30 3 * * sun"])
    assert held.due(at("2024-03-01T12:00"), IDLE) == []
    assert held.due(at("2024-03-02T02:59"), IDLE) == []
    (fit,) = held.due(at("2024-03-02T03:00"), IDLE)
    assert (fit.id, fit.why, fit.slots, fit.waits) == ("fit.2024-03-02T03:00", ("cron 0 3 * * *",), 1, False)
    assert held.due(at("2024-03-02T03:01"), IDLE) == []
    held.on_ended(fit.id, at("2024-03-02T04:00"), failed=False)
    (both,) = held.due(at("2024-03-03T03:30"), IDLE)
    assert both.id == "fit.2024-03-03T03:00"
    held.on_ended(both.id, at("2024-03-03T04:00"), failed=False)
    assert [one.id for one in held.due(at("2024-03-03T04:00"), IDLE)] == ["optimize.2024-03-03T03:30"]


def test_missed_slots_are_made_good_by_one_job() -> None:
    held = policy(fit=["0 * * * *"])
    held.due(at("2024-03-01T12:10"), IDLE)
    (fit,) = held.due(at("2024-03-04T12:10"), IDLE)
    assert (fit.slots, fit.id) == (72, "fit.2024-03-01T13:00")
    assert held.due(at("2024-03-04T12:59"), IDLE) == []


def test_slots_that_come_while_the_job_runs_are_made_good_after_it() -> None:
    held = policy(fit=["*/10 * * * *"])
    held.due(at("2024-03-01T12:00"), IDLE)
    (fit,) = held.due(at("2024-03-01T12:10"), IDLE)
    assert held.due(at("2024-03-01T12:30"), IDLE) == []
    held.on_ended(fit.id, at("2024-03-01T12:35"), failed=False)
    assert [one.slots for one in held.due(at("2024-03-01T12:35"), IDLE)] == [2]


def test_the_first_start_makes_nothing_good_nor_does_a_line_that_is_new() -> None:
    held = policy(fit=["0 3 * * *"])
    assert held.due(at("2024-03-01T12:00"), IDLE) == []
    more = restarted(held, fit=["0 3 * * *", "0 13 * * *"], optimize=["0 * * * *"])
    (fit,) = more.due(at("2024-03-02T14:00"), IDLE)
    assert fit.why == ("cron 0 3 * * *",)


def test_a_slot_is_of_the_wall_clock_of_the_zone_and_comes_once_in_spring_and_in_autumn() -> None:
    held, began = policy(fit=["30 2 * * *"], zone="Europe/Berlin"), []
    for days in ("2024-03-30", "2024-10-26"):
        for hour in range(72):
            now = at(days + "T00:00") + hour * HOUR_NS
            for one in held.due(now, IDLE):
                began.append(one.id.removeprefix("fit."))
                held.on_ended(one.id, now, failed=False)
    assert began == [
        "2024-03-30T02:30", "2024-03-31T02:30", "2024-04-01T02:30",  # the second does not exist
        "2024-04-02T02:30",  # and all that were missed until autumn
        "2024-10-26T02:30", "2024-10-27T02:30", "2024-10-28T02:30",  # the second came twice
    ]  # fmt: skip


def test_jitter_is_the_same_for_the_same_deployment_line_and_slot() -> None:
    def began(group: str, slot: str) -> int:
        held = policy(group, fit=["0 3 * * *"], jitter_s=3600)
        held.due(at(slot) - HOUR_NS, IDLE)
        held.due(at(slot), IDLE)
        after = held.next_ns()
        assert after is not None
        assert at(slot) <= after <= at(slot) + HOUR_NS
        assert held.due(after - 1, IDLE) == []
        assert len(held.due(after, IDLE)) == 1
        return after - at(slot)

    first = began("a", "2024-03-02T03:00")
    assert first == began("a", "2024-03-02T03:00")
    assert len({first, began("a", "2024-03-03T03:00"), began("b", "2024-03-02T03:00")}) == 3


def test_a_clock_that_goes_back_begins_nothing_again() -> None:
    held = policy(fit=["0 3 * * *"])
    held.due(at("2024-03-02T02:00"), IDLE)
    (fit,) = held.due(at("2024-03-02T03:10"), IDLE)
    held.on_ended(fit.id, at("2024-03-02T03:20"), failed=False)
    for minute in ("02:50", "03:00", "03:15", "23:59"):
        assert held.due(at(f"2024-03-02T{minute}"), IDLE) == []


# ---------------------------------------------------------------- other reasons for a fit


def test_an_old_model_is_fitted_anew_and_a_rung_has_no_age() -> None:
    held, fitted = policy(max_age_s=DAY_S, rest_s=60), at("2024-03-01T00:00")
    assert held.due(fitted + 23 * HOUR_NS, PolicyFacts(bars=10, fitted_ns=fitted)) == []
    assert held.next_ns() == fitted + 24 * HOUR_NS
    (fit,) = held.due(fitted + 24 * HOUR_NS, PolicyFacts(bars=10, fitted_ns=fitted))
    assert fit.why == ("the newest fit is 86400 s old",)
    held.on_ended(fit.id, fitted + 25 * HOUR_NS, failed=False)
    still = PolicyFacts(bars=11, fitted_ns=fitted)  # the candidate does not serve yet
    assert held.due(fitted + 47 * HOUR_NS, still) == []
    assert len(held.due(fitted + 48 * HOUR_NS, still)) == 1
    assert policy(max_age_s=1).due(fitted, IDLE) == []


def test_while_no_bar_closes_nothing_is_fitted_again_but_by_cron() -> None:
    held, closed = policy(max_age_s=60, rest_s=1, fit=["0 3 * * *"]), PolicyFacts(bars=10, fitted_ns=0)
    (fit,) = held.due(HOUR_NS, closed)
    held.on_ended(fit.id, HOUR_NS, failed=False)
    assert held.due(2 * HOUR_NS, closed) == []
    assert [one.why for one in held.due(3 * HOUR_NS, closed)] == [("cron 0 3 * * *",)]


def test_so_many_new_bars_are_a_reason() -> None:
    held = policy(max_new_bars=100, rest_s=1)
    assert held.due(HOUR_NS, PolicyFacts(bars=199, fitted_bars=100)) == []
    (fit,) = held.due(2 * HOUR_NS, PolicyFacts(bars=200, fitted_bars=100))
    assert fit.why == ("100 new bars",)
    held.on_ended(fit.id, 3 * HOUR_NS, failed=False)
    assert held.due(4 * HOUR_NS, PolicyFacts(bars=299, fitted_bars=100)) == []
    assert len(held.due(5 * HOUR_NS, PolicyFacts(bars=300, fitted_bars=100))) == 1


def test_drift_with_worse_skill_waits_for_new_bars() -> None:
    held = policy(min_new_bars=50, rest_s=1)
    for bars, due in ((1000, 0), (1049, 0), (1050, 1)):
        assert len(held.due(bars * HOUR_NS, PolicyFacts(bars=bars, alarm=DRIFT))) == due
    other = policy(min_new_bars=50)
    for bars, alarm in ((1000, DRIFT), (1049, ""), (1050, DRIFT), (1099, DRIFT)):
        assert other.due(bars * HOUR_NS, PolicyFacts(bars=bars, alarm=alarm)) == []
    (fit,) = other.due(1100 * HOUR_NS, PolicyFacts(bars=1100, alarm="last value serves"))  # since, whatever it was then
    assert fit.why == ("last value serves, since 50 bars",)


def test_while_the_alarm_stands_another_fit_waits_for_as_many_bars_again() -> None:
    held = policy(min_new_bars=50, rest_s=1)
    held.due(HOUR_NS, PolicyFacts(bars=0, alarm=DRIFT))
    (fit,) = held.due(2 * HOUR_NS, PolicyFacts(bars=50, alarm=DRIFT))
    held.on_ended(fit.id, 3 * HOUR_NS, failed=False)
    assert held.due(4 * HOUR_NS, PolicyFacts(bars=99, alarm=DRIFT)) == []
    assert len(held.due(5 * HOUR_NS, PolicyFacts(bars=100, alarm=DRIFT))) == 1


def test_skill_below_the_floor_is_a_reason_and_unknown_skill_is_none() -> None:
    for skill, due in ((-0.02, 1), (0.0, 0), (math.nan, 0)):
        held = policy(skill_floor=-0.01, min_new_bars=10)
        assert len(held.due(HOUR_NS, PolicyFacts(bars=10, skill=skill))) == due
        assert held.due(HOUR_NS, PolicyFacts(bars=9, skill=skill)) == []
    assert policy(min_new_bars=1).due(HOUR_NS, PolicyFacts(bars=10, skill=-1.0)) == []


def test_after_a_job_its_kind_rests_and_twice_as_long_after_each_failure() -> None:
    held, now, bars, rests = policy(max_new_bars=1, rest_s=100), 0, 5, []
    for failed in (False, True, True, True, False, False):
        (fit,) = held.due(now, PolicyFacts(bars=bars))
        held.on_ended(fit.id, now, failed=failed)
        bars += 5
        assert held.due(now, PolicyFacts(bars=bars)) == []
        after = held.next_ns()
        assert after is not None
        assert held.due(after - 1, PolicyFacts(bars=bars)) == []
        rests.append((after - now) // 10**9)
        now = after
    assert rests == [100, 200, 400, 800, 100, 100]


def test_a_fit_says_how_and_begins_anew_where_a_rung_serves() -> None:
    for mode in ("full", "warm", "finetune"):
        facts = PolicyFacts(bars=9, fitted_ns=0)
        assert [one.mode for one in policy(max_new_bars=1, mode=mode).due(1, facts)] == [mode]
    assert [one.mode for one in policy(max_new_bars=1, mode="warm").due(1, PolicyFacts(bars=9))] == ["full"]


# ---------------------------------------------------------------- budgets and hours


def test_no_more_jobs_at_once_than_the_settings_say() -> None:
    for jobs in (1, 2):
        held = policy(fit=["0 * * * *"], optimize=["0 * * * *"], jobs=jobs)
        held.due(at("2024-03-01T00:30"), IDLE)
        assert len(held.due(at("2024-03-01T01:00"), IDLE)) == jobs


def test_what_its_jobs_may_take_in_a_day_is_never_more_than_the_budget() -> None:
    held = policy(fit=["0 * * * *"], cpu_s_per_day=1000, job_cpu_s=600)
    now, taken, bounds = at("2024-03-01T00:30"), {1: 0, 2: 0}, []
    held.due(now, IDLE)
    for hour in range(1, 40):
        now = at("2024-03-01T00:00") + hour * HOUR_NS
        for one in held.due(now, IDLE):
            took = min(one.cpu_s, 300)
            bounds.append((hour, one.cpu_s))
            taken[1 + hour // 24] += took
            held.on_ended(one.id, now, failed=False, cpu_s=took)
    assert taken == {1: 900, 2: 900}
    assert bounds[:4] == [(1, 600), (2, 600), (3, 400), (24, 600)]
    assert [hour for hour, _ in bounds] == [1, 2, 3, 24, 25, 26]


def test_what_runs_over_midnight_is_of_both_days() -> None:
    held = policy(fit=["30 23 * * *"], optimize=["10 0 * * *"], cpu_s_per_day=1000)
    held.due(at("2024-03-01T23:00"), IDLE)
    (fit,) = held.due(at("2024-03-01T23:30"), IDLE)
    assert fit.cpu_s == 1000
    held.on_ended(fit.id, at("2024-03-02T00:05"), failed=False, cpu_s=800)
    (search,) = held.due(at("2024-03-02T00:10"), IDLE)
    assert search.cpu_s == 200


def test_no_job_begins_in_quiet_hours_and_what_came_due_begins_after() -> None:
    held = policy(fit=["0 3 * * *"], quiet=["22:00-06:30", "12:00-13:00"], zone="Europe/Berlin")
    held.due(at("2024-03-01T12:30"), IDLE)
    began = []
    while (now := held.next_ns()) is not None and now < at("2024-03-03T00:00"):
        began += [(now, one.id) for one in held.due(now, IDLE)]
    assert began == [(at("2024-03-02T05:30"), "fit.2024-03-02T03:00")]
