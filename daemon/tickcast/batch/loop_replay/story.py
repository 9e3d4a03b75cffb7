"""What became of an arm, as its page tells it: who served when, jobs, contests, alarms, decisions. It decides nothing.

Models go by the number of their fit, for a digest holds what a forecast cost on this machine: two replays of the same
bars tell the same.
"""

from typing import Any

import msgspec
import numpy as np

from tickcast.columns import F64, I64, Forecasts
from tickcast.engine.core.windows import LOG_RETURN, TRANSFORMS
from tickcast.records import Alert, Drift


class ServedSpan(msgspec.Struct, kw_only=True):
    """For how long a model was tried first."""

    model: str
    from_ns: int
    to_ns: int = 0


class JobRun(msgspec.Struct, kw_only=True):
    """A fit, ordered on the bars that had closed."""

    model: str
    why: list[str]
    ordered_ns: int
    bars: int  # that the symbol had closed which closed most
    ended_ns: int = 0
    came: str = "candidate"  # of it: first, candidate, refused, failed
    reason: str = ""  # why it was refused, or failed
    skill: float | None = None  # on its hold-out


class ContestRun(msgspec.Struct, kw_only=True):
    role: str
    model: str
    champion: str
    begun_ns: int
    at_ns: list[int] = []  # of each block
    log_e: list[float] = []
    log_needed: list[float] = []
    verdict: str = "open"


class AlarmSpan(msgspec.Struct, kw_only=True):
    """Of a family of drift, or of another alert."""

    name: str
    from_ns: int
    to_ns: int = 0


class DecisionTold(msgspec.Struct, kw_only=True):
    at_ns: int
    kind: str
    model: str
    why: list[str]
    blocks: int | None = None
    log_e: float | None = None
    log_needed: float | None = None
    skill: float | None = None  # of the challenger beside the champion, over these blocks
    refused: str = ""


class Story(msgspec.Struct, kw_only=True):
    served: list[ServedSpan] = []
    jobs: list[JobRun] = []
    contests: list[ContestRun] = []
    alarms: list[AlarmSpan] = []
    decisions: list[DecisionTold] = []

    def serves(self, model: str, at_ns: int) -> None:
        if self.served:
            self.served[-1].to_ns = at_ns
        self.served.append(ServedSpan(model=model, from_ns=at_ns))

    def drift(self, record: Drift) -> None:
        self._alarm(f"drift {record.family}", record.event, record.since_ns)

    def alert(self, record: Alert) -> None:
        self._alarm(record.name, record.event, record.at_ns)

    def _alarm(self, name: str, event: str, at_ns: int) -> None:
        is_on = [one for one in self.alarms if one.name == name and not one.to_ns]
        if event == "raised" and not is_on:
            self.alarms.append(AlarmSpan(name=name, from_ns=at_ns))
        elif event == "ended" and is_on:
            is_on[0].to_ns = at_ns

    def end(self, at_ns: int) -> None:
        spans: list[ServedSpan | AlarmSpan] = [*self.served, *self.alarms]
        for span in spans:
            span.to_ns = span.to_ns or at_ns

    def counts(self) -> dict[str, int]:
        """Of what was decided, and of the alarms."""
        done = [one.kind for one in self.decisions if not one.refused]
        kinds = {name: done.count(kind) for name, kind in
                 (("promotions", "promote"), ("rollbacks", "rollback"), ("step_downs", "step_down"))}  # fmt: skip
        return {"fits": len(self.jobs), **kinds, "alarmed": sum(one.name.startswith("drift") for one in self.alarms)}


class Widths:
    """How far apart the outermost quantiles lay, over the scored steps, in one-bar moves: by event time."""

    def __init__(self, transform: str, horizons: list[int]) -> None:
        self._as_log = TRANSFORMS[transform] == LOG_RETURN
        self._steps = np.array(horizons) - 1
        self._parts: list[tuple[I64, F64]] = []

    def add(self, forecasts: Forecasts) -> None:
        low, high = (forecasts.quantiles[:, self._steps, q] for q in (0, -1))
        with np.errstate(invalid="ignore", divide="ignore"):
            apart = np.log(high / low) if self._as_log else high - low
            found = (apart / forecasts.scale[:, None]).mean(axis=1)
        known = np.isfinite(found)
        self._parts.append((forecasts.as_of[known], found[known]))

    def all(self) -> tuple[I64, F64]:
        if not self._parts:
            return np.zeros(0, np.int64), np.zeros(0)
        as_of, width = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        return as_of, width


def told_of(evidence: dict[str, Any]) -> dict[str, Any]:
    """What a decision keeps of it."""
    return {name: evidence[name] for name in ("blocks", "log_e", "log_needed", "skill")}
