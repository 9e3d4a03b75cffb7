"""What tests of the registry share: small model folders that open, made without training, and a registry over them."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from storekit import LEVELS, T0, open_store, store_settings
from tickcast.clock import SetClock
from tickcast.engine.inference.model_folder import CARD, GRAPH, PROBE
from tickcast.io.models.artefacts import Artefacts, artefact_folder
from tickcast.io.models.models import Models
from tickcast.io.store.store import Store
from tickcast.records import ModelCard, digest
from tickcast.settings import Settings

LOOKBACK, HORIZON = 8, 3
PROMOTED = {"by": "tests", "evidence": {"skill": 0.1}}


def graph(
    shift: float = 0.0, *, width: float = 1.0, lookback: int = LOOKBACK, horizon: int = HORIZON
) -> onnx.ModelProto:
    """Quantiles that lie `shift` around the window's last move, ascending with the level over so much."""
    constants = {
        "last": np.array(lookback - 1, np.int64), "axes": np.array([1], np.int64),
        "spread": np.repeat(np.array([LEVELS], np.float32) * np.float32(width) + shift, horizon, axis=0)[None],
    }  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["past", "last"], ["newest"], axis=1),  # [B, 1]
        helper.make_node("Unsqueeze", ["newest", "axes"], ["open"]),  # [B, 1, 1]
        helper.make_node("Add", ["open", "spread"], ["quantiles"]),
    ]
    shapes = {"past": ["batch", lookback, 1], "quantiles": ["batch", horizon, len(LEVELS)]}
    ends = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    body = helper.make_graph(nodes, "small", [ends["past"]], [ends["quantiles"]], tensors)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def model_folder(folder: Path, name: str = "small", *, shift: float = 0.0, width: float = 1.0, **fields: Any) -> Path:
    """A model folder that opens; `shift` makes another model of it, `fields` go on its card."""
    folder.mkdir(parents=True)
    onnx.save(graph(shift, width=width), folder / GRAPH)
    past = np.random.default_rng(0).standard_normal((4, LOOKBACK, 1)).astype(np.float32)
    answers = past[:, -1:, :] + np.array([LEVELS], np.float32) * np.float32(width) + np.float32(shift)
    arrays = {
        "past": past, "mask": np.ones((4, LOOKBACK), np.float32), "future": np.zeros((4, HORIZON, 0), np.float32),
        "static": np.zeros((4, 0), np.float32), "quantiles": np.repeat(answers, HORIZON, axis=1),
        "scale": np.ones(4, np.float32),
    }  # fmt: skip
    save_file(arrays, folder / PROBE)
    write_card(folder, name, **fields)
    return folder


def write_card(folder: Path, name: str = "small", **fields: Any) -> ModelCard:
    """A card over the files that are there, whatever they are."""
    hashes = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir()) if f.name != CARD}
    plain: dict[str, Any] = {
        "name": name, "kind": "onnx", "version": hashes.get(GRAPH, "none")[:12], "digest": "", "framework": "onnx",
        "bars": {}, "transform": "log_return", "lookback": LOOKBACK, "horizon": HORIZON, "levels": LEVELS,
        "features": [], "artefacts": hashes,
    }  # fmt: skip
    card = ModelCard(**plain | fields)
    card = msgspec.structs.replace(card, digest=digest(card))
    (folder / CARD).write_bytes(msgspec.json.encode(card))
    return card


class Registry(NamedTuple):
    models: Models
    store: Store
    artefacts: Artefacts
    clock: SetClock
    folder: Path  # for the models that a test makes

    async def add(self, name: str = "small", **given: Any) -> str:
        """Register a model that no other call made; returns its digest. A second later it is."""
        self.clock.now += 10**9
        place = self.folder / f"{name}-{self.clock.now}"
        card = await self.models.register(model_folder(place, name, created_ns=self.clock.now, **given), origin="fit")
        return card.digest

    async def promote(self, digest: str, route: str = "default", **given: Any) -> None:
        self.clock.now += 10**9
        await self.models.promote(digest, route, **PROMOTED | given)


@asynccontextmanager
async def open_registry(settings: Settings) -> AsyncIterator[Registry]:
    store, clock = open_store(settings), SetClock(T0)
    artefacts = Artefacts(artefact_folder(settings))
    models = Models(store.ledger, artefacts, clock=clock, keep_versions=settings.registry.keep_versions)
    try:
        yield Registry(models, store, artefacts, clock, settings.store.path.parent / "made")
    finally:
        await store.close()


@asynccontextmanager
async def registry_in(folder: Path, **overrides: Any) -> AsyncIterator[Registry]:
    async with open_registry(store_settings(folder, **overrides)) as registry:
        yield registry
