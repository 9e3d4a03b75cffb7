"""The optimisers of an order, and their state as named tensors. It takes no step."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tickcast.io.jobs.orders import FitOrder


def make_optimizer(module: torch.nn.Module, order: FitOrder) -> torch.optim.Optimizer:
    """Over the weights that are not frozen. The rate is set at every step. Fused: one pass over memory per weight."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    rate, decay = order.rate, order.weight_decay
    match order.optimizer:
        case "adamw":
            return torch.optim.AdamW(weights, lr=rate, weight_decay=decay, fused=True)
        case "adam":
            return torch.optim.Adam(weights, lr=rate, weight_decay=decay, fused=True)
        case "sgd":
            return torch.optim.SGD(weights, lr=rate, weight_decay=decay, momentum=order.momentum, fused=True)
        case "rmsprop":
            return torch.optim.RMSprop(weights, lr=rate, weight_decay=decay)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`<number of the weight>/<name>` -> tensor; what is absent is as before the first step."""
    state = optimizer.state_dict()["state"]
    return {f"{n}/{name}": tensor for n, own in state.items() for name, tensor in own.items() if tensor is not None}


def load_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Go on from what `state_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        number, name = path.split("/")
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
