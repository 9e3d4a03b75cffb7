"""What the engine takes and what it gives: events in their order, and all that happened in a turn. They do nothing."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tickcast.columns import F32, F64, I32, I64, U8, BarBatch, Bars, FeatureRows, Forecasts, RawBatch, Rejects, Scores
from tickcast.engine.core.blocks import BlockRow
from tickcast.errors import BadOutput, BadRequest
from tickcast.plugin import Runner
from tickcast.records import Command, Drift


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


@dataclass(frozen=True, slots=True)
class Ask:
    """Somebody asks about the newest windows of `symbols`; or about `bars` brought along, perhaps of one symbol."""

    symbols: tuple[str, ...]
    model: str = ""  # digest or name; empty = whoever answers the ticks
    bars: Bars | None = None  # of one symbol, whole (`windows.whole`)
    as_of: int = -1  # of the last of these bars; -1 = not said
    runner: Runner | None = None  # a model that does not serve: it is asked apart, and its widths are its own
    confidence_level: float | None = None  # of an interval beside the quantiles
    bounds: tuple[float, float] | None = None  # prices that may be left, infinite = none on that side


@dataclass(frozen=True, slots=True)
class AskAnswer:
    """What an Ask brought, in the series' own unit, one row a symbol; or why it did not."""

    ask: Ask
    refused: BadRequest | BadOutput | None = None
    as_of: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    target_ns: I64 = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    anchor: F64 = field(default_factory=lambda: np.zeros(0))
    scale: F64 = field(default_factory=lambda: np.zeros(0))
    quantiles: F64 = field(default_factory=lambda: np.zeros((0, 0, 0)))
    sigma: F64 = field(default_factory=lambda: np.zeros((0, 0)))
    confidence: F32 = field(default_factory=lambda: np.zeros(0, np.float32))
    probs: F32 = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    model: I32 = field(default_factory=lambda: np.zeros(0, np.int32))
    rung: U8 = field(default_factory=lambda: np.zeros(0, np.uint8))
    flags: U8 = field(default_factory=lambda: np.zeros(0, np.uint8))
    interval: F64 | None = None  # [N, H, 2] of `ask.confidence_level`
    leaving: F64 | None = None  # [N, H] how likely the price has left `ask.bounds` by then


Event = RawBatch | Heartbeat | Command | Letters | Reached | Ask


@dataclass(slots=True)
class Outcome:
    """What one turn did, in columns."""

    bars: list[BarBatch] = field(default_factory=list)
    forecasts: list[Forecasts] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    vectors: list[FeatureRows] = field(default_factory=list)
    shadows: list[Forecasts] = field(default_factory=list)  # of models that do not serve, of the turn before
    blocks: list[BlockRow] = field(default_factory=list)  # of their contests
    letters: list[Letters] = field(default_factory=list)
    drift: list[Drift] = field(default_factory=list)  # alarms that began or ended
    answers: list[AskAnswer] = field(default_factory=list)  # to those who asked
    positions: dict[tuple[str, int], int] = field(default_factory=dict)
    left: list[Event] = field(default_factory=list)  # not taken: they wait for `Engine.pass_places`
    questions: int = 0
    unasked: int = 0  # conflated or skipped
    unanswered: int = 0  # bars whose turn it was, of symbols with too few for any model
