"""What a job is told, in an order of its kind: everything that steers it, so that order and bars alone repeat it.

It does nothing and loads nothing that a job needs: the daemon and the shell know by it what may be asked.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

from tickcast.errors import BadData, BadSettings
from tickcast.io.jobs.folder import ORDER, write_whole
from tickcast.plugin import Parameter
from tickcast.records import field_default
from tickcast.scales import Scale

Positive = Annotated[int, Meta(ge=1)]
Above = Annotated[float, Meta(gt=0)]
NotBelow = Annotated[float, Meta(ge=0)]
Seed = Annotated[int, Meta(ge=0, le=2**62)]
Confidence = Annotated[float, Meta(gt=0, lt=1)]
Draws = Annotated[int, Meta(ge=100, le=100_000)]
Metric = Literal["pinball", "mae", "mse", "directional", "sharpe"]
Sampler = Literal["grid", "random", "tpe", "cmaes", "gp"]
Pruner = Literal["none", "median", "hyperband"]
Trials = Annotated[int, Meta(ge=1, le=10_000)]
StartMode = Literal["warm", "finetune", "transfer", "partial"]
JobKind = Literal["train", "evaluate", "backtest", "optimize", "auto"]  # that a command may order

KIND = "nhits"  # of model, where nobody says
RATE, FINETUNE_RATE = 1e-3, 1e-4  # a tenth, so that a fit does not forget within a few steps what it begins with
FEE_BPS, SLIPPAGE_BPS = 5.0, 1.0  # what trading costs where nobody says: of one side, in hundredths of a percent


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`order.json` of a job folder; its `job` is the entry point that does it."""

    job: str

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        return msgspec.convert(fields, cls)

    @classmethod
    def read(cls, folder: Path) -> Self:
        path = folder / ORDER
        try:
            return cls.of(msgspec.json.decode(path.read_bytes(), type=dict[str, Any]))
        except OSError as error:
            raise BadData(f"cannot read {path}: {error.strerror}") from None
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise BadSettings(f"{path}: {error}") from None

    def write(self, folder: Path) -> None:
        write_whole(folder / ORDER, msgspec.json.format(msgspec.json.encode(self)))


class WarmStart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fitted model that the weights begin with, or the sums."""

    mode: StartMode
    folder: Literal["start"] = "start"  # of the job folder: an order reaches nowhere else
    freeze: list[str] = []  # names of weights that stay as they are, with * and ? as in a shell
    old_share: Annotated[float, Meta(ge=0, lt=1)] | None = None  # of the windows drawn, those that it saw; None = any
    most_forgotten: NotBelow = 0.02  # by such a share its loss on what it saw may rise, where news is drawn apart

    def __post_init__(self) -> None:
        if self.old_share is not None and self.mode != "finetune":
            raise ValueError(f"start.old_share: mode {self.mode} draws from all bars alike")
        if self.freeze and self.mode == "partial":
            raise ValueError("start.freeze: mode partial has sums, and no weights that could stay")


class Against(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contest with who serves that would follow: its terms are found by the hold-out. What that speaks for is
    fitted once more, on all bars, before it leaves the job."""

    alpha: Confidence
    most_bars: Positive
    champion: bool = False  # its folder is in the job's; else it is last value


