"""The order of a search for parameters: everything that steers it, so that order and bars alone repeat it."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tickcast.batch.judge.metrics import Metric
from tickcast.batch.train.order import FitOrder, order_of, read_as
from tickcast.errors import BadSettings
from tickcast.io.jobs.folder import ORDER
from tickcast.plugin import Parameter

OF_TRAINING = (  # keys of a FitOrder that a search may choose; a model's own parameter may have the name of any other
    "learning_rate", "batch_size", "weight_decay", "loss", "optimizer", "momentum", "schedule", "gradient_clip",
    "accumulate", "symbol_weight", "half_life_bars",
)  # fmt: skip

INTERRUPTED = "interrupted"  # why a trial failed that is asked again
TELLING = 20  # complete trials before importance says anything: a quarter of them, five, then pass for good


class TuneOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`order.json` of a job folder. What is sought is the best `metric` over the validation part."""

    job: Literal["optimize"] = "optimize"
    fit: FitOrder  # what every trial shares; the first trial is this as it stands
    trials: Annotated[int, Meta(ge=1, le=10_000)] = 50
    metric: Metric = "pinball"
    sampler: Literal["grid", "random", "tpe", "cmaes", "gp"] = "tpe"
    pruner: Literal["none", "median", "hyperband"] = "median"
    seconds: Annotated[float, Meta(gt=0)] = 3000.0  # of the search; the fit with what it found comes after it
    workers: Annotated[int, Meta(ge=1, le=64)] = 1  # processes that fit; more than one and no study repeats exactly
    seed: Annotated[int, Meta(ge=0, le=2**62)] = 0
    space: dict[str, Parameter | None] = {}  # beside or instead of the kind's own; None = stays as `fit` has it

    def fingerprint(self, dataset_hash: str) -> str:
        """SHA-256 over what must not change when a study goes on: all but how long it may take."""
        steering = {
            "fit": self.fit.digest, "metric": self.metric, "sampler": self.sampler, "pruner": self.pruner,
            "seed": self.seed, "space": self.space, "data": dataset_hash,
        }  # fmt: skip
        return hashlib.sha256(msgspec.json.encode(steering, order="sorted")).hexdigest()


def tune_order_of(fields: dict[str, Any]) -> TuneOrder:
    """Its `fit` may hold `params`, as a fit's own order may."""
    fit = fields.get("fit", {})
    held = dict.fromkeys(fit.get("params", {}))  # what a person set is not tuned, unless its space is given too
    made = {"fit": msgspec.to_builtins(order_of(fit)), "space": {**held, **fields.get("space", {})}}
    return msgspec.convert({**fields, **made}, TuneOrder)


def read_tune_order(folder: Path) -> TuneOrder:
    return read_as(folder, tune_order_of)


def write_tune_order(folder: Path, order: TuneOrder) -> None:
    (folder / ORDER).write_bytes(msgspec.json.format(msgspec.json.encode(order)))


def with_params(fit: FitOrder, params: dict[str, Any]) -> FitOrder:
    """`fit` with some parameters set: those of training, and every other one is the model's."""
    own = {name: value for name, value in params.items() if name in OF_TRAINING}
    models = {name: value for name, value in params.items() if name not in own}
    changed = {**msgspec.to_builtins(fit), **own, "model_params": {**fit.model_params, **models}}
    try:
        return msgspec.convert(changed, FitOrder)
    except msgspec.ValidationError as error:
        raise BadSettings(f"the parameters of a trial do not fit: {error}") from None
