"""TCN: residual blocks of causal convolutions, each looking twice as far apart as the one before. In step mode each
convolution keeps the bars that it looks back on.
"""

from collections.abc import Iterable
from typing import Annotated, ClassVar, cast

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, nn

from tickcast.plugin import Parameter
from tickcast.records import ModelCard
from tickcast_plugins.models.sequence import Outlook, Steps
from tickcast_plugins.models.stepped import Mode, SteppedNet
from tickcast_plugins.models.torch_net import ScaledNet, TorchNet, read_params

Width = Annotated[int, Meta(ge=4, le=1024)]


class TCNParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    hidden: Width = 16
    kernel: Annotated[int, Meta(ge=2, le=9)] = 3
    # width of each block; empty = `hidden`, in as many blocks as see the whole window
    channels: Annotated[list[Width], Meta(max_length=12)] = []
    mode: Mode = "window"


class TCN(TorchNet):
    kind = "tcn"
    space: ClassVar = {"hidden": Parameter("choice", choices=[8, 16, 32, 64]), "kernel": Parameter("int", 2, 5)}

    def __init__(self, card: ModelCard) -> None:
        self.params = read_params(card, TCNParams)
        super().__init__(card)

    def body(self) -> nn.Module:
        return Convolved(self.card, self.params)

    def scaled_net(self) -> ScaledNet:
        return SteppedNet(self.card, self.body()) if self.params.mode == "step" else super().scaled_net()


class Convolved(nn.Module):
    """What the last bar of the last block knows answers. As a step, it stands behind what the blocks look back on."""

    def __init__(self, card: ModelCard, params: TCNParams) -> None:
        super().__init__()
        self.steps = Steps(card)
        widths = params.channels or [params.hidden] * blocks_to_see(card.lookback, params.kernel)
        befores = [self.steps.channels, *widths[:-1]]
        blocks = [CausalBlock(a, b, params.kernel, 2**i) for i, (a, b) in enumerate(zip(befores, widths, strict=True))]
        self.blocks = nn.Sequential(*blocks)
        self.outlook = Outlook(card, widths[-1], params.hidden)
        self.kept = [block.reach * width for block, pair in zip(blocks, zip(befores, widths)) for width in pair]
        self.summary = widths[-1]
        self.state = sum(self.kept) + self.summary

    def forward(self, window: Tensor, extra: Tensor) -> Tensor:
        answer: Tensor = self.outlook(self.read(self.steps(window))[:, -1], extra)
        return answer

    def read(self, bars: Tensor) -> Tensor:
        known: Tensor = self.blocks(bars)
        return known.transpose(1, 2)

    def step(self, bar: Tensor, state: Tensor) -> Tensor:
        kept = state[:, : -self.summary].split_with_sizes(self.kept, dim=1)
        after = []
        for block, first, second in zip(cast(Iterable[CausalBlock], self.blocks), kept[::2], kept[1::2], strict=True):
            bar, first, second = block.step(bar, first, second)
            after += [first, second]
        return torch.cat([*after, bar], dim=1)


class CausalBlock(nn.Module):
    """Two convolutions that see no later bar, beside a way around them."""

    def __init__(self, before: int, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.reach = (kernel - 1) * dilation
        self.first = nn.Conv1d(before, width, kernel, dilation=dilation)
        self.second = nn.Conv1d(width, width, kernel, dilation=dilation)
        self.around = nn.Conv1d(before, width, 1) if before != width else nn.Identity()

    def forward(self, bars: Tensor) -> Tensor:
        hidden = torch.relu(self.first(nn.functional.pad(bars, (self.reach, 0))))
        hidden = self.second(nn.functional.pad(hidden, (self.reach, 0)))
        return torch.relu(hidden + self.around(bars))

    def step(self, bar: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """bar [B, before], and the bars that each convolution keeps, in a row -> the same after it, bar [B, width]."""
        seen = self._with(first, bar)
        hidden = self._with(second, torch.relu(self.first(seen)).squeeze(2))
        out = torch.relu(self.second(hidden) + self.around(bar.unsqueeze(2))).squeeze(2)
        return out, seen[:, :, 1:].flatten(1), hidden[:, :, 1:].flatten(1)

    def _with(self, kept: Tensor, bar: Tensor) -> Tensor:
        """[B, channels, reach + 1]"""
        return torch.cat([torch.unflatten(kept, 1, (-1, self.reach)), bar.unsqueeze(2)], dim=2)


def blocks_to_see(lookback: int, kernel: int) -> int:
    """Blocks, each of two convolutions and twice the dilation of the one before, whose last bar sees `lookback`."""
    blocks, seen = 0, 1
    while seen < lookback:
        seen += 2 * (kernel - 1) * 2**blocks
        blocks += 1
    return max(blocks, 1)
