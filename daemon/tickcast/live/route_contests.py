"""Contests on routes: the default one's, and those of routes on which a person began one. It has challengers answer in
shadow and counts their stored blocks; it decides nothing, notes nothing and changes no route.
"""

import math
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog

from tickcast.clock import Clock, fresh_id
from tickcast.engine.core.routes import DEFAULT
from tickcast.errors import BadRequest, TickcastError
from tickcast.io.store.ledger import Ledger
from tickcast.live.serving_models import ServingModels
from tickcast.loop.actions import Challenger
from tickcast.loop.contests import Contests, NewContest, OpenContest
from tickcast.loop.facts import EngineFacts
from tickcast.settings import Settings

MOST_ROUTES = 8  # beside the default one


class RouteState(msgspec.Struct, frozen=True, kw_only=True):
    """What is gone on from after a restart."""

    champion: str = ""  # whose contests these are
    lost: str = ""  # to last value, the last time that one did
    contests: list[OpenContest] = []


class RouteContests:
    def __init__(
        self, settings: Settings, ledger: Ledger, serving_models: ServingModels, *, clock: Clock,
        look: Callable[[], Awaitable[EngineFacts]],
    ) -> None:  # fmt: skip
        self._settings, self._ledger, self._models, self._clock = settings, ledger, serving_models, clock
        self._look, self._share = look, settings.inference.shadow_share
        self.default = Contests(settings)
        self.lost: dict[str, str] = {}  # by route: to last value, the last time that a model did
        self._of = {DEFAULT: self.default}
        self._log = structlog.get_logger()

    async def go_on(self, states: dict[str, RouteState]) -> None:
        """What the engine goes on with that is not known was begun before it was noted, or noted as ended since."""
        known = {contest.id for state in states.values() for contest in state.contests}
        for route in {route for contest, route in self._models.contests().items() if contest not in known}:
            await self._models.shadow("", route)
        for route, state in states.items():
            contests = self._of.setdefault(route, Contests(self._settings, route))
            self.lost[route], contests.champion = state.lost, state.champion
            for contest in state.contests:
                await self._go_on_with(contests, contest)

    async def _go_on_with(self, contests: Contests, contest: OpenContest) -> None:
        try:
            contests.resume(contest)
            is_on, champion = contest.id in self._models.contests(), await self._models.champion(contests.route)
            if not is_on and contest.champion == champion:  # else the next look ends it
                await self._shadow(contests.route, contest)
        except (TickcastError, KeyError, TypeError, ValueError) as problem:
            contests.end(contest)
            self._log.warning("upkeep_failed", reason=f"{contest.id} has ended: {problem}")

    def of(self, route: str) -> Contests:
        if route not in self._of:
            raise BadRequest(f"there is no contest on {route}")
        return self._of[route]

    def champion(self, route: str) -> str:
        """Of a route of its own; else of that which its contests are with."""
        known = self._of.get(route)
        return self._models.serving_now().get(route) or (known.champion if known else "")

    def challengers(self) -> tuple[Challenger, ...]:
        return tuple(one for contests in self._of.values() for one in contests.challengers())

    def told(self) -> list[dict[str, Any]]:
        return [contests.told(contest) for contests in self._of.values() for contest in contests.open]

    def noted(self) -> dict[str, RouteState]:
        return {
            route: RouteState(champion=one.champion, lost=self.lost.get(route, ""), contests=one.noted())
            for route, one in self._of.items()
        }

    async def step(self) -> bool:
        """Count the blocks that were stored since; whether somebody else serves a route by now."""
        changed = False
        for contests in [*self._of.values()]:
            changed |= await self._follow_champion(contests)
            for contest in contests.open:
                for block in await self._ledger.blocks(contest.id, contests.settled(contest.id)):
                    contests.settle(block)
        return changed

    async def _follow_champion(self, contests: Contests) -> bool:
        """Whoever made it serve. A route that is left to a wider one has no contests."""
        route, champion = contests.route, await self._models.champion(contests.route)
        if champion == contests.champion:
            return False
        promotions = await self._models.models.history(route)
        is_new = bool(promotions) and promotions[-1].action == "promote"
        openings = contests.follow(champion, self._models.last_value, is_new=is_new)
        await self._models.shadow("", route)
        if route not in self._models.serving_now():
            self._leave(contests)
            return True
        for opening in openings:
            await self.begin(contests, opening, id=f"{opening.role}.{champion[:12]}.{self._clock.now_ns()}")
        return True

    def _leave(self, contests: Contests) -> None:
        if contests.route != DEFAULT:
            del self._of[contests.route]

    async def begin_asked(self, route: str, name: str, *, alpha: Callable[[], float]) -> OpenContest:
        """Of a model that a person wants to see beside the one that serves the route."""
        champion, (model, _) = await self._models.champion(route), await self._models.runner_of(name)
        contests = self._of.get(route) or Contests(self._settings, route)
        if route not in self._of:
            contests.champion = champion
        if len(self._of) > MOST_ROUTES and route not in self._of:
            raise BadRequest(f"there are contests on {MOST_ROUTES} routes", remedy="end one: `shadow` without a model")
        if contests.champion != champion:
            raise BadRequest(f"who serves {route} has just changed", remedy="ask again in a moment")
        if model == self._models.last_value:
            raise BadRequest("last value is beside every model")
        opening, id = contests.asked(model), f"asked.{model[:12]}.{fresh_id()}"
        opening = opening._replace(terms=opening.terms._replace(alpha=alpha()))
        contest = await self.begin(contests, opening, id=id)
        self._of[route] = contests
        return contest

    async def begin(self, contests: Contests, opening: NewContest, *, id: str) -> OpenContest:
        every, told = await self._every(contests.route, opening.model), await self._look()
        contest = contests.begin(opening, id=id, bar_ns=told.bar_ns, every=every)
        try:
            await self._shadow(contests.route, contest)
        except TickcastError:
            contests.end(contest)
            raise
        return contest

    async def end(self, contests: Contests, ended: OpenContest) -> None:
        """What is left goes on."""
        contests.end(ended)
        await self._models.shadow("", contests.route)
        for contest in contests.open:
            await self._shadow(contests.route, contest)
        if not contests.open:
            self._leave(contests)

    async def _every(self, route: str, model: str) -> int:
        """Of so many blocks it answers in one, so that it takes no more than what shadows of other routes leave."""
        others = [one for contests in self._of.values() if contests.route != route for one in contests.open]
        taken = sum([await self._cost(one.model) / one.every for one in others])
        return max(1, math.ceil(await self._cost(model) / max(self._share - taken, self._share / MOST_ROUTES)))

    async def _cost(self, model: str) -> float:
        """In parts of a core, did it answer all questions; that of a rung is nothing."""
        card = await self._models.registered(model)
        return 0.0 if card is None else self._models.share_of(card)

    async def _shadow(self, route: str, contest: OpenContest) -> None:
        await self._models.shadow(
            contest.model, route, contest=contest.id, block_ns=contest.block_ns, every=contest.every
        )
