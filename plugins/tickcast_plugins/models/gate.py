"""The coordinator: a small net looks at how a window behaves (volatility, drift, autocorrelation) and shares the weight
out among the members of a combination. It learns from the validation part only, which the members were not fitted on.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec
import numpy as np
import torch
from msgspec import Meta
from torch import Tensor

from tickcast.columns import F32, F64, Inputs
from tickcast.plugin import Parameter, Report
from tickcast_plugins.models.combination import Arrays, Combination, Digests, MemberSample, Rows, name_of, softmax
from tickcast_plugins.models.descent import descend
from tickcast_plugins.models.merged_graph import Merged

RECENT = 4  # the newest of so many parts of the window
FLOOR, EXTREME = 1e-12, 4.0


class GateParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    members: Digests = []
    hidden: Annotated[int, Meta(ge=1, le=64)] = 8
    rows: Rows = 4096


class Gated(Combination):
    kind = "gated"
    params_type = GateParams
    space: ClassVar = {"hidden": Parameter("int", 2, 32, log=True)}
    learnt = ("first", "first_bias", "last", "last_bias")

    def seen(self, inputs: Inputs, said: F32) -> F64:
        return describe(inputs, is_level=self.card.transform == "level")

    def learn(self, sample: MemberSample, report: Report) -> Arrays:
        center, spread = sample.seen.mean(axis=0), np.maximum(sample.seen.std(axis=0), 1e-6)
        x = torch.from_numpy(((sample.seen - center) / spread).clip(-EXTREME, EXTREME).astype(np.float32))
        generator = torch.Generator().manual_seed(self.card.seed)
        first = torch.randn(x.shape[1], self.params.hidden, generator=generator) / x.shape[1] ** 0.5
        last = torch.zeros(self.params.hidden, sample.answers.shape[1])  # so that it starts with equal weights
        learnt = [first, torch.zeros(self.params.hidden), last, torch.zeros(sample.answers.shape[1])]
        for tensor in learnt:
            tensor.requires_grad_(True)

        def logits(rows: Tensor) -> Tensor:
            found: Tensor = torch.tanh(x[rows] @ learnt[0] + learnt[1]) @ learnt[2] + learnt[3]
            return found

        gain = descend(sample, self.card.levels, learnt, logits, report)
        self.arrays = {"center": center, "spread": spread}
        self.arrays |= {name: tensor.detach().numpy() for name, tensor in zip(self.learnt, learnt, strict=True)}
        shares = self.weights(sample.seen)
        ranges = zip(map(name_of, self.members), shares.min(axis=0), shares.max(axis=0), strict=True)
        told = (f"{name} {low:.2f} to {high:.2f}" for name, low, high in ranges)
        self.note(f"gate: {gain:.2%} off the mean's error; weights {', '.join(told)}")
        return self.arrays

    def weights(self, seen: F64) -> F64:
        a = self.arrays
        x = ((seen - a["center"]) / a["spread"]).clip(-EXTREME, EXTREME)
        return softmax(np.tanh(x @ a["first"] + a["first_bias"]) @ a["last"] + a["last_bias"])

    def weight_nodes(self, g: Merged, said: Sequence[str]) -> str:
        a = self.arrays
        x = describe_nodes(g, self.card.lookback, is_level=self.card.transform == "level")
        x = g.add("Div", g.add("Sub", x, g.constant(a["center"])), g.constant(a["spread"]))
        x = g.add("Clip", x, g.constant(-EXTREME), g.constant(EXTREME))
        x = g.add("Tanh", g.add("Gemm", x, g.constant(a["first"]), g.constant(a["first_bias"])))
        return g.add("Softmax", g.add("Gemm", x, g.constant(a["last"]), g.constant(a["last_bias"])), axis=1)


def describe(inputs: Inputs, *, is_level: bool) -> F64:
    """[n, 3]: how lively the newest quarter is beside the window, how far it went, how much of a move comes back."""
    there = inputs.mask > 0
    own = np.where(there, inputs.past[:, :, 0], np.float32(0.0)).astype(np.float64)
    if is_level:
        own, there = np.diff(own, axis=1), there[:, 1:] & there[:, :-1]
        own = np.where(there, own, 0.0)
    count = np.maximum(there.sum(axis=1), 1)
    squares = own * own
    total = np.maximum(squares.sum(axis=1), FLOOR**2)
    newest = own.shape[1] - own.shape[1] // RECENT
    recent = squares[:, newest:].sum(axis=1) / np.maximum(there[:, newest:].sum(axis=1), 1)
    volatility = np.log(recent * count / total + 1e-3)
    drift = own.sum(axis=1) / np.sqrt(total)
    return np.stack([volatility, drift, (own[:, 1:] * own[:, :-1]).sum(axis=1) / total], axis=1)


def describe_nodes(g: Merged, lookback: int, *, is_level: bool) -> str:
    """As `describe`, in double precision, for squares of small moves would vanish."""
    there = g.add("Greater", "mask", g.constant(0.0))
    own = g.cast(g.add("Where", there, g.pick("past", 0, axis=2), g.constant(0.0)), np.float64)
    flags, length = g.cast(there, np.float64), lookback
    if is_level:
        flags = g.add("Mul", g.slice(flags, 1, length), g.slice(flags, 0, length - 1))
        own = g.add("Mul", g.add("Sub", g.slice(own, 1, length), g.slice(own, 0, length - 1)), flags)
        length -= 1
    one = g.constant(1.0, np.float64)
    squares = g.add("Mul", own, own)
    count = g.add("Max", g.sum(flags), one)
    total = g.add("Max", g.sum(squares), g.constant(FLOOR**2, np.float64))
    newest = length - length // RECENT
    known = g.add("Max", g.sum(g.slice(flags, newest, length)), one)
    recent = g.add("Div", g.sum(g.slice(squares, newest, length)), known)
    lively = g.add("Div", g.add("Mul", recent, count), total)
    volatility = g.add("Log", g.add("Add", lively, g.constant(1e-3, np.float64)))
    drift = g.add("Div", g.sum(own), g.add("Sqrt", total))
    neighbours = g.sum(g.add("Mul", g.slice(own, 1, length), g.slice(own, 0, length - 1)))
    return g.cast(g.add("Concat", volatility, drift, g.add("Div", neighbours, total), axis=1), np.float32)
