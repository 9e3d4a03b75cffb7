"""What the rungs share: their card, and one window read as a path of moves. A rung needs no training and reads
channel 0 only; what lies under mask 0 it never looks at.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import msgspec
import numpy as np
from numba import njit

from tickcast.columns import F32, F64
from tickcast.errors import BadOutput, BadSettings
from tickcast.figures import SCALE_FLOOR
from tickcast.plugin import Runner
from tickcast.questions import Answers, Questions
from tickcast.records import ModelCard, digest


class Rung(Runner, ABC):
    """A Runner made of a kernel. Subclasses state their need of bars and fill quantiles of moves."""

    kind = ""

    def __init__(self, transform: str, horizon: int, levels: Sequence[float], season_bars: int) -> None:
        if season_bars < 1 or horizon < 1:
            raise BadSettings(f"{self.kind}: season_bars and horizon must be positive")
        self.transform, self.horizon, self.season_bars = transform, horizon, season_bars
        self.is_level = transform == "level"
        self.deviates = np.array([NormalDist().inv_cdf(level) for level in levels])
        card = ModelCard(
            name=self.kind, kind=self.kind, version="1", digest="", framework="numba", bars={}, transform=transform,
            lookback=self.lookback, horizon=horizon, levels=[*levels], features=[], need_bars=self.need_bars,
            model_params=self.params,
        )  # fmt: skip
        self.card = msgspec.structs.replace(card, digest=digest(card))

    @property
    def params(self) -> dict[str, Any]:
        return {}

    @property
    def lookback(self) -> int:
        """Bars of the window that it cannot do without."""
        return 2

    @property
    def need_bars(self) -> int:
        """Bars that a symbol must have."""
        return 2

    def answer(self, questions: Questions) -> Answers:
        inputs = questions.inputs
        if inputs.past.shape[1] < self.lookback:
            raise BadOutput(f"{self.kind} needs a window of {self.lookback} bars, not {inputs.past.shape[1]}")
        out = np.empty((len(inputs), self.horizon, len(self.deviates)), np.float32)
        self.fill(inputs.past, inputs.mask, out)
        return Answers(out)

    @abstractmethod
    def fill(self, past: F32, mask: F32, out: F32) -> None:
        """Write the quantiles [B, H, Q] of the moves into `out`."""


@njit(cache=True, nogil=True)
def follow(past, mask, is_level, path):  # type: ignore[no-untyped-def]
    """Write where one window [L, F] stood at each bar, as moves from a common origin; returns its RMS one-bar move.

    A bar under mask 0 stays where the bar before it stood, so the move after a gap counts once and whole.
    """
    squares, moves, at, first = 0.0, 0, 0.0, -1
    for j in range(len(path)):
        if mask[j] > 0:
            value = np.float64(past[j, 0])
            move = value - at if is_level else value
            if first >= 0 or not is_level:
                squares += move * move
                moves += 1
            at += move
            if first < 0:
                first = j
        path[j] = at
    if is_level and first > 0:
        path[:first] = path[first]
    return max(np.sqrt(squares / moves), SCALE_FLOOR) if moves else SCALE_FLOOR


def quantile_widths(deviates: F64, steps: F64) -> F64:
    """[H, Q]: Gaussian deviates times the spread of each step in units of the one-step error."""
    widths: F64 = steps[:, None] * deviates[None, :]
    return widths
