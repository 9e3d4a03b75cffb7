"""The graphs of fitted models as parts of another one: their names prefixed, their inputs cut from the question's, and
asked for several origins of a window in one pass. It reads graphs and weighs nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import inliner

from tickcast.errors import BadModel
from tickcast.records import ModelCard
from tickcast_plugins.models.onnx_graph import Graph


class MemberGraph(NamedTuple):
    """A member's graph, and which of the question's inputs are its."""

    graph: Path
    card: ModelCard
    channels: list[int]
    calendar: list[int]


class Merged(Graph):
    """A Graph that can hold others."""

    def embed(self, path: Path, prefix: str, feeds: Mapping[str, str]) -> str:
        """All nodes and weights of the graph at `path`, reading `feeds`; returns the name of its answer."""
        model = inliner.inline_local_functions(onnx.load(path, load_external_data=False))
        held = {tensor.name for tensor in model.graph.initializer}
        if lacking := {node.name for node in model.graph.input} - held - set(feeds):
            raise BadModel(f"{path} asks for {', '.join(sorted(lacking))}", remedy="fit the member again")
        _rename(model.graph, lambda name: feeds.get(name, prefix + name) if name else "")
        self._nodes.extend(model.graph.node)
        self._constants.extend(model.graph.initializer)
        self._ir = max(self._ir, model.ir_version)
        for opset in model.opset_import:
            domain = "" if opset.domain == "ai.onnx" else opset.domain
            self._opsets[domain] = max(self._opsets.get(domain, 0), opset.version)
        answer: str = model.graph.output[0].name  # quantiles; probabilities of classes, if any, come after them
        return answer

    def ask(self, part: MemberGraph, prefix: str, whole: ModelCard, origins: Sequence[int]) -> str:
        """[origins, B, H, Q]: what a member says so many bars before the window's end, 0 at it, as `earlier` does."""
        feeds = {
            "past": self._origins("past", part, whole, origins),
            "mask": self._joined([self.slice("mask", *_span(part, whole, back)) for back in origins]),
        }
        if part.calendar:
            feeds["future"] = self.pick("future", part.calendar, axis=2)
        if part.card.symbols:
            feeds["static"] = self.constant([[0.0]])  # a combination takes all symbols alike
        answer = self.embed(part.graph, prefix, feeds)
        shape = self.constant([len(origins), -1, part.card.horizon, len(whole.levels)], np.int64)
        shaped = self.add("Reshape", answer, shape)
        return self.slice(shaped, 0, whole.horizon, axis=2)

    def slice(self, name: str, first: int, stop: int, *, axis: int = 1) -> str:
        return self.add("Slice", name, *(self.constant([at], np.int64) for at in (first, stop, axis)))

    def pick(self, name: str, places: Sequence[int] | int, *, axis: int) -> str:
        return self.add("Gather", name, self.constant(places, np.int64), axis=axis)

    def _origins(self, past: str, part: MemberGraph, whole: ModelCard, origins: Sequence[int]) -> str:
        own = self.pick(past, part.channels, axis=2)
        windows = [self.slice(own, *_span(part, whole, back)) for back in origins]
        if whole.transform == "level":  # channel 0 is the distance from the origin's own level
            of_level = self.constant(np.eye(1, len(part.channels)))
            for i, back in enumerate(origins):
                if back:
                    anchor = self.add("Mul", self._known(whole.lookback - 1 - back), of_level)
                    windows[i] = self.add(
                        "Sub", windows[i], self.add("Unsqueeze", anchor, self.constant([1], np.int64))
                    )
        return self._joined(windows)

    def _known(self, bar: int) -> str:
        """[B, 1]: channel 0 of one bar, 0 where it is masked."""
        there = self.add("Greater", self.slice("mask", bar, bar + 1), self.constant(0.0))
        value = self.pick(self.slice("past", bar, bar + 1), 0, axis=2)
        return self.add("Where", there, value, self.constant(0.0))

    def _joined(self, parts: Sequence[str]) -> str:
        return self.add("Concat", *parts, axis=0)

    def weighed(self, answers: Sequence[str], weights: str) -> str:
        """The sum of `answers` [B, H, Q], each times its column of `weights` [B or 1, M].

        One product and one sum at a time, which rounds every level alike: quantiles that ascend in each member ascend
        in the sum.
        """
        last = self.constant([2], np.int64)
        total = ""
        for i, answer in enumerate(answers):
            weight = self.add("Unsqueeze", self.slice(weights, i, i + 1), last)
            product = self.add("Mul", answer, weight)
            total = self.add("Add", total, product) if total else product
        return total


def _span(part: MemberGraph, whole: ModelCard, back: int) -> tuple[int, int]:
    """First bar and the one after the last of a member's window that ends so many bars before the whole one."""
    stop = whole.lookback - back
    return stop - part.card.lookback, stop


def _rename(graph: Any, name: Callable[[str], str]) -> None:
    """Every value of a graph and of those within its nodes; what tells of nothing but names and shapes goes."""
    for node in graph.node:
        node.name = ""
        node.input[:] = [name(value) for value in node.input]
        node.output[:] = [name(value) for value in node.output]
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                _rename(inner, name)
    for value in (*graph.initializer, *graph.input, *graph.output):
        value.name = name(value.name)
    del graph.value_info[:]
