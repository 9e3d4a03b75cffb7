"""Answers questions with ONNX Runtime on one CPU thread. It imports no torch and never spins on the loop's core."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tickcast.columns import F32, Inputs
from tickcast.direction import LABELS, PROBS
from tickcast.engine.inference.model_files import refuse_foreign
from tickcast.engine.inference.model_folder import GRAPH
from tickcast.errors import BadModel
from tickcast.plugin import Runner
from tickcast.questions import Answers, Questions
from tickcast.records import ModelCard
from tickcast.state import Array, Arrays

# Its import alone starts an uploader and leaves an id of the machine in the home folder; a call after it is too late.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

TILE = 2048  # rows of a call whose intermediate values stay in cache


class OnnxRunner(Runner):
    """`model.onnx` of a folder. A longer window than the model's is cut to its newest bars."""

    def __init__(self, folder: Path, card: ModelCard, *, tile: int = TILE) -> None:
        self.card, self._tile = card, tile
        self._session = open_session(folder / GRAPH)
        self._names: Sequence[str] = ()
        self._places = np.zeros(1, np.float32)  # on the card, by the symbol's code
        self._wanted = [node.name for node in self._session.get_inputs()]
        outputs = [node.name for node in self._session.get_outputs()]
        if card.labels and (card.labels != LABELS or outputs[1:] != [PROBS]):
            raise BadModel(f"{folder / GRAPH} gives {outputs} for labels {card.labels}", remedy="fit the model again")

    def answer(self, questions: Questions) -> Answers:
        quantiles, *probs = self._outputs(self.placed(questions), questions.tile)
        return Answers(quantiles, probs[0] if self.card.labels else None)

    def placed(self, questions: Questions) -> Inputs:
        """The inputs, with each symbol's place on the card where the card names symbols and nobody gave it yet."""
        inputs = questions.inputs
        if not self.card.symbols or inputs.static.shape[1]:
            return inputs
        names = questions.names()
        if names is not self._names:
            known = {name: place for place, name in enumerate(self.card.symbols, 1)}
            self._names = names
            self._places = np.array([*(known.get(name, 0) for name in names), 0], np.float32)  # -1 is none
        symbol = questions.symbol if names else np.full(len(inputs), -1)
        return replace(inputs, static=self._places[symbol][:, None])

    def _outputs(self, inputs: Inputs, tile: int) -> list[F32]:
        """Quantiles, and what the graph gives beside them; in calls of exactly `tile` rows, where there is one."""
        card, n, most = self.card, len(inputs), tile or self._tile
        if inputs.past.shape[1] != card.lookback:
            newest = slice(-card.lookback, None)
            inputs = Inputs(inputs.past[:, newest], inputs.mask[:, newest], inputs.future, inputs.static)
        if not n:
            return [np.empty((0, card.horizon, len(names)), np.float32) for names in (card.levels, card.labels)]
        wanted = {name: getattr(inputs, name) for name in self._wanted}
        return run_in_tiles(self._session, wanted, most, full=tile > 0)


def run_in_tiles(session: onnxruntime.InferenceSession, inputs: Arrays, most: int, *, full: bool) -> list[F32]:
    """What a graph gives for these rows in calls of so many at most; each `full` one has zeros behind the last."""
    rows = len(next(iter(inputs.values())))
    if rows <= most and not full:
        outputs: list[F32] = session.run(None, inputs)
        return outputs
    parts = []
    for first in range(0, rows, most):
        tile = {name: part[first : first + most] for name, part in inputs.items()}
        parts.append(session.run(None, {name: _filled(part, most) for name, part in tile.items()} if full else tile))
    return [np.concatenate(part)[:rows] for part in zip(*parts, strict=True)]


def _filled(part: Array, rows: int) -> Array:
    short = rows - len(part)
    return part if not short else np.concatenate([part, np.zeros((short, *part.shape[1:]), part.dtype)])


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
