"""Opens a model folder for serving: card, hashes, graph and a known answer are checked first. It never imports torch,
and never unpickles: a folder holds JSON, safetensors and ONNX only.
"""

import hashlib
from pathlib import Path

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from tickcast.columns import Inputs
from tickcast.errors import BadModel
from tickcast.inference.onnx import TILE, OnnxRunner
from tickcast.plugin import Runner
from tickcast.records import ModelCard, digest

CARD, PROBE = "card.json", "probe.safetensors"
FRAMEWORK = "onnx"
SCHEMA = 1
MAX_CARD_BYTES = 4 << 20
MAX_ARTEFACT_BYTES = 2 << 30
TOLERANCE = 1e-3  # of a one-bar move: what another CPU's arithmetic may differ by from the one that fitted
AGAIN = "copy the folder again from where it was fitted, or fit the model again"


def open_model(folder: Path, *, tile: int = TILE) -> Runner:
    """The Runner of a folder that `tickcast fit` wrote; BadModel says which file is wrong and what to do."""
    card = read_card(folder)
    verify(folder, card)
    if card.framework != FRAMEWORK:
        raise BadModel(f"{folder / CARD}: framework '{card.framework}' cannot be served", remedy=f"known: {FRAMEWORK}")
    runner = OnnxRunner(folder, card, tile=tile)
    _check_answer(runner, folder)
    return runner


def read_card(folder: Path) -> ModelCard:
    path = folder / CARD
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise BadModel(f"{path} is larger than {MAX_CARD_BYTES} bytes", remedy=AGAIN)
        raw = path.read_bytes()
    except OSError as error:
        remedy = "give the folder that `tickcast fit` wrote"
        raise BadModel(f"cannot read {path}: {error.strerror}", remedy=remedy) from None
    try:
        card = msgspec.json.decode(raw, type=ModelCard)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadModel(f"{path} is not a model card: {error}", remedy=AGAIN) from None
    if card.schema != SCHEMA:
        raise BadModel(f"{path} has schema {card.schema}, this program reads {SCHEMA}", remedy="update tickcast")
    if digest(card) != card.digest or msgspec.json.decode(raw) != msgspec.to_builtins(card):
        raise BadModel(f"{path} does not match its digest: it was changed or damaged", remedy=AGAIN)
    return card


def verify(folder: Path, card: ModelCard) -> None:
    """Every artefact of the card is there and unchanged."""
    for name, expected in card.artefacts.items():
        path = folder / name
        if Path(name).name != name:
            raise BadModel(f"{folder / CARD} names an artefact outside its folder: {name}", remedy=AGAIN)
        try:
            if path.stat().st_size > MAX_ARTEFACT_BYTES:
                raise BadModel(f"{path} is larger than {MAX_ARTEFACT_BYTES} bytes", remedy=AGAIN)
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BadModel(f"cannot read {path}: {error.strerror}", remedy=AGAIN) from None
        if found != expected:
            raise BadModel(f"{path} is damaged: its SHA-256 is not the one in {CARD}", remedy=AGAIN)


def _check_answer(runner: Runner, folder: Path) -> None:
    """The first prediction warms the runtime up and must repeat the answer that torch gave after the fit."""
    path = folder / PROBE
    if PROBE not in runner.card.artefacts:
        raise BadModel(f"{folder / CARD} lists no {PROBE}", remedy=AGAIN)
    try:
        probe = load_file(path)
        inputs = Inputs(probe["past"], probe["mask"], probe["future"], probe["static"])
        expected, scale = probe["quantiles"], probe["scale"]
    except (OSError, SafetensorError, KeyError) as error:
        raise BadModel(f"{path} cannot be read: {error}", remedy=AGAIN) from None
    answer = runner.predict(inputs)
    if answer.shape != expected.shape or not np.isfinite(answer).all() or (np.diff(answer, axis=2) < 0).any():
        raise BadModel(f"{folder}: the model's first answer is malformed", remedy=AGAIN)
    worst = float((np.abs(answer - expected) / scale[:, None, None]).max())
    if worst > TOLERANCE:
        raise BadModel(f"{folder}: the model answers {worst:.2g} one-bar moves away from its fit", remedy=AGAIN)