class FitOrder(Order, frozen=True, kw_only=True):
    """bars, features, future and levels are the deployment's settings."""

    job: Literal["train"] = "train"
    kind: str = KIND
    name: str = ""  # of the model; empty = its kind
    tags: list[str] = []  # words on its card
    model_params: dict[str, Any] = {}
    bars: dict[str, Any] = {}  # core.questions.bar_identity
    transform: Literal["log_return", "difference", "level"] = "log_return"
    lookback: Positive = 96
    scale: Scale = "rms"  # window.scale
    horizon: Positive = 12
    levels: list[float] = msgspec.field(default_factory=lambda: [0.05, 0.25, 0.5, 0.75, 0.95])
    features: list[dict[str, Any]] = []  # the `[[features.set]]` entries
    future: list[str] = []
    split: Literal["default", "paper"] = "default"
    start: WarmStart | None = None  # None = weights by seed
    against: Against | None = None
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
    half_life_bars: NotBelow = 0.0  # a window so much older than its symbol's newest is drawn half as often; 0 = never
    patience: Positive = 5  # epochs without a better validation loss
    time_budget_s: Above = 600.0
    checkpoint_s: Above = 30.0  # at most so long between two checkpoints
    threads: Positive = 1
    seed: Seed = 0
    created_ns: int = 0

    def __post_init__(self) -> None:
        if self.against is not None and self.split != "default":
            raise ValueError(f"against: a model of split = {self.split} is for figures and serves nobody")

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """`params` may be among them, as a person gives them: keys of this order, and all others the model's."""
        known, fields = set(cls.__struct_fields__), {**fields}
        params: dict[str, Any] = fields.pop("params", {})
        own = {name: value for name, value in params.items() if name in known}
        models = {name: value for name, value in params.items() if name not in known}
        return msgspec.convert({**fields, **own, "model_params": {**fields.get("model_params", {}), **models}}, cls)

    @property
    def rate(self) -> float:
        """The highest learning rate."""
        return self.learning_rate or (FINETUNE_RATE if self.finetunes else RATE)

    @property
    def finetunes(self) -> bool:
        return self.start is not None and self.start.mode == "finetune"

    @property
    def tells_news(self) -> bool:
        """From what its start saw: its parts are cut of news alone."""
        return self.start is not None and (self.start.mode == "partial" or self.start.old_share is not None)

    @property
    def old_share(self) -> float | None:
        """Of the windows that it draws; None where it tells no news from what its start saw."""
        return None if self.start is None else self.start.old_share

    @property
    def digest(self) -> str:
        """SHA-256 over all that steers the fit; when it was ordered does not."""
        steering = msgspec.structs.replace(self, created_ns=0)
        return hashlib.sha256(msgspec.json.encode(steering, order="sorted")).hexdigest()


NOT_TRAINING = {
    "job", "kind", "name", "tags", "model_params", "bars", "transform", "lookback", "scale", "horizon", "levels",
    "features", "future", "split", "start", "against", "created_ns",
}  # fmt: skip
# What a person steers a fit by.
TRAINING = tuple(name for name in FitOrder.__struct_fields__ if name not in NOT_TRAINING)
OF_TRAINING = (  # of these a search may choose; a model's own parameter may have the name of any other
    "learning_rate", "batch_size", "weight_decay", "loss", "optimizer", "momentum", "schedule", "gradient_clip",
    "accumulate", "symbol_weight", "half_life_bars",
)  # fmt: skip


class TuneOrder(Order, frozen=True, kw_only=True):
    """What is sought is the best `metric` over the validation part."""

    job: Literal["optimize"] = "optimize"
    fit: FitOrder  # what every trial shares; the first trial is this as it stands
    trials: Trials = 50
    metric: Metric = "pinball"
    sampler: Sampler = "tpe"
    pruner: Pruner = "median"
    seconds: Above = 3000.0  # of the search; the fit with what it found comes after it
    workers: Annotated[int, Meta(ge=1, le=64)] = 1  # processes that fit; more than one and no study repeats exactly
    seed: Seed = 0
    space: dict[str, Parameter | None] = {}  # beside or instead of the kind's own; None = stays as `fit` has it
    past_searches: Annotated[int, Meta(ge=0, le=100)] = 5  # of similar data, whose best parameters it begins with
    earlier: list[str] = []  # jobs of the same search that ran out of time, whose trials count as its own

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """Its `fit` may hold `params`, too: what a person set is not tuned, unless its space is given as well."""
        fit: dict[str, Any] = fields.get("fit", {})
        space = {**dict.fromkeys(fit.get("params", {})), **fields.get("space", {})}
        return msgspec.convert({**fields, "fit": msgspec.to_builtins(FitOrder.of(fit)), "space": space}, cls)

    def fingerprint(self, dataset_hash: str) -> str:
        """SHA-256 over what must not change when a study goes on: all but how long it may take."""
        return self._digest(fit=self.fit.digest, data=dataset_hash)

    @property
    def recipe(self) -> str:
        """The same for searches for the same, on whichever data and whatever contest follows."""
        return self._digest(fit=msgspec.structs.replace(self.fit, against=None).digest)

    def _digest(self, **of: str) -> str:
        steering = {
            "metric": self.metric, "sampler": self.sampler, "pruner": self.pruner, "seed": self.seed,
            "space": self.space, **of,
        }  # fmt: skip
        return hashlib.sha256(msgspec.json.encode(steering, order="sorted")).hexdigest()


