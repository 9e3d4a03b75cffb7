"""Statistics first, then a net on what they leave over: a linear map of the window, fitted and frozen, plus a small
perceptron that learns its remainder over the whole horizon. One graph, and one fit.
"""

from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np
from msgspec import Meta
from sklearn.neural_network import MLPRegressor

from tickcast.columns import F32, F64
from tickcast.plugin import Parameter, Report
from tickcast_plugins.models.classical import Arrays, Classical, LinearMap, RowSample, error_of
from tickcast_plugins.models.linear import Ridge
from tickcast_plugins.models.onnx_graph import Graph
from tickcast_plugins.models.prophet_like import ProphetLike

BATCH, PATIENCE = 256, 5


class HybridParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card. `periods` are seasons in bars, of `seasonal` only."""

    rows: Annotated[int, Meta(ge=100, le=200_000)] = 20_000
    statistical: Literal["linear", "seasonal"] = "linear"
    periods: Annotated[list[Annotated[float, Meta(ge=2)]], Meta(max_length=8)] = []
    hidden: Annotated[int, Meta(ge=1, le=512)] = 32
    passes: Annotated[int, Meta(ge=1, le=500)] = 20  # over the windows
    rate: Annotated[float, Meta(gt=0, le=0.1)] = 2e-3
    decay: Annotated[float, Meta(ge=0)] = 1e-3


class Hybrid(Classical):
    """The remainder's net is taken as it was after its best pass, and not at all where no pass helped."""

    kind = "hybrid"
    params_type = HybridParams
    space: ClassVar = {
        "hidden": Parameter("int", 8, 128, log=True),
        "rate": Parameter("float", 3e-4, 1e-2, log=True),
        "decay": Parameter("float", 1e-5, 0.1, log=True),
    }

    def learn(self, train: RowSample, validation: RowSample, report: Report) -> Arrays:
        part = self._statistical()
        arrays = part.learn(train, validation, lambda **_: True)
        self.note(f"{self.params.statistical} part: {part.card.description}")
        self.arrays |= {**arrays, **self._blank(train.x.shape[1])}
        unit = np.sqrt(np.arange(1, self.card.horizon + 1))
        left = (train.y - self.point(train.x)) / unit
        net = MLPRegressor(
            hidden_layer_sizes=(self.params.hidden,), batch_size=min(BATCH, len(left)),
            learning_rate_init=self.params.rate, alpha=self.params.decay, random_state=int(self.card.seed % 2**32),
        )  # fmt: skip
        first = least = error_of(self.point(validation.x), validation.y)
        best, best_turn = self._blank(train.x.shape[1]), 0
        for turn in range(1, self.params.passes + 1):
            net.partial_fit(train.x.astype(np.float64), left if left.shape[1] > 1 else left.ravel())
            self.arrays |= _layers(net, unit)
            error = error_of(self.point(validation.x), validation.y)
            if error < least:
                least, best, best_turn = error, _layers(net, unit), turn
            goes_on = report(step=turn, steps=self.params.passes, validation_loss=error)
            if not goes_on or turn - best_turn >= PATIENCE:
                break
        self.note(f"its net after {best_turn} passes: {1 - least / first:.2%} less error than that part alone")
        return {**arrays, **best}

    def point(self, x: F32) -> F64:
        a, x64 = self.arrays, x.astype(np.float64)
        hidden = np.maximum(x64 @ a["hidden_weights"] + a["hidden_bias"], 0.0)
        answer: F64 = x64 @ a["weights"] + a["bias"] + hidden @ a["answer_weights"] + a["answer_bias"]
        return answer

    def point_nodes(self, g: Graph, x: str) -> str:
        a = self.arrays
        hidden = g.add("Relu", g.add("Gemm", x, g.constant(a["hidden_weights"]), g.constant(a["hidden_bias"])))
        rest = g.add("Gemm", hidden, g.constant(a["answer_weights"]), g.constant(a["answer_bias"]))
        return g.add("Add", g.add("Gemm", x, g.constant(a["weights"]), g.constant(a["bias"])), rest)

    def _statistical(self) -> LinearMap:
        card = msgspec.structs.replace(self.card, model_params={}, description="")
        if self.params.statistical == "linear":
            return Ridge(card)
        return ProphetLike(msgspec.structs.replace(card, model_params={"periods": self.params.periods}))

    def _blank(self, width: int) -> Arrays:
        hidden, horizon = self.params.hidden, self.card.horizon
        return {
            "hidden_weights": np.zeros((width, hidden)), "hidden_bias": np.zeros(hidden),
            "answer_weights": np.zeros((hidden, horizon)), "answer_bias": np.zeros(horizon),
        }  # fmt: skip


def _layers(net: Any, unit: F64) -> Arrays:
    """Copies, for the next pass writes into the net's own."""
    (first, last), (first_bias, last_bias) = net.coefs_, net.intercepts_
    return {
        "hidden_weights": first.copy(), "hidden_bias": first_bias.copy(), "answer_weights": last * unit,
        "answer_bias": last_bias * unit,
    }  # fmt: skip
