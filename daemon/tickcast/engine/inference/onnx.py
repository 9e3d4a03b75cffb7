"""Answers questions with ONNX Runtime on one CPU thread. It imports no torch and never spins on the loop's core."""

import os
from pathlib import Path

import numpy as np

from tickcast.columns import F32, Inputs
from tickcast.direction import LABELS, PROBS
from tickcast.engine.inference.model_files import refuse_foreign
from tickcast.engine.inference.model_folder import GRAPH
from tickcast.errors import BadModel
from tickcast.records import ModelCard

# Its import alone starts an uploader and leaves an id of the machine in the home folder; a call after it is too late.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

TILE = 2048  # rows of a call whose intermediate values stay in cache


class OnnxRunner:
    """`model.onnx` of a folder behind plugin.Runner. A longer window than the model's is cut to its newest bars."""

    device = "cpu"

    def __init__(self, folder: Path, card: ModelCard, *, tile: int = TILE) -> None:
        self.card, self._tile = card, tile
        self._session = open_session(folder / GRAPH)
        self._wanted = [node.name for node in self._session.get_inputs()]

    def predict(self, inputs: Inputs) -> F32:
        return self._outputs(inputs)[0]

    def _outputs(self, inputs: Inputs) -> list[F32]:
        """Quantiles, and what the graph gives beside them, a tile at a time."""
        card, tile, n = self.card, self._tile, len(inputs)
        if inputs.past.shape[1] != card.lookback:
            newest = slice(-card.lookback, None)
            inputs = Inputs(inputs.past[:, newest], inputs.mask[:, newest], inputs.future, inputs.static)
        if not n:
            return [np.empty((0, card.horizon, len(names)), np.float32) for names in (card.levels, card.labels)]
        if n <= tile:
            return self._ask(inputs)
        parts = [self._ask(inputs.take(slice(first, first + tile))) for first in range(0, n, tile)]
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    def _ask(self, inputs: Inputs) -> list[F32]:
        answers: list[F32] = self._session.run(None, {name: getattr(inputs, name) for name in self._wanted})
        return answers


class ClassRunner(OnnxRunner):
    """The graph of a card that has labels, behind plugin.Labelled."""

    def __init__(self, folder: Path, card: ModelCard, *, tile: int = TILE) -> None:
        super().__init__(folder, card, tile=tile)
        outputs = [node.name for node in self._session.get_outputs()]
        if card.labels != LABELS or outputs[1:] != [PROBS]:
            raise BadModel(f"{folder / GRAPH} gives {outputs} for labels {card.labels}", remedy="fit the model again")

    def answer(self, inputs: Inputs) -> tuple[F32, F32]:
        quantiles, probs = self._outputs(inputs)
        return quantiles, probs


def open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        refuse_foreign(path)  # also where no registry looked: what need not end must not begin
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except BadModel:
        raise
    except Exception as error:  # the runtime raises its own C++ errors
        raise BadModel(f"{path} cannot be loaded: {error}", remedy="fit the model again") from error
