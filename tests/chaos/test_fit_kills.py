"""SIGKILL at every seam of a fit: the folder goes on by itself, to the weights of a fit that nobody killed."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import nursery
from tickcast.batch.train import fit
from tickcast.batch.train.checkpoint import CHECKPOINT, LAST, Checkpoints
from tickcast.batch.train.dataset import Dataset, load_dataset
from tickcast.batch.train.fit import FINAL
from tickcast.batch.train.train import train
from tickcast.clock import SetClock
from tickcast.engine.inference.model_folder import CARD
from tickcast.io.jobs.folder import MODEL
from tickcast.io.jobs.orders import Against, FitOrder
from trainkit import Progress, autoregressive, fitted, job, model_of, series, weights

pytestmark = pytest.mark.slow
SEAMS = ("mid-epoch", "end of an epoch", "half a checkpoint", "before the rename", "after the rename", "export")
ORDER: dict[str, Any] = {
    "model_params": {"hidden": 8}, "windows_per_epoch": 160, "batch_size": 32, "epochs": 4, "checkpoint_s": 1e-9
}  # fmt: skip
LINEAR = {"kind": "nlinear", "model_params": {}, "horizon": 2, "lookback": 8, "learning_rate": 0.03}


def test_a_fit_that_was_killed_at_any_seam_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    folders = {seam: tmp_path / seam.replace(" ", "-") for seam in SEAMS}
    for folder in folders.values():
        job(folder, [series(symbol, autoregressive(600, seed=i)) for i, symbol in enumerate("AB")], **ORDER)
    last = folders["export"]
    earlier = [f"{seam}={last}" for seam in ("half a checkpoint", "after the rename")]  # one after the other
    killed(*earlier, *(f"{seam}={folder}" for seam, folder in folders.items()))
    whole, _ = fitted(tmp_path / "whole", **ORDER)
    for seam, folder in folders.items():
        assert not (folder / MODEL).exists()
        begun = steps_of(folder)
        assert 0 < begun <= 20, seam
        assert (begun == 20) == (seam == "export"), f"{seam}: the kill came where it should"
        if seam != "export":
            again, outcome = fitted(folder, checkpoints=True, **ORDER)
            np.testing.assert_array_equal(weights(again), weights(whole), err_msg=seam)
            assert (outcome.status, outcome.epochs) == ("done", 4)
    finished = load_file(model_of(last) / "weights.safetensors")
    for name, tensor in whole.module().state_dict().items():
        np.testing.assert_array_equal(finished[name], tensor)


def test_a_job_of_two_fits_that_was_killed_in_and_between_them_ends_with_the_weights_of_one_that_was_not(
    tmp_path: Path,
) -> None:
    """Each goes on from its own checkpoint; the first is not begun again once it has its model."""
    torch.set_num_threads(1)
    order = job(
        tmp_path, [series(symbol, autoregressive(1200, seed=i)) for i, symbol in enumerate("AB")],
        **{**ORDER, **LINEAR, "against": Against(alpha=0.05, most_bars=10**6)},
    )  # fmt: skip
    killed(*(f"{seam}={tmp_path}" for seam in ("mid-epoch", "between the fits", "in the final fit", "export")))
    judged = (tmp_path / MODEL / CARD).stat()
    assert (tmp_path / FINAL / CHECKPOINT / LAST).exists()
    assert not (tmp_path / FINAL / MODEL).exists()
    found = fit.run(tmp_path, Progress())
    assert found["model"] == f"{FINAL}/{MODEL}"
    assert (tmp_path / MODEL / CARD).stat() == judged
    dataset = load_dataset(tmp_path, order)
    for folder, data in ((MODEL, dataset), (found["model"], dataset.without_holdout())):
        net = trained(order, data)
        finished = load_file(tmp_path / folder / "weights.safetensors")
        for name, tensor in net.module().state_dict().items():
            np.testing.assert_array_equal(finished[name], tensor, err_msg=f"{folder}: {name}")


def trained(order: FitOrder, dataset: Dataset) -> Any:
    net: Any = fit.build(order, dataset)
    net.set_channels(*dataset.channel_statistics())
    train(net.module(), dataset, order, Progress(), SetClock())
    return net


def killed(*fits: str) -> None:
    script = Path(__file__).with_name("killed_fit.py")
    done = nursery.run([sys.executable, script, *fits], timeout=120, popen=nursery.WarmFit)
    assert done.returncode == 0, done.stderr


def steps_of(folder: Path) -> int:
    """How far the last checkpoint came, and that it is whole."""
    assert (folder / CHECKPOINT / LAST).exists()
    order = FitOrder.read(folder)
    saved = Checkpoints(folder, {"order": order.digest, "data": load_dataset(folder, order).digest}).last()
    assert saved is not None
    step: int = saved.record["place"]["step"]
    return step
