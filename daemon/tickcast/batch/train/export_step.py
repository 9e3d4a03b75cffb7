"""A fitted net that can be stepped -> `step.onnx`. It does nothing to other models."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tickcast.batch.train.graphs import write_graph
from tickcast.batch.train.parity import probe_inputs
from tickcast.engine.inference.model_folder import STEP_GRAPH
from tickcast.engine.inference.stepping import OUTPUTS
from tickcast.plugin import Net


def export_step(net: Net, folder: Path) -> None:
    """Write `step.onnx` where the net's module has `step`; `model.onnx` lies in the folder."""
    module = net.module()
    if not hasattr(module, "step"):
        return
    example = probe_inputs(net.card, 2, seed=0)
    parts = {
        "state": np.zeros((2, module.state_width), np.float32), "bar": example.past[:, -1], "mask": example.mask[:, -1],
        "future": example.future,
    }  # fmt: skip
    given = {name: torch.from_numpy(part.copy()) for name, part in parts.items() if part.size}
    write_graph(_Step(module, list(given), net.card.horizon), given, OUTPUTS, folder / STEP_GRAPH)


class _Step(torch.nn.Module):
    """The step as a module; what this model does not have enters as empty constants."""

    module: Any  # with `step`

    def __init__(self, module: torch.nn.Module, names: list[str], horizon: int) -> None:
        super().__init__()
        self.module, self.names, self.horizon = module, names, horizon

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor]:
        parts, rows = dict(zip(self.names, given, strict=True)), given[0].shape[0]
        future = parts.get("future", given[0].new_zeros((rows, self.horizon, 0)))
        static = given[0].new_zeros((rows, 0))
        after: tuple[Tensor, Tensor] = self.module.step(parts["state"], parts["bar"], parts["mask"], future, static)
        return after
