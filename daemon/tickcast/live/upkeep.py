"""Keeps what serves good: does what the policy says is due, follows contests, and notes what was decided and why.

It judges nothing: `loop/policy.py` says what is due, `engine/core/contest.py` what is better. What it goes on from is
stored together with each decision, before that is carried out; all that it does can be done again without harm.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
import structlog

from tickcast.clock import Clock
from tickcast.errors import BadRequest, BadStore, StoreStalled, TickcastError
from tickcast.io.jobs.folder import Result
from tickcast.io.jobs.host import REGISTERED
from tickcast.io.store.ledger import Ledger
from tickcast.io.store.ledger_rows import DecisionRow, Event
from tickcast.live.commands import arguments
from tickcast.live.commands.inbox import Context
from tickcast.live.serving_models import ServingModels
from tickcast.loop.actions import JOBS, Action, ActionKind, PolicyFacts
from tickcast.loop.contests import Candidate, Contests, NewContest, OpenContest
from tickcast.loop.facts import EngineFacts, facts_of
from tickcast.loop.policy import Policy
from tickcast.loop.refit import Refit, refit_of
from tickcast.records import ModelCard
from tickcast.settings import Settings
from tickcast.state import State

ROUTE, BY = "default", "schedule"
NOTE_EVERY_NS, RETRY_S = 600 * 10**9, 1.0


class UpkeepState(msgspec.Struct, frozen=True, kw_only=True):
    """What it goes on from after a restart."""

    champion: str = ""  # whose contests these are
    lost: str = ""  # to last value, the last time that one did
    policy: dict[str, Any] = {}
    ready: list[Candidate] = []
    contests: list[OpenContest] = []


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
        self._contests = Contests(settings)
        self._lost = ""  # to last value, the last time that a model did
        self._noted_ns = clock.monotonic_ns()
        self._changing, self._promoting = asyncio.Lock(), asyncio.Lock()
        self._doing: set[str] = set()
        self._log = structlog.get_logger()

    async def go_on(self) -> None:
        """From where the run before stood: contests from their stored blocks, and what was begun is begun again. What
        cannot be gone on with begins anew: a start that fails for it would fail at every start."""
        standing = UpkeepState()
        try:
            if text := await self._ledger.upkeep():
                noted = msgspec.json.decode(text, type=UpkeepState)
                self._policy.resume(State(facts=noted.policy))
                standing = noted
        except (msgspec.DecodeError, BadStore) as problem:
            self._log.warning("upkeep_failed", reason=f"what was noted cannot be read, it begins anew: {problem}")
        self._lost = standing.lost
        self._contests.champion, self._contests.ready = standing.champion, standing.ready
        for contest in standing.contests:
            try:
                self._contests.resume(contest)
                is_on = contest.id in self._models.contests()  # the engine goes on with it
                if not is_on and contest.champion == self._champion():  # else the next look ends it
                    await self._shadow(contest)
            except (TickcastError, KeyError, TypeError, ValueError) as problem:
                self._contests.end(contest)
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
            for contest in self._contests.open:
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
        return {ROUTE: self._lost} if self._lost and self._champion() == self._models.last_value else {}

    def told(self) -> dict[str, Any]:
        """For `status`."""
        return {
            "autonomy": self._settings.schedule.autonomy,
            "next_ns": self._policy.next_ns(),
            "proposed": [msgspec.to_builtins(action) for action in self._policy.proposed],
            "begun": [msgspec.to_builtins(action) for action in self._policy.begun],
            "candidates": [msgspec.to_builtins(candidate) for candidate in self._contests.ready],
            "contests": [self._contests.told(contest) for contest in self._contests.open],
        }

    # ------------------------------------------------------------ what is so

    async def _facts(self) -> PolicyFacts:
        told, card = await self._look(), await self._champion_card()
        return facts_of(told, card, self._contests.challengers(), lost=bool(self.stepped_down()))

    def _champion(self) -> str:
        return self._models.serving_now().get(ROUTE, "")

    async def _champion_card(self) -> ModelCard | None:
        """None where a rung serves."""
        return await self._models.registered(self._champion())

    async def _settle(self, contest: OpenContest) -> None:
        """The blocks that were stored since."""
        for block in await self._ledger.blocks(contest.id, self._contests.settled(contest.id)):
            self._contests.settle(block)

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
                self._contests.take(shown["model"], shown)
            await self._note([self._row(action, "failed" if failed else "done", evidence=shown)])
        self._log.info("upkeep_done", action=action.id, kind=action.kind, failed=failed, why=[*action.why])

    async def _fit_anew(self, action: Action) -> dict[str, Any]:
        """It is a candidate where the hold-out speaks for it."""
        told, champion = await self._look(), await self._champion_card()
        asked = refit_of(action, self._settings.schedule, champion, told, alpha=self._policy.alpha)
        result = await self._refit(asked)
        made, found = result.content[REGISTERED]["digest"], result.content["against"]
        return {"model": made, **found, "cpu_s": result.cpu_s}

    async def _begin_contest(self, action: Action) -> dict[str, Any]:
        contest = await self._begin(self._contests.of_candidate(action), id=action.id)
        self._contests.leave(action.model)
        return {"contest": contest.id, "terms": contest.terms, "every": contest.every}

    async def _end_contest(self, action: Action) -> dict[str, Any]:
        ended = self._contests.of(action.model)
        shown = self._contests.told(ended)
        self._contests.end(ended)
        await self._models.shadow("", ROUTE)
        for contest in self._contests.open:  # what is left goes on
            await self._shadow(contest)
        return shown

    async def _change(self, action: Action) -> dict[str, Any]:
        """Of who serves, one after the other. What a run before this one has done, and ended before it could say so, is
        in the list of promotions with all that spoke for it."""
        async with self._promoting:
            listed = await self._models.models.history(ROUTE)
            told = next((row.evidence_json for row in listed if row.command_id == action.id), None)
            if told is not None:
                shown = msgspec.json.decode(told, type=dict[str, Any])
            else:
                shown = self._contests.told(self._contests.won(action.model, self._champion()))
            if action.kind is ActionKind.STEP_DOWN:
                self._lost = f"{shown['champion'][:12]} lost to it after {shown['blocks']} blocks"
            if told is None:
                await self._change_now(action, shown)
            return shown

    async def _change_now(self, action: Action, shown: dict[str, Any]) -> None:
        given: dict[str, Any] = {"by": BY, "command_id": action.id, "shown": shown}
        if action.kind is ActionKind.PROMOTE:
            await self._models.promote(action.model, ROUTE, force=True, note="", **given)
        elif action.kind is ActionKind.ROLLBACK:
            await self._models.rollback(ROUTE, **given)
        else:
            await self._models.step_down(ROUTE, **given)

    async def _follow_champion(self) -> None:
        """Whoever made it serve."""
        champion = self._champion()
        if champion == self._contests.champion:
            return
        promotions = await self._models.models.history(ROUTE)
        is_new = bool(promotions) and promotions[-1].action == "promote"
        openings = self._contests.follow(champion, self._models.last_value, is_new=is_new)
        await self._models.shadow("", ROUTE)
        for opening in openings:
            await self._begin(opening, id=f"{opening.role}.{champion[:12]}.{self._clock.now_ns()}")
        await self._note([])

    async def _every(self, model: str) -> int:
        """Of so many blocks it answers in one, so that it takes no more than its share."""
        card = await self._models.registered(model)
        return 1 if card is None else max(1, math.ceil(self._models.share_of(card) / self._share))

    async def _begin(self, opening: NewContest, *, id: str) -> OpenContest:
        every, told = await self._every(opening.model), await self._look()
        contest = self._contests.begin(opening, id=id, bar_ns=told.bar_ns, every=every)
        await self._shadow(contest)
        return contest

    # ------------------------------------------------------------ what is noted

    async def _shadow(self, contest: OpenContest) -> None:
        await self._models.shadow(
            contest.model, ROUTE, contest=contest.id, block_ns=contest.block_ns, every=contest.every
        )

    async def _note(self, rows: list[DecisionRow]) -> None:
        """Until the store has it: a full disk is waited for."""
        standing = UpkeepState(
            champion=self._contests.champion, lost=self._lost, policy=self._policy.snapshot().facts,
            ready=self._contests.ready, contests=self._contests.noted(),
        )  # fmt: skip
        text = msgspec.json.encode(standing).decode()
        while True:
            try:
                await self._ledger.decide(rows, text)
                break
            except StoreStalled:
                await asyncio.sleep(RETRY_S)
        self._noted_ns = self._clock.monotonic_ns()

    def _row(
        self, action: Action, event: Event, *, evidence: dict[str, Any] | None = None, **given: Any
    ) -> DecisionRow:
        return DecisionRow(
            at_ns=self._clock.now_ns(), action=action.id, kind=action.kind, event=event, route=ROUTE,
            model=action.model, champion=self._champion(), why=[*action.why],
            evidence_json=msgspec.json.encode(evidence or {}).decode(), **given,
        )  # fmt: skip
