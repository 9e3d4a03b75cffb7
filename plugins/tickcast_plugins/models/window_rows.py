"""A window as one row of numbers, for models that know no time: its moves in units of its own RMS one-bar move, then
the newest bar's other channels and the calendar of the next bar. In numpy for the fit, as ONNX nodes for serving.

What decides is computed in double precision and rounded once, so that both agree to the bit on nearly every row: a
tree's threshold forgives nothing. A bar under mask 0 stays where the bar before it stood.
"""

from typing import NamedTuple, Protocol

import numpy as np

from tickcast.columns import F32, F64, Inputs
from tickcast.records import ModelCard
from tickcast_plugins.models.onnx_graph import Graph

SCALE_FLOOR = 1e-8  # the one-bar move of a window that never moved
EXTREME = 10.0  # spreads at which another channel is cut off
NEWEST, SPANS = 12, (2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377)  # of `recent_moves`


class Layout(Protocol):
    """How a window becomes a row."""

    def rows(self, inputs: Inputs) -> tuple[F32, F32]:
        """Rows [B, D] and the scale [B, 1] of their windows."""

    def nodes(self, g: Graph) -> tuple[str, str]:
        """As `rows`, in the graph."""


class RowLayout(NamedTuple):
    """What a row holds. `basis` [L, P] turns the moves into the columns that are wanted instead; None keeps them."""

    card: ModelCard
    center: F64  # [F - 1], of the channels after the first; empty: they are not read
    spread: F64
    calendar: int  # columns of the calendar that are read
    basis: F64 | None = None

    @property
    def width(self) -> int:
        moves = self.card.lookback if self.basis is None else self.basis.shape[1]
        return moves + len(self.center) + self.calendar

    @property
    def logged(self) -> F64:
        """[F - 1]: 1 where a channel enters by its signed logarithm."""
        return np.array([float(spec.normalization == "log") for spec in self.card.features])

    def rows(self, inputs: Inputs) -> tuple[F32, F32]:
        """Rows [B, D] and the scale [B, 1] of their windows."""
        length = self.card.lookback
        past, usable = inputs.past[:, -length:], inputs.mask[:, -length:] > 0
        moves, scale = scaled_moves(past[:, :, 0], usable, is_level=self.card.transform == "level")
        parts = [moves if self.basis is None else moves @ self.basis]
        if len(self.center):
            last = past[:, -1, 1:].astype(np.float64)
            last = np.where(usable[:, -1:], last, 0.0)
            logs = np.sign(last) * np.log(np.abs(last) + 1)
            last = last + self.logged * (logs - last)
            parts.append(np.clip((last - self.center) / self.spread, -EXTREME, EXTREME))
        row = np.concatenate(parts, axis=1).astype(np.float32)
        if self.calendar:
            row = np.concatenate([row, inputs.future[:, 0, :]], axis=1)
        return row, scale.astype(np.float32)

    def nodes(self, g: Graph) -> tuple[str, str]:
        """As `rows`, in the graph."""
        usable = g.add("Greater", "mask", g.constant(0.0))
        own = g.add("Gather", "past", g.constant(0, np.int64), axis=2)
        own = g.add("Where", usable, own, g.constant(0.0))
        moves, scale = _move_nodes(g, own, usable, self.card)
        parts = [moves if self.basis is None else g.add("MatMul", moves, g.constant(self.basis, np.float64))]
        if len(self.center):
            parts.append(self._channel_nodes(g, usable))
        row = g.cast(g.add("Concat", *parts, axis=1), np.float32)
        if self.calendar:
            row = g.add("Concat", row, g.add("Gather", "future", g.constant(0, np.int64), axis=1), axis=1)
        return row, g.cast(scale, np.float32)

    def _channel_nodes(self, g: Graph, usable: str) -> str:
        length, double = self.card.lookback, np.float64
        at = g.constant(length - 1, np.int64)
        others = g.constant(np.arange(1, 1 + len(self.center)), np.int64)
        last = g.cast(g.add("Gather", g.add("Gather", "past", at, axis=1), others, axis=1), double)
        known = g.add("Gather", usable, g.constant([length - 1], np.int64), axis=1)
        last = g.add("Where", known, last, g.constant(0.0, double))
        size = g.add("Add", g.add("Abs", last), g.constant(1.0, double))
        logs = g.add("Mul", g.add("Sign", last), g.add("Log", size))
        last = g.add("Add", last, g.add("Mul", g.constant(self.logged, double), g.add("Sub", logs, last)))
        last = g.add("Div", g.add("Sub", last, g.constant(self.center, double)), g.constant(self.spread, double))
        return g.add("Clip", last, g.constant(-EXTREME, double), g.constant(EXTREME, double))


