"""NHITS: neural hierarchical interpolation. Each block looks at the window through its own max-pool, and answers with
a few knots that are interpolated: coarse blocks carry the slow part, fine blocks what the coarse ones left over.
"""

from typing import Annotated, ClassVar

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, nn

from tickcast.errors import BadSettings
from tickcast.plugin import Parameter
from tickcast.records import ModelCard
from tickcast_plugins.models.stacks import Stacks, perceptron
from tickcast_plugins.models.torch_net import Answer, TorchNet, future_width, per_step, read_params

Ratio = Annotated[int, Meta(ge=1, le=4096)]


class NHITSParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    hidden: Annotated[int, Meta(ge=4, le=4096)] = 64
    layers: Annotated[int, Meta(ge=1, le=8)] = 2
    pooling: Annotated[list[Ratio], Meta(min_length=1, max_length=16)] = msgspec.field(
        default_factory=lambda: [4, 2, 1]
    )
    downsample: Annotated[list[Ratio], Meta(max_length=16)] = []  # bars between two knots; empty = as pooling


class NHITS(TorchNet):
    kind = "nhits"
    space: ClassVar = {
        "hidden": Parameter("choice", choices=[32, 64, 128, 256]),
        "layers": Parameter("int", 1, 3),
        "pooling": Parameter("choice", choices=[[1, 1, 1], [4, 2, 1], [8, 4, 1], [16, 8, 1]]),
    }

    def __init__(self, card: ModelCard) -> None:
        self.params = _params(card)
        super().__init__(card)

    def body(self) -> nn.Module:
        card, params = self.card, self.params
        ratios = list(zip(params.pooling, params.downsample or params.pooling, strict=True))
        blocks = [
            NHitsBlock(card, params, pool=pool, downsample=downsample, explains=number + 1 < len(ratios))
            for number, (pool, downsample) in enumerate(ratios)
        ]
        return Stacks(blocks)


def _params(card: ModelCard) -> NHITSParams:
    params = read_params(card, NHITSParams)
    if params.downsample and len(params.downsample) != len(params.pooling):
        raise BadSettings("nhits: downsample must be empty or as long as pooling")
    if max(params.pooling) > card.lookback:
        raise BadSettings(f"nhits: pooling {max(params.pooling)} exceeds the lookback of {card.lookback} bars")
    return params


class NHitsBlock(nn.Module):
    """Max-pool -> perceptron -> knots of backcast and forecast -> linear interpolation."""

    def __init__(self, card: ModelCard, params: NHITSParams, *, pool: int, downsample: int, explains: bool) -> None:
        super().__init__()
        self.pool, self.heads, self.explains = pool, per_step(card), explains
        # a whole number of pools: the oldest lookback % pool bars fall out of this block's view
        self.skip = card.lookback % pool
        inputs = (1 + len(card.features)) * (card.lookback // pool) + future_width(card)
        sizes = [inputs, *[params.hidden] * params.layers]
        self.perceptron = perceptron(sizes)
        knots = -(-card.horizon // downsample)
        self.forecast = Answer(params.hidden, self.heads * knots)
        self.register_buffer("over_horizon", interpolation(knots, card.horizon))
        self.over_horizon: Tensor
        if explains:  # nobody sees what the last block leaves over
            knots = -(-card.lookback // downsample)
            self.backcast = nn.Linear(params.hidden, knots)
            self.register_buffer("over_past", interpolation(knots, card.lookback))
            self.over_past: Tensor

    def forward(self, window: Tensor, extra: Tensor) -> Tensor:
        pooled = window[:, :, self.skip :] if self.skip else window
        if self.pool > 1:
            pooled = nn.functional.max_pool1d(pooled, self.pool)
        flat = pooled.flatten(1)
        if extra.shape[1]:
            flat = torch.cat([flat, extra], dim=1)
        hidden: Tensor = self.perceptron(flat)
        return hidden

    def explain(self, hidden: Tensor) -> Tensor:
        residual: Tensor = self.backcast(hidden) @ self.over_past
        return residual.unsqueeze(1)

    def foresee(self, hidden: Tensor) -> Tensor:
        knots = self.forecast(hidden).unflatten(1, (self.heads, -1))
        forecast: Tensor = knots @ self.over_horizon
        return forecast


def interpolation(knots: int, length: int) -> Tensor:
    """[knots, length]: the matrix that draws straight lines between evenly spaced knots, the ends included."""
    if knots == 1:
        return torch.ones(1, length)
    at = torch.linspace(0, knots - 1, length, dtype=torch.float64)
    distance = (torch.arange(knots, dtype=torch.float64).unsqueeze(1) - at).abs()
    return (1 - distance).clamp(min=0).to(torch.float32)
