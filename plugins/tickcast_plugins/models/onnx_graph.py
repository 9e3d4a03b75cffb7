"""An ONNX graph, written node by node, from the parts of a question to its quantiles. It knows no model."""

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, checker, helper, numpy_helper

from tickcast.direction import PROBS
from tickcast.records import ModelCard

OPSET, ML_OPSET, IR = 17, 3, 8
ML = "ai.onnx.ml"


class Graph:
    """Adds nodes and hands out the names of their outputs."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._opsets, self._ir = {"": OPSET, ML: ML_OPSET}, IR

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.array(value, dtype, order="C"), name))
        return name

    def add(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, list(inputs), [name], domain=domain, **attributes))
        return name

    def cast(self, name: str, dtype: npt.DTypeLike) -> str:
        return self.add("Cast", name, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def sum(self, name: str) -> str:
        """Over axis 1, which stays."""
        return self.add("ReduceSum", name, self.constant([1], np.int64), keepdims=1)

    def model(self, card: ModelCard, quantiles: str, probs: str = "") -> bytes:
        """The finished `model.onnx`; of the parts of a question it asks for those that its nodes read."""
        given = {
            "past": [card.lookback, 1 + len(card.features)], "mask": [card.lookback],
            "future": [card.horizon, 2 * len(card.future)], "static": [1],
        }  # fmt: skip
        answers = {"quantiles": (quantiles, [card.horizon, len(card.levels)])}
        if probs:
            answers[PROBS] = (probs, [card.horizon, len(card.labels)])
        return self._finished(card, given, answers)

    def step(self, card: ModelCard, state: int, after: str, quantiles: str) -> bytes:
        """The finished `step.onnx`: a state of so many numbers, moved on by a bar."""
        given = {
            "state": [state], "bar": [1 + len(card.features)], "mask": [],
            "future": [card.horizon, 2 * len(card.future)], "static": [1],
        }  # fmt: skip
        answers = {"state_after": (after, [state]), "quantiles": (quantiles, [card.horizon, len(card.levels)])}
        return self._finished(card, given, answers)

    def _finished(
        self, card: ModelCard, shapes: dict[str, list[int]], answers: dict[str, tuple[str, list[int]]]
    ) -> bytes:
        read = {name for node in self._nodes for name in node.input}
        given = [_value(name, shape) for name, shape in shapes.items() if name in read]
        self._nodes += [helper.make_node("Identity", [found], [name]) for name, (found, _) in answers.items()]
        out = [_value(name, shape) for name, (_, shape) in answers.items()]
        graph = helper.make_graph(self._nodes, card.kind, given, out, self._constants)
        opsets = [helper.make_opsetid(domain, version) for domain, version in self._opsets.items()]
        made = helper.make_model(graph, ir_version=self._ir, opset_imports=opsets)
        checker.check_model(made)
        written: bytes = made.SerializeToString(deterministic=True)
        return written


def _value(name: str, shape: list[int]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
