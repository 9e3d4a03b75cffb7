"""The step mode of nets that read a window bar by bar: the same weights as a sequence over a window, and as one step of
a state. Nothing in it looks at a window as a whole, so a bar is read once, when it closes.

The unit is causal too: the root of the exponentially weighted mean square of the moves so far, which is part of the
state. A bar under mask 0 leaves the state as it is: the sequence skips it.
"""

from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn

from tickcast.errors import BadSettings
from tickcast.records import ModelCard
from tickcast_plugins.models.torch_net import SCALE_FLOOR, QuantileHead, ScaledNet

Mode = Literal["window", "step"]
LEAST = 1e-9  # weight of a state that has seen nothing
OWN = 2  # numbers of the scaler, before those of the body


class Steppable(Protocol):
    """A body that is a sequence and a step. Its state is zeros at first; the last `summary` numbers of it answer."""

    state: int
    summary: int
    outlook: nn.Module

    def read(self, bars: Tensor) -> Tensor:
        """bars [B, F, L] -> summaries [B, L, summary] after each bar, from a state of zeros."""

    def step(self, bar: Tensor, state: Tensor) -> Tensor:
        """bar [B, F], state [B, state] -> the state after it."""


class SteppedNet(ScaledNet):
    """As ScaledNet, of a Steppable body, with a causal unit and quantiles. `forward` is the sequence form."""

    def __init__(self, card: ModelCard, body: nn.Module) -> None:
        if card.transform == "level":
            raise BadSettings(
                f"{card.kind}: a step reads moves, and a level is none",
                remedy="set forecast.transform = difference: it forecasts the same moves; or mode = window",
            )
        if card.scale != "rms":
            raise BadSettings(
                f"{card.kind}: a step has a scale of its own, not {card.scale}",
                remedy="set window.scale = rms, or mode = window",
            )
        super().__init__(card, body, QuantileHead(card.horizon, card.levels))
        self.keep = 1 - 2 / (card.lookback + 1)  # so that the mean age of a move is that of the window's moves
        bars = torch.arange(card.lookback, dtype=torch.float64)
        ages = bars - bars.unsqueeze(1)  # [from, to]
        weights = torch.where(ages >= 0, (1 - self.keep) * self.keep ** ages.clamp(min=0), 0.0)
        self.register_buffer("weights", weights.float(), persistent=False)
        self.register_buffer("bars", bars.float(), persistent=False)
        self.weights: Tensor
        self.bars: Tensor

    @property
    def reader(self) -> Steppable:
        return cast(Steppable, self.body)

    @property
    def state_width(self) -> int:
        return OWN + self.reader.state

    def forward(self, past: Tensor, mask: Tensor, future: Tensor, static: Tensor) -> Tensor:
        usable = mask > 0
        length = past.shape[1]
        order = torch.where(usable, self.bars, self.bars + length).argsort(dim=1)  # usable bars first, as they came
        bars = self.channels(past, usable).gather(1, order.unsqueeze(2).expand(-1, -1, past.shape[2]))
        squares = (bars[:, :, 0] ** 2) @ self.weights
        scale = self.unit(squares, self.weights.sum(dim=0))
        bars = torch.cat([bars[:, :, :1] / scale.unsqueeze(2), bars[:, :, 1:]], dim=2)
        count = usable.sum(dim=1, keepdim=True)
        last = (count - 1).clamp(min=0)
        read = self.reader.read(bars.transpose(1, 2))
        summary = read.gather(1, last.unsqueeze(2).expand(-1, -1, read.shape[2])).squeeze(1) * (count > 0)
        return self.answer(summary, scale.gather(1, last), future, static)

    def step(self, state: Tensor, bar: Tensor, mask: Tensor, future: Tensor, static: Tensor) -> tuple[Tensor, Tensor]:
        """state [B, state_width], bar [B, F], mask [B] -> the state after the bar, and the quantiles there."""
        usable = mask.unsqueeze(1) > 0
        bar = self.channels(bar.unsqueeze(1), usable).squeeze(1)
        squares = self.keep * state[:, :1] + (1 - self.keep) * bar[:, :1] ** 2
        weight = self.keep * state[:, 1:OWN] + (1 - self.keep)
        scaled = torch.cat([bar[:, :1] / self.unit(squares, weight), bar[:, 1:]], dim=1)
        after = torch.cat([squares, weight, self.reader.step(scaled, state[:, OWN:])], dim=1)
        state = torch.where(usable, after, state)
        scale = self.unit(state[:, :1], state[:, 1:OWN].clamp(min=LEAST))
        return state, self.answer(state[:, -self.reader.summary :], scale, future, static)

    def channels(self, past: Tensor, usable: Tensor) -> Tensor:
        """[B, L, F]: the moves, and the other channels as a fit scaled them; zeros where nothing is known."""
        if past.shape[2] > 1:
            others = self.scaled(past[:, :, 1:].transpose(1, 2)).transpose(1, 2)
            past = torch.cat([past[:, :, :1], others], dim=2)
        return torch.where(usable.unsqueeze(2), past, self.zero)

    def unit(self, squares: Tensor, weight: Tensor) -> Tensor:
        return (squares / weight).sqrt().clamp(min=SCALE_FLOOR)

    def answer(self, summary: Tensor, scale: Tensor, future: Tensor, static: Tensor) -> Tensor:
        raw = self.reader.outlook(summary, torch.cat([future.flatten(1), static], dim=1))
        quantiles: Tensor = self.head(raw) * scale.unsqueeze(-1)
        return quantiles
