"""Micro networks: perceptrons under 10,000 parameters that look for one pattern each.

A preset is a view of the window: a few weighted sums of its moves, given as a constant matrix.
"""

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal, NamedTuple

import msgspec
import numpy as np
import torch
from msgspec import Meta
from torch import Tensor, nn

from tickcast.columns import F64
from tickcast.errors import BadSettings
from tickcast.plugin import Parameter
from tickcast.records import ModelCard
from tickcast_plugins.models.stacks import perceptron
from tickcast_plugins.models.torch_net import Answer, TorchNet, future_width, per_step, read_params

LIMIT = 10_000  # parameters; a micro network has fewer
SPANS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)  # bars
NEWEST = 12  # moves that a reversal can hide in
SENTIMENT = ("sent_mean", "sent_surprise", "news_count")  # features without which `sentiment` has nothing to see


class MicroParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    preset: Literal["momentum", "reversal", "trend", "mean_reversion", "sentiment", "window"] = "momentum"
    layers: Annotated[list[Annotated[int, Meta(ge=1, le=512)]], Meta(max_length=6)] = []  # empty = the preset's


class Micro(TorchNet):
    kind = "micro"
    space: ClassVar = {  # without sentiment: it needs features of its own
        "preset": Parameter("choice", choices=["momentum", "reversal", "trend", "mean_reversion", "window"]),
        "layers": Parameter("choice", choices=[[], [16], [16, 8], [32, 16], [24, 12, 6]]),
    }

    def __init__(self, card: ModelCard) -> None:
        self.params = read_params(card, MicroParams)
        lacking = set(SENTIMENT) - {spec.name for spec in card.features}
        if self.params.preset == "sentiment" and lacking:
            raise BadSettings(
                f"micro: preset sentiment needs the features {', '.join(sorted(lacking))}",
                remedy="add them to [[features.set]] or take another preset",
            )
        super().__init__(card)
        count = sum(parameter.numel() for parameter in self.module().parameters())
        if count >= LIMIT:
            raise BadSettings(
                f"micro: {count:,} parameters are not under {LIMIT:,}",
                remedy="fewer or smaller layers, a shorter horizon, or another kind",
            )

    def body(self) -> nn.Module:
        preset = PRESETS[self.params.preset]
        return Viewed(self.card, preset.view(self.card.lookback), self.params.layers or preset.layers)


class Viewed(nn.Module):
    """The view of the moves, the newest bar of every other channel, and the calendar -> perceptron."""

    def __init__(self, card: ModelCard, view: F64, layers: list[int]) -> None:
        super().__init__()
        self.shape, self.is_level = (-1, per_step(card), card.horizon), card.transform == "level"
        if self.is_level:
            view = view[1:]  # n levels make n - 1 moves
        self.register_buffer("view", torch.from_numpy(view.astype(np.float32)))
        self.view: Tensor
        self.perceptron = perceptron([view.shape[1] + len(card.features) + future_width(card), *layers])
        self.answer = Answer(layers[-1], per_step(card) * card.horizon)

    def forward(self, window: Tensor, extra: Tensor) -> Tensor:
        own = window[:, 0]
        moves = own[:, 1:] - own[:, :-1] if self.is_level else own
        seen = torch.cat([moves @ self.view, window[:, 1:, -1], extra], dim=1)
        answer: Tensor = self.answer(self.perceptron(seen))
        return answer.reshape(self.shape)


def each_move(lookback: int) -> F64:
    return np.eye(lookback)


def newest_moves(lookback: int) -> F64:
    return np.eye(lookback)[:, -NEWEST:]


def sums(lookback: int) -> F64:
    """How far the price came in the last n bars."""
    return _columns(lookback, lambda n: np.ones(n))


def slopes(lookback: int) -> F64:
    """The least-squares slope of the last n closes."""
    return _columns(lookback, lambda n: _later_sums(np.arange(n, dtype=np.float64) - (n - 1) / 2))


def distances(lookback: int) -> F64:
    """How far the last close is from the mean of the last n."""
    return _columns(lookback, lambda n: _later_sums(np.r_[np.full(n - 1, -1 / n), 1 - 1 / n]))


def _later_sums(of_closes: F64) -> F64:
    """Weights of closes that add up to zero, as weights of the moves between them: [n] -> [n - 1]."""
    moves: F64 = np.cumsum(of_closes[::-1])[::-1][1:]
    return moves


def _columns(lookback: int, weights: Callable[[int], F64]) -> F64:
    """[L, K]: one column a span, oldest bar first, of length 1, so that a walk gives each the variance of a move."""
    columns = []
    for span in SPANS:
        found = weights(span)
        if 0 < len(found) <= lookback:
            columns.append(np.r_[np.zeros(lookback - len(found)), found / np.linalg.norm(found)])
    return np.stack(columns, axis=1)


class Preset(NamedTuple):
    view: Callable[[int], F64]
    layers: list[int]


PRESETS = {
    "momentum": Preset(sums, [16, 8]),
    "reversal": Preset(newest_moves, [24, 12, 6]),
    "trend": Preset(slopes, [16, 8, 4]),
    "mean_reversion": Preset(distances, [24, 12, 6]),
    "sentiment": Preset(sums, [32, 16, 8]),
    "window": Preset(each_move, [32, 16]),
}
