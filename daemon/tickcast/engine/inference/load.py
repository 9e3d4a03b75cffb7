"""Opens a model folder for serving: card, hashes, graph and a known answer are checked first. It never imports torch,
and never unpickles: a folder holds JSON, safetensors and ONNX only.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from tickcast.columns import F32, Inputs
from tickcast.engine.inference.model_folder import (
    AGAIN,
    CARD,
    FRAMEWORK,
    PROBE,
    REFERENCE,
    STEP_GRAPH,
    read_card,
    verify,
)
from tickcast.engine.inference.onnx import TILE, OnnxRunner
from tickcast.engine.inference.stepping import StepRunner
from tickcast.errors import BadModel
from tickcast.plugin import Runner
from tickcast.reference import Reference

TOLERANCE = 1e-3  # of a one-bar move: what another CPU's arithmetic may differ by from the one that fitted


def open_model(folder: Path, *, tile: int = TILE) -> Runner:
    """The Runner of a folder that `tickcast fit` wrote; BadModel says which file is wrong and what to do."""
    card = read_card(folder)
    verify(folder, card)
    if card.framework != FRAMEWORK:
        raise BadModel(f"{folder / CARD}: framework '{card.framework}' cannot be served", remedy=f"known: {FRAMEWORK}")
    if STEP_GRAPH in card.artefacts:
        steps = StepRunner(folder, card, tile=tile)
        _check_answer(steps, steps.from_nothing, folder)
        runner: OnnxRunner = steps
    else:
        runner = OnnxRunner(folder, card, tile=tile)
    _check_answer(runner, runner.predict, folder)
    if REFERENCE in card.artefacts:
        runner.reference = read_reference(folder / REFERENCE, channels=1 + len(card.features))
    return runner


def read_reference(path: Path, *, channels: int) -> Reference:
    try:
        return Reference.of(load_file(path), channels=channels)
    except (OSError, SafetensorError) as error:
        raise BadModel(f"{path} cannot be read: {error}", remedy=AGAIN) from None
    except BadModel as error:
        raise BadModel(f"{path}: {error.args[0]}", remedy=error.remedy) from None


def _check_answer(runner: Runner, predict: Callable[[Inputs], F32], folder: Path) -> None:
    """The first prediction warms the runtime up and must repeat the answer that was noted when the folder was made."""
    path = folder / PROBE
    if PROBE not in runner.card.artefacts:
        raise BadModel(f"{folder / CARD} lists no {PROBE}", remedy=AGAIN)
    try:
        probe = load_file(path)
        inputs = Inputs(probe["past"], probe["mask"], probe["future"], probe["static"])
        expected, scale = probe["quantiles"], probe["scale"]
    except (OSError, SafetensorError, KeyError) as error:
        raise BadModel(f"{path} cannot be read: {error}", remedy=AGAIN) from None
    try:
        answer = predict(inputs)
    except Exception as error:  # the runtime raises its own C++ errors where graph and card are of different shapes
        raise BadModel(f"{folder}: the graph does not take what its card says: {error}", remedy=AGAIN) from error
    if answer.shape != expected.shape or not np.isfinite(answer).all() or (np.diff(answer, axis=2) < 0).any():
        raise BadModel(f"{folder}: the model's first answer is malformed", remedy=AGAIN)
    worst = float((np.abs(answer - expected) / scale[:, None, None]).max())
    if worst > TOLERANCE:
        raise BadModel(f"{folder}: the model answers {worst:.2g} one-bar moves away from its fit", remedy=AGAIN)
