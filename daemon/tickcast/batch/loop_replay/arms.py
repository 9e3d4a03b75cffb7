"""The arms of a replay of the loop: deployments that differ in what they do about their model, over the same bars."""

from typing import Any, NamedTuple

from tickcast.errors import BadSettings
from tickcast.loop.build import RUNGS
from tickcast.settings import Settings
from tickcast.settings.engine import InferenceSettings

LAST_VALUE, STATIC, SCHEDULED, TRIGGERED = "last value", "static", "scheduled", "triggered"
BY_LOOP = (SCHEDULED, TRIGGERED)
BY_TIME = ("fit", "optimize", "max_age_s", "max_new_bars")  # reasons of the schedule that nothing need be wrong for


class Arm(NamedTuple):
    name: str
    adaptive: bool  # intervals are widened by what they missed
    settings: Settings
    hears: bool = False  # of drift and of bad skill
    fits: bool = True

    @property
    def key(self) -> str:
        """Of its folder."""
        return self.name.replace(" ", "-") + ("" if self.adaptive else "-as-fitted")

    @property
    def title(self) -> str:
        return self.name if self.adaptive else f"{self.name}, as fitted"


def arms_of(settings: Settings) -> list[Arm]:
    """Last value comes first: the others are judged beside it. Static is on level 0, which only keeps score."""
    schedule = settings.schedule
    if settings.model.default == "none":
        raise BadSettings("a deployment that forecasts nothing has no loop", remedy="--model naive")
    if not any(getattr(schedule, name) for name in BY_TIME):
        raise BadSettings(
            "the schedule never fits by the clock, so there is nothing to compare with",
            remedy="set schedule.fit, schedule.optimize, schedule.max_age_s or schedule.max_new_bars, such as --set "
            "schedule.max_new_bars=2000",
        )
    if settings.inference.shadow_share != InferenceSettings().shadow_share:
        raise BadSettings(
            "a shadow answers in every block of a replay: by what it costs, each machine would tell something else",
            remedy="leave inference.shadow_share out",
        )
    by_time: dict[str, Any] = {"autonomy": 3, "skill_floor": None}
    by_need = {"autonomy": 3, "fit": [], "optimize": [], "max_age_s": 0, "max_new_bars": 0}
    naive = settings.model_copy(update={"model": settings.model.model_copy(update={"default": "naive"})})
    found = [Arm(LAST_VALUE, True, _with(naive, adaptive=True, autonomy=0), fits=False)]
    for adaptive in (True, False):
        found += [
            Arm(STATIC, adaptive, _with(settings, adaptive=adaptive, autonomy=0)),
            Arm(SCHEDULED, adaptive, _with(settings, adaptive=adaptive, **by_time)),
            Arm(TRIGGERED, adaptive, _with(settings, adaptive=adaptive, **by_need), hears=True),
        ]
    return found


def begins_fitted(settings: Settings) -> bool:
    """The settings name a fitted model; else each arm fits its first one on the way."""
    return settings.model.default not in RUNGS


def _with(settings: Settings, *, adaptive: bool, **schedule: Any) -> Settings:
    return settings.model_copy(update={
        "schedule": settings.schedule.model_copy(update=schedule),
        "uncertainty": settings.uncertainty.model_copy(update={"enabled": adaptive}),
    })  # fmt: skip
