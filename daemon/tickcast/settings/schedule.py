"""Settings of what the daemon does by itself: when it fits anew, what that may cost, and how far it may go."""

import re
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from tickcast.cron import Cron
from tickcast.settings.section import Natural, Positive, Section

QUIET = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|(24):(00))", re.ASCII)


class ScheduleSettings(Section):
    autonomy: Literal[0, 1, 2, 3] = 1
    """How far the daemon goes by itself: 0 it only keeps score, 1 it proposes, 2 it fits and shadows, 3 it also
    promotes and rolls back. What it may not do waits for a person."""
    fit: list[str] = []
    """Lines of cron at which a model is fitted anew: minute, hour, day, month, day of the week."""
    optimize: list[str] = []
    """Lines of cron at which a search for parameters begins."""
    zone: str = "UTC"
    """Zone of the lines, of `quiet` and of a day of the budgets. What summer time leaves out comes at the leap."""
    kind: str = "nhits"
    """Kind of the model that is fitted where a rung serves; else it is of the kind that serves."""
    params: dict[str, Any] = {}
    """Of a fit: parameters of the training and of the model, as `train` takes them."""
    keep_bars: Natural = 0
    """Of each symbol a fit sees about so many bars, the newest; 0 = all that are stored."""
    mode: Literal["full", "warm", "finetune", "partial"] = "full"
    """How a model is fitted anew: from scratch, from the weights of the one that serves, or these tuned a little; or
    what is new is added to its sums (ridge, lasso, elasticnet, naive_bayes)."""
    old_share: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Of the windows that `finetune` learns from, so many are of bars that the model saw before; the rest is news."""
    max_age_s: Natural = 0
    """Fit anew when the data of the newest fit ended so long ago; 0 = never for that."""
    max_new_bars: Natural = 0
    """Fit anew when a symbol has closed so many bars since; 0 = never for that."""
    min_new_bars: Positive = 500
    """Bars that a symbol must have closed since drift was alarmed or a model lost to last value, and since the newest
    fit, before that, or bad skill, is reason for another."""
    skill_floor: float | None = None
    """Fit anew when the rolling skill of the model that serves is below this; off by default."""
    rest_s: Positive = 3600
    """After a job, and after a proposal that was dismissed, nothing but cron begins another of its kind for so long;
    twice as long after each failure in a row."""
    jobs: Positive = 1
    """Jobs of the schedule at once."""
    cpu_s_per_day: Natural = 0
    """Processor time of its jobs in a day; 0 = no bound."""
    quiet: list[str] = []
    """Hours in which none of its jobs begins, as `22:00-06:30`; what comes due in them begins after."""
    jitter_s: Natural = 0
    """A slot of cron begins up to so much later: always as much for the same deployment, line and slot."""
    look_every_s: Positive = 10
    """So often is looked at what is due."""
    shadow_bars: Positive = 10_000
    """Bars that a candidate may shadow; one that its hold-out says would take longer does not begin."""

    @field_validator("fit", "optimize")
    @classmethod
    def _are_lines(cls, lines: list[str]) -> list[str]:
        for line in lines:
            Cron.of(line)
        return lines

    @field_validator("zone")
    @classmethod
    def _is_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"there is no time zone '{name}', as Europe/Berlin is one") from None
        return name

    @field_validator("quiet")
    @classmethod
    def _are_hours(cls, spans: list[str]) -> list[str]:
        if wrong := [span for span in spans if not QUIET.fullmatch(span) or span[:5] == span[6:]]:
            raise ValueError(f"'{wrong[0]}' is no span of hours, as 22:00-06:30 is one")
        return spans

    def quiet_minutes(self) -> list[tuple[int, int]]:
        """Of the day, from and until; those over midnight are two."""
        found = []
        for span in self.quiet:
            begin, end = (60 * int(time[:2]) + int(time[3:]) for time in span.split("-"))
            found += [(begin, end)] if begin < end else [(begin, 24 * 60), (0, end)]
        return found
