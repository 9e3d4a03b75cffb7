"""Answers questions with ONNX Runtime on one CPU thread. It imports no torch and never spins on the loop's core."""

import os
from pathlib import Path

import numpy as np

from tickcast.columns import F32, Inputs
from tickcast.errors import BadModel
from tickcast.model_folder import GRAPH
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
        lookback = self.card.lookback
        if inputs.past.shape[1] != lookback:
            inputs = Inputs(inputs.past[:, -lookback:], inputs.mask[:, -lookback:], inputs.future, inputs.static)
        n, tile = len(inputs), self._tile
        if 0 < n <= tile:
            return self._ask(inputs)
        out = np.empty((n, self.card.horizon, len(self.card.levels)), np.float32)
        for first in range(0, n, tile):
            rows = slice(first, first + tile)
            out[rows] = self._ask(inputs.take(rows))
        return out

    def _ask(self, inputs: Inputs) -> F32:
        answer: F32 = self._session.run(None, {name: getattr(inputs, name) for name in self._wanted})[0]
        return answer


def open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises its own C++ errors
        raise BadModel(f"{path} cannot be loaded: {error}", remedy="fit the model again") from error
