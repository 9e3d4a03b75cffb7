"""A window as how widely it moved: means of its squared moves that forget at several speeds, in units of the slowest.
As one matrix over a window, or as a state that each bar moves on; in numpy for the fit, as ONNX nodes for serving.

A mean is a weighted sum over a sum of weights, so a bar under mask 0 only lets time pass, and a window that began
later says the same of the bars that it has.
"""

from typing import NamedTuple

import numpy as np

from tickcast.columns import F32, F64, I64, Inputs
from tickcast.figures import SCALE_FLOOR
from tickcast.records import ModelCard
from tickcast.scales import LEAST_RATIO, LEAST_WEIGHT, bar_weights
from tickcast_plugins.models.onnx_graph import Graph

SLOTS = {"day_of_week": 168, "time_of_day": 24}  # hours of the season, by calendar
LATE = 0.0123  # hours that a bar's end may be late and still belong to the hour that ends: no whole second
TINY = np.float32(1e-12)


class SpreadTerms(NamedTuple):
    """What a row holds: half the logarithm of each mean but the slowest, of the falls' means, and the places of the
    hour and of the symbol.
    """

    card: ModelCard
    keep: F64  # [P] of a mean, from bar to bar; the slowest last
    channel: int = 0  # of past; 0 = the moves, else a channel that is a bar's spread
    falls: bool = False  # means over falls alone, too
    calendar: str = ""  # whose hours the season has; empty = none

    def rows(self, inputs: Inputs) -> tuple[F32, F32]:
        """Rows [B, D] and the scale [B, 1], the root of the slowest mean."""
        own, usable = self._moves(inputs)
        weights = self.weights()
        seen = np.maximum(usable @ weights, LEAST_WEIGHT)
        means = [(own * own) @ weights / seen]
        if self.falls:
            means.append(np.minimum(own, 0.0) ** 2 @ weights / seen)
        slowest = np.maximum(means[0][:, -1:], SCALE_FLOOR**2)
        ratios = np.concatenate([means[0][:, :-1], *means[1:]], axis=1) / slowest
        row = (0.5 * np.log(np.maximum(ratios, LEAST_RATIO))).astype(np.float32)
        if self.calendar:
            row = np.concatenate([row, self._hour(inputs.future)], axis=1)
        if self.card.symbols:
            given = inputs.static.shape[1] > 0
            row = np.concatenate([row, inputs.static if given else np.zeros((len(row), 1), np.float32)], axis=1)
        return row, np.sqrt(slowest).astype(np.float32)

    def nodes(self, g: Graph) -> tuple[str, str]:
        """As `rows`, in the graph."""
        known = g.add("Greater", "mask", g.constant(0.0))
        own = g.add("Reshape", self._channel_node(g), g.constant([-1, self.card.lookback], np.int64))
        own, usable = g.add("Where", known, own, g.constant(0.0)), g.cast(known, np.float32)
        if self._is_level:
            before = g.constant(np.maximum(np.arange(self.card.lookback) - 1, 0), np.int64)
            first = g.constant(np.arange(self.card.lookback) > 0)
            usable = g.add("Mul", g.add("Mul", usable, g.add("Gather", usable, before, axis=1)), first)
            own = g.add("Mul", g.add("Sub", own, g.add("Gather", own, before, axis=1)), usable)
        weights = g.constant(self.weights())
        sums = [g.add("MatMul", square, weights) for square in self._square_nodes(g, own)]
        return self._row_nodes(g, sums, g.add("MatMul", usable, weights))

    def step_nodes(self, g: Graph) -> tuple[str, str, str]:
        """The state after a bar, and as `rows` what it says then. A state is the sums and the sum of weights."""
        known = g.add("Unsqueeze", g.add("Greater", "mask", g.constant(0.0)), g.constant([1], np.int64))
        own = g.add("Gather", "bar", g.constant([self.channel], np.int64), axis=1)
        own = g.add("Where", known, own, g.constant(0.0))
        told = [*self._square_nodes(g, own), g.cast(known, np.float32)]
        added = g.add("Concat", *[g.add("Mul", each, g.constant(1 - self.keep)) for each in told], axis=1)
        after = g.add("Add", g.add("Mul", "state", g.constant(np.tile(self.keep, self.parts + 1))), added)
        sums = [self._part(g, after, part) for part in range(self.parts)]
        row, scale = self._row_nodes(g, sums, self._part(g, after, self.parts))
        return after, row, scale

    def weights(self) -> F64:
        """[L, P]: of each bar in each mean."""
        return bar_weights(self.keep, self.card.lookback)

    def hours(self, row: F32) -> I64:
        """[B]: the place in the season of each row."""
        return row[:, self.width].astype(np.int64) if self.calendar else np.zeros(len(row), np.int64)

    def places(self, row: F32) -> I64:
        """[B]: the symbol's place on the card, 0 = none."""
        return row[:, -1].astype(np.int64) if self.card.symbols else np.zeros(len(row), np.int64)

    def columns(self, speed: int) -> list[int]:
        """Of a row, those that one with this speed and the slowest alone would hold."""
        speeds = len(self.keep)
        falls = [speeds - 1 + speed, 2 * speeds - 2] if self.falls else []
        return [speed, *falls, *([-1] if self.card.symbols else [])]

    @property
    def parts(self) -> int:
        return 1 + int(self.falls)

    @property
    def width(self) -> int:
        """Of a row, but for the hour."""
        return self.parts * len(self.keep) - 1

    @property
    def state(self) -> int:
        return (self.parts + 1) * len(self.keep)

    @property
    def _is_level(self) -> bool:
        return self.channel == 0 and self.card.transform == "level"

    def _moves(self, inputs: Inputs) -> tuple[F64, F64]:
        """[B, L] each: one-bar moves, and 1 where there is one."""
        length = self.card.lookback
        usable = (inputs.mask[:, -length:] > 0).astype(np.float64)
        own = np.where(usable > 0, inputs.past[:, -length:, self.channel], 0.0)
        if self._is_level:
            usable[:, 1:] *= usable[:, :-1].copy()
            usable[:, 0] = 0.0
            own = np.diff(own, axis=1, prepend=0.0) * usable
        return own, usable

    def _hour(self, future: F32) -> F32:
        sine, cosine = (future[:, 0, self._columns] @ self._turn()).T
        half = np.arctan(sine / (np.sqrt(sine * sine + cosine * cosine) + cosine + TINY))
        hour = np.clip(np.floor((half / np.float32(np.pi) + np.float32(0.5)) * self._hours), 0, self._hours - 1)
        place: F32 = hour[:, None].astype(np.float32)
        return place

    @property
    def _columns(self) -> list[int]:
        first = 2 * self.card.future.index(self.calendar)
        return [first, first + 1]

    @property
    def _hours(self) -> np.float32:
        return np.float32(SLOTS[self.calendar])

    def _turn(self) -> F32:
        """[2, 2]: turns sine and cosine so that where the angle jumps, at half a turn, the hours begin."""
        turn = np.pi + 2 * np.pi * LATE / SLOTS[self.calendar]
        return np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]], np.float32)

    def _square_nodes(self, g: Graph, own: str) -> list[str]:
        squares = [g.add("Mul", own, own)]
        if self.falls:
            fall = g.add("Min", own, g.constant(0.0))
            squares.append(g.add("Mul", fall, fall))
        return squares

    def _row_nodes(self, g: Graph, sums: list[str], seen: str) -> tuple[str, str]:
        seen, slow = g.add("Max", seen, g.constant(LEAST_WEIGHT)), len(self.keep) - 1
        means = [g.add("Div", each, seen) for each in sums]
        slowest = g.add("Gather", means[0], g.constant([slow], np.int64), axis=1)
        slowest = g.add("Max", slowest, g.constant(SCALE_FLOOR**2))
        parts = [g.add("Gather", means[0], g.constant(np.arange(slow), np.int64), axis=1)] if slow else []
        parts += means[1:]
        row = ""
        if parts:
            ratios = g.add("Div", g.add("Concat", *parts, axis=1), slowest)
            logs = g.add("Log", g.add("Max", ratios, g.constant(LEAST_RATIO)))
            row = g.add("Mul", logs, g.constant(0.5))
        return row, g.add("Sqrt", slowest)

    def hour_node(self, g: Graph) -> str:
        """[B]: the place in the season."""
        next_bar = g.add("Gather", "future", g.constant(0, np.int64), axis=1)
        calendar = g.add("Gather", next_bar, g.constant(self._columns, np.int64), axis=1)
        turned = g.add("MatMul", calendar, g.constant(self._turn()))
        sine, cosine = (g.add("Gather", turned, g.constant(at, np.int64), axis=1) for at in (0, 1))
        size = g.add("Sqrt", g.add("Add", g.add("Mul", sine, sine), g.add("Mul", cosine, cosine)))
        beside = g.add("Add", g.add("Add", size, cosine), g.constant(TINY))
        half = g.add("Atan", g.add("Div", sine, beside))
        share = g.add("Add", g.add("Div", half, g.constant(np.pi)), g.constant(0.5))
        hour = g.add("Floor", g.add("Mul", share, g.constant(self._hours)))
        return g.cast(g.add("Clip", hour, g.constant(0.0), g.constant(self._hours - 1)), np.int64)

    def _channel_node(self, g: Graph) -> str:
        """[B, L, 1]: a slice, for a Gather of one column takes longer than all that follows."""
        if not self.card.features:
            return "past"
        first, stop, axis = (g.constant([at], np.int64) for at in (self.channel, self.channel + 1, 2))
        return g.add("Slice", "past", first, stop, axis)

    def _part(self, g: Graph, state: str, part: int) -> str:
        speeds = len(self.keep)
        return g.add("Gather", state, g.constant(np.arange(speeds) + part * speeds, np.int64), axis=1)


def keep_of(spans: list[int], lookback: int) -> F64:
    """[P]: what means over so many bars keep; one as long as the window is the slowest."""
    faster = {span for span in spans if span < lookback} or {max(lookback // 2, 1)}
    bars = np.array([*sorted(faster), lookback], np.float64)
    return 1 - 2 / (bars + 1)
