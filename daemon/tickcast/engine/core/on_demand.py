"""Answers that somebody asks for, beside those that ticks bring: for symbols' newest windows, or for given ones.

Here is what goes in and what comes out; `asking` has what is done between.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tickcast.columns import F32, F64, I32, I64, U8, Inputs
from tickcast.errors import BadOutput, BadRequest
from tickcast.plugin import Runner


class GivenWindow(NamedTuple):
    """What a model is asked, and the unit of its answer."""

    inputs: Inputs
    anchor: F64
    scale: F64


class Given(NamedTuple):
    """A window that was brought along."""

    window: GivenWindow
    as_of: int  # -1 = not said
    bars: int  # that it was made of


@dataclass(frozen=True, slots=True)
class Ask:
    """An event. Either `symbols`, whose newest windows are meant, or a `given` window, perhaps of one symbol."""

    symbols: tuple[str, ...]
    model: str = ""  # digest or name; empty = whoever answers the ticks
    given: Given | None = None
    runner: Runner | None = None  # a model that does not serve: it is asked apart, and its widths are its own
    confidence_level: float | None = None  # of an interval beside the quantiles


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
    confidence: F32 = field(default_factory=lambda: np.zeros(0, np.float32))
    probs: F32 = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    model: I32 = field(default_factory=lambda: np.zeros(0, np.int32))
    rung: U8 = field(default_factory=lambda: np.zeros(0, np.uint8))
    flags: U8 = field(default_factory=lambda: np.zeros(0, np.uint8))
    interval: F64 | None = None  # [N, H, 2] of `ask.confidence_level`
