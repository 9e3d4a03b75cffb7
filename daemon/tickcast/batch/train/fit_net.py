"""The fit of a net and its graphs: what of a fit needs torch, so that no other kind waits for its import."""

from pathlib import Path
from typing import Any

import msgspec
import torch

from tickcast.batch.judge.hold_out import residual_gaps
from tickcast.batch.train.analysis import analyse
from tickcast.batch.train.checkpoint import Checkpoints
from tickcast.batch.train.dataset import Dataset
from tickcast.batch.train.export import export
from tickcast.batch.train.export_step import export_step
from tickcast.batch.train.fit_job import FitJob
from tickcast.batch.train.losses import POINT_LOSSES
from tickcast.batch.train.start import begin
from tickcast.batch.train.train import train
from tickcast.plugin import Net


def fit_net(net: Net, dataset: Dataset, job: FitJob) -> dict[str, Any]:
    torch.set_num_threads(job.order.threads)
    figures: dict[str, Any] = {}
    if job.parent is not None:
        figures["start"] = begin(net, job.parent)._asdict()
    if job.parent is None or job.parent.start.mode != "finetune":
        # finetuned weights have learnt their channels in the old units: with new ones, every input would have moved
        net.set_channels(*dataset.channel_statistics())
    fingerprint = {"order": job.order.digest, "data": dataset.digest}
    if job.parent is not None:
        fingerprint["start"] = job.parent_digest
    checkpoints = Checkpoints(job.folder, fingerprint)
    order = msgspec.structs.replace(job.order, time_budget_s=job.time_s)
    outcome = train(net.module(), dataset, order, job.report, job.clock, checkpoints=checkpoints)
    if job.order.loss in POINT_LOSSES:
        net.set_gaps(residual_gaps(net.predict, dataset, job.order.levels))
    said = analyse(outcome.curve, start_loss=outcome.start_loss, status=outcome.status)
    curve = [list(epoch) for epoch in outcome.curve]  # as JSON gives it back
    return {**figures, "fit": {**msgspec.to_builtins(outcome), "curve": curve, **said}}


def write_graphs(net: Net, folder: Path) -> None:
    """`model.onnx`, and `step.onnx` of a net that can be stepped."""
    export(net, folder)
    export_step(net, folder)
