"""What a policy may give out, what it is told, and which follows from which. It decides nothing by itself."""

import math
from enum import StrEnum
from typing import Literal

import msgspec

from tickcast.engine.core.contest import ContestVerdict
from tickcast.engine.core.routes import DEFAULT


class ActionKind(StrEnum):
    """What can be done."""

    FIT = "fit"
    OPTIMIZE = "optimize"
    SHADOW = "shadow"  # let a candidate answer beside the one that serves
    END_SHADOW = "end_shadow"  # it was not shown to be better; a former champion: it need not come back
    PROMOTE = "promote"
    ROLLBACK = "rollback"  # to what served before
    STEP_DOWN = "step_down"  # to last value, by the naive rung


JOBS = (ActionKind.FIT, ActionKind.OPTIMIZE)
NEEDS = {  # the least autonomy
    ActionKind.FIT: 2, ActionKind.OPTIMIZE: 2, ActionKind.SHADOW: 2, ActionKind.END_SHADOW: 1, ActionKind.PROMOTE: 3,
    ActionKind.ROLLBACK: 3, ActionKind.STEP_DOWN: 3,
}  # fmt: skip
ChallengerRole = Literal["candidate", "former", "last_value"]
READY = "ready"  # a candidate whose hold-out passed, and that does not shadow yet
FOLLOWS = {  # of the role of a challenger and the verdict of its contest
    ("candidate", READY): ActionKind.SHADOW,
    ("candidate", ContestVerdict.BETTER): ActionKind.PROMOTE,
    ("candidate", ContestVerdict.WORSE): ActionKind.END_SHADOW,
    ("candidate", ContestVerdict.UNDECIDED): ActionKind.END_SHADOW,
    ("former", ContestVerdict.BETTER): ActionKind.ROLLBACK,
    ("former", ContestVerdict.WORSE): ActionKind.END_SHADOW,
    ("former", ContestVerdict.UNDECIDED): ActionKind.END_SHADOW,
    ("last_value", ContestVerdict.BETTER): ActionKind.STEP_DOWN,
}


class Challenger(msgspec.Struct, frozen=True, kw_only=True):
    """Who stands against the model that serves."""

    model: str
    role: ChallengerRole
    verdict: str = READY
    route: str = DEFAULT  # whose model it stands against


class PolicyFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is so, as the host sees it."""

    bars: int  # that the symbol has closed which closed most
    fitted_bars: int = 0  # of them, those before the data of the serving model ended
    fitted_ns: int | None = None  # event time at which they ended; None = a rung, which has no age
    alarm: str = ""  # why what serves is not good enough, in words
    skill: float = math.nan  # rolling, of the serving model; NaN = too few labels
    challengers: tuple[Challenger, ...] = ()


class Action(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    kind: ActionKind
    why: tuple[str, ...]
    waits: bool  # for a person
    model: str = ""  # that it is about
    route: str = DEFAULT
    mode: str = ""  # of a fit
    slots: int = 0  # of cron, that it makes good
    cpu_s: int = 0  # that a job may take; 0 = no bound
    alpha: float = 0.0  # of the contest of a shadow
    most_bars: int = 0
    begun_ns: int = 0
    begun_bars: int = 0
