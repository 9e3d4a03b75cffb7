"""Graphs within a graph: names that stand in inner graphs too, several versions of the operators, foreign inputs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from combokit import LONG
from tickcast.errors import BadModel
from tickcast_plugins.models.ensemble import Ensemble
from tickcast_plugins.models.merged_graph import MemberGraph, Merged
from zookit import card

SHAPES = {"past": [LONG, 1], "mask": [LONG], "static": [2]}


def graph(path: Path, nodes: list[Any], *, given: tuple[str, ...] = ("past", "mask"), opset: int = 17) -> Path:
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", *SHAPES[n]]) for n in given]
    output = helper.make_tensor_value_info("quantiles", TensorProto.FLOAT, ["batch", 6, 5])
    held = [numpy_helper.from_array(np.arange(30, dtype=np.float32).reshape(1, 6, 5), "w")]
    made = helper.make_graph(nodes, "g", inputs, [output], held)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def summed() -> list[Any]:
    """[B, 1, 1]: an operator whose axes are an attribute up to version 17, and an input from 18 on."""
    return [helper.make_node("ReduceMax", ["past"], ["total"], axes=[1], keepdims=1)]


def branching() -> list[Any]:
    """The weights are added in one branch and taken away in the other, both of which read them from outside."""
    out = [helper.make_tensor_value_info("here", TensorProto.FLOAT, None)]
    sides = [helper.make_graph([helper.make_node(op, ["total", "w"], ["here"])], op, [], out) for op in ("Add", "Sub")]
    return [
        *summed(),
        helper.make_node("ReduceSum", ["mask"], ["known"], keepdims=0),
        helper.make_node("Cast", ["known"], ["any"], to=TensorProto.BOOL),
        helper.make_node("If", ["any"], ["quantiles"], then_branch=sides[0], else_branch=sides[1]),
    ]


def members(*paths: Path) -> Ensemble:
    class Member:
        def __init__(self, path: Path) -> None:
            self.graph, self.card, self.channels, self.calendar = path, card("m", lookback=LONG), [0], []

    made = Ensemble(card("ensemble", lookback=LONG))
    made.members, made.arrays = [Member(path) for path in paths], {"weights": np.full((1, len(paths)), 1 / len(paths))}
    return made


def test_inner_graphs_of_two_members_keep_to_their_own_weights(tmp_path: Path) -> None:
    model = members(graph(tmp_path / "a.onnx", branching()), graph(tmp_path / "b.onnx", branching()))
    model.save(tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    past, mask = np.random.default_rng(1).normal(size=(4, LONG, 1)).astype(np.float32), np.ones((4, LONG), np.float32)
    weights = np.arange(30, dtype=np.float32).reshape(6, 5)
    for known, sign in ((mask, 1), (0 * mask, -1)):
        (found,) = session.run(None, {"past": past, "mask": known})
        np.testing.assert_allclose(found, past.max(axis=1)[:, :, None] + sign * weights, rtol=1e-6)


def test_members_whose_operators_cannot_share_a_version_are_refused(tmp_path: Path) -> None:
    old = graph(tmp_path / "old.onnx", branching())
    plain = [helper.make_node("Add", ["far", "w"], ["quantiles"]), helper.make_node("Relu", ["past"], ["near"])]
    axis = helper.make_node("Constant", [], ["axis"], value=numpy_helper.from_array(np.array([1])))
    new = [axis, plain[1], helper.make_node("ReduceMax", ["near", "axis"], ["far"], keepdims=1), plain[0]]
    with pytest.raises(BadModel, match="cannot be one graph"):
        members(old, graph(tmp_path / "new.onnx", new, given=("past",), opset=18)).save(tmp_path)


def test_a_member_that_asks_for_what_no_question_holds_is_refused(tmp_path: Path) -> None:
    path = graph(tmp_path / "a.onnx", branching(), given=("past", "mask", "static"))
    with pytest.raises(BadModel, match="asks for static"):
        Merged().ask(MemberGraph(path, card("m", lookback=LONG), [0], []), "m0.", card("ensemble", lookback=LONG), (0,))
