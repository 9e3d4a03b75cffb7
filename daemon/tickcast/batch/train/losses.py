"""What a fit minimises: errors in one-bar moves of their window, so that every symbol weighs alike."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tickcast.errors import BadSettings

Objective = Callable[[list[Tensor], Tensor, Tensor], Tensor]  # (inputs, target [B, H], scale [B, 1]) -> scalar
Loss = Callable[[Tensor, Tensor], Tensor]  # (quantiles [B, H, Q], target [B, H]), both in units of scale -> scalar
Point = Callable[[Tensor, Tensor], Tensor]  # (median [B, H], target [B, H]), both in units of scale -> scalar


def make_objective(module: torch.nn.Module, name: str, levels: Sequence[float]) -> Objective:
    """What the fit of `module` minimises under the loss `name`; refuses one that it cannot be judged by."""
    likely, classed = hasattr(module, "nll"), hasattr(module, "cross_entropy")
    if classed and name != "cross_entropy":
        raise BadSettings(f"loss {name} does not train the classes of a direction", remedy="set loss = cross_entropy")
    if name == "cross_entropy":
        if not classed:
            raise BadSettings(
                "loss cross_entropy needs a model that answers in classes",
                remedy="set head = direction, or another loss",
            )
        return lambda parts, target, scale: module.cross_entropy(*parts, target / scale)  # type: ignore[operator]
    if name == "nll":
        if not likely:
            raise BadSettings("loss nll needs a model that states a likelihood", remedy="set loss = quantile")
        return lambda parts, target, scale: module.nll(*parts, target).mean()  # type: ignore[operator]
    if likely and name in POINT_LOSSES:
        raise BadSettings(f"loss {name} trains a point, this model its distribution", remedy="set loss = nll")
    loss = make_loss(name, levels)
    return lambda parts, target, scale: loss(module(*parts) / scale.unsqueeze(-1), target / scale)


def make_loss(name: str, levels: Sequence[float]) -> Loss:
    if name == "quantile":
        return _pinball(levels)
    function, median = POINT_LOSSES[name], list(levels).index(0.5)
    return lambda quantiles, target: function(quantiles[:, :, median], target)


def _pinball(levels: Sequence[float]) -> Loss:
    level = torch.tensor(levels, dtype=torch.float32)

    def loss(quantiles: Tensor, target: Tensor) -> Tensor:
        error = target.unsqueeze(-1) - quantiles
        return torch.maximum(level * error, (level - 1) * error).mean()

    return loss


def _mape(median: Tensor, target: Tensor) -> Tensor:
    """Error as a share of the true move; a move below one one-bar move counts as one, for it would count without end.

    Not the share of the price: that is MAE, with every symbol weighed by how lively it is.
    """
    return ((target - median).abs() / target.abs().clamp(min=1.0)).mean()


def _directional(median: Tensor, target: Tensor) -> Tensor:
    """Huber, plus what a bet on the sign of the median loses: the true move, if it goes the other way.

    The bet is smooth (a median of 0 loses 0.69 of the move), for a step has no slope to follow; Huber keeps the median
    a forecast of the move instead of the odds of its sign.
    """
    bet = target.abs() * functional.softplus(-median * target.sign())
    return functional.huber_loss(median, target) + bet.mean()


POINT_LOSSES: dict[str, Point] = {  # they train the median only
    "mae": functional.l1_loss,
    "mse": functional.mse_loss,
    "huber": functional.huber_loss,  # quadratic within one one-bar move
    "mape": _mape,
    "directional": _directional,
}
