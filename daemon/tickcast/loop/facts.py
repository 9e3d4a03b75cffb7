"""What a host of the policy goes by, as the engine has it now. Called where the engine is; it changes nothing."""

import math

import msgspec

from tickcast.loop.actions import Challenger, PolicyFacts
from tickcast.loop.build import Serving
from tickcast.records import ModelCard


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    bars: int  # that the symbol has closed which closed most
    fitted_bars: int  # of them, those that the data of the serving model holds
    bar_ns: int  # the usual time from one to the next; 0 before there are two
    newest_ns: int  # event time
    skill: float  # rolling, of the serving model; NaN = nothing was scored
    alarm: bool  # of drift, and skill is worse


def look_at(serving: Serving) -> EngineFacts:
    engine, settings, ladder = serving.engine, serving.settings, serving.ladder
    (bars, bar_ns), newest_ns = engine.pace(), engine.newest_ns()
    if settings.bars.kind == "time":
        bar_ns = settings.bars.every_ms * 10**6
    if ladder is None:
        return EngineFacts(bars=bars, fitted_bars=bars, bar_ns=bar_ns, newest_ns=newest_ns, skill=math.nan, alarm=False)
    card = ladder.first
    new = max(newest_ns - card.trained_to_ns, 0) // max(bar_ns, 1)
    skill = engine.scorekeeper.rolling_skill(ladder.first_number)
    alarmed = {record.family for record in engine.drift.alarms()}
    alarm = bool(alarmed) and ("skill" in alarmed or skill < (card.metrics.get("skill_low") or 0.0))
    return EngineFacts(
        bars=bars, fitted_bars=max(bars - new, 0), bar_ns=bar_ns, newest_ns=newest_ns, skill=skill, alarm=alarm
    )


def facts_of(
    told: EngineFacts, champion: ModelCard | None, challengers: tuple[Challenger, ...], *, lost: bool
) -> PolicyFacts:
    """For the policy. `champion` is None where a rung serves; `lost` if in the place of a model that lost to it."""
    return PolicyFacts(
        bars=told.bars, fitted_bars=told.fitted_bars, fitted_ns=champion.trained_to_ns or None if champion else None,
        alarm="drift with worse skill" if told.alarm else "last value serves" if lost else "", skill=told.skill,
        challengers=challengers,
    )  # fmt: skip
