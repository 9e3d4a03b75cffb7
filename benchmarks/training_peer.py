"""neuralforecast's side of training.py, in its own environment: prints differences, or windows per CPU second.

    training_peer.py forward FOLDER          netN.json: arguments of their class; netN.npz: weights, window, answer
    training_peer.py train FOLDER STEPS      series.npy

It knows nothing of tickcast.
"""

import json
import logging
import os
import sys
import time
import warnings
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np
import pandas as pd
import torch
from neuralforecast import NeuralForecast, models
from neuralforecast.losses.pytorch import MQLoss

LEVELS = [0.05, 0.25, 0.5, 0.75, 0.95]
START_STEPS = 50
QUIET = {
    "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
    "enable_model_summary": False,
}  # fmt: skip


def forward(folder: Path, number: int) -> float:
    """Our weights in their network; all of them must find their place."""
    structure = json.loads((folder / f"net{number}.json").read_text())
    kind = getattr(models, structure.pop("kind"))
    net = kind(**structure, loss=MQLoss(quantiles=LEVELS), scaler_type="identity", max_steps=1, **QUIET)
    given = dict(np.load(folder / f"net{number}.npz"))
    window, answer = torch.from_numpy(given.pop("window")), given.pop("answer")
    missing, unknown = net.load_state_dict({name: torch.from_numpy(part) for name, part in given.items()}, strict=False)
    if unknown or [name for name in missing if ".layers." in name]:
        raise SystemExit(f"weights that fit nowhere: {unknown}; without weights: {missing}")
    batch = {"insample_y": window.unsqueeze(-1), "insample_mask": torch.ones_like(window).unsqueeze(-1)}
    with torch.no_grad():
        theirs = net({**batch, **dict.fromkeys(("futr_exog", "hist_exog", "stat_exog"))})
    return float(np.abs(theirs.permute(0, 2, 1).numpy() - answer).max())


def train(folder: Path, steps: int) -> float:
    series = np.load(folder / "series.npy")
    frame = pd.DataFrame(
        {
            "unique_id": np.repeat([f"S{i:02d}" for i in range(len(series))], series.shape[1]),
            "ds": np.tile(np.arange(series.shape[1]), len(series)),
            "y": series.ravel(),
        }
    )
    start, whole = (seconds(frame, count) for count in (START_STEPS, START_STEPS + steps))
    return steps * 256 / (whole - start)


def seconds(frame: pd.DataFrame, steps: int) -> float:
    net = models.NHITS(
        h=12, input_size=96, mlp_units=[[64, 64]], n_pool_kernel_size=[4, 2, 1], n_freq_downsample=[4, 2, 1],
        loss=MQLoss(quantiles=LEVELS), max_steps=steps, windows_batch_size=256, val_check_steps=10**6, **QUIET,
    )  # fmt: skip
    began = time.process_time()
    NeuralForecast(models=[net], freq=1).fit(frame)
    return time.process_time() - began


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    job, folder = sys.argv[1], Path(sys.argv[2])
    if job == "forward":
        print([forward(folder, number) for number in range(len(list(folder.glob("net*.json"))))])
    else:
        print(train(folder, int(sys.argv[3])))
