"""What the engine takes and what it gives: events in their order, and all that happened in a turn. They do nothing."""

from dataclasses import dataclass, field
from typing import NamedTuple

from tickcast.columns import BarBatch, FeatureRows, Forecasts, RawBatch, Rejects, Scores
from tickcast.engine.core.on_demand import Ask, AskAnswer
from tickcast.records import Command


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Tells a silent partition that event time has moved on, after the record of `offset`."""

    topic: str
    partition: int
    ts: int
    offset: int


@dataclass(frozen=True, slots=True)
class Reached:
    """The source has been read up to here, whether or not ticks came of it."""

    topic: str
    partition: int
    next_offset: int


class Letters(NamedTuple):
    """Messages that were refused, or had ticks that were, in order, with why; the bytes stay in their batch. As an
    event: refused before the codec."""

    raw: RawBatch
    rejects: Rejects
    whole: bool = True  # nothing else came of the batch


Event = RawBatch | Heartbeat | Command | Letters | Reached | Ask


@dataclass(slots=True)
class Outcome:
    """What one turn did, in columns."""

    bars: list[BarBatch] = field(default_factory=list)
    forecasts: list[Forecasts] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    vectors: list[FeatureRows] = field(default_factory=list)
    letters: list[Letters] = field(default_factory=list)
    answers: list[AskAnswer] = field(default_factory=list)  # to those who asked
    positions: dict[tuple[str, int], int] = field(default_factory=dict)
    left: list[Event] = field(default_factory=list)  # not taken: they wait for `Engine.pass_places`
    questions: int = 0
    unasked: int = 0  # conflated or skipped
    unanswered: int = 0  # bars whose turn it was, of symbols with too few for any model
