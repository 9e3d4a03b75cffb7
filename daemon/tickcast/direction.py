"""What the classes of a direction model mean: an ordered cut of the move at each step. It forecasts nothing."""

import numpy as np
import numpy.typing as npt

from tickcast.columns import F32, F64, I64
from tickcast.records import ModelCard

LABELS = ["down", "flat", "up"]
BAND = "band"  # of a card's `model_params`
PROBS = "probs"  # output of a graph beside its quantiles: [B, H, C]
KINDS = ("quantile", "class")  # of a forecast: without and with probabilities


def edges(band: float, horizon: int) -> F64:
    """[H]: moves within it are flat, in one-bar moves of the window; it grows as a walk spreads."""
    return band * np.sqrt(np.arange(1, horizon + 1))


def classes_of(moves: F64, band: float) -> I64:
    """[N, H]: the place in LABELS of each move, given in one-bar moves of its window."""
    edge = edges(band, moves.shape[1])
    return (moves >= -edge).astype(np.int64) + (moves > edge)


def has_classes(probs: F32) -> npt.NDArray[np.bool_]:
    """[N]: which rows of [N, C] hold probabilities; the others are NaN."""
    return probs[:, 0] >= 0


def frequencies(counts: I64) -> F64:
    """[H, C] of how often each class came: never none, for one window of each is counted that was not there."""
    shares: F64 = (counts + 1) / (counts.sum(axis=1, keepdims=True) + len(LABELS))
    return shares


def counts_of(known: I64) -> I64:
    """[H, C] of the classes [N, H]."""
    return np.stack([(known == place).sum(axis=0) for place in range(len(LABELS))], axis=1)


def band_of(card: ModelCard) -> float:
    """Of a card that has labels."""
    return float(card.model_params[BAND])
