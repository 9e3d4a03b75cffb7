"""The order of a fit: everything that steers it, so that order and bars alone repeat it. It does nothing."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from tickcast.errors import BadData, BadSettings
from tickcast.io.jobs.folder import BARS as BARS
from tickcast.io.jobs.folder import ORDER as ORDER
from tickcast.io.jobs.folder import START as START

T = TypeVar("T")

Positive = Annotated[int, Meta(ge=1)]
Above = Annotated[float, Meta(gt=0)]
NotBelow = Annotated[float, Meta(ge=0)]
RATE, FINETUNE_RATE = 1e-3, 1e-4  # a tenth, so that a fit does not forget within a few steps what it begins with


class WarmStart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fitted model that the weights begin with."""

    mode: Literal["warm", "finetune", "transfer"]
    folder: Literal["start"] = "start"  # of the job folder: an order reaches nowhere else
    freeze: list[str] = []  # names of weights that stay as they are, with * and ? as in a shell


class FitOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`order.json` of a job folder. bars, features, future and levels are the deployment's settings."""

    job: Literal["train"] = "train"
    kind: str = "nhits"
    name: str = ""  # of the model; empty = its kind
    tags: list[str] = []  # words on its card
    model_params: dict[str, Any] = {}
    bars: dict[str, Any] = {}  # core.questions.bar_identity
    transform: Literal["log_return", "difference", "level"] = "log_return"
    lookback: Positive = 96
    horizon: Positive = 12
    levels: list[float] = msgspec.field(default_factory=lambda: [0.05, 0.25, 0.5, 0.75, 0.95])
    features: list[dict[str, Any]] = []  # the `[[features.set]]` entries
    future: list[str] = []
    split: Literal["default", "paper"] = "default"
    start: WarmStart | None = None  # None = weights by seed
    loss: Literal["quantile", "mae", "mse", "huber", "mape", "directional", "nll", "cross_entropy"] = "quantile"
    optimizer: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    learning_rate: Above | None = None  # the highest; None = RATE, finetuning FINETUNE_RATE
    weight_decay: NotBelow = 1e-4
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.9  # of sgd
    schedule: Literal["one_cycle", "constant", "step", "cosine", "plateau"] = "one_cycle"
    rate_epochs: Positive = 3  # step: epochs between two drops; plateau: epochs without a better loss before one
    rate_factor: Annotated[float, Meta(gt=0, lt=1)] = 0.5  # what a drop leaves
    gradient_clip: NotBelow = 1.0  # longest gradient of a step; 0 = as long as it is
    batch_size: Positive = 256
    accumulate: Positive = 1  # batches in a step
    precision: Literal["fp32", "bf16"] = "fp32"
    recompute: bool = False  # activations in the backward pass: less memory for more time
    epochs: Positive = 30
    windows_per_epoch: Positive = 65_536  # fewer where the training part holds fewer
    validation_windows: Positive = 8_192  # evenly spaced over the part; the same in every epoch
    symbol_weight: Annotated[float, Meta(ge=0, le=1)] = 0.5  # a symbol of n windows is drawn as often as n ** this
    half_life_bars: NotBelow = (
        0.0  # a window so much older than its symbol's newest is drawn half as often; 0 = equally
    )
    patience: Positive = 5  # epochs without a better validation loss
    time_budget_s: Above = 600.0
    checkpoint_s: Above = 30.0  # at most so long between two checkpoints
    threads: Positive = 1
    seed: Annotated[int, Meta(ge=0, le=2**62)] = 0
    created_ns: int = 0

    @property
    def rate(self) -> float:
        """The highest learning rate."""
        return self.learning_rate or (FINETUNE_RATE if self.finetunes else RATE)

    @property
    def finetunes(self) -> bool:
        return self.start is not None and self.start.mode == "finetune"

    @property
    def digest(self) -> str:
        """SHA-256 over all that steers the fit; when it was ordered does not."""
        steering = msgspec.structs.replace(self, created_ns=0)
        return hashlib.sha256(msgspec.json.encode(steering, order="sorted")).hexdigest()


NOT_TRAINING = {
    "job", "kind", "name", "tags", "model_params", "bars", "transform", "lookback", "horizon", "levels", "features",
    "future", "split", "start", "created_ns",
}  # fmt: skip
TRAINING = tuple(
    name for name in FitOrder.__struct_fields__ if name not in NOT_TRAINING
)  # what a person steers a fit by


def order_of(fields: dict[str, Any]) -> FitOrder:
    """An order that may hold `params`, as a person gives them: FitOrder's own keys, and all others the model's."""
    known, fields = set(FitOrder.__struct_fields__), {**fields}
    params: dict[str, Any] = fields.pop("params", {})
    own = {name: value for name, value in params.items() if name in known}
    models = {name: value for name, value in params.items() if name not in known}
    return msgspec.convert({**fields, **own, "model_params": {**fields.get("model_params", {}), **models}}, FitOrder)


def read_as(folder: Path, made: Callable[[dict[str, Any]], T]) -> T:
    """`order.json`, made into an order of some kind."""
    path = folder / ORDER
    try:
        return made(msgspec.json.decode(path.read_bytes(), type=dict[str, Any]))
    except OSError as error:
        raise BadData(f"cannot read {path}: {error.strerror}") from None
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise BadSettings(f"{path}: {error}") from None


def read_order(folder: Path) -> FitOrder:
    return read_as(folder, order_of)


def write_order(folder: Path, order: FitOrder) -> None:
    (folder / ORDER).write_bytes(msgspec.json.format(msgspec.json.encode(order)))
