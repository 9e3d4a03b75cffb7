"""Raw numbers of a class for each step -> probabilities of down, flat and up -> quantiles; what it is fitted by.

All zeros answer with how often the classes came in the training part; before a fit, in a random walk.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tickcast.columns import F64
from tickcast.direction import LABELS, edges
from tickcast_plugins.models.direction import LEAST_PROBABILITY, PIECES, Classes, of_moves, of_walk


class DirectionHead(nn.Module):
    """The torch side of direction.py, which says why quantiles cannot cross."""

    def __init__(self, horizon: int, levels: Sequence[float], band: float) -> None:
        super().__init__()
        self.band, classes = band, of_walk(horizon, band)
        constants = {"levels": _tensor(np.array(levels)), "edge": _tensor(edges(band, horizon))}
        constants["rows"] = torch.arange(horizon).unsqueeze(1) * classes.knots.shape[1]
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)
        for name, value in _learnt(classes).items():
            self.register_buffer(name, value)
        self.levels: Tensor
        self.edge: Tensor
        self.rows: Tensor
        self.usual: Tensor
        self.knots: Tensor

    def learn(self, moves: F64) -> None:
        for name, value in _learnt(of_moves(moves, self.band)).items():
            getattr(self, name).copy_(value)

    def probs(self, raw: Tensor) -> Tensor:
        """raw [B, C, H] -> [B, H, C]"""
        likely = (raw + self.usual).transpose(1, 2).softmax(dim=2)
        return likely * (1 - len(LABELS) * LEAST_PROBABILITY) + LEAST_PROBABILITY

    def forward(self, probs: Tensor) -> Tensor:
        """[B, H, Q], in one-bar moves."""
        down, flat, up = torch.split(probs, 1, dim=2)
        above = 1 - up
        is_up, is_down = self.levels > above, self.levels <= down
        begin = torch.where(is_up, above, torch.where(is_down, 0.0, down))
        width = torch.where(is_up, up, torch.where(is_down, down, flat))
        at = ((self.levels - begin) / width).clamp(0.0, 1.0) + torch.where(is_up, 2.0, torch.where(is_down, 0.0, 1.0))
        piece = (at * PIECES).floor().clamp(max=len(LABELS) * PIECES - 1)
        place = piece.long() + self.rows
        low, high = self.knots[place], self.knots[place + 1]
        return torch.minimum(low + (at * PIECES - piece) * (high - low), high)

    def cross_entropy(self, probs: Tensor, moves: Tensor) -> Tensor:
        known = (moves >= -self.edge).long() + (moves > self.edge).long()
        return -probs.gather(2, known.unsqueeze(2)).log().mean()


def _learnt(classes: Classes) -> dict[str, Tensor]:
    """In the shapes that the forward pass needs them in."""
    return {"usual": _tensor(np.log(classes.frequencies.T)), "knots": _tensor(classes.knots.ravel())}


def _tensor(value: F64) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32))
