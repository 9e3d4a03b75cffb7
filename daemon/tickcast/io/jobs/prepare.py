"""How an order comes about, of the deployment's settings and of what was asked for, and how a job's folder is filled.

The daemon and the shell do both here. What does not fit is refused before there is a folder; nothing is started.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from tickcast.engine.core.questions import bar_identity
from tickcast.engine.inference.model_folder import copy_plain_files
from tickcast.errors import BadSettings
from tickcast.io.jobs.folder import ORDER, write_whole
from tickcast.io.jobs.orders import KIND, AutoOrder, BacktestOrder, EvaluateOrder, FitOrder, Order, TuneOrder
from tickcast.io.jobs.past import NO_PAST, Past
from tickcast.plugin import names
from tickcast.settings import Settings

Some = TypeVar("Some", bound=Order)


def fit_order(settings: Settings, *, kind: str, name: str = "", params: Mapping[str, Any], **asked: Any) -> FitOrder:
    """`params` are a person's: keys of the order, the rest the model's. `asked` are other keys of the order."""
    forecast = settings.forecast
    fields = {
        "kind": kind, "name": name or kind, "bars": bar_identity(settings), "params": params,
        "transform": forecast.transform, "lookback": settings.window.lookback,
        "scale": settings.window.scale, "horizon": forecast.horizon,
        "levels": forecast.quantiles, "features": [entry.model_dump() for entry in settings.features.set],
        "future": list(settings.features.future),
    }  # fmt: skip
    return _ordered(FitOrder, {**fields, **asked}, "the parameters of the fit do not fit")


def tune_order(
    settings: Settings, *, kind: str, name: str = "", params: Mapping[str, Any], space: Mapping[str, Any],
    against: Mapping[str, Any] | None = None, **search: Any,
) -> TuneOrder:  # fmt: skip
    """A parameter that a person gave is not tuned, unless its space is given too; `search` holds TuneOrder's keys."""
    fit = fit_order(settings, kind=known_kind(kind), name=name, params=params, against=against)
    fields = {"fit": fit, "space": {**dict.fromkeys(params), **space}, "workers": settings.jobs.workers}
    fields |= {"past_searches": settings.jobs.past_searches, **search}
    return changed_search(msgspec.to_builtins(fields))


def auto_order(settings: Settings, *, name: str, kinds: Sequence[str] = (), **asked: Any) -> AutoOrder:
    fit = fit_order(settings, kind=KIND, name=name, params={}, seed=asked.get("seed", 0))
    fields = {"fit": fit, "kinds": [known_kind(kind) for kind in kinds], "workers": settings.jobs.workers}
    fields |= {"past_searches": settings.jobs.past_searches, **asked}
    return _ordered(AutoOrder, msgspec.to_builtins(fields), "this cannot be ordered so")


def changed_search(fields: dict[str, Any]) -> TuneOrder:
    return _ordered(TuneOrder, fields, "the search cannot be ordered so")


def evaluate_order(settings: Settings, **asked: Any) -> EvaluateOrder:
    return _ordered(EvaluateOrder, {"groups": settings.symbols.groups, **asked})


def backtest_order(**asked: Any) -> BacktestOrder:
    order = _ordered(BacktestOrder, asked)
    if order.retrain is not None:
        known_kind(order.retrain.kind)
    return order


def known_kind(kind: str) -> str:
    """`kind`, before anything is begun for it."""
    if kind not in (known := names("models")):
        raise BadSettings(f"no model named '{kind}'", remedy=f"known: {', '.join(known)}")
    return kind


def _ordered(kind: type[Some], fields: dict[str, Any], complaint: str = "this cannot be done as asked") -> Some:
    try:
        return kind.of(fields)
    except msgspec.ValidationError as error:
        raise BadSettings(f"{complaint}: {error}") from None


class JobInputs(NamedTuple):
    """What a job reads beside its order."""

    bars: Callable[[Path], object] = lambda folder: None  # leaves them in the folder, or says where they are
    models: Mapping[str, Path] = {}  # folders of models, by what they are called in that folder
    past: Past = NO_PAST  # what searches before it found


NO_INPUTS = JobInputs()


def prepare(folder: Path, order: Order, inputs: JobInputs = NO_INPUTS) -> None:
    """Fill the folder of a job; the order comes last, so that a folder with one is whole."""
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    for name, model in inputs.models.items():
        (folder / name).mkdir(parents=True)
        copy_plain_files(model, folder / name)
    inputs.bars(folder)
    if inputs.past != NO_PAST:
        inputs.past.write(folder)
    write_whole(folder / ORDER, msgspec.json.format(msgspec.json.encode(order)))
