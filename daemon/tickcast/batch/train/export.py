"""A fitted torch module -> `model.onnx`, without random operators; `parity` checks that it answers as the fit did."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tickcast.batch.train.graphs import write_graph
from tickcast.batch.train.parity import PARTS, probe_inputs
from tickcast.direction import PROBS
from tickcast.engine.inference.model_folder import GRAPH
from tickcast.plugin import Net
from tickcast.records import ModelCard


def export(net: Net, folder: Path) -> None:
    """Write `model.onnx` with a dynamic batch; inputs that this model does not have are left out of it."""
    example = probe_inputs(net.card, 2, seed=0)
    given = {name: torch.from_numpy(getattr(example, name)) for name in PARTS if getattr(example, name).size}
    outputs = ["quantiles", PROBS] if net.card.labels else ["quantiles"]
    write_graph(_Given(net.module(), list(given), net.card), given, outputs, folder / GRAPH)


class _Given(torch.nn.Module):
    """The module with only those inputs that have elements; the others enter as empty constants."""

    def __init__(self, module: torch.nn.Module, names: list[str], card: ModelCard) -> None:
        super().__init__()
        self.module, self.names, self.horizon = module, names, card.horizon
        self.asked: Any = module.answers if card.labels else module

    def forward(self, *given: Tensor) -> Any:
        parts = dict(zip(self.names, given, strict=True))
        rows = given[0].shape[0]
        empty = {"future": given[0].new_zeros((rows, self.horizon, 0)), "static": given[0].new_zeros((rows, 0))}
        return self.asked(*({**empty, **parts}[name] for name in PARTS))
