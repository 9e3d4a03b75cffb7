"""Regression trees, alone, bagged, as a forest and boosted, each leaf an answer for all steps at once; served as one
ONNX ensemble. They see the newest moves and the sums of the last k of them.
"""

from abc import abstractmethod
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta
from sklearn.ensemble import BaggingRegressor, RandomForestRegressor
from sklearn.tree import DecisionTreeRegressor

from tickcast.columns import F32, F64
from tickcast.plugin import Parameter, Report
from tickcast_plugins.models.classical import Arrays, Classical, RowSample, error_of
from tickcast_plugins.models.onnx_graph import ML, Graph
from tickcast_plugins.models.window_rows import recent_moves

PATIENCE = 10  # trees of a boosting that the validation part may not like


class TreeParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card; `trees` and `rate` mean nothing to a single tree, `rate` only something to boosting."""

    rows: Annotated[int, Meta(ge=100, le=200_000)] = 20_000
    trees: Annotated[int, Meta(ge=1, le=1000)] = 50
    depth: Annotated[int, Meta(ge=1, le=16)] = 6
    leaf_windows: Annotated[int, Meta(ge=1, le=10_000)] = 40
    rate: Annotated[float, Meta(gt=0, le=1)] = 0.1


TREE = {"depth": Parameter("int", 2, 12), "leaf_windows": Parameter("int", 10, 400, log=True)}
FOREST = {**TREE, "trees": Parameter("int", 20, 100, log=True)}


class Trees(Classical):
    """Arrays of all nodes, tree after tree: a leaf has feature -1 and stands for `answers` [leaf, H]."""

    params_type = TreeParams

    def basis(self) -> F64:
        return recent_moves(self.card.lookback)

    @abstractmethod
    def grow(self, train: RowSample, validation: RowSample, report: Report) -> tuple[F64, float, list[Any]]:
        """What all answers start from [H], the weight of each tree, and sklearn's trees."""

    def learn(self, train: RowSample, validation: RowSample, report: Report) -> Arrays:
        start, weight, trees = self.grow(train, validation, report)
        arrays = packed([tree.tree_ for tree in trees], weight)
        self.note(f"{len(trees)} trees, {len(arrays['answers'])} leaves")
        return {"start": start, **arrays}

    def tree(self, seed: int, **options: Any) -> Any:
        params = self.params
        return DecisionTreeRegressor(
            max_depth=params.depth, min_samples_leaf=params.leaf_windows, random_state=seed, **options
        )

    def seed(self) -> int:
        """One that sklearn takes."""
        return int(self.card.seed % 2**32)

    def point(self, x: F32) -> F64:
        found: F64 = self.arrays["start"] + ensemble(self.arrays, x)
        return found

    def point_nodes(self, g: Graph, x: str) -> str:
        horizon = self.arrays["answers"].shape[1]
        attributes = ensemble_attributes(self.arrays)
        trees = g.add("TreeEnsembleRegressor", x, domain=ML, n_targets=horizon, aggregate_function="SUM", **attributes)
        return g.add("Add", trees, g.constant(self.arrays["start"]))


class DecisionTree(Trees):
    kind = "decision_tree"
    space = TREE

    def grow(self, train: RowSample, validation: RowSample, report: Report) -> tuple[F64, float, list[Any]]:
        report(step=1, steps=1)
        return np.zeros(train.y.shape[1]), 1.0, [self.tree(self.seed()).fit(train.x, train.y)]


class Bagging(Trees):
    kind = "bagging"
    space = FOREST

    def grow(self, train: RowSample, validation: RowSample, report: Report) -> tuple[F64, float, list[Any]]:
        grown = BaggingRegressor(self.tree(0), n_estimators=self.params.trees, random_state=self.seed())
        grown.fit(train.x, train.y)
        report(step=1, steps=1)
        return np.zeros(train.y.shape[1]), 1 / self.params.trees, grown.estimators_


class RandomForest(Trees):
    kind = "random_forest"
    space = FOREST

    def grow(self, train: RowSample, validation: RowSample, report: Report) -> tuple[F64, float, list[Any]]:
        params = self.params
        grown = RandomForestRegressor(
            params.trees, max_depth=params.depth, min_samples_leaf=params.leaf_windows, max_features=1 / 3,
            random_state=self.seed(),
        )  # fmt: skip
        grown.fit(train.x, train.y)
        report(step=1, steps=1)
        return np.zeros(train.y.shape[1]), 1 / params.trees, grown.estimators_


