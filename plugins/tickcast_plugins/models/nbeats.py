"""N-BEATS: perceptrons in residual stacks that answer on a basis. `generic` blocks learn every point of the answer;
`trend` blocks choose a polynomial and `seasonality` blocks a sum of waves, so that their parts can be read.
"""

from typing import Annotated, ClassVar, Literal

import msgspec
import numpy as np
import torch
from msgspec import Meta
from torch import Tensor, nn

from tickcast.columns import F64
from tickcast.plugin import Parameter
from tickcast.records import ModelCard
from tickcast_plugins.models.stacks import Stacks, perceptron
from tickcast_plugins.models.torch_net import Answer, TorchNet, future_width, per_step, read_params

Kind = Literal["generic", "trend", "seasonality"]


class NBEATSParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    hidden: Annotated[int, Meta(ge=4, le=4096)] = 64
    layers: Annotated[int, Meta(ge=1, le=8)] = 2
    stacks: Annotated[list[Kind], Meta(min_length=1, max_length=16)] = msgspec.field(
        default_factory=lambda: ["generic", "generic", "generic"]
    )
    blocks: Annotated[int, Meta(ge=1, le=8)] = 1  # in each stack
    degree: Annotated[int, Meta(ge=0, le=8)] = 2  # of a trend
    harmonics: Annotated[int, Meta(ge=1, le=16)] = 2  # waves per whole number of periods in the horizon


class NBEATS(TorchNet):
    kind = "nbeats"
    space: ClassVar = {
        "hidden": Parameter("choice", choices=[32, 64, 128, 256]),
        "layers": Parameter("int", 1, 3),
        "blocks": Parameter("int", 1, 3),
        "stacks": Parameter(
            "choice", choices=[["generic"] * 3, ["trend", "seasonality"], ["trend", "seasonality", "generic"]]
        ),
    }

    def __init__(self, card: ModelCard) -> None:
        self.params = read_params(card, NBEATSParams)
        super().__init__(card)

    def body(self) -> nn.Module:
        kinds = [kind for kind in self.params.stacks for _ in range(self.params.blocks)]
        return Stacks(
            [
                NBeatsBlock(self.card, self.params, kind=kind, explains=number + 1 < len(kinds))
                for number, kind in enumerate(kinds)
            ]
        )


class NBeatsBlock(nn.Module):
    """Perceptron -> coefficients of backcast and forecast -> basis."""

    def __init__(self, card: ModelCard, params: NBEATSParams, *, kind: Kind, explains: bool) -> None:
        super().__init__()
        self.heads, self.explains = per_step(card), explains
        inputs = (1 + len(card.features)) * card.lookback + future_width(card)
        self.perceptron = perceptron([inputs, *[params.hidden] * params.layers])
        past, horizon = bases(kind, params, card.lookback, card.horizon)
        self.over_horizon = Basis(horizon)
        self.forecast = Answer(params.hidden, self.heads * len(horizon))
        if explains:
            self.over_past = Basis(past)
            self.backcast = nn.Linear(params.hidden, len(past))

    def forward(self, window: Tensor, extra: Tensor) -> Tensor:
        hidden: Tensor = self.perceptron(torch.cat([window.flatten(1), extra], dim=1))
        return hidden

    def explain(self, hidden: Tensor) -> Tensor:
        residual: Tensor = self.over_past(self.backcast(hidden))
        return residual.unsqueeze(1)

    def foresee(self, hidden: Tensor) -> Tensor:
        forecast: Tensor = self.over_horizon(self.forecast(hidden).unflatten(1, (self.heads, -1)))
        return forecast


class Basis(nn.Module):
    """Coefficients [..., K] -> points; those of a generic block are the points."""

    def __init__(self, rows: F64) -> None:
        super().__init__()
        self.is_identity = np.array_equal(rows, np.eye(len(rows)))
        self.register_buffer("rows", None if self.is_identity else torch.from_numpy(rows.astype(np.float32)))
        self.rows: Tensor

    def forward(self, coefficients: Tensor) -> Tensor:
        return coefficients if self.is_identity else coefficients @ self.rows


def bases(kind: Kind, params: NBEATSParams, lookback: int, horizon: int) -> tuple[F64, F64]:
    """[K, L] over the window, oldest bar first, and [K', H] over the forecast; time runs away from the anchor."""
    back, ahead = np.arange(lookback)[::-1], np.arange(horizon)
    if kind == "generic":
        return np.eye(lookback), np.eye(horizon)
    if kind == "trend":
        powers = np.arange(params.degree + 1)[:, None]
        return (back / lookback) ** powers, (ahead / horizon) ** powers
    waves = np.arange(params.harmonics, params.harmonics / 2 * horizon) / params.harmonics
    angle = 2 * np.pi * np.concatenate([[0.0], waves])[:, None] / horizon
    return _waves(-angle * back), _waves(angle * ahead)


def _waves(angle: F64) -> F64:
    return np.concatenate([np.cos(angle), np.sin(angle)])
