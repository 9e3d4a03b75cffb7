"""What the curve of a fit says about it: overfit, converged, and what to try next. Pure: numbers in, words out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

# All shares are of the gain: how far the best validation loss lies below that of the first weights. So they mean the
# same for every loss, symbol and horizon, and for likelihoods below zero.
LEAST_GAIN = 1e-3  # of the first loss: what the same 8,192 validation windows cannot tell from nothing
OVERFIT = 0.1  # a tenth of the gain lost again; from epoch to epoch, a settled fit moves by a few hundredths
JUMP = 0.5  # half of the gain lost within one epoch is no noise of the draw
LATE_GAIN = 0.02  # what the last quarter of the epochs still brought, for a fit that has arrived
FEWEST = 4  # epochs that a curve needs to show a bend

ADVICE = {
    "unstable": "The validation loss jumped: lower learning_rate or gradient_clip, or raise batch_size or accumulate.",
    "no_gain": "No epoch forecasts the validation part better than the first weights: add features or history, or a "
    "simpler kind; a new model without gain is last value.",
    "overfit": "The validation loss rose while the training loss fell: the best epoch is kept, but a smaller model, "
    "more weight_decay, more history or half_life_bars may carry further.",
    "still_improving": "The validation loss was still falling at the end: raise epochs.",
    "out_of_time": "The time budget ended the fit: raise time_budget_s, or lower windows_per_epoch.",
    "few_epochs": f"Fewer than {FEWEST} epochs say little about convergence: raise epochs, lower windows_per_epoch.",
}


class EpochLosses(NamedTuple):
    """Mean losses: of the drawn training windows while it ran, of the validation windows after it."""

    training_loss: float
    validation_loss: float


@dataclass(slots=True)
class FitOutcome:
    """How a fit went. `done`, `stopped_early`, `out_of_time` and `stopped` (from outside) are all normal ends."""

    status: str = "done"
    epochs: int = 0
    best_epoch: int = 0
    validation_loss: float = math.inf
    start_loss: float = math.inf  # validation's, of the weights that the fit began with
    old_losses: list[float] = field(default_factory=list)  # on what these saw: theirs, the best ones'; where watched
    windows: int = 0
    seconds: float = 0.0  # of all attempts, up to their last checkpoint where they were killed
    curve: list[EpochLosses] = field(default_factory=list)


def analyse(curve: Sequence[EpochLosses], *, start_loss: float, status: str) -> dict[str, Any]:
    """{"overfit": share of the gain that the last epochs lost again, "converged", "advice": [{"code", "text"}]}"""
    losses = [epoch.validation_loss for epoch in curve]
    best = min(range(len(losses)), key=losses.__getitem__)
    gain = start_loss - losses[best]
    overfit, converged = _overfit(curve, best, gain), _is_converged(losses, gain, status)
    codes = {
        "unstable": _is_unstable(losses, gain),
        "no_gain": not gain > LEAST_GAIN * abs(start_loss),
        "overfit": overfit >= OVERFIT,
        "still_improving": len(curve) >= FEWEST and not converged and best == len(curve) - 1,
        "out_of_time": status == "out_of_time" and not converged,
        "few_epochs": len(curve) < FEWEST and status != "stopped",
    }
    advice = [{"code": code, "text": ADVICE[code]} for code, holds in codes.items() if holds]
    return {"overfit": overfit, "converged": converged, "advice": advice}


def _overfit(curve: Sequence[EpochLosses], best: int, gain: float) -> float:
    """0 unless the training loss went on falling after the best epoch: then it is unlearnt, not overlearnt."""
    last = curve[-1]
    if best == len(curve) - 1 or not last.training_loss < curve[best].training_loss:
        return 0.0
    if not gain > 0:
        return 1.0
    return min((last.validation_loss - curve[best].validation_loss) / gain, 1.0)


def _is_converged(losses: Sequence[float], gain: float, status: str) -> bool:
    if status == "stopped_early":
        return True
    if len(losses) < FEWEST or not gain > 0:
        return False
    early = losses[: -max(len(losses) // 4, 2)]
    return min(early) - min(losses) <= LATE_GAIN * gain


def _is_unstable(losses: Sequence[float], gain: float) -> bool:
    if not all(math.isfinite(loss) for loss in losses):
        return True
    return gain > 0 and any(after - before > JUMP * gain for before, after in pairwise(losses))
