"""What the upkeep goes by, as the engine has it now. Called where the engine is; it changes nothing."""

import math

import msgspec

from tickcast.loop.build import Serving
from tickcast.records import ModelCard


class Told(msgspec.Struct, frozen=True, kw_only=True):
    bars: int  # that the symbol has closed which closed most
    fitted_bars: int  # of them, those that the data of the serving model holds
    bar_ns: int  # the usual time from one to the next
    skill: float  # rolling, of the serving model; NaN = nothing was scored
    alarm: bool  # of drift, and skill is worse


def look_at(serving: Serving) -> Told:
    engine, settings, ladder = serving.engine, serving.settings, serving.ladder
    bars, bar_ns = engine.pace()
    if settings.bars.kind == "time":
        bar_ns = settings.bars.every_ms * 10**6
    if ladder is None:
        return Told(bars=bars, fitted_bars=bars, bar_ns=bar_ns, skill=math.nan, alarm=False)
    card, newest_ns = ladder.first, engine.newest_ns()
    new = max(newest_ns - card.trained_to_ns, 0) // max(bar_ns, 1)
    skill = _rolling_skill(serving, card)
    alarmed = {record.family for record in engine.drift.report() if record.state == "alarm"}
    is_worse = "skill" in alarmed or skill < (card.metrics.get("skill_low") or 0.0)
    return Told(bars=bars, fitted_bars=max(bars - new, 0), bar_ns=bar_ns, skill=skill, alarm=bool(alarmed) and is_worse)


def _rolling_skill(serving: Serving, card: ModelCard) -> float:
    """Over all scored steps."""
    engine = serving.engine
    rows = [
        row for row in engine.scorekeeper.accuracy(engine.newest_ns(), window="rolling")
        if (row.model, row.version, row.group) == (card.name, card.version, "all") and row.pinball_naive > 0
    ]  # fmt: skip
    naive = sum(row.pinball_naive * row.n for row in rows)
    return 1 - sum(row.pinball * row.n for row in rows) / naive if rows else math.nan
