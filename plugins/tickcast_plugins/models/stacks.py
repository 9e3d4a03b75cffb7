"""Residual stacks of perceptrons, which NHITS and N-BEATS share. It knows no block by name."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Protocol, cast

import torch
from torch import Tensor, nn


class StackBlock(Protocol):
    """Explains a part of the window and forecasts from it; called with (window [B, F, L], extra [B, E])."""

    explains: bool  # the last block does not: nobody sees what it leaves over

    def __call__(self, window: Tensor, extra: Tensor) -> Tensor:
        """What it sees, as hidden [B, hidden]."""

    def explain(self, hidden: Tensor) -> Tensor:
        """The part [B, 1, L] of the first channel that the next blocks need not see."""

    def foresee(self, hidden: Tensor) -> Tensor:
        """Its part [B, Q, H] of the forecast."""


class Stacks(nn.Module):
    """Residual stacking: each block sees what the blocks before it did not explain; forecasts add up."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, window: Tensor, extra: Tensor) -> Tensor:
        own, others = window[:, :1], window[:, 1:]
        total: Tensor | None = None
        for block in cast("Iterable[StackBlock]", self.blocks):
            seen = torch.cat([own, others], dim=1) if others.shape[1] else own
            hidden = block(seen, extra)
            forecast = block.foresee(hidden)
            total = forecast if total is None else total + forecast
            if block.explains:
                own = own - block.explain(hidden)
        assert total is not None
        return total


def perceptron(sizes: Sequence[int]) -> nn.Sequential:
    """Linear and ReLU between each two neighbours of `sizes`."""
    layers: list[nn.Module] = []
    for width, following in pairwise(sizes):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers)
