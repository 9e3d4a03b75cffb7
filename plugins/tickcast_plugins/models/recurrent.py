"""LSTM, GRU, and LSTM with attention: the window is read bar by bar, and one answer given for the whole horizon.
LSTM and GRU have a step mode too.
"""

from typing import Annotated, ClassVar

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, nn

from tickcast.plugin import Parameter
from tickcast.records import ModelCard
from tickcast_plugins.models.sequence import Attention, Outlook, Steps, check_heads
from tickcast_plugins.models.stepped import Mode, SteppedNet
from tickcast_plugins.models.torch_net import ScaledNet, TorchNet, read_params

SPACE = {"hidden": Parameter("choice", choices=[16, 32, 64, 128]), "layers": Parameter("int", 1, 2)}


class RecurrentParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    hidden: Annotated[int, Meta(ge=4, le=1024)] = 32
    layers: Annotated[int, Meta(ge=1, le=4)] = 1
    mode: Mode = "window"


class AttentionParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    hidden: Annotated[int, Meta(ge=4, le=1024)] = 32
    layers: Annotated[int, Meta(ge=1, le=4)] = 1
    heads: Annotated[int, Meta(ge=1, le=16)] = 4


class Recurrent(TorchNet):
    """What GRU and LSTM share: all but the cell."""

    space = SPACE
    cell: ClassVar[type[nn.GRU] | type[nn.LSTM]]

    def __init__(self, card: ModelCard) -> None:
        self.params = read_params(card, RecurrentParams)
        super().__init__(card)

    def body(self) -> nn.Module:
        return StateReader(self.card, self.cell, self.params)

    def scaled_net(self) -> ScaledNet:
        return SteppedNet(self.card, self.body()) if self.params.mode == "step" else super().scaled_net()


class GRU(Recurrent):
    kind = "gru"
    cell = nn.GRU


class LSTM(Recurrent):
    kind = "lstm"
    cell = nn.LSTM


class LSTMAttention(TorchNet):
    kind = "lstm_attention"
    space: ClassVar = {**SPACE, "heads": Parameter("choice", choices=[1, 2, 4])}

    def __init__(self, card: ModelCard) -> None:
        self.params = read_params(card, AttentionParams)
        check_heads(card, self.params.hidden, self.params.heads)
        super().__init__(card)

    def body(self) -> nn.Module:
        return AttentiveReader(self.card, self.params)


class StateReader(nn.Module):
    """The state after the last bar answers. As a step, its state is a row of what the cell carries, layer by layer."""

    def __init__(self, card: ModelCard, cell: type[nn.GRU] | type[nn.LSTM], params: RecurrentParams) -> None:
        super().__init__()
        self.steps = Steps(card)
        self.cell = cell(self.steps.channels, params.hidden, params.layers, batch_first=True)
        self.outlook = Outlook(card, params.hidden, params.hidden)
        self.carried = 2 if cell is nn.LSTM else 1  # of the cell, for each layer
        self.summary = params.hidden
        self.state = self.carried * params.layers * params.hidden

    def forward(self, window: Tensor, extra: Tensor) -> Tensor:
        answer: Tensor = self.outlook(self.read(self.steps(window))[:, -1], extra)
        return answer

    def read(self, bars: Tensor) -> Tensor:
        states: Tensor = self.cell(bars.transpose(1, 2))[0]
        return states

    def step(self, bar: Tensor, state: Tensor) -> Tensor:
        """A layer's memory, where it has one, stands before all layers' outputs."""
        layers = self.cell.all_weights
        *memories, outputs = (part.chunk(len(layers), dim=1) for part in state.chunk(self.carried, dim=1))
        after: list[list[Tensor]] = [[] for _ in range(self.carried)]
        for i, weights in enumerate(layers):
            if memories:
                bar, memory = torch.lstm_cell(bar, (outputs[i], memories[0][i]), *weights)
                after[0].append(memory)
            else:
                bar = torch.gru_cell(bar, outputs[i], *weights)
            after[-1].append(bar)
        return torch.cat([part for group in after for part in group], dim=1)


class AttentiveReader(nn.Module):
    """The state after the last bar asks which earlier states matter, and answers with what it is told."""

    def __init__(self, card: ModelCard, params: AttentionParams) -> None:
        super().__init__()
        self.steps = Steps(card)
        self.cell = nn.LSTM(self.steps.channels, params.hidden, params.layers, batch_first=True)
        self.attention = Attention(params.hidden, params.heads)
        self.outlook = Outlook(card, 2 * params.hidden, params.hidden)

    def forward(self, window: Tensor, extra: Tensor) -> Tensor:
        states, _ = self.cell(self.steps(window).transpose(1, 2))
        last = states[:, -1:]
        answer: Tensor = self.outlook(torch.cat([last, self.attention(last, states)], dim=2).squeeze(1), extra)
        return answer
