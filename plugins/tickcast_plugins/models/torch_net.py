"""What every torch model shares: its parameters, the scale of a window, scaled channels, quantiles that cannot cross,
and its files.

All of it is part of the graph that is exported; nothing in it draws random numbers.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, ClassVar, Literal, TypeVar

import msgspec
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tickcast.columns import F32, F64, Inputs
from tickcast.direction import LABELS
from tickcast.errors import BadModel, BadSettings
from tickcast.plugin import Parameter
from tickcast.records import ModelCard
from tickcast.scales import LEAST_RATIO, LEAST_WEIGHT, bar_weights, speeds
from tickcast_plugins.models.direction import BAND, Band
from tickcast_plugins.models.direction_head import DirectionHead

SCALE_FLOOR = 1e-8  # the one-bar move of a window that never moved
WEIGHTS = "weights.safetensors"
Params = TypeVar("Params", bound=msgspec.Struct)


class HeadParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every net takes beside its own `model_params`."""

    head: Literal["quantiles", "direction"] = "quantiles"  # direction: down, flat or up, and quantiles from these
    band: Band = BAND  # of direction: how far a move may go and still be flat


def read_params(card: ModelCard, known: type[Params]) -> Params:
    """`model_params` of a card, refused by name where they are not what the kind takes."""
    return _converted(
        card, known, {k: v for k, v in card.model_params.items() if k not in HeadParams.__struct_fields__}
    )


def _head_params(card: ModelCard) -> HeadParams:
    given = {k: v for k, v in card.model_params.items() if k in HeadParams.__struct_fields__}
    if "band" in given and given.get("head") != "direction":
        raise BadSettings(f"{card.kind}: band is that of head direction", remedy="set head = direction, or no band")
    return _converted(card, HeadParams, given)


def _converted(card: ModelCard, known: type[Params], given: dict[str, Any]) -> Params:
    try:
        return msgspec.convert(given, known)
    except msgspec.ValidationError as error:
        names = ", ".join({**dict.fromkeys(known.__struct_fields__), **dict.fromkeys(HeadParams.__struct_fields__)})
        raise BadSettings(f"{card.kind}: {error}", remedy=f"parameters: {names}") from None


def per_step(card: ModelCard) -> int:
    """Numbers that a body gives for a step: one a class where there are classes, else one a level."""
    return len(card.labels) or len(card.levels)


def future_width(card: ModelCard) -> int:
    """Numbers in the calendar of all target bars: `extra` of a body."""
    return 2 * len(card.future) * card.horizon


class Answer(nn.Linear):
    """The last layer of a body. It starts at zero, and so the forecast as last value."""


class QuantileHead(nn.Module):
    """Median and positive gaps -> quantiles. Raw zeros give last value with the spread of a random walk."""

    def __init__(self, horizon: int, levels: Sequence[float]) -> None:
        super().__init__()
        median = list(levels).index(0.5)
        sums = np.zeros((len(levels), len(levels)), np.float32)  # (median, gaps) @ sums = quantiles
        sums[0] = 1
        for gap in range(len(levels) - 1):
            if gap < median:
                sums[1 + gap, : gap + 1] = -1
            else:
                sums[1 + gap, gap + 1 :] = 1
        self.register_buffer("sums", torch.from_numpy(sums))
        self.register_buffer("unit", torch.zeros(len(levels) - 1, horizon))
        self.sums: Tensor
        self.unit: Tensor
        deviates = np.array([NormalDist().inv_cdf(level) for level in levels])
        root = np.sqrt(np.arange(1, horizon + 1))
        self.set_gaps(root[:, None] * np.diff(deviates)[None, :])

    def set_gaps(self, gaps: F64) -> None:
        """The gaps [H, Q - 1] that raw zeros give."""
        self.unit.copy_(torch.from_numpy(np.maximum(gaps, 1e-6).T.astype(np.float32)))

    def forward(self, raw: Tensor) -> Tensor:
        """raw [B, Q, H]: the median, then the gaps."""
        wide = raw[:, 1:]
        gaps = (wide + (wide * wide + 4).sqrt()) * (0.5 * self.unit)  # positive like softplus, at a tenth of its cost
        return torch.cat([raw[:, :1], gaps], dim=1).transpose(1, 2) @ self.sums


