"""DeepAR: an LSTM that says mean and deviation of the next move, and is told a draw of it to say the one after.

Its quantiles are those of 64 such paths. The draws are a constant table of the seed, so nothing in the graph is random.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Annotated, ClassVar

import msgspec
import numpy as np
import torch
from msgspec import Meta
from torch import Tensor, nn

from tickcast.columns import F32, F64
from tickcast.errors import BadSettings
from tickcast.plugin import Parameter
from tickcast.records import ModelCard
from tickcast_plugins.models.sequence import Steps
from tickcast_plugins.models.torch_net import Answer, ScaledNet, TorchNet, read_params

PATHS = 64
DEALS = 256  # of which each step takes the best
LONGEST_HORIZON = 48  # beyond it, the paths cost more than live serving bears
LEAST_DEVIATION = 0.01  # one-bar moves; keeps quantiles apart and the likelihood bounded


class DeepARParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    hidden: Annotated[int, Meta(ge=4, le=512)] = 24
    layers: Annotated[int, Meta(ge=1, le=4)] = 1  # that read the window; one goes on from it


class DeepAR(TorchNet):
    kind = "deepar"
    space: ClassVar = {"hidden": Parameter("choice", choices=[16, 24, 32, 48]), "layers": Parameter("int", 1, 2)}

    def __init__(self, card: ModelCard) -> None:
        self.params = read_params(card, DeepARParams)
        if card.horizon > LONGEST_HORIZON:
            raise BadSettings(f"deepar: horizon {card.horizon} exceeds {LONGEST_HORIZON}", remedy="use another kind")
        super().__init__(card)

    def body(self) -> nn.Module:
        return Paths(self.card, self.params)

    def scaled_net(self) -> ScaledNet:
        return LikelihoodNet(self.card, self.body(), PathHead(self.card.levels))


class LikelihoodNet(ScaledNet):
    """A ScaledNet that can also say how likely the truth was."""

    def nll(self, past: Tensor, mask: Tensor, future: Tensor, static: Tensor, target: Tensor) -> Tensor:
        """[B]: mean negative log-likelihood of the steps to target [B, H], each told the true ones before it."""
        window, extra, scale = self.seen(past, mask, future, static)
        surprise: Tensor = self.body.nll(window, extra, target / scale)  # type: ignore[operator]
        return surprise


class PathHead(nn.Module):
    """Paths [B, H, PATHS] -> quantiles [B, H, Q], by sorting."""

    def __init__(self, levels: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("between", torch.from_numpy(order_weights(levels)))
        self.between: Tensor

    def forward(self, paths: Tensor) -> Tensor:
        return paths.sort(dim=2).values @ self.between

    def set_gaps(self, gaps: F64) -> None:
        raise BadSettings("deepar: its quantiles are those of its paths", remedy="set loss = quantile")


class Paths(nn.Module):
    """window [B, F, L] and extra [B, E] -> paths [B, H, PATHS] of the move from the anchor."""

    def __init__(self, card: ModelCard, params: DeepARParams) -> None:
        super().__init__()
        self.horizon, self.is_level = card.horizon, card.transform == "level"
        self.steps = Steps(card)
        self.reader = nn.LSTM(self.steps.channels, params.hidden, params.layers, batch_first=True)
        self.cell = nn.LSTMCell(1 + int(self.is_level) + 2 * len(card.future), params.hidden)
        self.answer = Answer(params.hidden, 2)
        self.register_buffer("noise", torch.from_numpy(draws(card.horizon, card.seed)))
        self.noise: Tensor

    def forward(self, window: Tensor, extra: Tensor) -> Tensor:
        move, state = self._read(window)
        mean, deviation, state = self._ahead(move, torch.zeros_like(move), self._calendar(extra, 0), state)
        at = mean + deviation * self.noise[0]  # [B, PATHS]: until here all paths are one
        hidden, memory = (_per_path(part) for part in state)
        paths, move = [at], at
        for step in range(1, self.horizon):
            calendar = _per_path(self._calendar(extra, step))
            given = move.flatten().unsqueeze(1), at.flatten().unsqueeze(1)
            mean, deviation, (hidden, memory) = self._ahead(*given, calendar, (hidden, memory))
            move = mean.reshape(-1, PATHS) + deviation.reshape(-1, PATHS) * self.noise[step]
            at = at + move
            paths.append(at)
        return torch.stack(paths, dim=1)

    def nll(self, window: Tensor, extra: Tensor, target: Tensor) -> Tensor:
        moves = torch.diff(target, dim=1, prepend=torch.zeros_like(target[:, :1]))
        move, state = self._read(window)
        at, total = torch.zeros_like(move), torch.zeros_like(target[:, 0])
        for step in range(self.horizon):
            mean, deviation, state = self._ahead(move, at, self._calendar(extra, step), state)
            move, at = moves[:, step : step + 1], target[:, step : step + 1]
            total = total + (((move - mean) / deviation).square() / 2 + deviation.log()).squeeze(1)
        return total / self.horizon

    def _read(self, window: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The last bar's move [B, 1] and the state [B, hidden] after it."""
        bars = self.steps(window)
        _, (hidden, memory) = self.reader(bars.transpose(1, 2))
        return bars[:, 0, -1:], (hidden[-1], memory[-1])

    def _ahead(
        self, move: Tensor, at: Tensor, calendar: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Mean and deviation [N, 1] of the next move, after `move` led to `at`."""
        given = [move, at / self.steps.reach, calendar] if self.is_level else [move, calendar]
        state = self.cell(torch.cat(given, dim=1), state)
        mean, wide = self.answer(state[0]).chunk(2, dim=1)
        return mean, (wide + (wide * wide + 4).sqrt()) / 2 + LEAST_DEVIATION, state

    def _calendar(self, extra: Tensor, step: int) -> Tensor:
        """[B, 2 K] of the target bar `step`."""
        width = extra.shape[1] // self.horizon
        return extra[:, step * width : (step + 1) * width]


def _per_path(rows: Tensor) -> Tensor:
    """[B, n] -> [B * PATHS, n]"""
    return rows.unsqueeze(1).expand(-1, PATHS, -1).flatten(0, 1)


def draws(horizon: int, seed: int) -> F32:
    """[H, PATHS]: standard normal. Each step holds the same evenly spaced values, dealt anew to the paths; the second
    half of the paths mirrors the first, so that no draw moves the median of a walk. Of many deals, a step takes the
    one whose walks lie most like a normal distribution: 64 paths then say what some 400 drawn freely would.
    """
    rng = np.random.default_rng(seed)
    spaced = np.array([NormalDist().inv_cdf((i + 0.5) / PATHS) for i in range(PATHS)])
    half = np.tile(spaced[PATHS // 2 :], (DEALS, 1))
    chosen, walked = np.empty((horizon, PATHS)), np.zeros(PATHS)
    for step in range(horizon):
        dealt = rng.permuted(half, axis=1) * rng.choice([-1, 1], half.shape)
        dealt = np.concatenate([dealt, -dealt], axis=1)
        off = np.sort(walked + dealt, axis=1) - spaced * np.sqrt(step + 1)
        chosen[step] = dealt[np.square(off).sum(axis=1).argmin()]
        walked += chosen[step]
    return chosen.astype(np.float32)


def order_weights(levels: Sequence[float]) -> F32:
    """[PATHS, Q]: sorted paths @ it = quantiles, between the two nearest by a straight line."""
    weights = np.zeros((PATHS, len(levels)), np.float32)
    for column, level in enumerate(levels):
        place = min(max(level * PATHS - 0.5, 0.0), PATHS - 1.0)
        lower = min(int(place), PATHS - 2)
        weights[lower : lower + 2, column] = 1 - (place - lower), place - lower
    return weights