class AutoOrder(Order, frozen=True, kw_only=True):
    """From a history to one candidate, or to the verdict that there is none."""

    job: Literal["auto"] = "auto"
    fit: FitOrder  # what all fits share; each has a kind of its own
    budget_s: Above = 600.0
    kinds: list[str] = []  # that are swept; empty = those that are worth trying
    workers: Annotated[int, Meta(ge=1, le=64)] = 1  # processes that fit
    past_searches: Annotated[int, Meta(ge=0, le=100)] = 5  # as its searches have it
    seed: Seed = 0


class TrialsOrder(Order, frozen=True, kw_only=True):
    """Of a helper of a search, which tells it what to fit over its stdin; its folder lies in that of the search."""

    job: Literal["trials"] = "trials"


class EvaluateOrder(Order, frozen=True, kw_only=True):
    """All else is the model's: its card says which bars, features and levels it was made for."""

    job: Literal["evaluate"] = "evaluate"
    groups: dict[str, list[str]] = {}  # name -> patterns of symbols, as symbols.groups
    horizons: list[Positive] = []  # empty = 1, 2, 4, ... and the last
    confidence: Confidence = 0.9
    draws: Draws = 1000
    seed: Seed = 0


class Retrain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a walk fits, and what."""

    every_bars: Positive  # of the symbol that closed most, since the fit before
    kind: str = KIND
    steps: Positive = 2000  # of the optimiser, at most, in each fit
    keep_bars: Annotated[int, Meta(ge=0)] = 0  # newest bars of every symbol that a fit sees; 0 = all so far
    takes_ms: Annotated[int, Meta(ge=0)] = 0  # event time from the end of the data until the new model serves
    params: dict[str, Any] = {}  # of the model and the fit, as --param of tickcast fit


class BacktestOrder(Order, frozen=True, kw_only=True):
    """The shell gives the same but for the settings."""

    job: Literal["backtest"] = "backtest"
    settings: dict[str, Any] = {}  # of the deployment, as JSON; of the job only
    horizon: Annotated[int, Meta(ge=0)] = 0  # that is traded, in bars; 0 = forecast.horizon
    fee_bps: NotBelow = FEE_BPS  # of one side, of what is traded
    slippage_bps: NotBelow = SLIPPAGE_BPS  # of one side, beyond the spread
    dead_band_bps: NotBelow | None = None  # None = fee and slippage of both sides
    trials: Positive = 1  # variants that were tried to get to this one, it among them
    confidence: Confidence = 0.9
    draws: Draws = 1000
    tosses: Annotated[int, Meta(ge=1, le=10_000)] = 100  # runs with random signs
    seed: Seed = 0
    retrain: Retrain | None = None


def defaults_of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """What an order says where nobody does; of commands and of the shell, too."""
    return {field.name: field_default(field) for field in msgspec.structs.fields(kind) if not field.required}


def with_params(fit: FitOrder, params: dict[str, Any]) -> FitOrder:
    """`fit` with some parameters set: those of training, and every other one is the model's."""
    own = {name: value for name, value in params.items() if name in OF_TRAINING}
    models = {name: value for name, value in params.items() if name not in own}
    changed = {**msgspec.to_builtins(fit), **own, "model_params": {**fit.model_params, **models}}
    try:
        return FitOrder.of(changed)
    except msgspec.ValidationError as error:
        raise BadSettings(f"the parameters of a trial do not fit: {error}") from None
