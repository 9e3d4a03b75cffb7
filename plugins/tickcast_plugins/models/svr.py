"""Support vector regression with a radial kernel, one per step over the same windows. Its cost grows with the windows
that it keeps, so they are few: 4,000 unless told, 10,000 at most.
"""

from typing import Annotated, ClassVar

import msgspec
import numpy as np
from msgspec import Meta
from sklearn.svm import SVR

from tickcast.columns import F32, F64
from tickcast.plugin import Parameter, Report
from tickcast_plugins.models.classical import Arrays, Classical, RowSample
from tickcast_plugins.models.onnx_graph import Graph
from tickcast_plugins.models.window_rows import recent_moves


class SvrParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    rows: Annotated[int, Meta(ge=100, le=10_000)] = 4_000
    cost: Annotated[float, Meta(gt=0, le=100)] = 0.3  # of an error, sklearn's C
    tube: Annotated[float, Meta(ge=0, le=10)] = 0.5  # errors below it cost nothing, in moves of a random walk


class SupportVectors(Classical):
    kind = "svr"
    params_type = SvrParams
    space: ClassVar = {"cost": Parameter("float", 0.03, 10.0, log=True), "tube": Parameter("float", 0.0, 1.5)}

    def basis(self) -> F64:
        return recent_moves(self.card.lookback)

    def learn(self, train: RowSample, validation: RowSample, report: Report) -> Arrays:
        horizon = train.y.shape[1]
        gamma = 1 / max(float(train.x.var()) * train.x.shape[1], 1e-12)
        dual, bias = np.zeros((len(train.x), horizon)), np.zeros(horizon)
        for step in range(horizon):
            unit = np.sqrt(step + 1)
            fitted = SVR(C=self.params.cost, epsilon=self.params.tube, gamma=gamma).fit(
                train.x, train.y[:, step] / unit
            )
            dual[fitted.support_, step] = fitted.dual_coef_[0] * unit
            bias[step] = fitted.intercept_[0] * unit
            if not report(step=step + 1, steps=horizon):
                break
        kept = dual.any(axis=1)
        self.note(f"{int(kept.sum())} support vectors")
        return {"support": train.x[kept], "dual": dual[kept], "bias": bias, "gamma": np.array(gamma)}

    def point(self, x: F32) -> F64:
        support = self.arrays["support"].astype(np.float64)
        rows = x.astype(np.float64)
        apart = (rows**2).sum(axis=1)[:, None] + (support**2).sum(axis=1) - 2 * rows @ support.T
        found: F64 = np.exp(-self.arrays["gamma"] * apart) @ self.arrays["dual"] + self.arrays["bias"]
        return found

    def point_nodes(self, g: Graph, x: str) -> str:
        support = self.arrays["support"].astype(np.float64)
        near = g.add("MatMul", x, g.constant(2 * support.T))
        apart = g.add("Add", g.sum(g.add("Mul", x, x)), g.constant((support**2).sum(axis=1)))
        kernel = g.add("Exp", g.add("Mul", g.add("Sub", apart, near), g.constant(-self.arrays["gamma"])))
        return g.add("Gemm", kernel, g.constant(self.arrays["dual"]), g.constant(self.arrays["bias"]))
