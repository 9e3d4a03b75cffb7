"""Which share of the learning rate a step gets. It keeps no state: how far the fit is and its validation losses say
all, so that a fit that was interrupted goes on with the same rates.
"""

import math
from collections.abc import Sequence

from tickcast.io.jobs.orders import FitOrder

WARM_UP, LAST_RATE = 0.1, 0.01  # share of the cycle that climbs; share of the rate that is left at its end


def rate_share(order: FitOrder, *, progress: float, epoch: int, losses: Sequence[float]) -> float:
    """progress: how much of the fit is done, 0 to 1; epoch: from 1; losses: validation's, of the epochs before."""
    match order.schedule:
        case "one_cycle":
            if progress < WARM_UP:
                return LAST_RATE + (1 - LAST_RATE) * progress / WARM_UP
            return _cosine((progress - WARM_UP) / (1 - WARM_UP))
        case "cosine":
            return _cosine(progress)
        case "step":
            return float(order.rate_factor ** ((epoch - 1) // order.rate_epochs))
        case "plateau":
            return float(order.rate_factor ** plateaus(losses, order.rate_epochs))
        case "constant":
            return 1.0


def plateaus(losses: Sequence[float], epochs: int) -> int:
    """How often so many epochs in a row brought no better loss."""
    best, without, found = math.inf, 0, 0
    for loss in losses:
        without = 0 if loss < best else without + 1
        best = min(best, loss)
        if without == epochs:
            without, found = 0, found + 1
    return found


def _cosine(progress: float) -> float:
    return LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * progress))