class ScaledNet(nn.Module):
    """Wraps a body that works in one-bar moves of its window: body(window [B, F, L], extra [B, E]) -> [B, Q, H]."""

    def __init__(self, card: ModelCard, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.is_level = card.transform == "level"
        self.logged = [i for i, spec in enumerate(card.features) if spec.normalization == "log"]
        self.body = body
        self.head = head
        self.register_buffer("center", torch.zeros(len(card.features)))
        self.register_buffer("spread", torch.ones(len(card.features)))
        self.register_buffer("zero", torch.zeros(()), persistent=False)
        keep, share = speeds(card.scale, card.lookback)
        self.forecasts_scale = len(keep) > 0
        if self.forecasts_scale:
            for name, array in (("bar_weights", bar_weights(keep, card.lookback)), ("share", share[:, None])):
                self.register_buffer(name, torch.from_numpy(array.astype(np.float32)), persistent=False)
        self.center: Tensor
        self.spread: Tensor
        self.zero: Tensor
        self.bar_weights: Tensor
        self.share: Tensor

    def forward(self, past: Tensor, mask: Tensor, future: Tensor, static: Tensor) -> Tensor:
        window, extra, scale = self.seen(past, mask, future, static)
        raw = self.body(window, extra)
        quantiles: Tensor = self.head(raw) * scale.unsqueeze(-1)
        return quantiles

    def seen(self, past: Tensor, mask: Tensor, future: Tensor, static: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Window and extra as the body gets them, and the scale [B, 1]."""
        usable, zero = mask > 0, self.zero
        own = torch.where(usable, past[:, :, :1].flatten(1), zero)  # [:, :, 0] becomes a Gather, a third of the call
        scale = self.scale(own, mask)
        window = (own / scale).unsqueeze(1)
        if past.shape[2] > 1:
            others = self.scaled(past[:, :, 1:].transpose(1, 2))
            window = torch.cat([window, torch.where(usable.unsqueeze(1), others, zero)], dim=1)
        return window, torch.cat([future.flatten(1), static], dim=1), scale

    def scale(self, own: Tensor, mask: Tensor) -> Tensor:
        """[B, 1]: RMS one-bar move of the usable bars; for levels, of the steps between neighbours that both are. Or
        what the card's scale makes of the same moves.
        """
        if self.is_level:
            own, mask = own[:, 1:] - own[:, :-1], mask[:, 1:] * mask[:, :-1]
        if self.forecasts_scale:
            return self.forecast_scale(own * own * mask, mask)
        squares = (own * own * mask).sum(dim=1, keepdim=True)
        moves = mask.sum(dim=1, keepdim=True).clamp(min=1.0)
        return (squares / moves).sqrt().clamp(min=SCALE_FLOOR)

    def forecast_scale(self, squares: Tensor, mask: Tensor) -> Tensor:
        """[B, 1]: as `windows.rescale` has it."""
        weights = self.bar_weights[1:] if self.is_level else self.bar_weights
        means = (squares @ weights) / (mask @ weights).clamp(min=LEAST_WEIGHT)
        slowest = means[:, -1:].clamp(min=SCALE_FLOOR**2)
        logs = (means / slowest).clamp(min=LEAST_RATIO).log() @ self.share
        scale: Tensor = (slowest.log() + logs).mul(0.5).exp().clamp(min=SCALE_FLOOR)
        return scale

    def scaled(self, others: Tensor) -> Tensor:
        if self.logged:
            flag = torch.zeros(others.shape[1], 1)
            flag[self.logged] = 1.0
            others = others + flag * (others.sign() * others.abs().log1p() - others)
        scaled: Tensor = (others - self.center.unsqueeze(-1)) / self.spread.unsqueeze(-1)
        return scaled


class DirectionNet(ScaledNet):
    """A ScaledNet that answers down, flat or up, and with the quantiles that follow."""

    head: DirectionHead

    def forward(self, past: Tensor, mask: Tensor, future: Tensor, static: Tensor) -> Tensor:
        return self.answers(past, mask, future, static)[0]

    def answers(self, past: Tensor, mask: Tensor, future: Tensor, static: Tensor) -> tuple[Tensor, Tensor]:
        """Quantiles [B, H, Q] and the probabilities [B, H, C] of the classes."""
        window, extra, scale = self.seen(past, mask, future, static)
        probs = self.head.probs(self.body(window, extra))
        return self.head(probs) * scale.unsqueeze(-1), probs

    def cross_entropy(self, past: Tensor, mask: Tensor, future: Tensor, static: Tensor, moves: Tensor) -> Tensor:
        """Mean negative logarithm of what the classes of the true moves [B, H], in one-bar moves, were given."""
        window, extra, _ = self.seen(past, mask, future, static)
        return self.head.cross_entropy(self.head.probs(self.body(window, extra)), moves)

    def learn_classes(self, moves: F64) -> None:
        """How often each class comes, and how far its moves go: [N, H] of the training part, in one-bar moves."""
        self.head.learn(moves)


class TorchNet(ABC):
    """The plugin.Net around a module; subclasses say how the body is built."""

    kind = ""
    device = "cpu"
    space: ClassVar[dict[str, Parameter]]  # of plugin.Tunable

    def __init__(self, card: ModelCard) -> None:
        if 0.5 not in card.levels or sorted(card.levels) != list(card.levels):
            raise BadSettings(f"{self.kind}: levels must ascend and hold 0.5")
        head = _head_params(card)
        if head.head == "direction":
            card = msgspec.structs.replace(
                card, labels=LABELS, model_params={**card.model_params, **msgspec.to_builtins(head)}
            )
        self.card, self.band = card, head.band
        self._module = self.scaled_net()
        if card.labels and not isinstance(self._module, DirectionNet):
            raise BadSettings(
                f"{self.kind}: it cannot answer in classes", remedy="leave out head, or take another kind"
            )
        _start(self._module, torch.Generator().manual_seed(card.seed))

    @abstractmethod
    def body(self) -> nn.Module:
        """The network between the scaling of the inputs and that of the quantiles."""

    def scaled_net(self) -> ScaledNet:
        if self.card.labels:
            head = DirectionHead(self.card.horizon, self.card.levels, self.band)
            return DirectionNet(self.card, self.body(), head)
        return ScaledNet(self.card, self.body(), QuantileHead(self.card.horizon, self.card.levels))

    def module(self) -> ScaledNet:
        return self._module

    def set_channels(self, center: F64, spread: F64) -> None:
        self._module.center.copy_(torch.from_numpy(center))
        self._module.spread.copy_(torch.from_numpy(spread))

    def set_gaps(self, gaps: F64) -> None:
        self._module.head.set_gaps(gaps)  # type: ignore[operator]

    def save(self, folder: Path) -> None:
        save_file({name: tensor.contiguous() for name, tensor in self._module.state_dict().items()}, folder / WEIGHTS)

    def load(self, folder: Path) -> None:
        try:
            self._module.load_state_dict(load_file(folder / WEIGHTS))
        except Exception as error:  # safetensors and torch each raise their own for a file that does not fit
            raise BadModel(
                f"{folder / WEIGHTS} does not fit its card: {error}", remedy="fit the model again"
            ) from error

    def predict(self, inputs: Inputs) -> F32:
        return self._asked(self._module, inputs)

    def probs(self, inputs: Inputs) -> F32:
        """[B, H, C]: of a card that has labels, how likely each is."""
        assert isinstance(self._module, DirectionNet)
        answers = self._module.answers
        return self._asked(lambda *parts: answers(*parts)[1], inputs)

    def _asked(self, question: Callable[..., Tensor], inputs: Inputs) -> F32:
        self._module.eval()
        with torch.inference_mode():
            parts = (inputs.past, inputs.mask, inputs.future, inputs.static)
            answer: F32 = question(*(torch.from_numpy(part) for part in parts)).numpy()
        return answer


def _start(module: nn.Module, generator: torch.Generator) -> None:
    """Every parameter from the generator alone, whatever its layer would have drawn by itself."""
    with torch.no_grad():
        for parameter in module.parameters():
            bound = 1 / math.sqrt(parameter[0].numel()) if parameter.dim() > 1 else 0.0
            parameter.uniform_(-bound, bound, generator=generator)
        for layer in module.modules():
            if isinstance(layer, nn.LayerNorm):
                layer.weight.fill_(1.0)
            elif isinstance(layer, Answer):
                layer.weight.zero_()
