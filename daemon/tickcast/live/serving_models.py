"""Who answers: brings what the registry says serves into the engine, and changes it while ticks flow.

A change takes effect between two turns. It is listed only when the engine's state with it would survive a crash, so a
restart finds either the old model with the command unanswered, or the new one with its forecasts.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from tickcast.clock import Clock
from tickcast.engine.core.routes import DEFAULT, NO_MODEL, route_of
from tickcast.errors import BadModel, BadRequest, ModelFault, ModelRefused, TickcastError
from tickcast.io.models.cache import ModelCache
from tickcast.io.models.models import Models, served
from tickcast.io.store.ledger_rows import PromotionRow
from tickcast.io.store.shares import SharedRoute
from tickcast.loop.build import RUNGS, Serving, refuse_unfit
from tickcast.loop.commits import CommitQueue
from tickcast.loop.engine_thread import EngineThread
from tickcast.plugin import Runner
from tickcast.records import Command, ModelCard

Position = tuple[str, int, int]  # topic, partition, next offset


class ServingModels:
    def __init__(
        self, serving: Serving, models: Models, cache: ModelCache, *, thread: EngineThread, commits: CommitQueue,
        clock: Clock, questions_per_s: Callable[[], float], on_change: Callable[[], None],
    ) -> None:  # fmt: skip
        """`on_change` is told after each promotion and each rollback."""
        self.models = models
        self.refused: Counter[str] = Counter()  # what was to serve and does not, by the code of why
        self.unserved: dict[str, str] = {}  # routes whose model does not serve, and why
        self._serving, self._cache = serving, cache
        self._thread, self._commits, self._clock = thread, commits, clock
        self._questions_per_s, self._on_change = questions_per_s, on_change
        self._base = serving.ladder.first.digest if serving.ladder else ""  # that the settings name
        self._log = structlog.get_logger()

    async def register_base(self) -> None:
        """At a start: the model of the settings is a version like any other, where it is one of a folder."""
        default = self._serving.settings.model.default
        if default == "none" or default in RUNGS:
            return
        try:
            card = await self.models.register(Path(default), origin="folder")
        except (BadModel, BadRequest) as problem:  # it serves all the same
            self._log.warning("model_not_registered", folder=default, code=problem.code, reason=str(problem))
        else:
            self._log.info("model_registered", name=card.name, version=card.version, digest=card.digest[:12])

    async def take_up(self) -> None:
        """At a start: what was promoted serves. A model that cannot be opened leaves its route to the default one."""
        for route, digest in await self.models.routes():
            if self.serving_now().get(route) == digest:
                continue
            before = served(await self.models.history(DEFAULT))[-2:-1] if route == DEFAULT else []
            for model in (*before, digest):  # the default's one before stands in for it
                try:
                    await self._switch_to(model, route)
                except (BadModel, BadRequest) as problem:
                    self.note_refused(problem, route=route, digest=model[:12])
        self._pin()

    def note_refused(self, problem: TickcastError, **what: str) -> None:
        """The alarm of a model that was to serve; whoever served before it goes on."""
        self.refused[problem.code] += 1
        if "route" in what:
            self.unserved[what["route"]] = f"{problem.code}: {problem}"
        self._log.error("model_refused", code=problem.code, reason=str(problem), **what)

    def serving_now(self) -> dict[str, str]:
        """Route -> digest, as the engine has it."""
        ladder = self._serving.ladder
        return {} if ladder is None else {DEFAULT: ladder.first.digest, **self._serving.engine.routes.digests()}

    async def registered(self, digest: str) -> ModelCard | None:
        """None where it is a rung."""
        return next((row.card for row in await self.models.versions() if row.digest == digest), None)

    @property
    def last_value(self) -> str:
        """Its digest."""
        ladder = self._serving.ladder
        return ladder.cards[ladder.last_value].digest if ladder else ""

    def share_of(self, card: ModelCard) -> float:
        """Of a core that the model would keep busy."""
        return card.cost_us * 1e-6 * self._questions_per_s()

    def is_loaded(self, digest: str) -> bool:
        ladder = self._serving.ladder
        return digest in self._cache.held() or any(card.digest == digest for card in (ladder.cards if ladder else []))

    async def runner_of(self, model: str) -> tuple[str, Runner | None]:
        """A model as the registry understands the name, else one of the engine's own, such as a rung: its digest, and
        the model itself, loaded, where the engine does not have it."""
        ladder = self._serving.ladder
        try:
            card = await self.models.resolve(model)
        except ModelRefused:
            own = [] if ladder is None else [card for card in ladder.cards if card.name == model]
            if not own:
                raise
            return own[-1].digest, None
        if ladder is not None and any(card.digest == known.digest for known in ladder.cards):
            return card.digest, None
        refuse_unfit(card, self._serving.settings, self._serving.features)
        return card.digest, await self._cache.get(card.digest)

    async def adopt(self, card: ModelCard, route: str, *, evidence: Mapping[str, Any], by: str) -> None:
        """At a start, before the first tick: a registered model that serves elsewhere serves here too."""
        refuse_unfit(card, self._serving.settings, self._serving.features)
        positions = await self._switch(await self._cache.get(card.digest), route)
        await self.models.promote(card.digest, route, by=by, evidence=evidence, positions=positions)

    async def promote(
        self, model: str, route: str, *, force: bool, by: str, note: str, command_id: str,
        shown: Mapping[str, Any] | None = None,
    ) -> PromotionRow:  # fmt: skip
        """`shown`: what else speaks for it, as the evidence of a contest."""
        card = await self.models.resolve(model)
        refuse_unfit(card, self._serving.settings, self._serving.features)
        evidence = self._evidence(card, await self._figures(card), force=force) | {"note": note, **(shown or {})}
        loaded = await self._cache.loaded(card.digest)
        for of in {route, route_of(route).whole}:  # a share has another model than the rest
            if self.serving_now().get(of) == card.digest:
                raise ModelRefused(ModelFault.ALREADY_ACTIVE, f"{card.name} {card.version} serves {of} already")
        positions = await self._switch(loaded.runner, route)
        await self._commits.saved()
        row = await self.models.promote(
            card.digest, route, by=by, evidence=evidence | {"load_ms": round(loaded.load_ms, 3)}, command_id=command_id,
            positions=positions,
        )  # fmt: skip
        return await self._changed(row)

    async def rollback(
        self, route: str, *, by: str, command_id: str, note: str = "", shown: Mapping[str, Any] | None = None
    ) -> PromotionRow:
        """To what served the route before; a route of its own that had nothing before is taken back."""
        before = await self.models.before(route)
        if before is None:
            positions = await self._use(self._base if route == DEFAULT else "", route)
        else:
            positions = await self._switch_to(before, route)
        await self._commits.saved()
        row = await self.models.rollback(
            route, by=by, evidence={"note": note, **(shown or {})}, command_id=command_id, positions=positions
        )
        return await self._changed(row)

    async def step_down(self, route: str, *, by: str, command_id: str, shown: Mapping[str, Any]) -> PromotionRow:
        """To last value, which no registry needs to know."""
        ladder = self._serving.ladder
        assert ladder is not None
        naive = ladder.cards[ladder.last_value].digest
        positions = await self._use(naive, route)
        await self._commits.saved()
        row = await self.models.step_down(
            naive, route, by=by, evidence=shown, command_id=command_id, positions=positions
        )  # fmt: skip
        return await self._changed(row)

    async def champion(self, route: str) -> str:
        """Digest of the model that answers for the route's symbols; empty where nothing is forecast."""
        return await self._thread.call(lambda: self._champion(route))

    def _champion(self, route: str) -> str:
        ladder, stands = self._serving.ladder, self._serving.engine.routes.stands(route)
        return "" if ladder is None else ladder.cards[ladder.first_number if stands == NO_MODEL else stands].digest

    async def shares(self) -> list[SharedRoute]:
        """Of each route that two models share out: who answers for which symbols."""
        routes = self._serving.engine.routes

        def told() -> list[SharedRoute]:
            found = []
            for share in routes.shares():
                both = route_of(share).whole, share
                rest, drawn = ((self._champion(route), routes.names_in(route)) for route in both)
                found.append(SharedRoute(share, (rest[0], drawn[0]), (rest[1], drawn[1])))
            return found

        return await self._thread.call(told)

    async def shadow(self, model: str, route: str, *, contest: str = "", block_ns: int = 0, every: int = 1) -> None:
        """From now on it answers beside whoever serves the route; no model ends that of all."""
        if model and not self._is_in_ladder(model):
            runner = await self._cache.get(model)
            await self._thread.call(lambda: self._serving.engine.install(runner))
        args = {"model": model, "route": route, "contest": contest, "block_ns": block_ns, "every": every}
        await self._obey(Command(id="", command="shadow_model", args=args))

    def contests(self) -> dict[str, str]:
        """For which models answer beside those that serve, each with its route."""
        shadows = self._serving.engine.shadows
        return shadows.contests() if shadows is not None else {}

    def _is_in_ladder(self, digest: str) -> bool:
        ladder = self._serving.ladder
        return ladder is not None and any(card.digest == digest for card in ladder.cards)

    async def _changed(self, row: PromotionRow) -> PromotionRow:
        """A model that has a whole route has no share of it."""
        self._log.info(
            "route_changed", route=row.route, action=row.action, digest=(row.digest or "")[:12], by=row.given_by
        )
        self._on_change()
        for share, digest in self.serving_now().items():
            asked = route_of(share)
            if asked.share < 100 and asked.whole == row.route and digest == row.digest:
                while share in self.serving_now():
                    await self.rollback(share, by=row.given_by, command_id="", note=f"it has {row.route}")
        return row

    async def retain(self) -> None:
        """The files of old versions go; never those of a model that is loaded, or that ever served."""
        ladder = self._serving.ladder
        gone = await self.models.retain([card.digest for card in ladder.cards] if ladder else [])
        if gone:
            self._log.info("models_retired", digests=[digest[:12] for digest in gone])

    async def _switch_to(self, digest: str, route: str) -> list[Position]:
        """A registered model, or a rung."""
        if self._is_in_ladder(digest):
            return await self._use(digest, route)
        return await self._switch(await self._cache.get(digest), route)

    async def _switch(self, runner: Runner, route: str) -> list[Position]:
        await self._thread.call(lambda: self._serving.engine.install(runner))
        return await self._use(runner.card.digest, route)

    async def _use(self, digest: str, route: str) -> list[Position]:
        """Returns the next offset of every partition at which it took effect."""
        positions = await self._obey(Command(id="", command="use_model", args={"model": digest, "route": route}))
        self.unserved.pop(route, None)
        self._pin()
        return positions

    async def _obey(self, order: Command) -> list[Position]:
        engine = self._serving.engine

        def obey() -> list[Position]:
            engine.turn([order], self._clock.now_ns())
            return [(*source, offset) for source, offset in engine.positions.items()]

        return await self._thread.call(obey)

    def _pin(self) -> None:
        self._cache.pin(self.serving_now().values())

    async def _figures(self, card: ModelCard) -> Mapping[str, Any]:
        """Those of its hold-out; of a model that came without any, those of the newest job that judged it."""
        judged = None if "skill" in card.metrics else await self.models.evaluated(card.digest)
        if not judged or not judged["headline"]:
            return card.metrics
        skill, windows = judged["headline"]["skill"], judged["windows"] - judged["in_sample"]["windows"]
        return {
            "skill": skill["value"], "skill_low": skill["low"], "skill_high": skill["high"], "windows": windows,
            "moments": judged["moments"],
        }  # fmt: skip

    def _evidence(self, card: ModelCard, figures: Mapping[str, Any], *, force: bool) -> dict[str, Any]:
        """What speaks for it: its hold-out, and that it can be afforded. `force` needs neither, and is noted."""
        skill, low, windows = figures.get("skill"), figures.get("skill_low"), figures.get("windows")
        share = self.share_of(card)
        most = self._serving.settings.inference.core_share
        if not force and (skill is None or low is None or low <= 0):
            raise ModelRefused(
                ModelFault.NO_EVIDENCE, f"{card.name} {card.version}: {_not_shown(figures)}",
                remedy="fit a better one, judge it on more data (evaluate), or promote it with force = true",
            )  # fmt: skip
        if not force and share > most:
            raise ModelRefused(
                ModelFault.TOO_COSTLY,
                f"{card.name} would keep {share:.2f} of a core busy, inference.core_share is {most}",
                remedy="ask fewer questions, raise the limit, or promote it with force = true",
            )  # fmt: skip
        holdout = {"holdout_skill": skill, "holdout_skill_low": low, "holdout_windows": windows}
        if before := figures.get("judged"):  # they are of the same fit on earlier bars
            holdout["holdout_version"] = before["version"]
        return {**holdout, "core_share": share, "forced": force}


def _not_shown(figures: Mapping[str, Any]) -> str:
    """Why its figures do not say that it is better than last value."""
    skill, low, high = (figures.get(name) for name in ("skill", "skill_low", "skill_high"))
    if skill is None:
        return "nothing says what it is worth: it has no hold-out, and no evaluate has judged it"
    if low is None or high is None:
        return f"skill {skill:+.1%} over {figures.get('moments', 0):,} moments, too few to have an interval"
    told = f"its skill of {skill:+.1%} over last value lies between {low:+.1%} and {high:+.1%}"
    if skill <= 0:
        return told
    width = (skill - low) / skill  # intervals shrink with the root of what they are of
    return f"{told}; about {width**2:,.1f} times as many windows would tell"
