"""LSTM, GRU, and LSTM with attention: the window is read bar by bar, and one answer given for the whole horizon."""

from typing import Annotated, ClassVar

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, nn

from tickcast.plugin import Parameter
from tickcast.records import ModelCard
from tickcast_plugins.models.sequence import Attention, Outlook, Steps, check_heads
from tickcast_plugins.models.torch_net import TorchNet, read_params

SPACE = {"hidden": Parameter("choice", choices=[16, 32, 64, 128]), "layers": Parameter("int", 1, 2)}


class RecurrentParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    hidden: Annotated[int, Meta(ge=4, le=1024)] = 32
    layers: Annotated[int, Meta(ge=1, le=4)] = 1


class AttentionParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    hidden: Annotated[int, Meta(ge=4, le=1024)] = 32
    layers: Annotated[int, Meta(ge=1, le=4)] = 1
    heads: Annotated[int, Meta(ge=1, le=16)] = 4


class GRU(TorchNet):
    kind = "gru"
    space = SPACE

    def __init__(self, card: ModelCard) -> None:
        self.params = read_params(card, RecurrentParams)
        super().__init__(card)

    def body(self) -> nn.Module:
        return Reader(self.card, nn.GRU, self.params)


class LSTM(TorchNet):
    kind = "lstm"
    space = SPACE

    def __init__(self, card: ModelCard) -> None:
        self.params = read_params(card, RecurrentParams)
        super().__init__(card)

    def body(self) -> nn.Module:
        return Reader(self.card, nn.LSTM, self.params)


class LSTMAttention(TorchNet):
    kind = "lstm_attention"
    space: ClassVar = {**SPACE, "heads": Parameter("choice", choices=[1, 2, 4])}

    def __init__(self, card: ModelCard) -> None:
        self.params = read_params(card, AttentionParams)
        check_heads(card, self.params.hidden, self.params.heads)
        super().__init__(card)

    def body(self) -> nn.Module:
        return AttentiveReader(self.card, self.params)


class Reader(nn.Module):
    """The state after the last bar answers."""

    def __init__(self, card: ModelCard, cell: type[nn.GRU] | type[nn.LSTM], params: RecurrentParams) -> None:
        super().__init__()
        self.steps = Steps(card)
        self.cell = cell(self.steps.channels, params.hidden, params.layers, batch_first=True)
        self.outlook = Outlook(card, params.hidden, params.hidden)

    def forward(self, window: Tensor, extra: Tensor) -> Tensor:
        states, _ = self.cell(self.steps(window).transpose(1, 2))
        answer: Tensor = self.outlook(states[:, -1], extra)
        return answer


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
