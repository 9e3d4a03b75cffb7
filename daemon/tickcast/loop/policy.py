"""The policy: what is to be done now, by the schedule and by what is so. It does nothing, knows no clock and no host.

A host, live or replay, tells it the time and the facts (`due`), does what it is given, and tells how that ended
(`on_ended`). `next_ns` says when something may come due without any new fact. What was given out is in the state, and
its id is the same wherever a run goes on from an older state, so a host that finds an id among its jobs and promotions
has had it: nothing is done twice. A slot of cron is taken once; those that were missed are made good by one job.

What the settings do not allow it to do is proposed: given out once with `waits`, done after `approve`. Facts are those
after all that the host has told.
"""

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from tickcast.cron import DAY, Cron, time_ns, wall_minute
from tickcast.engine.core.contest import spent_alpha
from tickcast.engine.core.routes import DEFAULT
from tickcast.errors import BadStore
from tickcast.loop.actions import FOLLOWS, JOBS, NEEDS, READY, Action, ActionKind, Challenger, PolicyFacts
from tickcast.settings import Settings
from tickcast.state import State

SECOND_NS = 10**9
MOST_DOUBLINGS = 6  # of the rest after failures


class Slots(msgspec.Struct):
    """Of cron, that have come and whose job has not begun."""

    first: int  # which names the job: the same from whatever state a run goes on
    count: int
    from_ns: int
    lines: list[str]


class PolicyState(msgspec.Struct):
    """What is remembered."""

    now_ns: int = 0
    wall: int = -1  # minutes of the wall clock up to here were looked at,
    lines: list[str] = []  # for these lines
    slots: dict[str, Slots] = {}  # by kind
    begun: dict[str, Action] = {}  # by id, not ended
    proposed: dict[str, Action] = {}
    approved: list[str] = []
    rest_ns: dict[str, int] = {}  # by kind: until when
    failures: dict[str, int] = {}  # by kind: in a row
    cost: dict[str, int] = {}  # by kind: CPU seconds of the last job
    day: int = 0
    spent: int = 0  # CPU seconds, in it
    seen_bars: int = 0  # by the newest fit
    seen_ns: int = 0
    fitted_ns: int | None = None  # end of what the newest fit saw, the serving model's or another
    alarm_bars: int | None = None  # when it began
    candidates: int = 0  # shadowed since the last promotion
    promotions: int = 0


