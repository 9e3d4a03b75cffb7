"""A compact Temporal Fusion Transformer: channels are weighed bar by bar, an LSTM reads the window and then the
calendar of the horizon, and attention looks back from every step. One width for all; no static inputs.
"""

import math
from typing import Annotated, ClassVar

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, nn

from tickcast.plugin import Parameter
from tickcast.records import ModelCard
from tickcast_plugins.models.sequence import Steps, check_heads
from tickcast_plugins.models.torch_net import Answer, TorchNet, per_step, read_params


class TFTParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    hidden: Annotated[int, Meta(ge=4, le=512)] = 32
    heads: Annotated[int, Meta(ge=1, le=16)] = 4


class TFT(TorchNet):
    kind = "tft"
    space: ClassVar = {
        "hidden": Parameter("choice", choices=[16, 32, 64]),
        "heads": Parameter("choice", choices=[1, 2, 4]),
    }

    def __init__(self, card: ModelCard) -> None:
        self.params = read_params(card, TFTParams)
        check_heads(card, self.params.hidden, self.params.heads)
        super().__init__(card)

    def body(self) -> nn.Module:
        return Fusion(self.card, self.params)


class Fusion(nn.Module):
    def __init__(self, card: ModelCard, params: TFTParams) -> None:
        super().__init__()
        hidden, self.horizon = params.hidden, card.horizon
        self.steps = Steps(card)
        self.select = Selection(self.steps.channels, hidden)
        self.calendar = nn.Linear(1 + 2 * len(card.future), hidden)
        ahead = torch.arange(1, card.horizon + 1, dtype=torch.float32) / card.horizon
        self.register_buffer("ahead", ahead.reshape(1, -1, 1))
        self.ahead: Tensor
        self.past, self.coming = (nn.LSTM(hidden, hidden, batch_first=True) for _ in range(2))
        self.after_reading, self.after_attention, self.after_mix = (GatedSkip(hidden) for _ in range(3))
        self.attention = ReadableAttention(hidden, params.heads, card.lookback, card.horizon)
        self.mix = GatedResidual(hidden, hidden)
        self.answer = Answer(hidden, per_step(card))

    def forward(self, window: Tensor, extra: Tensor) -> Tensor:
        selected = self.select(self.steps(window).transpose(1, 2))
        known = self.ahead.expand(window.shape[0], -1, -1)
        if extra.shape[1]:
            known = torch.cat([known, torch.unflatten(extra, 1, (self.horizon, -1))], dim=2)
        calendar = self.calendar(known)
        states, last = self.past(selected)
        ahead, _ = self.coming(calendar, last)
        read = self.after_reading(torch.cat([states, ahead], dim=1), torch.cat([selected, calendar], dim=1))
        asked = read[:, -self.horizon :]
        told = self.after_attention(self.attention(asked, read), asked)
        answer: Tensor = self.answer(self.after_mix(self.mix(told), asked))
        return answer.transpose(1, 2)


class Selection(nn.Module):
    """Weighs the channels of each bar against each other: [B, L, channels] -> [B, L, hidden]."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(nn.Linear(channels, hidden), nn.ELU(), nn.Linear(hidden, channels))
        self.embed = nn.Parameter(torch.empty(channels, hidden))
        self.bias = nn.Parameter(torch.empty(channels, hidden))

    def forward(self, bars: Tensor) -> Tensor:
        weights = self.weigh(bars).softmax(dim=2)
        selected: Tensor = (weights * bars) @ self.embed + weights @ self.bias
        return selected


class GatedSkip(nn.Module):
    """How much of `new` is let through beside the way around it."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden, 2 * hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, new: Tensor, old: Tensor) -> Tensor:
        value, gate = self.gate(new).chunk(2, dim=-1)
        let_through: Tensor = self.norm(old + value * torch.sigmoid(gate))
        return let_through


class GatedResidual(nn.Module):
    """Two layers behind a gate."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.ELU(), nn.Linear(hidden, hidden))
        self.skip = GatedSkip(hidden)

    def forward(self, old: Tensor) -> Tensor:
        new: Tensor = self.skip(self.layers(old), old)
        return new


class ReadableAttention(nn.Module):
    """Heads share their values, so the mean of their weights says how much each bar counted. No step sees a later."""

    def __init__(self, hidden: int, heads: int, lookback: int, horizon: int) -> None:
        super().__init__()
        self.heads, self.root = heads, math.sqrt(hidden // heads)
        self.query, self.key = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.value, self.merge = nn.Linear(hidden, hidden // heads), nn.Linear(hidden // heads, hidden)
        later = torch.ones(horizon, lookback + horizon).triu(lookback + 1) * -1e9
        self.register_buffer("later", later)
        self.later: Tensor

    def forward(self, asked: Tensor, seen: Tensor) -> Tensor:
        query, key = (
            joined.unflatten(-1, (self.heads, -1)).transpose(1, 2) for joined in (self.query(asked), self.key(seen))
        )
        weights = (query @ key.transpose(-1, -2) / self.root + self.later).softmax(dim=-1)
        merged: Tensor = self.merge(weights.mean(dim=1) @ self.value(seen))
        return merged