def scaled_moves(
    own: F32, usable: "np.ndarray[tuple[int, int], np.dtype[np.bool_]]", *, is_level: bool
) -> tuple[F64, F64]:
    """One-bar moves [B, L] in units of the scale [B, 1], the RMS of those that were seen."""
    own = np.where(usable, own, np.float32(0.0))
    seen = usable.sum(axis=1, keepdims=True) - int(is_level)
    if is_level:
        known = np.where(usable, np.arange(own.shape[1]), -1)
        known = np.maximum(np.maximum.accumulate(known, axis=1), usable.argmax(axis=1)[:, None])
        path = np.take_along_axis(own, known, axis=1)
        own = np.diff(path, axis=1, prepend=path[:, :1])
    moves = own.astype(np.float64)
    scale = np.sqrt((moves * moves).sum(axis=1, keepdims=True) / np.maximum(seen, 1))
    scale = np.maximum(scale, SCALE_FLOOR)
    return moves / scale, scale


def _move_nodes(g: Graph, own: str, usable: str, card: ModelCard) -> tuple[str, str]:
    flags, length = g.cast(usable, np.float32), card.lookback
    seen = g.sum(flags)
    if card.transform == "level":
        seen = g.add("Sub", seen, g.constant(1.0))
        path = g.add("GatherElements", own, _last_known(g, flags, length), axis=1)
        before = g.constant(np.maximum(np.arange(length) - 1, 0), np.int64)
        own = g.add("Sub", path, g.add("Gather", path, before, axis=1))
    moves = g.cast(own, np.float64)
    seen = g.cast(g.add("Max", seen, g.constant(1.0)), np.float64)
    scale = g.add("Sqrt", g.add("Div", g.sum(g.add("Mul", moves, moves)), seen))
    scale = g.add("Max", scale, g.constant(SCALE_FLOOR, np.float64))
    return g.add("Div", moves, scale), scale


def _last_known(g: Graph, flags: str, length: int) -> str:
    """[B, L]: which bar each one stands at: the newest usable up to it, else the first usable. ONNX has no running
    maximum, so it is built by looking back 1, 2, 4 ... bars."""
    places = g.constant(np.arange(1, length + 1))
    known = g.add("Mul", flags, places)
    back = 1
    while back < length:
        earlier = g.add("Gather", known, g.constant(np.maximum(np.arange(length) - back, 0), np.int64), axis=1)
        known, back = g.add("Max", known, earlier), 2 * back
    known = g.cast(g.add("Sub", known, g.constant(1.0)), np.int64)
    return g.add("Max", known, g.add("ArgMax", flags, axis=1, keepdims=1))


def recent_moves(lookback: int) -> F64:
    """[L, P]: a basis of the newest moves, and of the sums of the last k moves in the unit of a random walk."""
    newest = np.eye(lookback)[:, -min(NEWEST, lookback) :]
    spans = [span for span in SPANS if span < lookback] + [lookback]
    bar = np.arange(lookback)[:, None]
    sums = (bar >= lookback - np.array(spans)) / np.sqrt(spans)
    return np.concatenate([newest, sums], axis=1)
