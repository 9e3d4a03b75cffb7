"""The second host of the policy: a replay's companion that has done what is due, on the engine's own clock.

It is to a replay what the upkeep is to a daemon, and decides by the same policy, contests and terms. It looks between
two turns: what it knows are the bars, scores and blocks of the turns before. A fit sees bars that have closed when it
is ordered, and what it made is known `job_bars` later; what is decided takes effect before the next bar.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow.parquet as pq

from tickcast.batch.backtest.retraining import NO_LIMIT_S, within_steps
from tickcast.batch.bars_so_far import BarsSoFar
from tickcast.batch.by_hand.fit import job_folder, train
from tickcast.batch.loop_replay.arms import Arm, begins_fitted
from tickcast.batch.loop_replay.story import ContestRun, DecisionTold, JobRun, Story, Widths, told_of
from tickcast.batch.out_folder import install_model
from tickcast.engine.core.blocks import BlockRow
from tickcast.engine.core.events import Outcome
from tickcast.engine.inference.load import open_model
from tickcast.errors import BadModel, TickcastError
from tickcast.io.jobs.folder import BARS
from tickcast.io.jobs.orders import FitOrder, Order, Retrain, TuneOrder, defaults_of
from tickcast.loop.actions import JOBS, Action, ActionKind
from tickcast.loop.alert_book import AlertBook
from tickcast.loop.alert_rules import ServedFigures, coverage_off, skill_low
from tickcast.loop.build import RUNGS, Serving
from tickcast.loop.contests import Contests, NewContest, OpenContest
from tickcast.loop.facts import EngineFacts, facts_of, look_at
from tickcast.loop.policy import Policy
from tickcast.loop.refit import Refit, refit_models, refit_of, refit_order
from tickcast.plugin import Runner
from tickcast.progress import Shown
from tickcast.records import Command, ModelCard

FIRST = "first"
STEPS = int(defaults_of(Retrain)["steps"])  # of a fit's budget
LAST_VALUE = "last value"


@dataclass(frozen=True, slots=True)
class HostTerms:
    """What a person says of the fits of a replay."""

    folder: Path  # of the models that they leave
    first_bars: int  # that a symbol has closed when the first model is fitted; 0 = the settings name a fitted one
    job_bars: int  # from the order of a fit until what it made may answer
    trials: int  # of a search
    shown: Shown


class Made(NamedTuple):
    """By a fit."""

    runner: Runner
    folder: Path
    against: dict[str, Any]
    cpu_s: float


class UnderWay(NamedTuple):
    """A fit whose end is not known to the policy yet."""

    until_bars: int
    run: JobRun
    made: Made | None  # None = it failed
    action: Action | None  # None = it is the first


class LoopHost:
    serving: Serving  # of the replay; there once it has begun

    def __init__(self, arm: Arm, terms: HostTerms, first: "FirstModel") -> None:
        self.story = Story()
        self.cpu_s: list[float] = []  # of its jobs
        self.serves_from_ns = 0  # its first fitted model; 0 = none did
        self._arm, self._terms, self._first = arm, terms, first
        self._settings = arm.settings
        self._policy, self._contests = Policy(arm.settings), Contests(arm.settings)
        alerts = arm.settings.alerts
        self._book = AlertBook(repeat_every_s=alerts.repeat_every_s, quiet_s=alerts.quiet_s, raised_by="replay")
        self._bars = BarsSoFar(arm.settings.symbols.limit)
        self._models: dict[str, Made] = {}  # by digest
        self._names: dict[str, str] = {}
        self._runs: dict[str, ContestRun] = {}
        self._under_way: list[UnderWay] = []
        self._serves, self._is_new = "", False  # who does, and whether a promotion made it so
        self._lost = False  # last value does, in the place of a model that lost to it
        self._waits_for_first = arm.fits and terms.first_bars > 0

    def begin(self, serving: Serving, rows: int | None) -> None:
        self.serving, ladder = serving, serving.ladder
        assert ladder is not None
        self.widths = Widths(self._settings.forecast.transform, serving.engine.scorekeeper.horizons)
        self._last_value = ladder.cards[ladder.last_value].digest
        self._names = {card.digest: card.name for card in ladder.cards} | {self._last_value: LAST_VALUE}
        self._serves = ladder.first.digest

    def saw(self, outcome: Outcome) -> None:
        if self._arm.fits:
            self._bars.add(outcome, self.serving)
        for forecasts in outcome.forecasts:
            self.widths.add(forecasts)
        for block in outcome.blocks:
            self._settle(block)
        for record in outcome.drift:
            self.story.drift(record)

    def before(self, rows: int) -> list[Command] | None:
        """One look: what has ended, who serves by now, and what is due."""
        told = look_at(self.serving)
        if not told.bars or told.bar_ns == 0:
            return []
        if not self.story.served:
            self._note_serving(told)
        self._look_for_alerts(told)
        commands = self._end_jobs(told) + self._follow(told)
        if self._waits_for_first:
            self._order_first(told)
        elif self._arm.fits and self._is_settled():
            facts = facts_of(self._heard(told), *self._standing(), lost=self._lost and self._arm.hears)
            for action in self._policy.due(told.newest_ns, facts):
                commands += self._do(action, told)
        return commands

    def end(self) -> None:
        self.story.end(self.serving.engine.newest_ns())

    # ------------------------------------------------------------ what is so

    def _heard(self, told: EngineFacts) -> EngineFacts:
        return told if self._arm.hears else msgspec.structs.replace(told, alarm=False, skill=math.nan)

    def _standing(self) -> tuple[ModelCard | None, Any]:
        return self._champion(), self._contests.challengers()

    def _look_for_alerts(self, told: EngineFacts) -> None:
        """Of the forecasts: a replay has no other trouble."""
        assert self.serving.ladder is not None
        card, keeper = self.serving.ladder.first, self.serving.engine.scorekeeper
        judged = ServedFigures(
            keeper.accuracy(told.newest_ns, window="rolling"), frozenset({(card.name, card.version)})
        )
        for name, rule in (("skill_low", skill_low), ("coverage_off", coverage_off)):
            for record in self._book.see(name, rule(judged, self._settings), told.newest_ns):
                self.story.alert(record)

    def _champion(self) -> ModelCard | None:
        """None where a rung serves."""
        assert self.serving.ladder is not None
        card = self.serving.ladder.first
        return None if card.kind in RUNGS else card

    def _is_settled(self) -> bool:
        """The first model serves, and who was made to serve does."""
        assert self.serving.ladder is not None
        comes = any(job.action is None for job in self._under_way)
        return not comes and self.serving.ladder.first.digest == self._serves

    def _follow(self, told: EngineFacts) -> list[Command]:
        """Whoever was made to serve."""
        if not self._arm.fits or self._serves == self._contests.champion:
            return []
        openings = self._contests.follow(self._serves, self._last_value, is_new=self._is_new)
        begun = [self._begin(one, f"{one.role}.{self._serves[:12]}.{told.newest_ns}", told) for one in openings]
        return [_shadow(None), *begun]

    def _settle(self, block: BlockRow) -> None:
        self._contests.settle(block)
        if (run := self._runs.get(block.contest)) is None:
            return
        held = next((one for one in self._contests.open if one.id == block.contest), None)
        if held is not None and (block.labels or block.failed):
            shown = self._contests.told(held)
            run.at_ns.append(block.ended_ns)
            run.log_e.append(shown["log_e"])
            run.log_needed.append(shown["log_needed"])
            run.verdict = shown["verdict"]

    # ------------------------------------------------------------ what is done

    def _do(self, action: Action, told: EngineFacts) -> list[Command]:
        if action.kind in JOBS:
            self._order(action, told)
            return []
        does: dict[ActionKind, Callable[[Action, EngineFacts], list[Command]]] = {
            ActionKind.SHADOW: self._begin_contest, ActionKind.END_SHADOW: self._end_contest,
        }  # fmt: skip
        decision = DecisionTold(
            at_ns=told.newest_ns, kind=action.kind, model=self._names[action.model], why=[*action.why]
        )
        self.story.decisions.append(decision)
        if any(one.model == action.model for one in self._contests.open):
            shown = told_of(self._contests.told(self._contests.of(action.model)))
            for name, value in shown.items():
                setattr(decision, name, value)
        commands: list[Command] = []
        try:
            commands = does.get(action.kind, self._change)(action, told)
        except TickcastError as problem:
            decision.refused = str(problem)
        self._policy.on_ended(action.id, told.newest_ns, failed=bool(decision.refused))
        return commands

    def _begin_contest(self, action: Action, told: EngineFacts) -> list[Command]:
        opening = self._contests.of_candidate(action)
        self.serving.engine.install(self._models[action.model].runner)
        self._contests.leave(action.model)
        return [self._begin(opening, action.id, told)]

    def _end_contest(self, action: Action, told: EngineFacts) -> list[Command]:
        self._contests.end(self._contests.of(action.model))
        return [_shadow(None), *(_shadow(contest) for contest in self._contests.open)]

    def _change(self, action: Action, told: EngineFacts) -> list[Command]:
        """Of who serves."""
        self._contests.won(action.model, self._serves)
        self._is_new, self._lost = action.kind is ActionKind.PROMOTE, action.kind is ActionKind.STEP_DOWN
        return self._serve(action.model, told)

    def _serve(self, model: str, told: EngineFacts) -> list[Command]:
        self._serves = model
        self._note_serving(told)
        return [Command(id="", command="use_model", args={"model": model})]

    def _note_serving(self, told: EngineFacts) -> None:
        self.story.serves(self._names[self._serves], told.newest_ns)
        is_fitted = self._serves in self._models or (begins_fitted(self._settings) and self._arm.fits)
        if is_fitted and not self.serves_from_ns:
            self.serves_from_ns = told.newest_ns

    def _begin(self, opening: NewContest, id: str, told: EngineFacts) -> Command:
        contest = self._contests.begin(opening, id=id, bar_ns=told.bar_ns)
        run = ContestRun(
            role=contest.role, model=self._names[contest.model], champion=self._names[contest.champion],
            begun_ns=told.newest_ns,
        )  # fmt: skip
        self._runs[contest.id] = run
        self.story.contests.append(run)
        return _shadow(contest)

    # ------------------------------------------------------------ fits

    def _order_first(self, told: EngineFacts) -> None:
        """It serves without a contest, as the one that a person has chosen."""
        if told.bars < self._terms.first_bars:
            return
        self._waits_for_first = False
        schedule = self._settings.schedule
        nobody = Action(id=FIRST, kind=ActionKind.FIT, why=(), waits=False)
        asked = refit_of(nobody, schedule, None, told, alpha=self._policy.alpha)
        if self._first.made is None:
            try:
                self._first.made = self._fit(asked, self._terms.folder / FIRST)
            except BadModel as failed:
                raise BadModel(f"the first {told.bars} bars: {failed}", remedy="--first-bars with more") from None
        made = self._first.made
        made = made._replace(runner=open_model(made.folder, tile=self._settings.inference.tile))  # it may hold a state
        run = self._run_of(made, [f"{told.bars} bars"], told, made.runner.card)
        run.came = FIRST
        self._under_way.append(UnderWay(told.bars + self._terms.job_bars, run, made, None))

    def _order(self, action: Action, told: EngineFacts) -> None:
        champion = self._champion()
        asked = refit_of(action, self._settings.schedule, champion, told, alpha=self._policy.alpha)
        try:
            folder = self._terms.folder / f"fit-{len(self.story.jobs) + 1}"
            made: Made | None = self._fit(asked, folder)
        except BadModel as failed:
            made, reason = None, str(failed)
        run = self._run_of(made, [*action.why], told, made.runner.card if made else None)
        if made is None:
            run.came, run.reason = "failed", reason
        elif refusal := made.against["terms"]["refusal"]:
            run.came, run.reason = "refused", refusal
        self._under_way.append(UnderWay(told.bars + self._terms.job_bars, run, made, action))

    def _run_of(self, made: Made | None, why: list[str], told: EngineFacts, card: ModelCard | None) -> JobRun:
        kind = card.kind if card else self._settings.schedule.kind
        run = JobRun(
            model=f"{kind} {len(self.story.jobs) + 1}", why=why, ordered_ns=told.newest_ns, bars=told.bars,
            skill=card.metrics.get("skill") if card else None,
        )  # fmt: skip
        if made is not None:
            self._models[made.runner.card.digest] = made
            self._names[made.runner.card.digest] = run.model
        self.cpu_s.append(made.cpu_s if made else 0.0)
        self.story.jobs.append(run)
        return run

    def _fit(self, asked: Refit, folder: Path) -> Made:
        """In a child process, as a job of the daemon is."""
        order = _bounded(refit_order(self._settings, asked), self._terms.trials)
        bars = self._bars.since(asked.from_ns)
        models = refit_models(asked, None if asked.champion is None else self._folder_of(asked.champion))
        with job_folder(self._settings, order, lambda at: pq.write_table(bars, at / BARS), models) as job:
            result = train(job, title=f"{self._arm.title}: fit", shown=self._terms.shown)
            install_model(job / result.model, folder)
        runner = open_model(folder, tile=self._settings.inference.tile)
        return Made(runner, folder, result.content["against"], result.cpu_s)

    def _folder_of(self, card: ModelCard) -> Path:
        made = self._models.get(card.digest)
        return Path(self._settings.model.default) if made is None else made.folder

    def _end_jobs(self, told: EngineFacts) -> list[Command]:
        """Those whose time is over. A job is charged the time that it is said to take."""
        commands: list[Command] = []
        for job in [job for job in self._under_way if told.bars >= job.until_bars]:
            self._under_way.remove(job)
            job.run.ended_ns = told.newest_ns
            if job.action is None:
                assert job.made is not None
                self.serving.engine.install(job.made.runner)
                commands += self._serve(job.made.runner.card.digest, told)
                continue
            charged = math.ceil(self._terms.job_bars * told.bar_ns / 1e9)
            self._policy.on_ended(job.action.id, told.newest_ns, failed=job.made is None, cpu_s=charged)
            if job.made is not None:
                self._contests.take(job.made.runner.card.digest, job.made.against)
        return commands


class FirstModel:
    """All arms begin with the same one: what one has fitted the others take."""

    made: Made | None = None


def _bounded(order: Order, trials: int) -> Order:
    """By steps and trials and never by time, and in one process: so that a replay ends alike anywhere."""
    if isinstance(order, TuneOrder):
        return msgspec.structs.replace(
            order, fit=within_steps(order.fit, STEPS), trials=trials, seconds=NO_LIMIT_S, workers=1
        )
    assert isinstance(order, FitOrder)
    return within_steps(order, STEPS)


def _shadow(contest: OpenContest | None) -> Command:
    """From the next bar on; None ends that of all."""
    args: dict[str, Any] = {"model": ""}
    if contest is not None:
        args = {"model": contest.model, "contest": contest.id, "block_ns": contest.block_ns, "every": contest.every}
    return Command(id="", command="shadow_model", args=args)
