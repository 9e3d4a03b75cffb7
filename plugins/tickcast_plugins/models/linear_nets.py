"""NLinear and DLinear: one linear map from the window to the forecast, which every deeper net has to beat."""

from typing import Annotated, ClassVar

import msgspec
import numpy as np
import torch
from msgspec import Meta
from torch import Tensor, nn

from tickcast.columns import F64
from tickcast.plugin import Parameter
from tickcast.records import ModelCard
from tickcast_plugins.models.torch_net import Answer, TorchNet, future_width, per_step, read_params


class NLinearParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card: there are none."""


class DLinearParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    smooth: Annotated[int, Meta(ge=2, le=4096)] = 25  # bars in the moving average that counts as trend


class NLinear(TorchNet):
    """The paper's net subtracts the last value and adds it again; moves from the anchor are just that."""

    kind = "nlinear"
    space: ClassVar[dict[str, Parameter]] = {}  # there is only its training to tune

    def __init__(self, card: ModelCard) -> None:
        self.params = read_params(card, NLinearParams)
        super().__init__(card)

    def body(self) -> nn.Module:
        return Linear(self.card)


class DLinear(TorchNet):
    """The path of the window is split into a moving average and the rest, each with a map of its own."""

    kind = "dlinear"
    space: ClassVar = {"smooth": Parameter("int", 5, 64, log=True)}

    def __init__(self, card: ModelCard) -> None:
        self.params = read_params(card, DLinearParams)
        super().__init__(card)

    def body(self) -> nn.Module:
        return Split(self.card, self.params.smooth)


class Linear(nn.Module):
    def __init__(self, card: ModelCard) -> None:
        super().__init__()
        self.shape = -1, per_step(card), card.horizon
        inputs = (1 + len(card.features)) * card.lookback + future_width(card)
        self.answer = Answer(inputs, per_step(card) * card.horizon)

    def forward(self, window: Tensor, extra: Tensor) -> Tensor:
        answer: Tensor = self.answer(torch.cat([window.flatten(1), extra], dim=1))
        return answer.reshape(self.shape)


class Split(nn.Module):
    def __init__(self, card: ModelCard, smooth: int) -> None:
        super().__init__()
        trend, rest = decomposition(card.lookback, smooth, is_level=card.transform == "level")
        self.register_buffer("trend", torch.from_numpy(trend.astype(np.float32)))
        self.register_buffer("rest", torch.from_numpy(rest.astype(np.float32)))
        self.trend: Tensor
        self.rest: Tensor
        self.of_rest = Linear(card)  # with all other channels
        self.of_trend = Answer(card.lookback, per_step(card) * card.horizon)

    def forward(self, window: Tensor, extra: Tensor) -> Tensor:
        own = window[:, :1]
        rest = torch.cat([own @ self.rest, window[:, 1:]], dim=1)
        trend: Tensor = self.of_trend((own @ self.trend).squeeze(1))
        answer: Tensor = self.of_rest(rest, extra) + trend.reshape(self.of_rest.shape)
        return answer


def decomposition(lookback: int, smooth: int, *, is_level: bool) -> tuple[F64, F64]:
    """Two [L, L]: window @ one = moving average of the path to the anchor, the ends repeated; @ other = the rest.

    Both are divided by the root of the look-back, which is how far a walk gets.
    """
    path = np.eye(lookback) if is_level else -np.tri(lookback, lookback, -1)  # where the path was, from later moves
    average = np.zeros((lookback, lookback))
    for bar in range(lookback):
        seen = np.arange(bar - (smooth - 1) // 2, bar + smooth // 2 + 1).clip(0, lookback - 1)
        np.add.at(average[:, bar], seen, 1 / smooth)
    root = np.sqrt(lookback)
    return path @ average / root, path @ (np.eye(lookback) - average) / root
