"""Cards and small parameters of every torch net, for their tests."""

from typing import Any

import torch

from tickcast import plugin
from tickcast.records import FeatureSpec, ModelCard

LEVELS = [0.05, 0.25, 0.5, 0.75, 0.95]
SENTIMENT = ("sent_mean", "sent_surprise", "news_count")
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "nhits": ("nhits", {"hidden": 16}),
    "nbeats": ("nbeats", {"hidden": 16, "blocks": 2}),
    "nbeats interpretable": ("nbeats", {"hidden": 16, "stacks": ["trend", "seasonality"]}),
    "nlinear": ("nlinear", {}),
    "dlinear": ("dlinear", {"smooth": 5}),
    "gru": ("gru", {"hidden": 16}),
    "lstm": ("lstm", {"hidden": 16}),
    "lstm_attention": ("lstm_attention", {"hidden": 16}),
    "tcn": ("tcn", {"hidden": 16}),
    "transformer": ("transformer", {"hidden": 16, "patch": 4}),
    "tft": ("tft", {"hidden": 16}),
    "deepar": ("deepar", {"hidden": 16}),
    "micro": ("micro", {"preset": "window"}),
}


def card(kind: str, **over: Any) -> ModelCard:
    base: dict[str, Any] = {
        "name": "n", "kind": kind, "version": "", "digest": "", "framework": "onnx", "bars": {},
        "transform": "log_return", "lookback": 24, "horizon": 6, "levels": LEVELS, "features": [], "seed": 3,
    }  # fmt: skip
    return ModelCard(**(base | over))


def net(kind: str, **over: Any) -> Any:
    """As it is before a fit."""
    return plugin.find("models", kind)(card(kind, **over))


def fuzzed(kind: str, **over: Any) -> Any:
    """With weights by seed that make every part matter; before a fit, the last layers are zero."""
    made = net(kind, **over)
    generator = torch.Generator().manual_seed(made.card.seed)
    with torch.no_grad():
        for parameter in made.module().parameters():
            parameter.uniform_(-0.3, 0.3, generator=generator)
    return made


def specs(*names: str) -> list[FeatureSpec]:
    return [FeatureSpec(name=name, kind="x", version=1) for name in names]
