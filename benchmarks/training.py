"""Whether NHITS and N-BEATS compute what neuralforecast's do with the same weights; and how fast each side trains one.

    python benchmarks/run.py training          makes build/neuralforecast by uv

Both sides train the same NHITS (context 96, horizon 12, hidden 64, 5 quantiles) on the same series, 256 windows a
step, one thread, in turn. Ours is a whole fit with its validation; theirs is their loop without one, less its start.
Speed is windows per CPU second of the process: windows per second of a core that is shared with nobody.
"""

import json
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
import torch

from peers import python_with
from stats import Figure, ratio_of
from tickcast.batch.train import fit
from tickcast.batch.train.dataset import load_dataset
from tickcast.batch.train.train import train
from tickcast.clock import SystemClock
from tickcast.io.jobs.folder import BARS
from tickcast.io.jobs.orders import FitOrder
from tickcast.plugin import find
from tickcast.records import ModelCard
from training_weights import their_weights

HERE = Path(__file__).parent
LOOKBACK, HORIZON, HIDDEN, BATCH = 96, 12, 64, 256
LEVELS = [0.05, 0.25, 0.5, 0.75, 0.95]
SERIES, BARS_EACH, STEPS, PAIRS = 20, 4_000, 300, 3
EPOCHS, WINDOWS = 6, 51_200
NETS: list[tuple[str, dict[str, Any]]] = [  # one layer more or less, knots and pools: all of it must agree
    ("nhits", {"hidden": HIDDEN}),
    ("nhits", {"hidden": 32, "layers": 3, "pooling": [8, 4, 1], "downsample": [6, 3, 1]}),
    ("nbeats", {"hidden": HIDDEN, "blocks": 2}),
    ("nbeats", {"hidden": 32, "layers": 3, "stacks": ["trend", "seasonality", "generic"], "blocks": 2}),
]
TOLERANCE = 1e-4  # one-bar moves: what the export of a fit may differ by, too
MOST_S = 1800


def main() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        worst = differences(folder)
        series = walks()
        write_bars(folder, series)
        np.save(folder / "series.npy", series)
        pairs = [pair(folder, turn) for turn in range(PAIRS)]
    ours, theirs = (median(side) for side in zip(*pairs, strict=True))
    ratio = ratio_of([own / other for own, other in pairs])
    net = f"NHITS, context {LOOKBACK}, horizon {HORIZON}, hidden {HIDDEN}, batch {BATCH}, one thread"
    return [
        Figure("worst difference from neuralforecast, same weights", max(worst), "moves", TOLERANCE,
               note=", ".join(f"{kind} {value:.1e}" for (kind, _), value in zip(NETS, worst, strict=True))),
        Figure("training", ours, "windows/s", 40_000, "higher", note=net),
        Figure("training, neuralforecast", theirs, "windows/s", None, "higher", note=f"{SERIES} series of {BARS_EACH}"),
        Figure("training, times faster", ratio.median, "x", 5, "higher", ratio.low, ratio.high),
    ]  # fmt: skip


def peer(*arguments: str) -> Any:
    python = python_with("neuralforecast", "neuralforecast", f"torch=={version('torch')}")  # the torch of ours
    command = [str(python), str(HERE / "training_peer.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_S)
    if done.returncode:
        raise RuntimeError(f"neuralforecast's side ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def differences(folder: Path) -> list[float]:
    """Of each net, the largest between what both sides answer to windows of walks, in one-bar moves."""
    for number, (kind, params) in enumerate(NETS):
        net: Any = find("models", kind)(card(kind, params))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in net.module().parameters():
                parameter.uniform_(-0.1, 0.1, generator=generator)
            window = torch.randn(BATCH, 1, LOOKBACK, generator=generator).cumsum(dim=2)
            window = window - window[:, :, -1:]  # as levels come: from the anchor, which is last value
            answer = net.module().body(window, torch.empty(BATCH, 0))
        weights = {name: tensor.numpy() for name, tensor in their_weights(net).items()}
        np.savez(folder / f"net{number}.npz", window=window[:, 0].numpy(), answer=answer.numpy(), **weights)
        (folder / f"net{number}.json").write_text(json.dumps(their_structure(net)))
    return peer("forward", str(folder))


def card(kind: str, params: dict[str, Any]) -> ModelCard:
    return ModelCard(
        name=kind, kind=kind, version="", digest="", framework="onnx", bars={}, transform="level", lookback=LOOKBACK,
        horizon=HORIZON, levels=LEVELS, features=[], seed=1, model_params=params,
    )  # fmt: skip


def their_structure(net: Any) -> dict[str, Any]:
    """Arguments of their class. They count the layers after their first, which has no activation."""
    params = net.params
    common = {"h": HORIZON, "input_size": LOOKBACK, "mlp_units": [[params.hidden] * 2] * params.layers}
    if net.kind == "nhits":
        stacks = len(params.pooling)
        own = {"n_pool_kernel_size": params.pooling, "n_freq_downsample": [1] * stacks}
        return {"kind": "NHITS", "stack_types": ["identity"] * stacks, "n_blocks": [1] * stacks, **common, **own}
    kinds = ["identity" if kind == "generic" else kind for kind in params.stacks]
    own = {"n_polynomials": params.degree, "n_harmonics": params.harmonics}
    return {"kind": "NBEATS", "stack_types": kinds, "n_blocks": [params.blocks] * len(kinds), **common, **own}


def walks() -> "np.ndarray":
    steps = np.random.default_rng(1).normal(0, 1e-3, (SERIES, BARS_EACH))
    return 100 * np.exp(steps.cumsum(axis=1))


def write_bars(folder: Path, series: "np.ndarray") -> None:
    close, rows = series.ravel(), series.size
    pl.DataFrame(
        {
            "symbol": np.repeat([f"S{i:02d}" for i in range(SERIES)], BARS_EACH),
            "as_of_ns": np.tile((np.arange(BARS_EACH) + 1) * 60 * 10**9, SERIES), "tie": np.zeros(rows, np.int32),
            **dict.fromkeys(("open", "high", "low", "close"), close), "volume": np.ones(rows),
            "mask": np.ones(rows, np.uint8), "gap": np.zeros(rows, np.uint8),
        }
    ).write_parquet(folder / BARS)  # fmt: skip


def pair(folder: Path, turn: int) -> tuple[float, float]:
    """Windows a second of both sides; who begins changes."""
    if turn % 2:
        theirs = peer("train", str(folder), str(STEPS))
        return our_training(folder), theirs
    return our_training(folder), peer("train", str(folder), str(STEPS))


def our_training(folder: Path) -> float:
    torch.set_num_threads(1)
    order = FitOrder(
        kind="nhits", lookback=LOOKBACK, horizon=HORIZON, levels=LEVELS, model_params={"hidden": HIDDEN},
        bars={"kind": "time", "every_ms": 60_000}, batch_size=BATCH, epochs=EPOCHS, patience=EPOCHS,
        windows_per_epoch=WINDOWS,
    )  # fmt: skip
    dataset = load_dataset(folder, order)
    net: Any = fit.build(order, dataset)
    began_ns = time.process_time_ns()
    outcome = train(net.module(), dataset, order, lambda **_: True, SystemClock())
    return outcome.windows / ((time.process_time_ns() - began_ns) / 1e9)


if __name__ == "__main__":
    for figure in main():
        print(figure)
