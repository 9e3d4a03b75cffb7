"""Keeps what serves good: does what the policy says is due, follows contests, and notes what was decided and why.

It judges nothing: `loop/policy.py` says what is due, `engine/core/contest.py` what is better. What it goes on from is
stored together with each decision, before that is carried out; all that it does can be done again without harm.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog

from tickcast.clock import Clock
from tickcast.engine.core.contest import ALPHA, Contest, Terms, Verdict
from tickcast.errors import TickcastError
from tickcast.io.store.ledger import Ledger
from tickcast.io.store.ledger_rows import DecisionRow
from tickcast.live.serving_models import ServingModels
from tickcast.loop.actions import READY, Action, Challenger, Facts, Kind, Role
from tickcast.loop.policy import Policy
from tickcast.settings import Settings
from tickcast.state import State

ROUTE = "default"
Fit = Callable[[Action, str], Awaitable["Candidate"]]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a job of the schedule fitted, and the terms of its contest, by the bars that neither had seen."""

    model: str  # digest
    champion: str
    terms: dict[str, Any]


class OpenContest(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    model: str
    champion: str
    role: Role
    terms: dict[str, Any]  # in blocks of `block_ns`
    block_ns: int
    every: int = 1


class Standing(msgspec.Struct, kw_only=True):
    """What it goes on from."""

    policy: dict[str, Any] = {}
    ready: list[Candidate] = []
    contests: list[OpenContest] = []


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What the session knows of the engine, for the policy."""

    bars: int
    fitted_bars: int
    bar_ns: int  # the usual time from one to the next
    skill: float
    alarm: bool


class Upkeep:
    """`resume` once, then `run` beside the pump."""

    def __init__(
        self, settings: Settings, ledger: Ledger, serving_models: ServingModels, *, clock: Clock, fit: Fit,
        look: Callable[[], Awaitable[Told]], shadow_cost: Callable[[str], float],
    ) -> None:  # fmt: skip
        """`fit` has a job done; `shadow_cost` is the share of a core that a model would take."""
        self._settings, self._ledger, self._models, self._clock = settings, ledger, serving_models, clock
        self._fit, self._look, self._shadow_cost = fit, look, shadow_cost
        self._policy = Policy(settings)
        self._is = Standing()
        self._contests: dict[str, Contest] = {}
        self._settled: dict[str, int] = {}  # the newest block of each that was counted
        self._changing = asyncio.Lock()
        self._doing: set[str] = set()
        self._log = structlog.get_logger()

    async def resume(self) -> None:
        """Where the run before stood: contests from their stored blocks, and what was begun is begun again."""
        if text := await self._ledger.upkeep():
            self._is = msgspec.json.decode(text, type=Standing)
            self._policy.resume(State(facts=self._is.policy))
        for contest in self._is.contests:
            self._open(contest)
            await self._shadow(contest)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for action in self._policy.begun:
                group.create_task(self._do(action))
            while True:
                await asyncio.sleep(self._settings.schedule.look_every_s)
                for action in await self.step():
                    group.create_task(self._do(action))

    async def step(self) -> list[Action]:
        """Look once; what is to be done now. It is noted already."""
        async with self._changing:
            for contest in self._is.contests:
                await self._settle(contest)
            facts = await self._facts()
            due = self._policy.due(self._clock.now_ns(), facts)
            if due:
                await self._note([self._row(one, "proposed" if one.waits else "begun") for one in due])
        return [action for action in due if not action.waits]

    async def decide(self, action: str, *, approve: bool, by: str) -> bool:
        """A person's word on what was proposed; False where it is not proposed."""
        async with self._changing:
            proposed = next((one for one in self._policy.proposed if one.id == action), None)
            if proposed is None:
                return False
            (self._policy.approve if approve else self._policy.dismiss)(action)
            await self._note([self._row(proposed, "approved" if approve else "dismissed", given_by=by)])
        return True

    def told(self) -> dict[str, Any]:
        """For `status`."""
        return {
            "autonomy": self._settings.schedule.autonomy,
            "proposed": [msgspec.to_builtins(action) for action in self._policy.proposed],
            "begun": [msgspec.to_builtins(action) for action in self._policy.begun],
            "candidates": [msgspec.to_builtins(candidate) for candidate in self._is.ready],
            "contests": [self._told_of(contest) for contest in self._is.contests],
        }

    # ------------------------------------------------------------ what is so

    async def _facts(self) -> Facts:
        told, champion = await self._look(), self._champion()
        card = self._models.card_of(champion)
        return Facts(
            bars=told.bars, fitted_bars=told.fitted_bars, fitted_ns=card.trained_to_ns or None if card else None,
            alarm=told.alarm, skill=told.skill, challengers=tuple(self._challengers()),
        )  # fmt: skip

    def _challengers(self) -> list[Challenger]:
        ready = [Challenger(model=one.model, role="candidate", verdict=READY) for one in self._is.ready]
        return ready + [
            Challenger(model=one.model, role=one.role, verdict=self._contests[one.id].verdict)
            for one in self._is.contests
        ]

    def _champion(self) -> str:
        return self._models.serving_now().get(ROUTE, "")

    async def _settle(self, contest: OpenContest) -> None:
        """The blocks that were stored since; one in which the challenger had no answer counts as lost."""
        for block in await self._ledger.blocks(contest.id, self._settled[contest.id]):
            self._settled[contest.id] = block.number
            if block.labels or block.failed:
                lost = math.nan if block.failed else block.loss_challenger
                self._contests[contest.id].settle(block.loss, lost)

    # ------------------------------------------------------------ what is done

    async def _do(self, action: Action) -> None:
        """Once; how it ended is told to the policy, and noted."""
        if action.id in self._doing:
            return
        self._doing.add(action.id)
        does = {
            Kind.FIT: self._fit_anew, Kind.OPTIMIZE: self._fit_anew, Kind.SHADOW: self._begin_contest,
            Kind.END_SHADOW: self._end_contest, Kind.PROMOTE: self._promote, Kind.ROLLBACK: self._roll_back,
            Kind.STEP_DOWN: self._step_down,
        }  # fmt: skip
        try:
            shown, failed = await does[action.kind](action), False
        except TickcastError as problem:
            shown, failed = {"code": problem.code, "reason": str(problem)}, True
        finally:
            self._doing.discard(action.id)
        async with self._changing:
            cpu_s = int(shown.pop("cpu_s", 0))
            self._policy.on_ended(action.id, self._clock.now_ns(), failed=failed, cpu_s=cpu_s)
            await self._note([self._row(action, "failed" if failed else "done", evidence=shown)])
        self._log.info("upkeep_done", action=action.id, kind=action.kind, failed=failed, why=[*action.why])

    async def _fit_anew(self, action: Action) -> dict[str, Any]:
        champion = self._champion()
        candidate = await self._fit(action, champion)
        if refusal := candidate.terms.get("refusal"):
            return {"model": candidate.model, "refused": refusal, "terms": candidate.terms}
        self._is.ready = [one for one in self._is.ready if one.model != candidate.model] + [candidate]
        return {"model": candidate.model, "terms": candidate.terms}

    async def _begin_contest(self, action: Action) -> dict[str, Any]:
        candidate = next((one for one in self._is.ready if one.model == action.model), None)
        if candidate is None:  # a run before this one has begun it
            return {"contest": action.id}
        terms = Terms(**candidate.terms)
        terms = terms._replace(alpha=action.alpha, most_blocks=action.most_bars // terms.block_bars)
        contest = await self._contest(action.id, candidate.model, "candidate", terms)
        self._is.ready = [one for one in self._is.ready if one.model != action.model]
        return {"contest": contest.id, "terms": contest.terms, "every": contest.every}

    async def _contest(self, id: str, model: str, role: Role, terms: Terms) -> OpenContest:
        """From now on: its blocks are spans of event time, each one observation."""
        told = await self._look()
        share = self._shadow_cost(model) / self._settings.inference.shadow_share
        every = max(1, math.ceil(share)) if role != "last_value" else 1
        contest = OpenContest(
            id=id, model=model, champion=self._champion(), role=role, terms=terms._replace(block_bars=1)._asdict(),
            block_ns=terms.block_bars * told.bar_ns, every=every,
        )  # fmt: skip
        self._is.contests = [one for one in self._is.contests if one.id != id] + [contest]
        self._open(contest)
        await self._shadow(contest)
        return contest

    async def _end_contest(self, action: Action) -> dict[str, Any]:
        shown = self._evidence(action.model)
        self._is.contests = [one for one in self._is.contests if one.model != action.model]
        await self._models.shadow("", ROUTE, contest="", block_ns=0, every=1)
        for contest in self._is.contests:  # what is left goes on
            await self._shadow(contest)
        return shown

    async def _promote(self, action: Action) -> dict[str, Any]:
        """And then the roles are swapped: who served answers beside it, and serves again if that is shown better."""
        shown, former, terms = self._evidence(action.model), self._champion(), self._terms(action.model)
        await self._models.promote(
            action.model, ROUTE, force=True, by="schedule", note="", command_id=action.id, shown=shown
        )
        await self._after(action, former, terms)
        return shown

    async def _roll_back(self, action: Action) -> dict[str, Any]:
        shown, terms = self._evidence(action.model), self._terms(action.model)
        await self._models.rollback(ROUTE, by="schedule", command_id=action.id, shown=shown)
        await self._after(action, "", terms)
        return shown

    async def _step_down(self, action: Action) -> dict[str, Any]:
        shown = self._evidence(action.model)
        await self._models.step_down(ROUTE, by="schedule", command_id=action.id, shown=shown)
        self._is.contests = []
        return shown

    async def _after(self, action: Action, former: str, terms: Terms | None) -> None:
        """Contests of who serves now: with who served before, and with last value, which never ends."""
        self._is.contests, self._contests = [], {}
        if terms is None:
            return
        terms = terms._replace(alpha=ALPHA, rounds=True, block_bars=self._block_bars)
        if former:
            await self._contest(f"{action.id}.former", former, "former", terms)
        await self._contest(f"{action.id}.last_value", self._models.last_value, "last_value", terms)

    # ------------------------------------------------------------ what is noted

    def _open(self, contest: OpenContest) -> None:
        self._contests[contest.id] = Contest(Terms(**contest.terms))
        self._settled[contest.id] = -1

    async def _shadow(self, contest: OpenContest) -> None:
        await self._models.shadow(
            contest.model, ROUTE, contest=contest.id, block_ns=contest.block_ns, every=contest.every
        )

    def _evidence(self, model: str) -> dict[str, Any]:
        """Of the contest of a model, in what JSON can hold."""
        contest = next((one for one in self._is.contests if one.model == model), None)
        return {} if contest is None else self._told_of(contest)

    def _told_of(self, contest: OpenContest) -> dict[str, Any]:
        found = self._contests[contest.id].evidence()._asdict()
        found = {name: None if isinstance(value, float) and not math.isfinite(value) else value
                 for name, value in found.items()}  # fmt: skip
        return {"contest": contest.id, "model": contest.model, "role": contest.role, **found}

    async def _note(self, rows: list[DecisionRow]) -> None:
        self._is.policy = self._policy.snapshot().facts
        await self._ledger.decide(rows, msgspec.json.encode(self._is).decode())

    def _row(self, action: Action, event: str, *, evidence: dict[str, Any] | None = None, **given: Any) -> DecisionRow:
        return DecisionRow(
            at_ns=self._clock.now_ns(), action=action.id, kind=action.kind, event=event, route=ROUTE,  # type: ignore[arg-type]
            model=action.model, champion=self._champion(), why=[*action.why],
            evidence_json=msgspec.json.encode(evidence or {}).decode(), **given,
        )  # fmt: skip
