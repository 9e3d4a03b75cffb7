"""One fit, from a job folder to a model folder: data, training, widths, export, figures, card. It serves nothing."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from tickcast.clock import Clock, SystemClock
from tickcast.errors import BadSettings
from tickcast.inference.load import CARD, FRAMEWORK
from tickcast.inference.onnx import MODEL, OnnxRunner
from tickcast.plugin import Model, Net, Report, find
from tickcast.records import ModelCard, digest
from tickcast_trainer.dataset import Dataset, load_dataset
from tickcast_trainer.evaluate import evaluate, residual_gaps
from tickcast_trainer.export import check_parity, export, probe_inputs, write_probe
from tickcast_trainer.losses import POINT_LOSSES
from tickcast_trainer.order import FitOrder, read_order, write_order
from tickcast_trainer.train import Outcome, train

__all__ = ["FOLDER", "FitOrder", "read_order", "run", "write_order"]

FOLDER = "model"  # within the job folder
COST_ROWS, COST_CALLS = 1024, 11


def run(job_folder: Path, report: Report, *, clock: Clock | None = None) -> Path:
    """Fit what `order.json` asks on `bars.parquet`; returns the folder `model`, there whole or not at all."""
    clock = clock or SystemClock()
    order = read_order(job_folder)
    torch.set_num_threads(order.threads)
    dataset = load_dataset(job_folder, order)
    model = build(order, dataset)
    outcome = _fit(model, dataset, order, report, clock)
    partial, folder = job_folder / f".{FOLDER}", job_folder / FOLDER
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    figures = {"fit": msgspec.to_builtins(outcome), "parity": _write_model(model, partial)}
    card = _finished_card(model, dataset, figures, folder=partial, clock=clock)
    (partial / CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card)))
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    return folder


def build(order: FitOrder, dataset: Dataset) -> Net | Model:
    """An unfitted model of the order's kind, built on its card."""
    card = ModelCard(
        name=order.name or order.kind, kind=order.kind, version="", digest="", framework=FRAMEWORK, bars=order.bars,
        transform=order.transform, lookback=order.lookback, horizon=order.horizon, levels=order.levels,
        features=dataset.specs, future=order.future, need_bars=dataset.need_bars, model_params=order.model_params,
        seed=order.seed, created_ns=order.created_ns, dataset_hash=dataset.history.digest,
    )  # fmt: skip
    kind = find("models", order.kind)
    if not (hasattr(kind, "module") or hasattr(kind, "fit")):
        raise BadSettings(f"a model of kind '{order.kind}' needs no fit", remedy="name it as model.default")
    model: Net | Model = kind(card)
    return model


def _is_net(model: Net | Model) -> bool:
    return hasattr(model, "module")


def _fit(model: Net | Model, dataset: Dataset, order: FitOrder, report: Report, clock: Clock) -> Outcome:
    if not _is_net(model):
        model.fit(dataset, report)  # type: ignore[union-attr]
        return Outcome()
    net: Net = model  # type: ignore[assignment]
    net.set_channels(*dataset.channel_statistics())
    outcome = train(net.module(), dataset, order, report, clock)
    if order.loss in POINT_LOSSES:
        net.set_gaps(residual_gaps(net.predict, dataset, order.levels))
    return outcome


def _write_model(model: Net | Model, folder: Path) -> float:
    """All files but the card; returns how far graph and fit differ."""
    model.save(folder)
    if _is_net(model):
        export(model, folder)  # type: ignore[arg-type]
    parity = check_parity(model, folder)
    write_probe(model, folder)
    return parity


def _finished_card(
    model: Net | Model, dataset: Dataset, figures: dict[str, Any], *, folder: Path, clock: Clock
) -> ModelCard:
    runner = OnnxRunner(folder, model.card)
    naive = find("models", "naive")(model.card.transform, model.card.horizon, model.card.levels, 1)
    holdout = evaluate(runner.predict, naive.predict, dataset, dataset.parts.holdout, model.card.levels)
    artefacts = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}
    trained_from_ns, trained_to_ns = dataset.span_used()
    card = msgspec.structs.replace(
        model.card, version=artefacts[MODEL][:12], metrics={**holdout, **figures}, artefacts=artefacts,
        parameters=sum(p.numel() for p in model.module().parameters()) if _is_net(model) else 0,  # type: ignore[union-attr]
        cost_us=_cost_us(runner, clock), trained_from_ns=trained_from_ns, trained_to_ns=trained_to_ns,
    )  # fmt: skip
    return msgspec.structs.replace(card, digest=digest(card))


def _cost_us(runner: OnnxRunner, clock: Clock) -> float:
    """Median cost of one forecast in a busy batch."""
    inputs = probe_inputs(runner.card, COST_ROWS, seed=0)
    taken = []
    for _ in range(COST_CALLS):
        began_ns = clock.monotonic_ns()
        runner.predict(inputs)
        taken.append(clock.monotonic_ns() - began_ns)
    return float(np.median(taken)) / COST_ROWS / 1e3
