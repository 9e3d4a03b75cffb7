"""Our NHITS and N-BEATS as weights of neuralforecast's: the same function, written down the way their classes hold it.

Theirs reads a window from its newest bar to its oldest; has a linear layer more, without an activation, before the
perceptron (here the first layer of ours, followed by an identity); and draws its knots by another rule of
interpolation, so our lines between knots are multiplied into the last layer and theirs are set to a knot for every bar.
Scale, median and gaps are ours alone and lie outside of what is compared.
"""

from typing import Any

import torch
from torch import Tensor, nn


def their_weights(net: Any) -> dict[str, Tensor]:
    """Names as in their state dict. The window must be a whole number of every block's pools."""
    found: dict[str, Tensor] = {}
    for number, block in enumerate(net.module().body.blocks):
        hidden = [layer for layer in block.perceptron if isinstance(layer, nn.Linear)]
        identity = nn.Linear(hidden[0].out_features, hidden[0].out_features)
        with torch.no_grad():
            identity.weight.copy_(torch.eye(identity.in_features))
            identity.bias.zero_()
            last = _theta(block, net.kind, lookback=net.card.lookback)
            first = (hidden[0].weight.flip(1), hidden[0].bias)
        layers = [first, *((layer.weight, layer.bias) for layer in (identity, *hidden[1:])), last]
        for place, (weight, bias) in zip(_places(len(layers)), layers, strict=True):
            found[f"blocks.{number}.layers.{place}.weight"] = weight.detach().contiguous()
            found[f"blocks.{number}.layers.{place}.bias"] = bias.detach().contiguous()
    return found


def _places(layers: int) -> list[int]:
    """Of the linear layers in their sequence: an activation stands after each but the first and the last."""
    return [0, *range(1, 2 * (layers - 1), 2)]


def _theta(block: Any, kind: str, *, lookback: int) -> tuple[Tensor, Tensor]:
    """The layer that gives their coefficients: those of the window's part, then those of the forecast's."""
    if kind == "nhits":
        past = _through(block.backcast, block.over_past.flip(1)) if block.explains else None
        ahead = _through(block.forecast, block.over_horizon, heads=block.heads)
    else:
        over = block.over_horizon
        past = _rows(block.backcast) if block.explains else None
        if past is not None and over.is_identity:
            past = tuple(part.flip(0) for part in past)
        ahead = _levels_last(block.forecast, block.heads)
        lookback = lookback if over.is_identity else len(over.rows)
    if past is None:  # nobody sees what the last block leaves over
        past = ahead[0].new_zeros(lookback, ahead[0].shape[1]), ahead[0].new_zeros(lookback)
    return torch.cat([past[0], ahead[0]]), torch.cat([past[1], ahead[1]])


def _rows(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    return layer.weight, layer.bias


def _through(layer: nn.Linear, lines: Tensor, heads: int = 1) -> tuple[Tensor, Tensor]:
    """A layer that gives knots, as one that gives every point on the lines between them."""
    weight = layer.weight.unflatten(0, (heads, -1)).transpose(1, 2) @ lines  # [heads, hidden, points]
    bias = layer.bias.unflatten(0, (heads, -1)) @ lines
    return weight.transpose(1, 2).flatten(0, 1), bias.flatten()


def _levels_last(layer: nn.Linear, heads: int) -> tuple[Tensor, Tensor]:
    """Rows by level, then coefficient, as rows by coefficient, then level."""
    weight = layer.weight.unflatten(0, (heads, -1)).transpose(0, 1).flatten(0, 1)
    return weight, layer.bias.unflatten(0, (heads, -1)).T.flatten()