class GradientBoosting(Trees):
    """Each tree learns, on half of the windows, what those before it left over; the validation part says when to stop.

    The loop is ours: sklearn's boosting grows a forest per step, twelve times the work of answers for all steps.
    """

    kind = "gradient_boosting"
    space: ClassVar = {**FOREST, "rate": Parameter("float", 0.02, 0.3, log=True)}

    def grow(self, train: RowSample, validation: RowSample, report: Report) -> tuple[F64, float, list[Any]]:
        rng = np.random.Generator(np.random.Philox(key=np.array([self.card.seed, 1], np.uint64)))
        start, rate = train.y.mean(axis=0), self.params.rate
        left, known = train.y - start, np.broadcast_to(start, validation.y.shape)
        trees: list[Any] = []
        best, least = 0, error_of(known, validation.y)
        while len(trees) < self.params.trees and len(trees) < best + PATIENCE:
            half = rng.permutation(len(left))[: (len(left) + 1) // 2]
            tree = self.tree(self.seed() ^ len(trees), max_features=1 / 2).fit(train.x[half], left[half])
            trees.append(tree)
            left = left - rate * _shaped(tree.predict(train.x))
            known = known + rate * _shaped(tree.predict(validation.x))
            error = error_of(known, validation.y)
            if error < least:
                best, least = len(trees), error
            if not report(step=len(trees), steps=self.params.trees, validation_loss=error):
                break
        return start, rate, trees[: max(best, 1)]


def _shaped(answer: F64) -> F64:
    """sklearn drops the axis of a single step."""
    return answer.reshape(len(answer), -1)


def packed(trees: list[Any], weight: float) -> Arrays:
    """Nodes and leaves of sklearn's trees, every tree's answers times `weight`."""
    offsets = np.cumsum([0, *(tree.node_count for tree in trees)])
    feature = np.concatenate([tree.feature for tree in trees])
    leaf = np.concatenate([tree.children_left for tree in trees]) < 0
    left, right = (
        np.concatenate([getattr(tree, side) + at for tree, at in zip(trees, offsets)])
        for side in ("children_left", "children_right")
    )
    answers = np.concatenate([tree.value[:, :, 0] for tree in trees])[leaf] * weight
    own = np.where(leaf, np.cumsum(leaf) - 1, 0)
    return {
        "root": offsets.astype(np.int64),  # and, at its end, the number of nodes
        "feature": np.where(leaf, -1, feature).astype(np.int64),
        "threshold": rounded_down(np.where(leaf, 0.0, np.concatenate([tree.threshold for tree in trees]))),
        "left": np.where(leaf, own, left).astype(np.int64),  # of a leaf, its row of `answers`
        "right": np.where(leaf, own, right).astype(np.int64), "answers": answers.astype(np.float32),
    }  # fmt: skip


def rounded_down(values: F64) -> F32:
    """In single precision, so that x <= rounded exactly where x <= value, for every x in single precision."""
    rounded = values.astype(np.float32)
    return np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def ensemble(arrays: Arrays, x: F32) -> F64:
    """[N, H]: the sum of what the rows reach in every tree."""
    total = np.zeros((len(x), arrays["answers"].shape[1]))
    feature, rows = arrays["feature"], np.arange(len(x))
    for root in arrays["root"][:-1]:
        node = np.full(len(x), root)
        while (inner := feature[node] >= 0).any():
            goes_left = x[rows, feature[node]] <= arrays["threshold"][node]
            below = np.where(goes_left, arrays["left"][node], arrays["right"][node])
            node = np.where(inner, below, node)
        total += arrays["answers"][arrays["left"][node]]
    return total


def ensemble_attributes(arrays: Arrays) -> dict[str, npt.NDArray[Any] | list[Any]]:
    """Of ONNX's TreeEnsembleRegressor."""
    root, feature, answers = arrays["root"], arrays["feature"], arrays["answers"]
    tree = np.repeat(np.arange(len(root) - 1), np.diff(root))
    number = np.arange(len(feature)) - root[tree]
    leaf, horizon = feature < 0, answers.shape[1]
    below = {side: np.where(leaf, 0, arrays[side] - root[tree]) for side in ("left", "right")}
    return {
        "nodes_treeids": tree, "nodes_nodeids": number, "nodes_featureids": np.where(leaf, 0, feature),
        "nodes_values": arrays["threshold"], "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_truenodeids": below["left"], "nodes_falsenodeids": below["right"],
        "target_treeids": np.repeat(tree[leaf], horizon), "target_nodeids": np.repeat(number[leaf], horizon),
        "target_ids": np.tile(np.arange(horizon), int(leaf.sum())), "target_weights": answers.ravel(),
    }  # fmt: skip
