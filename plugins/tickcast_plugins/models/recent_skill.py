"""How far each member of a combination was off within the window itself: asked again at a few earlier bars, and held
against the bars that came after them. In numpy for the fit, as ONNX nodes for serving. It reads no bar but the
window's, so nothing is remembered between two questions, and a restart loses nothing.
"""

from collections.abc import Sequence

import numpy as np

from tickcast.columns import F32, F64, Inputs
from tickcast.records import ModelCard
from tickcast_plugins.models.merged_graph import Merged

TINY = 1e-20


class RecentSkill:
    """`origins` earlier bars, `stride` apart. Of the one k bars back, the first k steps are known by now."""

    def __init__(self, card: ModelCard, origins: int, stride: int) -> None:
        self.backs = tuple(stride * (1 + i) for i in range(origins))
        self.steps = min(card.horizon, self.backs[-1])
        self._levels = np.array(card.levels, np.float32)
        bar, step = card.lookback - 1 - np.array(self.backs)[:, None], np.arange(1, self.steps + 1)
        target = bar + step
        self._known = (target < card.lookback).astype(np.float32)  # [K, S]
        self._origin = np.broadcast_to(bar, target.shape).ravel()
        self._target = np.minimum(target, card.lookback - 1).ravel()
        self._unit = (1 / np.sqrt(step)).astype(np.float32)  # so that late steps do not drown the others
        bars = np.arange(card.lookback)[:, None]
        if card.transform == "level":
            moved = 1.0 * (bars == self._target) - (bars == self._origin)
        else:
            moved = 1.0 * ((bars > self._origin) & (bars <= self._target))
        self._moved = moved.astype(np.float32)  # [L, K * S]

    def seen(self, inputs: Inputs, said: F32) -> F64:
        """[n, M]: each member's error as a share of all members' mean, the nearer to 0 the fewer bars are known."""
        own = np.where(inputs.mask > 0, inputs.past[:, :, 0], np.float32(0.0))
        shape = (-1, *self._known.shape)
        moved = (own @ self._moved).reshape(shape)[:, :, None, :, None]
        valid = self._known * (inputs.mask[:, self._origin] * inputs.mask[:, self._target]).reshape(shape)
        error = moved - said[:, 1:, :, : self.steps]  # [n, K, M, S, Q]
        pinball = np.maximum(self._levels * error, (self._levels - 1) * error).sum(axis=4) * self._unit
        wrong = np.where(valid[:, :, None] > 0, pinball, 0.0).sum(axis=(1, 3))
        share = valid.sum(axis=(1, 2)) / self._known.sum()
        seen: F64 = wrong / np.maximum(wrong.mean(axis=1, keepdims=True), TINY) * share[:, None]
        return seen

    def nodes(self, g: Merged, said: Sequence[str]) -> str:
        """As `seen`; `said` holds the name of [1 + K, B, H, Q] of each member."""
        there = g.add("Greater", "mask", g.constant(0.0))
        own = g.add("Where", there, g.pick("past", 0, axis=2), g.constant(0.0))
        last = g.constant([3], np.int64)
        moved = g.add("Unsqueeze", self._by_origin(g, g.add("MatMul", own, g.constant(self._moved))), last)
        both = [g.pick("mask", places.tolist(), axis=1) for places in (self._origin, self._target)]
        valid = g.add("Mul", self._by_origin(g, g.add("Mul", *both)), g.constant(self._known[:, None]))
        usable = g.add("Greater", valid, g.constant(0.0))
        wrong = [self._wrong(g, moved, name, usable) for name in said]
        each = g.add("Concat", *(g.add("Unsqueeze", name, g.constant([1], np.int64)) for name in wrong), axis=1)
        mean = g.add("Mul", g.sum(each), g.constant(1 / len(said)))
        share = g.add("ReduceSum", valid, g.constant([0, 2], np.int64), keepdims=0)
        share = g.add("Mul", share, g.constant(1 / self._known.sum()))
        relative = g.add("Div", each, g.add("Max", mean, g.constant(TINY)))
        return g.add("Mul", relative, g.add("Unsqueeze", share, g.constant([1], np.int64)))

    def _by_origin(self, g: Merged, name: str) -> str:
        """[B, K * S] -> [K, B, S]"""
        return g.add(
            "Transpose", g.add("Reshape", name, g.constant([-1, *self._known.shape], np.int64)), perm=[1, 0, 2]
        )

    def _wrong(self, g: Merged, moved: str, said: str, usable: str) -> str:
        """[B]: the sum of what one member was off."""
        then = g.slice(g.slice(said, 1, 1 + len(self.backs), axis=0), 0, self.steps, axis=2)
        error = g.add("Sub", moved, then)
        above = g.add("Mul", error, g.constant(self._levels))
        below = g.add("Mul", error, g.constant(self._levels - 1))
        pinball = g.add("ReduceSum", g.add("Max", above, below), g.constant([3], np.int64), keepdims=0)
        pinball = g.add("Mul", pinball, g.constant(self._unit))
        pinball = g.add("Where", usable, pinball, g.constant(0.0))
        return g.add("ReduceSum", pinball, g.constant([0, 2], np.int64), keepdims=0)
