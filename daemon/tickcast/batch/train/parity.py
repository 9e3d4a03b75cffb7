"""Whether ONNX Runtime answers as the fit did, whoever wrote the graph; the probe that repeats it at loading."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tickcast.columns import Inputs
from tickcast.engine.inference.model_folder import GRAPH, PROBE, STEP_GRAPH
from tickcast.engine.inference.onnx import OnnxRunner
from tickcast.engine.inference.stepping import StepRunner
from tickcast.errors import BadModel
from tickcast.plugin import Model, Net
from tickcast.records import ModelCard

PARTS = ("past", "mask", "future", "static")
BATCHES, STEPPED_BATCHES = (1, 7, 256), (1, 7)
TOLERANCE = 1e-4  # of the window's one-bar move, or of its farthest quantile where that is farther


def check_parity(model: Net | Model, folder: Path) -> float:
    """Largest difference between a fitted model and its graph, in one-bar moves. One beyond the tolerance is refused,
    and so is a `step.onnx` that has one.
    """
    runner = OnnxRunner(folder, model.card)
    worst = 0.0
    for rows in BATCHES:
        inputs = probe_inputs(model.card, rows, seed=rows)
        fitted = model.predict(inputs)
        size = np.maximum(np.abs(fitted).max(axis=(1, 2), keepdims=True), 1.0)  # single precision is relative to it
        worst = max(worst, float((np.abs(fitted - runner.predict(inputs)) / size).max()))
    if not worst <= TOLERANCE:
        raise BadModel(f"{folder / GRAPH}: ONNX Runtime differs from the fit by {worst:.2g} one-bar moves")
    if (folder / STEP_GRAPH).exists():
        _check_steps(model, folder)
    return worst


def _check_steps(model: Net | Model, folder: Path) -> None:
    """Bar by bar through a window, `step.onnx` answers as the fitted model does at once."""
    runner = StepRunner(folder, model.card)
    for rows in STEPPED_BATCHES:
        inputs = probe_inputs(model.card, rows, seed=rows)
        apart = float(np.abs(model.predict(inputs) - runner.from_nothing(inputs)).max())
        if not apart <= TOLERANCE:
            raise BadModel(f"{folder / STEP_GRAPH}: stepping differs from the fit by {apart:.2g} one-bar moves")


def write_probe(model: Net | Model, folder: Path) -> None:
    """Some inputs with their answers, which loading repeats."""
    inputs = probe_inputs(model.card, 4, seed=0)
    arrays = {name: getattr(inputs, name) for name in PARTS}
    save_file({**arrays, "quantiles": model.predict(inputs), "scale": np.ones(4, np.float32)}, folder / PROBE)


def probe_inputs(card: ModelCard, rows: int, *, seed: int) -> Inputs:
    """Windows of random walks whose one-bar move is 1, with some bars masked."""
    rng = np.random.default_rng(seed)
    past = rng.standard_normal((rows, card.lookback, 1 + len(card.features)))
    if card.transform == "level":
        walk = np.cumsum(past[:, :, 0], axis=1)
        past[:, :, 0] = walk - walk[:, -1:]
    mask = (rng.random((rows, card.lookback)) > 0.1).astype(np.float32)
    mask[:, -1] = 1
    future = rng.uniform(-1, 1, (rows, card.horizon, 2 * len(card.future))).astype(np.float32)
    static = rng.integers(0, len(card.symbols) + 1, (rows, int(bool(card.symbols)))).astype(np.float32)
    return Inputs(past.astype(np.float32), mask, future, static)
