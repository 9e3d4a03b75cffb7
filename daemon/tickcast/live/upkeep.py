"""Keeps what serves good: does what the policy says is due, follows contests, and notes what was decided and why.

It judges nothing: `loop/policy.py` says what is due, `engine/core/contest.py` what is better. What it goes on from is
stored together with each decision, before that is carried out; all that it does can be done again without harm.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
import numpy as np
import structlog

from tickcast.clock import Clock
from tickcast.engine.core.contest import ALPHA, Contest, ContestTerms
from tickcast.errors import BadRequest, BadStore, StoreStalled, TickcastError
from tickcast.io.jobs.folder import Result
from tickcast.io.jobs.host import REGISTERED
from tickcast.io.store.ledger import Ledger
from tickcast.io.store.ledger_rows import DecisionRow, Event
from tickcast.live.commands import arguments
from tickcast.live.commands.inbox import Context
from tickcast.live.commands.job_commands import Refit
from tickcast.live.facts import EngineFacts
from tickcast.live.serving_models import ServingModels
from tickcast.live.upkeep_state import Candidate, OpenContest, UpkeepState
from tickcast.loop.actions import JOBS, READY, Action, ActionKind, Challenger, ChallengerRole, PolicyFacts
from tickcast.loop.policy import Policy
from tickcast.records import ModelCard
from tickcast.settings import Settings
from tickcast.state import State

ROUTE, BY = "default", "schedule"
NOTE_EVERY_NS, RETRY_S = 600 * 10**9, 1.0
USUAL_BLOCK, USUAL_BOUND = 4, 0.25  # horizons, and of a gain


class Upkeep:
    """`go_on` once, then `run` beside the pump."""

    def __init__(
        self, settings: Settings, ledger: Ledger, serving_models: ServingModels, *, clock: Clock,
        refit: Callable[[Refit], Awaitable[Result]], look: Callable[[], Awaitable[EngineFacts]],
    ) -> None:  # fmt: skip
        """`refit` has a job done; `look` tells what is so."""
        self._settings, self._ledger, self._models, self._clock = settings, ledger, serving_models, clock
        self._refit, self._look = refit, look
        self._share = settings.inference.shadow_share
        self._policy = Policy(settings)
        self._is = UpkeepState()
        self._contests: dict[str, Contest] = {}
        self._settled: dict[str, int] = {}  # the newest block of each that was counted
        self._noted_ns = clock.monotonic_ns()
        self._changing, self._promoting = asyncio.Lock(), asyncio.Lock()
        self._doing: set[str] = set()
        self._log = structlog.get_logger()

    async def go_on(self) -> None:
        """From where the run before stood: contests from their stored blocks, and what was begun is begun again. What
        cannot be gone on with begins anew: a start that fails for it would fail at every start."""
        try:
            if text := await self._ledger.upkeep():
                standing = msgspec.json.decode(text, type=UpkeepState)
                self._policy.resume(State(facts=standing.policy))
                self._is = standing
        except (msgspec.DecodeError, BadStore) as problem:
            self._log.warning("upkeep_failed", reason=f"what was noted cannot be read, it begins anew: {problem}")
        for contest in [*self._is.contests]:
            try:
                self._open(contest)
                is_on = contest.id in self._models.contests()  # the engine goes on with it
                if not is_on and contest.champion == self._champion():  # else the next look ends it
                    await self._shadow(contest)
            except (TickcastError, KeyError, TypeError, ValueError) as problem:
                self._is.contests.remove(contest)
                self._log.warning("upkeep_failed", reason=f"{contest.id} has ended: {problem}")

    async def run(self) -> None:
        """Whatever goes wrong here is the upkeep's own: what serves goes on."""
        async with asyncio.TaskGroup() as group:
            for action in self._policy.begun:
                group.create_task(self._do(action))
            while True:
                await asyncio.sleep(self._settings.schedule.look_every_s)
                try:
                    due = await self.step()
                except Exception as problem:
                    self._log.warning("upkeep_failed", reason=f"{type(problem).__name__}: {problem}")
                    continue
                for action in due:
                    group.create_task(self._do(action))

    async def step(self) -> list[Action]:
        """Look once; what is to be done now. It is noted already. Before there are bars there is nothing to decide."""
        if (await self._look()).bar_ns == 0:
            return []
        async with self._changing:
            await self._follow_champion()
            for contest in self._is.contests:
                await self._settle(contest)
            due = self._policy.due(self._clock.now_ns(), await self._facts())
            if due or self._clock.monotonic_ns() - self._noted_ns > NOTE_EVERY_NS:
                await self._note([self._row(one, "proposed" if one.waits else "begun") for one in due])
        return [action for action in due if not action.waits]

    # ------------------------------------------------------------ what a person orders and asks

    async def approve(self, given: arguments.Approve, context: Context) -> dict[str, Any]:
        return await self._answer(given.action, self._policy.approve, "approved", by=context.key)

    async def dismiss(self, given: arguments.Dismiss, context: Context) -> dict[str, Any]:
        return await self._answer(given.action, self._policy.dismiss, "dismissed", by=context.key)

    async def history(self, given: arguments.History, context: Context) -> dict[str, Any]:
        rows = await self._ledger.decisions(given.kind, given.limit)
        promotions = await self._models.models.history()
        return {
            "decisions": [msgspec.to_builtins(row) for row in rows],
            "served": [msgspec.to_builtins(row) for row in promotions[::-1][: given.limit]],
        }

    async def _answer(
        self, action: str, say: Callable[[str], bool], event: Literal["approved", "dismissed"], *, by: str
    ) -> dict[str, Any]:
        async with self._changing:
            proposed = {one.id: one for one in self._policy.proposed}.get(action)
            if proposed is None:
                raise BadRequest(f"'{action}' is not proposed", remedy="`status section=decisions` lists what is")
            say(action)
            await self._note([self._row(proposed, event, given_by=by)])
        return {event: msgspec.to_builtins(proposed)}

    def proposed(self) -> dict[str, str]:
        """What waits for a person, by kind, with why."""
        return {action.kind: ", ".join(action.why) for action in self._policy.proposed}

    def stepped_down(self) -> dict[str, str]:
        """The route whose model lost to last value, and when."""
        return {ROUTE: self._is.lost} if self._is.lost and self._champion() == self._models.last_value else {}

    def told(self) -> dict[str, Any]:
        """For `status`."""
        return {
            "autonomy": self._settings.schedule.autonomy,
            "next_ns": self._policy.next_ns(),
            "proposed": [msgspec.to_builtins(action) for action in self._policy.proposed],
            "begun": [msgspec.to_builtins(action) for action in self._policy.begun],
            "candidates": [msgspec.to_builtins(candidate) for candidate in self._is.ready],
            "contests": [self._told_of(contest) for contest in self._is.contests],
        }

    # ------------------------------------------------------------ what is so

    async def _facts(self) -> PolicyFacts:
        told, card = await self._look(), await self._champion_card()
        return PolicyFacts(
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

    async def _champion_card(self) -> ModelCard | None:
        """None where a rung serves."""
        return await self._models.registered(self._champion())

    async def _settle(self, contest: OpenContest) -> None:
        """The blocks that were stored since; one in which the challenger had no answer counts as lost."""
        for block in await self._ledger.blocks(contest.id, self._settled[contest.id]):
            self._settled[contest.id] = block.number
            if block.labels or block.failed:
                self._contests[contest.id].settle(block.loss, math.nan if block.failed else block.loss_challenger)

    # ------------------------------------------------------------ what is done

    async def _do(self, action: Action) -> None:
        """Once; how it ended is told to the policy, and noted."""
        if action.id in self._doing:
            return
        self._doing.add(action.id)
        does = {ActionKind.SHADOW: self._begin_contest, ActionKind.END_SHADOW: self._end_contest}
        does |= dict.fromkeys(JOBS, self._fit_anew)
        try:
            shown, failed = await does.get(action.kind, self._change)(action), False
        except TickcastError as problem:
            shown, failed = {"code": problem.code, "reason": str(problem)}, True
        except Exception as problem:
            shown, failed = {"code": "failed", "reason": f"{type(problem).__name__}: {problem}"}, True
        finally:
            self._doing.discard(action.id)
        async with self._changing:
            took = math.ceil(shown.get("cpu_s", 0))
            self._policy.on_ended(action.id, self._clock.now_ns(), failed=failed, cpu_s=took)
            if action.kind in JOBS and not failed:
                self._take(shown)
            await self._note([self._row(action, "failed" if failed else "done", evidence=shown)])
        self._log.info("upkeep_done", action=action.id, kind=action.kind, failed=failed, why=[*action.why])

    async def _fit_anew(self, action: Action) -> dict[str, Any]:
        """Of the kind that serves, by its parameters or by those that a search finds; it is a candidate where the
        hold-out speaks for it."""
        schedule, champion = self._settings.schedule, await self._champion_card()
        kind, searches = champion.kind if champion else schedule.kind, action.kind is ActionKind.OPTIMIZE
        usual = champion.model_params if champion and not searches else {}
        result = await self._refit(Refit(
            id=action.id, kind=kind, name=champion.name if champion else kind, params={**usual, **schedule.params},
            searches=searches, mode=action.mode, champion=champion, alpha=self._policy.alpha,
            most_bars=schedule.shadow_bars, cpu_s=action.cpu_s,
        ))  # fmt: skip
        made, found = result.content[REGISTERED]["digest"], result.content["against"]
        return {"model": made, **found, "cpu_s": result.cpu_s}

    def _take(self, fitted: dict[str, Any]) -> None:
        """As a candidate, where the hold-out speaks for it."""
        candidate = Candidate(
            model=fitted["model"], champion=self._champion(), terms=fitted["terms"], last_value=fitted["last_value"]
        )
        if not candidate.terms["refusal"]:
            self._is.ready = [one for one in self._is.ready if one.model != candidate.model] + [candidate]

    async def _begin_contest(self, action: Action) -> dict[str, Any]:
        candidate = next((one for one in self._is.ready if one.model == action.model), None)
        if candidate is None:
            raise BadRequest(f"{action.model[:12]} is no candidate any more")
        terms = ContestTerms(**candidate.terms)
        terms = terms._replace(alpha=action.alpha, most_blocks=action.most_bars // terms.block_bars)
        every = await self._every(candidate.model)
        contest = await self._contest(
            action.id, candidate.model, "candidate", terms, last_value=candidate.last_value, every=every
        )
        self._is.ready = [one for one in self._is.ready if one.model != action.model]
        return {"contest": contest.id, "terms": contest.terms, "every": every}

    async def _end_contest(self, action: Action) -> dict[str, Any]:
        shown = self._told_of(self._of(action.model))
        self._is.contests = [one for one in self._is.contests if one.model != action.model]
        await self._models.shadow("", ROUTE)
        for contest in self._is.contests:  # what is left goes on
            await self._shadow(contest)
        return shown

    async def _change(self, action: Action) -> dict[str, Any]:
        """Of who serves, one after the other. What a run before this one has done, and ended before it could say so, is
        in the list of promotions with all that spoke for it."""
        async with self._promoting:
            listed = await self._models.models.history(ROUTE)
            told = next((row.evidence_json for row in listed if row.command_id == action.id), None)
            shown = await self._change_now(action) if told is None else msgspec.json.decode(told, type=dict[str, Any])
            if action.kind is ActionKind.STEP_DOWN:
                self._is.lost = f"{shown['champion'][:12]} lost to it after {shown['blocks']} blocks"
            return shown

    async def _change_now(self, action: Action) -> dict[str, Any]:
        """By no contest with somebody who serves no more."""
        won = self._of(action.model)
        if won.champion != self._champion():
            raise BadRequest(f"the contest was with {won.champion[:12]}, which serves no more")
        shown = self._told_of(won)
        given: dict[str, Any] = {"by": BY, "command_id": action.id, "shown": shown}
        if action.kind is ActionKind.PROMOTE:
            await self._models.promote(action.model, ROUTE, force=True, note="", **given)
        elif action.kind is ActionKind.ROLLBACK:
            await self._models.rollback(ROUTE, **given)
        else:
            await self._models.step_down(ROUTE, **given)
        return shown

    async def _follow_champion(self) -> None:
        """Whoever made it serve: with a promotion the roles are swapped, and who served before answers beside it, to
        serve again if that is shown better. Last value is a challenger at all times."""
        champion, before = self._champion(), self._is.champion
        if champion == before:
            return
        known = [one for one in self._is.contests if one.model == champion]
        terms = ContestTerms(**known[0].terms) if known else self._usual_terms()
        lasting = ContestTerms(**known[0].last_value) if known else terms
        self._is.champion, self._is.contests = champion, []
        await self._models.shadow("", ROUTE)
        if champion != self._models.last_value:
            promotions = await self._models.models.history(ROUTE)
            is_new = bool(promotions) and promotions[-1].action == "promote"
            if is_new and before and before != self._models.last_value:
                await self._begin("former", before, terms._replace(alpha=ALPHA, rounds=False), lasting)
            most = max(self._settings.schedule.shadow_bars // lasting.block_bars, 1)
            endless = lasting._replace(alpha=ALPHA, rounds=True, most_blocks=most)
            await self._begin("last_value", self._models.last_value, endless, lasting)
        await self._note([])

    def _usual_terms(self) -> ContestTerms:
        """Of a model that no hold-out spoke for, such as one that a person promoted."""
        block_bars = USUAL_BLOCK * self._settings.forecast.horizon
        most = max(self._settings.schedule.shadow_bars // block_bars, 1)
        return ContestTerms(alpha=ALPHA, block_bars=block_bars, most_blocks=most, bound=USUAL_BOUND)

    async def _begin(self, role: ChallengerRole, model: str, terms: ContestTerms, lasting: ContestTerms) -> None:
        every = 1 if role == "last_value" else await self._every(model)
        await self._contest(
            f"{role}.{self._is.champion[:12]}.{self._clock.now_ns()}", model, role, terms,
            last_value=lasting._asdict(), every=every,
        )  # fmt: skip

    async def _every(self, model: str) -> int:
        """Of so many blocks it answers in one, so that it takes no more than its share."""
        card = await self._models.registered(model)
        return 1 if card is None else max(1, math.ceil(self._models.share_of(card) / self._share))

    async def _contest(
        self, id: str, model: str, role: ChallengerRole, terms: ContestTerms, *, last_value: dict[str, Any], every: int
    ) -> OpenContest:
        """From now on; its blocks are spans of event time."""
        told = await self._look()
        if told.bar_ns <= 0:  # blocks would have no length
            raise BadRequest("there are too few bars to say how long a block is")
        contest = OpenContest(
            id=id, model=model, champion=self._champion(), role=role, terms=terms._asdict(), last_value=last_value,
            block_ns=terms.block_bars * told.bar_ns, every=every,
        )  # fmt: skip
        self._is.contests = [one for one in self._is.contests if one.id != id] + [contest]
        self._open(contest)
        await self._shadow(contest)
        return contest

    # ------------------------------------------------------------ what is noted

    def _open(self, contest: OpenContest) -> None:
        """From its tally; a stored block is one observation."""
        fresh = Contest(ContestTerms(**contest.terms)._replace(block_bars=1))
        if contest.tally:
            state = fresh.snapshot()
            arrays = {name: np.array(contest.tally["arrays"][name], a.dtype) for name, a in state.arrays.items()}
            fresh = Contest.resumed(State(arrays, contest.tally["facts"]))
        self._contests[contest.id], self._settled[contest.id] = fresh, contest.settled

    async def _shadow(self, contest: OpenContest) -> None:
        await self._models.shadow(
            contest.model, ROUTE, contest=contest.id, block_ns=contest.block_ns, every=contest.every
        )

    def _of(self, model: str) -> OpenContest:
        found = [one for one in self._is.contests if one.model == model]
        if not found:
            raise BadRequest(f"{model[:12]} is in no contest any more")
        return found[0]

    def _told_of(self, contest: OpenContest) -> dict[str, Any]:
        """Its evidence, in what JSON can hold."""
        found = self._contests[contest.id].evidence()._asdict()
        found = {name: None if isinstance(value, float) and not math.isfinite(value) else value
                 for name, value in found.items()}  # fmt: skip
        who = {"model": contest.model, "champion": contest.champion, "role": contest.role}
        return {"contest": contest.id, **who, **found}

    async def _note(self, rows: list[DecisionRow]) -> None:
        """Until the store has it: a full disk is waited for."""
        self._is.policy = self._policy.snapshot().facts
        self._is.contests = [self._tallied(contest) for contest in self._is.contests]
        text = msgspec.json.encode(self._is).decode()
        while True:
            try:
                await self._ledger.decide(rows, text)
                break
            except StoreStalled:
                await asyncio.sleep(RETRY_S)
        self._noted_ns = self._clock.monotonic_ns()

    def _tallied(self, contest: OpenContest) -> OpenContest:
        state = self._contests[contest.id].snapshot()
        tally = {"arrays": {name: array.tolist() for name, array in state.arrays.items()}, "facts": state.facts}
        return msgspec.structs.replace(contest, tally=tally, settled=self._settled[contest.id])

    def _row(
        self, action: Action, event: Event, *, evidence: dict[str, Any] | None = None, **given: Any
    ) -> DecisionRow:
        return DecisionRow(
            at_ns=self._clock.now_ns(), action=action.id, kind=action.kind, event=event, route=ROUTE,
            model=action.model, champion=self._champion(), why=[*action.why],
            evidence_json=msgspec.json.encode(evidence or {}).decode(), **given,
        )  # fmt: skip
