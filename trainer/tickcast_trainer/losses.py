"""What a fit minimises: errors in one-bar moves of their window, so that every symbol weighs alike."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tickcast.errors import BadSettings

Objective = Callable[[list[Tensor], Tensor, Tensor], Tensor]  # (inputs, target [B, H], scale [B, 1]) -> scalar
Loss = Callable[[Tensor, Tensor], Tensor]  # (quantiles [B, H, Q], target [B, H]), both in units of scale -> scalar
POINT_LOSSES = ("mae", "mse", "huber")  # they train the median only


def make_objective(module: torch.nn.Module, name: str, levels: Sequence[float]) -> Objective:
    """What the fit of `module` minimises under the loss `name`; refuses one that it cannot be judged by."""
    likely = hasattr(module, "nll")
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
    point = list(levels).index(0.5)
    functions: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "mae": torch.nn.functional.l1_loss,
        "mse": torch.nn.functional.mse_loss,
        "huber": torch.nn.functional.huber_loss,
    }
    function = functions[name]
    return lambda quantiles, target: function(quantiles[:, :, point], target)


def _pinball(levels: Sequence[float]) -> Loss:
    level = torch.tensor(levels, dtype=torch.float32)

    def loss(quantiles: Tensor, target: Tensor) -> Tensor:
        error = target.unsqueeze(-1) - quantiles
        return torch.maximum(level * error, (level - 1) * error).mean()

    return loss