class Policy:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings.schedule
        self._seed = settings.kafka.group
        self._job_cpu_s = settings.jobs.cpu_s
        self._zone = ZoneInfo(self._settings.zone)
        self._quiet = self._settings.quiet_minutes()
        lines = {ActionKind.FIT: self._settings.fit, ActionKind.OPTIMIZE: self._settings.optimize}
        self._lines = [(kind, Cron.of(line)) for kind, texts in lines.items() for line in texts]
        self._is = PolicyState()

    # ------------------------------------------------------------ what a host calls

    def due(self, now_ns: int, facts: PolicyFacts) -> list[Action]:
        """What is to be done now, or proposed now; each once."""
        self._move_to(now_ns)
        if self._settings.autonomy == 0:
            self._is.slots, self._is.proposed = {}, {}
            return []
        self._note(facts)
        found = [*self._allowed(facts)]
        for kind in JOBS:
            found += self._job(kind, facts)
        for challenger in facts.challengers:
            found += self._change(challenger, facts)
        return found

    def on_ended(self, action: str, now_ns: int, *, failed: bool, cpu_s: int = 0) -> None:
        """An action is over: a job that failed or was ended, a promotion that was refused, count as failed."""
        if (done := self._is.begun.pop(action, None)) is None:
            return
        self._move_to(now_ns)
        kind = done.kind
        if kind in JOBS:
            self._is.spent += cpu_s
            self._is.cost[kind] = cpu_s
        self._is.failures[kind] = self._is.failures.get(kind, 0) + 1 if failed else 0
        if failed or kind in JOBS:
            self._rest(kind)
        if not failed:
            self._learn(done)

    def approve(self, action: str) -> bool:
        """A person wants what was proposed; False where it is not proposed any more."""
        if action in self._is.proposed and action not in self._is.approved:
            self._is.approved.append(action)
        return action in self._is.proposed

    def spend(self) -> float:
        """What a contest may spend that a person begins: as much as the next candidate."""
        alpha = self.alpha
        self._is.candidates += 1
        return alpha

    def dismiss(self, action: str) -> bool:
        """A person does not want it: for a while it is not proposed again."""
        if (gone := self._is.proposed.pop(action, None)) is not None:
            self._is.slots.pop(gone.kind, None)
            self._rest(gone.kind)
        return gone is not None

    def next_ns(self) -> int | None:
        """When something may come due although no fact changes; never before it was asked what is due."""
        if self._settings.autonomy == 0 or self._is.wall < 0:
            return None
        now = self._is.now_ns
        times = [time for time in self._times() if time > now]
        return min(times, default=None)

    @property
    def begun(self) -> tuple[Action, ...]:
        """Given out and not ended: after a restart a host sees to it that each of them was begun."""
        return tuple(self._is.begun.values())

    @property
    def proposed(self) -> tuple[Action, ...]:
        return tuple(self._is.proposed.values())

    @property
    def alpha(self) -> float:
        """For the contest of the next candidate."""
        return spent_alpha(self._is.candidates + 1)

    def snapshot(self) -> State:
        return State(facts=msgspec.to_builtins(self._is))

    def resume(self, state: State) -> None:
        try:
            self._is = msgspec.convert(state.facts, PolicyState)
        except msgspec.ValidationError as wrong:
            raise BadStore(f"the state of the policy cannot be read: {wrong}") from None

    # ------------------------------------------------------------ time

    def _move_to(self, now_ns: int) -> None:
        """Time never goes back; slots that have come since are noted, and a new day has its budgets whole."""
        now_ns = max(now_ns, self._is.now_ns)
        wall, names = wall_minute(now_ns, self._zone), [f"{kind} {line.text}" for kind, line in self._lines]
        for name, (kind, line) in zip(names, self._lines, strict=True):
            if name in self._is.lines and (slots := [*line.slots(self._is.wall, wall)]):
                self._note_slots(kind, line.text, slots)
        self._is.now_ns, self._is.wall, self._is.lines = now_ns, max(self._is.wall, wall), names
        if (day := self._is.wall // DAY) > self._is.day:
            self._is.day, self._is.spent = day, 0

    def _note_slots(self, kind: ActionKind, line: str, slots: list[int]) -> None:
        from_ns = min(self._slot_ns(line, slot) for slot in (slots[0], slots[-1]))
        held = self._is.slots.setdefault(kind, Slots(first=slots[0], count=0, from_ns=from_ns, lines=[]))
        held.first, held.from_ns = min(held.first, slots[0]), min(held.from_ns, from_ns)
        held.count += len(slots)
        held.lines += [line] if line not in held.lines else []

    def _slot_ns(self, line: str, slot: int) -> int:
        digest = hashlib.sha256(f"{self._seed}|{line}|{slot}".encode()).digest()
        later = int.from_bytes(digest[:8]) % (self._settings.jitter_s + 1)
        return time_ns(slot, self._zone) + later * SECOND_NS

    def _is_quiet(self) -> bool:
        minute = wall_minute(self._is.now_ns, self._zone) % DAY
        return any(begin <= minute < end for begin, end in self._quiet)

    def _times(self) -> Iterator[int]:
        for _, line in self._lines:
            if (slot := line.next_after(self._is.wall)) is not None:
                yield time_ns(slot, self._zone)
        for held in self._is.slots.values():
            yield held.from_ns
        yield from self._is.rest_ns.values()
        if self._settings.max_age_s and self._is.fitted_ns is not None:
            yield self._is.fitted_ns + self._settings.max_age_s * SECOND_NS
        today = self._is.wall - self._is.wall % DAY
        for minute in (DAY, *(end for _, end in self._quiet), *(DAY + end for _, end in self._quiet)):
            yield time_ns(today + minute, self._zone)

    # ------------------------------------------------------------ jobs

    def _job(self, kind: ActionKind, facts: PolicyFacts) -> Iterator[Action]:
        """A fit or a search, where there is a reason and room for it."""
        taken = (*self._is.begun.values(), *self._is.proposed.values())
        held = self._is.slots.get(kind)
        if held is not None and held.from_ns > self._is.now_ns:
            held = None
        why = [] if held is None else [f"cron {line}" for line in held.lines]
        why += [*self._reasons(facts)] if kind is ActionKind.FIT and not self._rests(kind) else []
        waits = self._must_wait(kind)
        if not why or any(one.kind is kind for one in taken) or not (waits or self._has_room(kind)):
            return
        if held is not None:
            del self._is.slots[kind]
        yield self._given(Action(
            id=f"{kind}.{self._seen_key(kind, facts) if held is None else slot_name(held.first)}", kind=kind,
            why=tuple(why), waits=waits, slots=0 if held is None else held.count, mode=self._mode(kind, facts),
        ), facts)  # fmt: skip

    def _mode(self, kind: ActionKind, facts: PolicyFacts) -> str:
        if kind is not ActionKind.FIT:
            return ""
        return "full" if facts.fitted_ns is None else self._settings.mode  # a rung has no weights to begin with

    def _reasons(self, facts: PolicyFacts) -> Iterator[str]:
        """For a fit, beside cron; none where there is nothing new to learn from."""
        schedule, new = self._settings, facts.bars - max(facts.fitted_bars, self._is.seen_bars)
        if new <= 0:
            return
        enough = new >= schedule.min_new_bars
        age_s = -1 if self._is.fitted_ns is None else (self._is.now_ns - self._is.fitted_ns) // SECOND_NS
        if schedule.max_age_s and age_s >= schedule.max_age_s:
            yield f"the newest fit is {age_s} s old"
        if schedule.max_new_bars and new >= schedule.max_new_bars:
            yield f"{new} new bars"
        if enough and self._is.alarm_bars is not None and facts.bars - self._is.alarm_bars >= schedule.min_new_bars:
            yield f"{facts.alarm}, since {facts.bars - self._is.alarm_bars} bars"
        if enough and schedule.skill_floor is not None and facts.skill < schedule.skill_floor:
            yield f"skill {facts.skill:+.3f} is below {schedule.skill_floor:+.3f}"

    def _seen_key(self, kind: ActionKind, facts: PolicyFacts) -> str:
        """The same wherever the same data had been seen, and another after each failure."""
        return f"after-{max(facts.fitted_bars, self._is.seen_bars)}-{self._is.failures.get(kind, 0)}"

    def _note(self, facts: PolicyFacts) -> None:
        self._is.fitted_ns = None if facts.fitted_ns is None else max(facts.fitted_ns, self._is.seen_ns)
        if not facts.alarm:
            self._is.alarm_bars = None
        elif self._is.alarm_bars is None:
            self._is.alarm_bars = facts.bars

    def _has_room(self, kind: ActionKind) -> bool:
        """Neither quiet hours nor too many jobs, and of the budget as much is left as the last of its kind took."""
        running = [one for one in self._is.begun.values() if one.kind in JOBS]
        if len(running) >= self._settings.jobs or self._is_quiet():
            return False
        budget = self._settings.cpu_s_per_day
        return not budget or self._left() >= min(max(self._is.cost.get(kind, 0), 1), budget)

    def _left(self) -> int:
        """Of today's budget, when all that runs takes what it may."""
        return self._settings.cpu_s_per_day - self._is.spent - sum(one.cpu_s for one in self._is.begun.values())

    # ------------------------------------------------------------ who serves

    def _change(self, challenger: Challenger, facts: PolicyFacts) -> Iterator[Action]:
        kind = FOLLOWS.get((challenger.role, challenger.verdict))
        if kind is None or self._rests(kind) or (kind is ActionKind.SHADOW and self._shadows(challenger.route, facts)):
            return
        action = self._change_of(kind, challenger)
        if action.id not in self._is.begun and action.id not in self._is.proposed:
            yield self._given(action, facts)

    def _change_of(self, kind: ActionKind, challenger: Challenger) -> Action:
        why, shadow = f"{challenger.role} {challenger.verdict}", kind is ActionKind.SHADOW
        of_route = "" if challenger.route == DEFAULT else f"{challenger.route}."
        return Action(
            id=f"{kind}.{of_route}{challenger.model}.{self._is.promotions}", kind=kind, why=(why,),
            model=challenger.model, route=challenger.route, waits=self._must_wait(kind),
            alpha=self.alpha if shadow else 0.0, most_bars=self._settings.shadow_bars if shadow else 0,
        )  # fmt: skip

    def _shadows(self, route: str, facts: PolicyFacts) -> bool:
        """A candidate of the route is in shadow still, or about to be."""
        pending = (*self._is.begun.values(), *self._is.proposed.values())
        return any(one.kind is ActionKind.SHADOW and one.route == route for one in pending) or any(
            one.role == "candidate" and one.verdict != READY and one.route == route for one in facts.challengers
        )

    # ------------------------------------------------------------ giving out

    def _allowed(self, facts: PolicyFacts) -> Iterator[Action]:
        """Proposals that a person approved, or that need nobody any more; those that are no longer true are dropped."""
        wanted = {self._change_of(FOLLOWS[key], one).id for one in facts.challengers
                  if (key := (one.role, one.verdict)) in FOLLOWS}  # fmt: skip
        for name, action in [*self._is.proposed.items()]:
            is_job = action.kind in JOBS
            may = name in self._is.approved or not self._must_wait(action.kind)
            if not is_job and name not in wanted:
                del self._is.proposed[name]
            elif may and not (is_job and not self._has_room(action.kind)):
                del self._is.proposed[name]
                since = self._is.slots.pop(action.kind, None)  # slots that came while it waited
                slots = action.slots + (since.count if since else 0)
                yield self._given(msgspec.structs.replace(action, waits=False, slots=slots), facts)
        self._is.approved = [name for name in self._is.approved if name in self._is.proposed]

    def _given(self, action: Action, facts: PolicyFacts) -> Action:
        if action.waits:
            self._is.proposed[action.id] = action
            return action
        bound = action.kind in JOBS and self._settings.cpu_s_per_day
        action = msgspec.structs.replace(
            action, begun_ns=self._is.now_ns, begun_bars=facts.bars,
            cpu_s=min(self._left(), self._job_cpu_s) if bound else 0,
        )  # fmt: skip
        self._is.begun[action.id] = action
        if action.kind is ActionKind.SHADOW:
            self._is.candidates += 1
        return action

    def _learn(self, done: Action) -> None:
        """Of an action that went well."""
        if done.kind is ActionKind.FIT:
            self._is.seen_bars, self._is.seen_ns = done.begun_bars, done.begun_ns
        elif done.kind in (ActionKind.PROMOTE, ActionKind.ROLLBACK, ActionKind.STEP_DOWN):
            self._is.promotions += 1
            self._is.candidates *= done.kind is not ActionKind.PROMOTE

    def _must_wait(self, kind: ActionKind) -> bool:
        return self._settings.autonomy < NEEDS[kind]

    def _rest(self, kind: ActionKind) -> None:
        doublings = min(self._is.failures.get(kind, 0), MOST_DOUBLINGS)
        self._is.rest_ns[kind] = self._is.now_ns + self._settings.rest_s * SECOND_NS * 2**doublings

    def _rests(self, kind: ActionKind) -> bool:
        return self._is.now_ns < self._is.rest_ns.get(kind, 0)


def slot_name(slot: int) -> str:
    """What the wall clock shows then."""
    return (datetime(1970, 1, 1) + timedelta(minutes=slot)).isoformat(timespec="minutes")
