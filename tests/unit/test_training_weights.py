"""Our weights as neuralforecast holds them, against its forward pass spelled out; benchmarks/training.py asks it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from training_weights import their_weights
from zookit import LEVELS, fuzzed

L, H = 24, 6


def mlp(window: Tensor, weights: dict[str, Tensor], block: int) -> Tensor:
    """Linear, then (Linear, ReLU) for each unit, then Linear; numbered as in a sequence that holds the ReLUs too."""
    places = sorted({int(name.split(".")[3]) for name in weights if name.startswith(f"blocks.{block}.")})
    for place in places:
        prefix = f"blocks.{block}.layers.{place}."
        window = window @ weights[prefix + "weight"].T + weights[prefix + "bias"]
        if place not in (places[0], places[-1]):
            window = window.relu()
    return window


def theirs(window: Tensor, net: Any) -> Tensor:
    """window [B, L] -> [B, H, Q]; generic blocks only, a knot for every bar."""
    weights, rest = their_weights(net), window.flip(1)
    pools = net.params.pooling if net.kind == "nhits" else [1] * (len(net.params.stacks) * net.params.blocks)
    forecast = window[:, -1:, None]
    for block, pool in enumerate(pools):
        theta = mlp(rest.unflatten(1, (-1, pool)).amax(dim=2), weights, block)
        ahead = theta[:, L:].reshape(len(theta), -1, H).transpose(1, 2)
        if net.kind == "nbeats":
            ahead = theta[:, L:].reshape(len(theta), H, -1)
        rest, forecast = rest - theta[:, :L], forecast + ahead
    return forecast


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("nhits", {"hidden": 8, "layers": 1}),
        ("nhits", {"hidden": 8, "layers": 3, "pooling": [6, 3, 1], "downsample": [3, 4, 1]}),
        ("nbeats", {"hidden": 8, "layers": 2, "blocks": 2}),
    ],
)
def test_the_same_function_in_the_layout_of_another_library(kind: str, params: dict[str, Any]) -> None:
    net = fuzzed(kind, model_params=params, transform="level", lookback=L, horizon=H)
    window = torch.randn(16, L, generator=torch.Generator().manual_seed(1)).cumsum(dim=1)
    window = window - window[:, -1:]
    with torch.no_grad():
        ours = net.module().body(window.unsqueeze(1), torch.empty(16, 0))
    assert ours.shape == (16, len(LEVELS), H)
    torch.testing.assert_close(theirs(window, net), ours.transpose(1, 2), rtol=1e-4, atol=1e-4)
