"""The fit of a net and its graphs: what of a fit needs torch, so that no other kind waits for its import."""

from pathlib import Path
from typing import Any

import msgspec
import torch

from tickcast.plugin import Net
from tickcast_trainer.analysis import analyse
from tickcast_trainer.checkpoint import Checkpoints
from tickcast_trainer.dataset import Dataset
from tickcast_trainer.evaluate import residual_gaps
from tickcast_trainer.export import export
from tickcast_trainer.export_step import export_step
from tickcast_trainer.fit_job import Job
from tickcast_trainer.losses import POINT_LOSSES
from tickcast_trainer.start import begin
from tickcast_trainer.train import train


def fit_net(net: Net, dataset: Dataset, job: Job) -> dict[str, Any]:
    torch.set_num_threads(job.order.threads)
    figures: dict[str, Any] = {}
    if job.parent is not None:
        figures["start"] = begin(net, job.parent)._asdict()
    if job.parent is None or job.parent.start.mode != "finetune":
        # finetuned weights have learnt their channels in the old units: with new ones, every input would have moved
        net.set_channels(*dataset.channel_statistics())
    fingerprint = {"order": job.order.digest, "data": dataset.digest}
    if job.parent is not None:
        fingerprint["start"] = job.parent.card.digest
    checkpoints = Checkpoints(job.folder, fingerprint)
    outcome = train(net.module(), dataset, job.order, job.report, job.clock, checkpoints=checkpoints)
    if job.order.loss in POINT_LOSSES:
        net.set_gaps(residual_gaps(net.predict, dataset, job.order.levels))
    said = analyse(outcome.curve, start_loss=outcome.start_loss, status=outcome.status)
    curve = [list(epoch) for epoch in outcome.curve]  # as JSON gives it back
    return {**figures, "fit": {**msgspec.to_builtins(outcome), "curve": curve, **said}}


def write_graphs(net: Net, folder: Path) -> None:
    """`model.onnx`, and `step.onnx` of a net that can be stepped."""
    export(net, folder)
    export_step(net, folder)
