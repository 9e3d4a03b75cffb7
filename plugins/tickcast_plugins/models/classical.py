"""What every classical model shares: its sample of the history, files, and the graph that serves; and, of those that
answer with a point, conformal widths.

All is learnt in one-bar moves of a window, so one model serves every symbol. The point is the median; the other
quantiles are as far from it as those of its errors over the calibration part, step by step. The daemon serves
`model.onnx` and never imports a library that fitted it.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tickcast.columns import F32, F64, I64, Inputs
from tickcast.errors import BadData, BadModel, BadSettings
from tickcast.plugin import Parameter, Report
from tickcast.records import ModelCard
from tickcast_plugins.models.onnx_graph import Graph
from tickcast_plugins.models.window_rows import SCALE_FLOOR, Layout, RowLayout

WEIGHTS, MODEL = "weights.safetensors", "model.onnx"
TILE = 2048
CALIBRATION_ROWS = 16_384
Arrays = dict[str, Any]


class RowSample(NamedTuple):
    """Windows as rows, with what came after them, both in one-bar moves of the window."""

    x: F32  # [N, D]
    y: F64  # [N, H]


class RowModel(ABC):
    """A plugin.Model that answers from one row. Subclasses learn arrays and say how they answer."""

    kind = ""
    params_type: type[msgspec.Struct]
    space: ClassVar[dict[str, Parameter]]  # of plugin.Tunable; without `rows` where more of them only cost more
    reads_channels = True
    reads_calendar = True

    def __init__(self, card: ModelCard) -> None:
        if 0.5 not in card.levels or sorted(card.levels) != list(card.levels):
            raise BadSettings(f"{self.kind}: levels must ascend and hold 0.5")
        try:
            self.params: Any = msgspec.convert(card.model_params, self.params_type)
        except msgspec.ValidationError as error:
            raise BadSettings(f"model kind '{self.kind}': {error}") from None
        self.card = msgspec.structs.replace(card, model_params=msgspec.to_builtins(self.params))
        self.arrays: Arrays = {}

    @abstractmethod
    def learn(self, train: RowSample, validation: RowSample, report: Report) -> Arrays:
        """The arrays that answer; what is worth telling a reader of the card goes to `note`."""

    @abstractmethod
    def quantiles(self, x: F32) -> F32:
        """[N, H, Q]: of the moves after the rows `x`."""

    @abstractmethod
    def answer_nodes(self, g: Graph, x: str) -> tuple[str, str]:
        """As `quantiles`, in the graph, in single precision; and the probabilities of classes, empty without labels."""

    def scaled_nodes(self, g: Graph, x: str, scale: str) -> tuple[str, str]:
        """As `answer_nodes`, with quantiles in the unit of the transform."""
        quantiles, probs = self.answer_nodes(g, x)
        return g.add("Mul", quantiles, g.add("Unsqueeze", scale, g.constant([2], np.int64))), probs

    @abstractmethod
    def fits(self, arrays: Arrays) -> bool:
        """Whether loaded arrays are those that a model of this card needs."""

    def basis(self) -> F64 | None:
        """[L, P]: what it sees of the moves; None is all of them."""
        return None

    def pick(self, dataset: Any, rows: I64) -> I64:
        """The windows it is fitted on: at most `rows` of its parameters, drawn by its seed."""
        most = min(self.params.rows, len(rows))
        rng = np.random.Generator(np.random.Philox(key=np.array([self.card.seed, 0], np.uint64)))
        drawn: I64 = np.sort(rng.permutation(rows)[:most])
        return drawn

    def units(self, dataset: Any) -> Arrays:
        """Of the channels: what is known before the first window is read."""
        center, spread = dataset.channel_statistics()
        if not self.reads_channels:
            center, spread = center[:0], spread[:0]
        return {"center": center, "spread": spread}

    def unlearnt(self, dataset: Any) -> I64:
        """The windows of the training part that it is fitted on."""
        return self.pick(dataset, dataset.parts.train)

    def fit(self, dataset: Any, report: Report) -> None:
        self.arrays = self.units(dataset)
        train = self._sample(dataset, self.unlearnt(dataset), "training")
        validation = self._sample(dataset, self.pick(dataset, dataset.parts.validation), "validation")
        self.note(f"fitted on {len(train.x)} windows")
        self.arrays |= self.learn(train, validation, report)

    def note(self, text: str) -> None:
        """Goes into the card's description."""
        told = f"{self.card.description}; {text}" if self.card.description else text
        self.card = msgspec.structs.replace(self.card, description=told)

    def predict(self, inputs: Inputs) -> F32:
        out = np.empty((len(inputs), self.card.horizon, len(self.card.levels)), np.float32)
        for first in range(0, len(inputs), TILE):
            x, scale = self._row().rows(inputs.take(slice(first, first + TILE)))
            out[first : first + TILE] = self.quantiles(x) * scale[:, :, None]
        return out

    def save(self, folder: Path) -> None:
        save_file({name: np.ascontiguousarray(array) for name, array in self.arrays.items()}, folder / WEIGHTS)
        g = Graph()
        (folder / MODEL).write_bytes(g.model(self.card, *self.scaled_nodes(g, *self._row().nodes(g))))

    def load(self, folder: Path) -> None:
        try:
            arrays = load_file(folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise BadModel(f"{folder / WEIGHTS} cannot be read: {error}", remedy="fit the model again") from error
        if not self.fits(arrays):
            raise BadModel(f"{folder / WEIGHTS} does not fit its card", remedy="fit the model again")
        self.arrays = arrays

    def layout(self) -> Layout:
        """What a row of it holds."""
        calendar = 2 * len(self.card.future) if self.reads_calendar else 0
        return RowLayout(self.card, self.arrays["center"], self.arrays["spread"], calendar, self.basis())

    def _row(self) -> Layout:
        if not self.arrays:
            raise BadModel(f"a model of kind '{self.kind}' answers only after its fit", remedy="fit or load it first")
        return self.layout()

    def _sample(self, dataset: Any, rows: I64, part: str) -> RowSample:
        """Without the windows that never moved: they have no unit."""
        row, xs, ys = self._row(), [], []
        for first in range(0, len(rows), TILE):
            inputs, target, _ = dataset.batch(rows[first : first + TILE])
            x, scale = row.rows(inputs)
            moved = scale[:, 0] > SCALE_FLOOR
            xs.append(x[moved])
            ys.append(target[moved].astype(np.float64) / scale[moved])
        if not sum(map(len, xs)):
            raise BadData(f"no window of the {part} part ever moved", remedy="give a history of prices that change")
        return RowSample(np.concatenate(xs), np.concatenate(ys))


class Classical(RowModel):
    """One that answers with a point, and around it as far as it errs."""

    @abstractmethod
    def point(self, x: F32) -> F64:
        """[N, H]: the moves after the rows `x`."""

    @abstractmethod
    def point_nodes(self, g: Graph, x: str) -> str:
        """As `point`, in the graph, in single precision."""

    def fit(self, dataset: Any, report: Report) -> None:
        super().fit(dataset, report)
        rows = dataset.parts.calibration
        rows = rows[np.linspace(0, len(rows) - 1, min(CALIBRATION_ROWS, len(rows))).astype(np.int64)]
        known = self._sample(dataset, rows, "calibration")
        errors = np.quantile(known.y - self.point(known.x), self.card.levels, axis=0).T  # [H, Q]
        median = self.card.levels.index(0.5)  # it stays the point: the drift of one part tells nothing of the next
        self.arrays["widths"] = (errors - errors[:, median : median + 1]).astype(np.float32)

    def quantiles(self, x: F32) -> F32:
        found: F32 = self.point(x).astype(np.float32)[:, :, None] + self.arrays["widths"]
        return found

    def answer_nodes(self, g: Graph, x: str) -> tuple[str, str]:
        point = g.add("Unsqueeze", self.point_nodes(g, x), g.constant([2], np.int64))
        return g.add("Add", point, g.constant(self.arrays["widths"])), ""

    def fits(self, arrays: Arrays) -> bool:
        widths = arrays.get("widths")
        return widths is not None and bool(widths.shape == (self.card.horizon, len(self.card.levels)))


class LinearMap(Classical):
    """A point that is one dot product per step: `weights` [D, H] and `bias` [H]."""

    def point(self, x: F32) -> F64:
        answer: F64 = x.astype(np.float64) @ self.arrays["weights"] + self.arrays["bias"]
        return answer

    def point_nodes(self, g: Graph, x: str) -> str:
        return g.add("Gemm", x, g.constant(self.arrays["weights"]), g.constant(self.arrays["bias"]))


def error_of(point: F64, y: F64) -> float:
    """Mean absolute error, every step in its own random walk's unit so that late steps do not drown the others."""
    return float((np.abs(y - point) / np.sqrt(np.arange(1, y.shape[1] + 1))).mean())
