"""Model folders of nets that step, with weights by seed instead of a fit, made for some deployment's settings."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from tickcast.batch.train.export import export
from tickcast.batch.train.export_step import export_step
from tickcast.batch.train.parity import write_probe
from tickcast.engine.core.features import FeatureSet
from tickcast.engine.core.questions import bar_identity
from tickcast.engine.inference.model_folder import CARD
from tickcast.records import ModelCard, digest
from tickcast.settings import Settings
from zookit import fuzzed

SMALL: dict[str, dict[str, Any]] = {
    "gru": {"hidden": 8, "layers": 2}, "lstm": {"hidden": 8, "layers": 2}, "tcn": {"hidden": 6, "kernel": 2},
}  # fmt: skip


def stepped(kind: str, **over: Any) -> Any:
    return fuzzed(kind, model_params={**SMALL[kind], "mode": "step"}, **over)


def write_graphs(kind: str, folder: Path, **over: Any) -> Any:
    """Both graphs and the probe of a net with these fields of its card; returns the net."""
    folder.mkdir(parents=True, exist_ok=True)
    net = stepped(kind, **over)
    net.save(folder)
    export(net, folder)
    export_step(net, folder)
    write_probe(net, folder)
    return net


def write_card(folder: Path, card: ModelCard, **over: Any) -> Path:
    """The card of the files that are there, with these fields of its own."""
    files = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.iterdir()) if file.name != CARD
    }  # fmt: skip
    card = msgspec.structs.replace(card, artefacts=files, **over)
    (folder / CARD).write_bytes(msgspec.json.encode(msgspec.structs.replace(card, digest=digest(card))))
    return folder


def made_for(settings: Settings) -> dict[str, Any]:
    """The fields of a card that a deployment with these settings takes."""
    features = FeatureSet(settings.features.set, settings.forecast.transform)
    return {
        "bars": bar_identity(settings), "transform": settings.forecast.transform, "lookback": settings.window.lookback,
        "horizon": settings.forecast.horizon, "levels": settings.forecast.quantiles, "features": features.specs,
        "future": list(settings.features.future), "need_bars": settings.window.lookback + features.lookback - 1,
    }  # fmt: skip
