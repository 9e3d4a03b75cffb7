"""The order of a fit: everything that steers it, so that order and bars alone repeat it. It does nothing."""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tickcast.errors import BadData, BadSettings

Positive = Annotated[int, Meta(ge=1)]
ORDER, BARS = "order.json", "bars.parquet"


class FitOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`order.json` of a job folder. bars, features, future and levels are the deployment's settings."""

    kind: str = "nhits"
    name: str = ""  # of the model; empty = its kind
    model_params: dict[str, Any] = {}
    bars: dict[str, Any] = {}  # core.questions.bar_identity
    transform: Literal["log_return", "difference", "level"] = "log_return"
    lookback: Positive = 96
    horizon: Positive = 12
    levels: list[float] = msgspec.field(default_factory=lambda: [0.05, 0.25, 0.5, 0.75, 0.95])
    features: list[dict[str, Any]] = []  # the `[[features.set]]` entries
    future: list[str] = []
    split: Literal["default", "paper"] = "default"
    loss: Literal["quantile", "mae", "mse", "huber", "nll"] = "quantile"
    optimizer: Literal["adamw"] = "adamw"
    learning_rate: Annotated[float, Meta(gt=0)] = 1e-3
    weight_decay: Annotated[float, Meta(ge=0)] = 1e-4
    batch_size: Positive = 256
    epochs: Positive = 30
    windows_per_epoch: Positive = 65_536  # fewer where the training part holds fewer
    validation_windows: Positive = 8_192  # evenly spaced over the part; the same in every epoch
    symbol_weight: Annotated[float, Meta(ge=0, le=1)] = 0.5  # a symbol of n windows is drawn as often as n ** this
    patience: Positive = 5  # epochs without a better validation loss
    time_budget_s: Annotated[float, Meta(gt=0)] = 600.0
    threads: Positive = 1
    seed: Annotated[int, Meta(ge=0, le=2**62)] = 0
    created_ns: int = 0


def read_order(folder: Path) -> FitOrder:
    path = folder / ORDER
    try:
        return msgspec.json.decode(path.read_bytes(), type=FitOrder)
    except OSError as error:
        raise BadData(f"cannot read {path}: {error.strerror}") from None
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise BadSettings(f"{path}: {error}") from None


def write_order(folder: Path, order: FitOrder) -> None:
    (folder / ORDER).write_bytes(msgspec.json.format(msgspec.json.encode(order)))
