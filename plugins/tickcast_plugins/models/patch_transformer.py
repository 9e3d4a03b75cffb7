"""Transformer over patches: a few neighbouring bars make one token, so that long windows stay short sequences."""

from typing import Annotated, ClassVar

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, nn

from tickcast.errors import BadSettings
from tickcast.plugin import Parameter
from tickcast.records import ModelCard
from tickcast_plugins.models.sequence import Attention, Outlook, Steps, check_heads
from tickcast_plugins.models.torch_net import TorchNet, read_params


class TransformerParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    hidden: Annotated[int, Meta(ge=4, le=1024)] = 32
    heads: Annotated[int, Meta(ge=1, le=16)] = 4
    layers: Annotated[int, Meta(ge=1, le=12)] = 2
    patch: Annotated[int, Meta(ge=1, le=512)] = 8  # bars in a token


class Transformer(TorchNet):
    kind = "transformer"
    space: ClassVar = {
        "hidden": Parameter("choice", choices=[16, 32, 64]),
        "heads": Parameter("choice", choices=[1, 2, 4]),
        "layers": Parameter("int", 1, 3),
        "patch": Parameter("choice", choices=[4, 8, 16]),
    }

    def __init__(self, card: ModelCard) -> None:
        self.params = read_params(card, TransformerParams)
        check_heads(card, self.params.hidden, self.params.heads)
        if self.params.patch > card.lookback:
            raise BadSettings(f"transformer: patch {self.params.patch} exceeds the lookback of {card.lookback} bars")
        super().__init__(card)

    def body(self) -> nn.Module:
        return Patched(self.card, self.params)


class Patched(nn.Module):
    def __init__(self, card: ModelCard, params: TransformerParams) -> None:
        super().__init__()
        self.steps = Steps(card)
        self.patch = params.patch
        self.skip = card.lookback % params.patch  # the oldest bars that fill no token
        tokens = card.lookback // params.patch
        self.embed = nn.Linear(self.steps.channels * params.patch, params.hidden)
        self.place = nn.Parameter(torch.empty(tokens, params.hidden))
        self.layers = nn.Sequential(*(Layer(params.hidden, params.heads) for _ in range(params.layers)))
        self.norm = nn.LayerNorm(params.hidden)
        self.outlook = Outlook(card, tokens * params.hidden, params.hidden)

    def forward(self, window: Tensor, extra: Tensor) -> Tensor:
        bars = self.steps(window)[:, :, self.skip :]
        tokens = bars.unflatten(2, (-1, self.patch)).transpose(1, 2).flatten(2)
        seen = self.norm(self.layers(self.embed(tokens) + self.place))
        answer: Tensor = self.outlook(seen.flatten(1), extra)
        return answer


class Layer(nn.Module):
    """Attention, then a perceptron, each beside a way around it; the norm comes first."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.before_attention, self.before_mix = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.attention = Attention(hidden, heads)
        self.mix = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, hidden))

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.before_attention(tokens)
        tokens = tokens + self.attention(normed, normed)
        mixed: Tensor = tokens + self.mix(self.before_mix(tokens))
        return mixed
