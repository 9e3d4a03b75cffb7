"""A fit that the policy has found due: what it is told, by whichever host has it done. It does nothing."""

from pathlib import Path
from typing import Any, NamedTuple, get_args

from tickcast.io.jobs.folder import CHAMPION, START
from tickcast.io.jobs.orders import Order, StartMode, TuneOrder, defaults_of
from tickcast.io.jobs.prepare import fit_order, known_kind, tune_order
from tickcast.loop.actions import Action, ActionKind
from tickcast.loop.facts import EngineFacts
from tickcast.records import ModelCard
from tickcast.settings import Settings
from tickcast.settings.schedule import ScheduleSettings

SEARCH_SHARE = 0.75  # of what a job may take; the rest is for the two fits that come after


class Refit(NamedTuple):
    id: str  # of what ordered it: a job of it that a run before began is taken up
    kind: str
    name: str
    params: dict[str, Any]
    searches: bool  # for its parameters, before
    mode: str  # full, warm, finetune or partial
    champion: ModelCard | None  # who serves, where that is a fitted model
    from_ns: int  # it sees bars from then on
    alpha: float
    most_bars: int
    cpu_s: int


def refit_of(
    action: Action, schedule: ScheduleSettings, champion: ModelCard | None, told: EngineFacts, *, alpha: float
) -> Refit:
    """Of the kind that serves, by its parameters or by those that a search finds."""
    kind, searches = champion.kind if champion else schedule.kind, action.kind is ActionKind.OPTIMIZE
    usual = champion.model_params if champion and not searches else {}
    keep = schedule.keep_bars
    return Refit(
        id=action.id, kind=kind, name=champion.name if champion else kind, params={**usual, **schedule.params},
        searches=searches, mode=action.mode, champion=champion,
        from_ns=max(told.newest_ns - keep * told.bar_ns + 1, 0) if keep else 0, alpha=alpha,
        most_bars=schedule.shadow_bars, cpu_s=action.cpu_s,
    )  # fmt: skip


def refit_order(settings: Settings, asked: Refit, *, created_ns: int = 0) -> Order:
    """It also finds the terms of the contest with who serves."""
    against = {"alpha": asked.alpha, "most_bars": asked.most_bars, "champion": asked.champion is not None}
    of: dict[str, Any] = {"kind": known_kind(asked.kind), "name": asked.name, "params": asked.params}
    if asked.searches:
        return tune_order(settings, **of, space={}, against=against, seconds=_search_s(settings, asked))
    start: dict[str, Any] = {"start": {"mode": asked.mode}} if _goes_on(asked) else {}
    if start and asked.mode == "finetune":
        start["start"]["old_share"] = settings.schedule.old_share
    return fit_order(settings, **of, created_ns=created_ns, against=against, **start)


def refit_models(asked: Refit, champion: Path | None) -> dict[str, Path]:
    """The folder of the model that serves, by what it is called in the job's."""
    if champion is None:
        return {}
    return {CHAMPION: champion} | ({START: champion} if _goes_on(asked) else {})


def _search_s(settings: Settings, asked: Refit) -> float:
    """So that it ends by itself, and what it found is fitted, before the job's limits end it with nothing."""
    cpu_s = min(asked.cpu_s or settings.jobs.cpu_s, settings.jobs.cpu_s) / settings.jobs.workers
    return min(float(defaults_of(TuneOrder)["seconds"]), SEARCH_SHARE * min(cpu_s, settings.jobs.wall_s))


def _goes_on(asked: Refit) -> bool:
    return asked.champion is not None and asked.mode in get_args(StartMode)
