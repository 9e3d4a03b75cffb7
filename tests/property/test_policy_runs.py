"""A year of the policy in one go is the year with a restart at every step; no slot is begun twice and none is lost."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickcast.cron import DAY, Cron, wall_minute
from tickcast.loop.actions import JOBS, Action, Challenger, PolicyFacts
from tickcast.loop.policy import Policy
from tickcast.settings import Settings
from tickcast.settings.schedule import ScheduleSettings
from tickcast.state import State

MINUTE_NS, HOUR_NS = 60 * 10**9, 3600 * 10**9
T0 = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()) * 10**9
LINES = {
    "fit": ["0 3 * * 6", "30 2 * * sun", "15 */6 1,15 * *"],
    "optimize": ["45 1 * * mon-fri/2", "0 12 2-9 jan,aug *"],
}
BUSY: dict[str, Any] = {
    "autonomy": 2, "zone": "America/New_York", "quiet": ["21:30-01:00", "12:00-12:30"], "cpu_s_per_day": 9000,
    "max_new_bars": 200, "max_age_s": 5 * 86_400, "min_new_bars": 100, "rest_s": 5000, "skill_floor": -0.01,
    "jitter_s": 1500, "jobs": 2, **LINES,
}  # fmt: skip


def bars_at(hour: int) -> int:
    """Two an hour for 500 hours, then one an hour for as many."""
    return hour + hour // 1000 * 500 + min(hour % 1000, 500)


class Market:
    """A host whose jobs take a while and may fail, and whose facts follow from the time alone."""

    def __init__(self, seed: int, schedule: ScheduleSettings) -> None:
        self.settings = Settings(schedule=schedule)
        self.policy = Policy(self.settings)
        self.given: list[Action] = []
        self.running: dict[str, tuple[int, int]] = {}  # id -> its end, and what it may take
        self.spent: Counter[int] = Counter()  # by day
        self._seed = seed

    def facts(self, now_ns: int) -> PolicyFacts:
        hour = (now_ns - T0) // HOUR_NS
        broken, fitted = hour % 1500 > 1200, hour // 2000 * 2000
        stage = ("ready", *["open"] * 7, "undecided", "gone")[min(hour % 400, 9)]
        new = Challenger(model=f"m{hour // 400}", role="candidate", verdict=stage)
        return PolicyFacts(
            bars=bars_at(hour), fitted_bars=bars_at(fitted), fitted_ns=T0 + fitted * HOUR_NS,
            alarm="drift with worse skill" if broken else "",
            skill=-0.05 if broken else 0.02, challengers=() if stage == "gone" else (new,),
        )  # fmt: skip

    def step(self, now_ns: int) -> None:
        for name in [name for name, (end, _) in self.running.items() if end <= now_ns]:
            luck, (_, most) = np.random.default_rng([self._seed, *name.encode()]), self.running.pop(name)
            cpu_s = min(int(luck.integers(100, 6000)), most)
            self.spent[wall_minute(now_ns, ZoneInfo(self.settings.schedule.zone)) // DAY] += cpu_s
            self.policy.on_ended(name, now_ns, failed=luck.random() < 0.2, cpu_s=cpu_s)
        for action in self.policy.due(now_ns, self.facts(now_ns)):
            self.given.append(action)
            if not action.waits:
                took = np.random.default_rng([self._seed + 1, *action.id.encode()]).integers(0, 5 * 60)
                self.running[action.id] = (now_ns + int(took) * MINUTE_NS, action.cpu_s)

    def restart(self) -> None:
        facts = msgspec.json.decode(msgspec.json.encode(self.policy.snapshot().facts))
        self.policy = Policy(self.settings)
        self.policy.resume(State(facts=facts))


def ran(seed: int, times: Iterator[int] | range, *, restarts: bool = False, **schedule: Any) -> Market:
    market = Market(seed, ScheduleSettings(**schedule))
    for now_ns in times:
        market.step(now_ns)
        if restarts:
            market.restart()
    return market


def slots_until(end_ns: int, zone: str) -> dict[str, int]:
    where = ZoneInfo(zone)
    walls = wall_minute(T0, where), wall_minute(end_ns, where)
    return {kind: sum(len([*Cron.of(line).slots(*walls)]) for line in lines) for kind, lines in LINES.items()}


@pytest.mark.slow
def test_a_year_with_a_restart_every_hour_is_the_year_in_one_go() -> None:
    hours = range(T0, T0 + 366 * 24 * HOUR_NS, HOUR_NS)
    whole, parts = ran(1, hours, **BUSY), ran(1, hours, restarts=True, **BUSY)
    assert whole.given == parts.given
    assert whole.policy.snapshot() == parts.policy.snapshot()
    ids = [action.id for action in whole.given]
    assert len(ids) == len(set(ids)) > 300
    assert 0.8 * BUSY["cpu_s_per_day"] < max(whole.spent.values()) <= BUSY["cpu_s_per_day"]
    assert {action.kind.value for action in whole.given} == {"fit", "optimize", "shadow", "end_shadow"}
    reasons = " ".join(why for action in whole.given for why in action.why)
    assert all(word in reasons for word in ("cron", "new bars", "drift", "skill", "old"))


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_no_slot_is_begun_twice_and_none_is_lost_whenever_it_is_asked(zone: str) -> None:
    rng = np.random.default_rng(7)
    gaps = rng.choice([1, 7, 60, 60 * 30, 60 * 24 * 6], size=700, p=[0.3, 0.3, 0.3, 0.08, 0.02])
    times = T0 + np.cumsum(gaps) * MINUTE_NS
    market = ran(3, iter([T0, *times.tolist()]), autonomy=2, zone=zone, rest_s=1, jitter_s=600, **LINES)
    held = {kind: slots.count for kind, slots in market.policy._is.slots.items()}
    done = {kind.value: sum(one.slots for one in market.given if one.kind is kind) for kind in JOBS}
    assert {kind: done[kind] + held.get(kind, 0) for kind in done} == slots_until(int(times[-1]), zone)
    assert done["fit"] > 60


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(1, 3000), min_size=1, max_size=300), st.booleans())
def test_budgets_hold_and_nothing_begins_twice(seed: int, minutes: list[int], many: bool) -> None:
    times = T0 + np.cumsum(minutes) * MINUTE_NS
    market = ran(seed, iter(times.tolist()), restarts=True, **BUSY | {"jobs": 3 if many else 1})
    ids = [action.id for action in market.given if action.kind in JOBS]
    assert len(ids) == len(set(ids))
    where = ZoneInfo(BUSY["zone"])
    for action in market.given:
        if action.kind in JOBS:
            minute = wall_minute(action.begun_ns, where) % (24 * 60)
            assert 60 <= minute < 21 * 60 + 30
            assert not 720 <= minute < 750
            assert 0 < action.cpu_s <= 7200
    assert max(market.spent.values(), default=0) <= BUSY["cpu_s_per_day"]


def test_a_host_that_sleeps_until_it_is_told_misses_nothing() -> None:
    """Over a fortnight in which clocks change, and jobs that are over at once."""
    first, last = T0 + 63 * 24 * HOUR_NS, T0 + 77 * 24 * HOUR_NS
    schedule: dict[str, Any] = {"autonomy": 2, "zone": "America/New_York", "quiet": ["01:45-02:45"], "rest_s": 3000,
                                "jitter_s": 0, "max_age_s": 86_400, **LINES}  # fmt: skip

    def began(times: Iterator[int] | range, policy: Policy) -> list[tuple[int, str]]:
        found = []
        for now_ns in times:
            for one in policy.due(now_ns, PolicyFacts(bars=(now_ns - first) // MINUTE_NS, fitted_ns=first)):
                found.append((now_ns, one.id))
                policy.on_ended(one.id, now_ns, failed=False)
        return found

    def told(policy: Policy) -> Iterator[int]:
        now_ns: int | None = first
        while now_ns is not None and now_ns <= last:
            yield now_ns
            now_ns = policy.next_ns()

    asleep, awake = (Policy(Settings(schedule=ScheduleSettings(**schedule))) for _ in range(2))
    found = began(told(asleep), asleep)
    assert found == began(range(first, last + 1, MINUTE_NS), awake)
    assert len(found) > 20
