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
from tickcast.engine.core.routes import DEFAULT
from tickcast.errors import BadRequest, BadStore, StoreStalled, TickcastError
from tickcast.io.jobs.folder import Result
from tickcast.io.jobs.host import REGISTERED
from tickcast.io.store.ledger import Ledger
from tickcast.io.store.ledger_rows import DecisionRow, Event
from tickcast.live.commands import arguments
from tickcast.live.commands.inbox import Context
from tickcast.live.route_contests import RouteContests, RouteState
from tickcast.live.serving_models import ServingModels
from tickcast.loop.actions import JOBS, Action, ActionKind, PolicyFacts
from tickcast.loop.contests import Candidate, OpenContest
from tickcast.loop.facts import EngineFacts, facts_of
from tickcast.loop.policy import Policy
from tickcast.loop.refit import Refit, refit_of
from tickcast.records import ModelCard
from tickcast.settings import Settings
from tickcast.state import State

BY = "schedule"
NOTE_EVERY_NS, RETRY_S = 600 * 10**9, 1.0


class UpkeepState(msgspec.Struct, frozen=True, kw_only=True):
    """What it goes on from after a restart."""

    champion: str = ""  # whose contests these are
    lost: str = ""  # to last value, the last time that one did
    policy: dict[str, Any] = {}
    ready: list[Candidate] = []
    contests: list[OpenContest] = []
    routes: dict[str, RouteState] = {}


class Upkeep:
    """`go_on` once, then `run` beside the pump."""

    def __init__(
        self, settings: Settings, ledger: Ledger, serving_models: ServingModels, *, clock: Clock,
        refit: Callable[[Refit], Awaitable[Result]], look: Callable[[], Awaitable[EngineFacts]],
    ) -> None:  # fmt: skip
        """`refit` has a job done; `look` tells what is so."""
        self._settings, self._ledger, self._models, self._clock = settings, ledger, serving_models, clock
        self._refit, self._look = refit, look
        self._policy = Policy(settings)
        self._routes = RouteContests(settings, ledger, serving_models, clock=clock, look=look)
        self._contests = self._routes.default
        self._goes = False
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
        self._goes, self._contests.ready = True, standing.ready
        of_default = RouteState(champion=standing.champion, lost=standing.lost, contests=standing.contests)
        await self._routes.go_on({DEFAULT: of_default, **standing.routes})

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
            if await self._routes.step():
                await self._note([])
            due = self._policy.due(self._clock.now_ns(), await self._facts())
            if due or self._clock.monotonic_ns() - self._noted_ns > NOTE_EVERY_NS:
                await self._note([self._row(one, "proposed" if one.waits else "begun") for one in due])
        return [action for action in due if not action.waits]

    # ------------------------------------------------------------ what a person orders and asks

    async def approve(self, given: arguments.Approve, context: Context) -> dict[str, Any]:
        return await self._answer(given.action, self._policy.approve, "approved", by=context.key)

    async def dismiss(self, given: arguments.Dismiss, context: Context) -> dict[str, Any]:
        return await self._answer(given.action, self._policy.dismiss, "dismissed", by=context.key)

    async def shadow(self, given: arguments.Shadow, context: Context) -> dict[str, Any]:
        """Beside the model that serves a route. What its contest shows is followed like that of a candidate."""
        if not self._goes:
            raise BadRequest("contests are slot 0's", remedy="tell that one")
        async with self._changing:
            if given.model:
                kind = ActionKind.SHADOW
                contest = await self._routes.begin_asked(given.route, given.model, alpha=self._policy.spend)
                told = self._routes.of(given.route).told(contest)
            else:
                kind, contests = ActionKind.END_SHADOW, self._routes.of(given.route)
                told = contests.told(contest := contests.candidate())
                await self._routes.end(contests, contest)
            why = (given.note or "asked for",)
            asked = Action(id=contest.id, kind=kind, why=why, waits=False, model=contest.model, route=given.route)
            await self._note([self._row(asked, "done", evidence=told, given_by=context.key)])
        return {"contest": told}

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
        """The routes whose model lost to last value, and when."""
        serving = self._models.serving_now()
        lost = self._routes.lost.items()
        return {route: why for route, why in lost if why and serving.get(route) == self._models.last_value}

    def told(self) -> dict[str, Any]:
        """For `status`."""
        return {
            "autonomy": self._settings.schedule.autonomy,
            "next_ns": self._policy.next_ns(),
            "proposed": [msgspec.to_builtins(action) for action in self._policy.proposed],
            "begun": [msgspec.to_builtins(action) for action in self._policy.begun],
            "candidates": [msgspec.to_builtins(candidate) for candidate in self._contests.ready],
            "contests": self._routes.told(),
        }

    # ------------------------------------------------------------ what is so

    async def _facts(self) -> PolicyFacts:
        told, card = await self._look(), await self._champion_card()
        return facts_of(told, card, self._routes.challengers(), lost=DEFAULT in self.stepped_down())

    async def _champion_card(self) -> ModelCard | None:
        """None where a rung serves."""
        return await self._models.registered(self._routes.champion(DEFAULT))

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
        contest = await self._routes.begin(self._contests, self._contests.of_candidate(action), id=action.id)
        self._contests.leave(action.model)
        return {"contest": contest.id, "terms": contest.terms, "every": contest.every}

    async def _end_contest(self, action: Action) -> dict[str, Any]:
        contests = self._routes.of(action.route)
        ended = contests.of(action.model)
        shown = contests.told(ended)
        await self._routes.end(contests, ended)
        return shown

    async def _change(self, action: Action) -> dict[str, Any]:
        """Of who serves, one after the other. What a run before this one has done, and ended before it could say so, is
        in the list of promotions with all that spoke for it."""
        async with self._promoting:
            listed = await self._models.models.history(action.route)
            told = next((row.evidence_json for row in listed if row.command_id == action.id), None)
            if told is not None:
                shown = msgspec.json.decode(told, type=dict[str, Any])
            else:
                contests, champion = self._routes.of(action.route), await self._models.champion(action.route)
                shown = contests.told(contests.won(action.model, champion))
            if action.kind is ActionKind.STEP_DOWN:
                self._routes.lost[action.route] = f"{shown['champion'][:12]} lost to it after {shown['blocks']} blocks"
            if told is None:
                await self._change_now(action, shown)
            return shown

    async def _change_now(self, action: Action, shown: dict[str, Any]) -> None:
        given: dict[str, Any] = {"by": BY, "command_id": action.id, "shown": shown}
        if action.kind is ActionKind.PROMOTE:
            await self._models.promote(action.model, action.route, force=True, note="", **given)
        elif action.kind is ActionKind.ROLLBACK:
            await self._models.rollback(action.route, **given)
        else:
            await self._models.step_down(action.route, **given)

    # ------------------------------------------------------------ what is noted

    async def _note(self, rows: list[DecisionRow]) -> None:
        """Until the store has it: a full disk is waited for."""
        routes = self._routes.noted()
        default = routes.pop(DEFAULT)
        standing = UpkeepState(
            champion=default.champion, lost=default.lost, policy=self._policy.snapshot().facts,
            ready=self._contests.ready, contests=default.contests, routes=routes,
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
            at_ns=self._clock.now_ns(), action=action.id, kind=action.kind, event=event, route=action.route,
            model=action.model, champion=self._routes.champion(action.route), why=[*action.why],
            evidence_json=msgspec.json.encode(evidence or {}).decode(), **given,
        )  # fmt: skip
