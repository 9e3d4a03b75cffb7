"""Fitted members and what combines them, in job folders of known series, for tests of combinations."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from tickcast.batch.train import fit
from tickcast.batch.train.dataset import load_dataset
from tickcast.engine.inference.load import open_model
from tickcast.engine.inference.model_folder import read_card
from tickcast.io.jobs.folder import MEMBERS
from tickcast.io.jobs.orders import FitOrder
from tickcast.plugin import Runner
from trainkit import Progress, autoregressive, job, model_of, series

BARS = 900  # of a symbol
SHORT, LONG, HORIZON = 16, 24, 3  # look-back of the members, and of combinations
SKILL = {"method": "skill", "origins": 4, "stride": 2}


def history(*, first_seed: int = 0) -> list[pl.DataFrame]:
    """Prices that turn back, and prices that go on as they went."""
    turning = [series(name, autoregressive(BARS, seed=first_seed + i)) for i, name in enumerate("AB")]
    going = [series(name, autoregressive(BARS, seed=first_seed + 9 + i, phi=0.6)) for i, name in enumerate("CD")]
    return [*turning, *going]


def member(folder: Path, kind: str, frames: list[pl.DataFrame], **order: Any) -> Path:
    """The folder of a fitted model."""
    given: dict[str, Any] = {"lookback": SHORT, "horizon": HORIZON, "model_params": {}, "name": folder.name} | order
    job(folder, frames, kind=kind, **given)
    return model_of(folder)


def combination(
    folder: Path, models: Sequence[Path], frames: list[pl.DataFrame], over: dict[str, Any] | None = None, **more: Any
) -> FitOrder:
    """A job folder that holds its members; keys that no order has are the model's parameters."""
    shutil.rmtree(folder, ignore_errors=True)
    for number, model in enumerate(models):
        shutil.copytree(model, folder / MEMBERS / str(number))
    params = {"members": [read_card(model).digest for model in models], **(over or {}), **more}
    own = {name: params.pop(name) for name in [*params] if name in FitOrder.__struct_fields__}
    given = {"kind": "ensemble", "lookback": LONG, "horizon": HORIZON, "model_params": params, **own}
    return job(folder, frames, **given)


def served(folder: Path, models: Sequence[Path], frames: list[pl.DataFrame], **over: Any) -> Runner:
    """Fitted, and opened as the daemon does."""
    combination(folder, models, frames, **over)
    return open_model(model_of(folder))


def fitted(folder: Path, models: Sequence[Path], frames: list[pl.DataFrame], **over: Any) -> Any:
    """Fitted, without its folder."""
    order = combination(folder, models, frames, **over)
    dataset = load_dataset(folder, order)
    model: Any = fit.build(order, dataset)
    model.fit(dataset, Progress())
    return model
