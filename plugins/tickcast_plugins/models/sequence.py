"""Parts of the nets that read a window bar by bar: its channels, what answers from its summary, and attention.

It holds no net of its own.
"""

import math

import torch
from torch import Tensor, nn

from tickcast.errors import BadSettings
from tickcast.records import ModelCard
from tickcast_plugins.models.torch_net import Answer, future_width, per_step


class Steps(nn.Module):
    """window [B, F, L] -> [B, channels, L]. A level enters as the move that led to it, and as itself over the root
    of the look-back, which is how far a walk gets: so both stay where a gate can tell values apart.
    """

    def __init__(self, card: ModelCard) -> None:
        super().__init__()
        self.is_level = card.transform == "level"
        self.channels = 1 + len(card.features) + int(self.is_level)
        self.reach = math.sqrt(card.lookback)

    def forward(self, window: Tensor) -> Tensor:
        if not self.is_level:
            return window
        own = window[:, :1]
        moves = nn.functional.pad(own[:, :, 1:] - own[:, :, :-1], (1, 0))
        return torch.cat([moves, own / self.reach, window[:, 1:]], dim=1)


class Outlook(nn.Module):
    """summary [B, width] and extra [B, E] -> [B, Q, H] through one hidden layer."""

    def __init__(self, card: ModelCard, width: int, hidden: int) -> None:
        super().__init__()
        self.shape = -1, per_step(card), card.horizon
        self.mix = nn.Linear(width + future_width(card), hidden)
        self.answer = Answer(hidden, per_step(card) * card.horizon)

    def forward(self, summary: Tensor, extra: Tensor) -> Tensor:
        if extra.shape[1]:
            summary = torch.cat([summary, extra], dim=1)
        answer: Tensor = self.answer(torch.relu(self.mix(summary)))
        return answer.reshape(self.shape)


class Attention(nn.Module):
    """Multi-head attention of asked [B, N, hidden] over seen [B, M, hidden]; without dropout."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads, self.root = heads, math.sqrt(hidden // heads)
        self.query = nn.Linear(hidden, hidden)
        self.key_value = nn.Linear(hidden, 2 * hidden)
        self.merge = nn.Linear(hidden, hidden)

    def forward(self, asked: Tensor, seen: Tensor) -> Tensor:
        query = self._split(self.query(asked))
        key, value = (self._split(part) for part in self.key_value(seen).chunk(2, dim=-1))
        weights = (query @ key.transpose(-1, -2) / self.root).softmax(dim=-1)
        merged: Tensor = self.merge((weights @ value).transpose(1, 2).flatten(2))
        return merged

    def _split(self, joined: Tensor) -> Tensor:
        """[B, N, hidden] -> [B, heads, N, hidden / heads]"""
        return torch.unflatten(joined, -1, (self.heads, -1)).transpose(1, 2)


def check_heads(card: ModelCard, hidden: int, heads: int) -> None:
    if hidden % heads:
        raise BadSettings(f"{card.kind}: hidden {hidden} is no multiple of heads {heads}")
