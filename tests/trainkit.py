"""Job folders for tests of training: bars of known series, and a fit whose progress is kept."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
import torch

from tickcast.batch.train import fit
from tickcast.batch.train.analysis import FitOutcome
from tickcast.batch.train.checkpoint import Checkpoints
from tickcast.batch.train.dataset import load_dataset
from tickcast.batch.train.train import train
from tickcast.batch.tune.trial_worker import EpochReport, Task, Told, Verdict, work
from tickcast.clock import Clock, SetClock, SystemClock
from tickcast.columns import F64
from tickcast.errors import BadModel
from tickcast.io.jobs import worker
from tickcast.io.jobs.folder import BARS, Result
from tickcast.io.jobs.orders import FitOrder, TuneOrder
from tickcast.plugin import Report

EVERY_NS = 10**9


def series(name: str, close: F64, *, start: int = 0, mask: F64 | None = None, gap: F64 | None = None) -> pl.DataFrame:
    """One symbol's bars; the first ends at (1 + start) seconds."""
    n = len(close)
    return pl.DataFrame(
        {
            "symbol": [name] * n, "as_of_ns": (np.arange(n) + 1 + start) * EVERY_NS, "tie": np.zeros(n, np.int32),
            "open": close, "high": close, "low": close, "close": close, "volume": np.ones(n),
            "mask": np.ones(n, np.uint8) if mask is None else mask.astype(np.uint8),
            "gap": np.zeros(n, np.uint8) if gap is None else gap.astype(np.uint8),
        }
    )  # fmt: skip


def walk(n: int, *, seed: int, sigma: float = 1e-3) -> F64:
    return 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, sigma, n)))


def autoregressive(n: int, *, seed: int, phi: float = -0.6) -> F64:
    """Prices whose log returns turn back: half of the next move can be known."""
    noise = np.random.default_rng(seed).normal(0, 1e-3, n)
    moves = np.zeros(n)
    for i in range(1, n):
        moves[i] = phi * moves[i - 1] + noise[i]
    return 100 * np.exp(np.cumsum(moves))


def sine(n: int, *, seed: int, period: int = 16) -> F64:
    return 10 + np.sin(2 * np.pi * np.arange(n) / period) + np.random.default_rng(seed).normal(0, 0.05, n)


def export_in_haste() -> None:
    """torch makes its table of what an operator becomes anew for every graph, a third of the time of a small one; and
    as much again takes coverage, which counts none of the lines that are run there.
    """
    export = torch.onnx.export

    def exported(*given: Any, **named: Any) -> Any:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        if not hasattr(ONNXRegistry.from_torchlib, "cache_info"):
            ONNXRegistry.from_torchlib = staticmethod(cache(ONNXRegistry.from_torchlib))
        tracer = sys.gettrace()
        sys.settrace(None)
        try:
            return export(*given, **named)
        finally:
            sys.settrace(tracer)

    torch.onnx.export = exported


export_in_haste()


@contextmanager
def without_children() -> Iterator[None]:
    """Fits of commands are done as their child would do them, without the seconds that a process takes to start."""

    def trained_here(folder: Path, **_: object) -> Result:
        with pytest.MonkeyPatch.context() as kept:
            kept.setenv("OMP_NUM_THREADS", "1")  # the worker sets it
            result = worker.work(folder)
        if not result.ok:
            raise BadModel(f"the fit failed ({result.error_code}): {result.error}")
        return result

    with pytest.MonkeyPatch.context() as patch:
        for module in ("by_hand.fit", "by_hand.run_folder", "backtest.retraining", "loop_replay.host"):
            patch.setattr(f"tickcast.batch.{module}.train", trained_here)
        yield


class WorkersHere:
    """The trials of a search, done as its workers would do them, without the seconds that these take to start: one
    after the other, and none is given up.
    """

    def __init__(self, folder: Path, size: int, *, budget_s: float, clock: Clock) -> None:
        asked = TuneOrder.read(folder)
        self._dataset, self._metric = load_dataset(folder, asked.fit), asked.metric
        self._lines: list[bytes] = []
        self._left: list[bytes] = []

    def __enter__(self) -> "WorkersHere":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def is_busy(self) -> bool:
        return bool(self._lines)

    @property
    def has_room(self) -> bool:
        return not self._lines

    def give(self, number: int, order: FitOrder) -> None:
        self._left = [msgspec.json.encode(Task(number, order))]
        work(self._dataset, self._metric, self, self, SystemClock())  # type: ignore[arg-type]

    def answer(self, number: int, *, go_on: bool) -> None:
        pass

    def told(self, timeout_s: float) -> list[Told]:
        told = [msgspec.json.decode(line, type=Told) for line in self._lines]
        self._lines = []
        return told

    def readline(self) -> bytes:
        """The task, then a verdict after each epoch, then nothing more."""
        if self._left:
            return self._left.pop()
        is_epoch = isinstance(msgspec.json.decode(self._lines[-1], type=Told), EpochReport)
        return msgspec.json.encode(Verdict(go_on=True)) if is_epoch else b""

    def write(self, line: bytes) -> None:
        self._lines.append(line)


@contextmanager
def trials_here() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in ("tune", "sweep"):
            patch.setattr(f"tickcast.batch.tune.{module}.TrialWorkers", WorkersHere)
        yield


def job(folder: Path, frames: list[pl.DataFrame], **order: Any) -> FitOrder:
    """Write a job folder; the defaults make a small, quick fit."""
    folder.mkdir(parents=True, exist_ok=True)
    pl.concat(frames).write_parquet(folder / BARS)
    small: dict[str, Any] = {
        "lookback": 24, "horizon": 4, "epochs": 8, "batch_size": 64, "learning_rate": 5e-3, "windows_per_epoch": 4096,
        "model_params": {"hidden": 24}, "bars": {"kind": "time", "every_ms": 1000, "on_gap": "carry"},
    }  # fmt: skip
    made = FitOrder(**(small | order))
    made.write(folder)
    return made


def model_of(folder: Path, report: Report | None = None) -> Path:
    """Fit what a job folder orders; returns the folder of the model."""
    return folder / str(fit.run(folder, report or Progress())["model"])


def fitted(
    folder: Path,
    report: Report | None = None,
    *,
    clock: Clock | None = None,
    checkpoints: bool = False,
    change: Callable[[Any], object] = lambda net: None,
    **order: Any,
) -> tuple[Any, FitOutcome]:
    """A net fitted on moves that turn back, without export, and how that went; `change` may alter it before."""
    frames = [series(symbol, autoregressive(600, seed=i)) for i, symbol in enumerate("AB")]
    made = job(folder, frames, **order)
    dataset = load_dataset(folder, made)
    net: Any = fit.build(made, dataset)
    change(net)
    kept = Checkpoints(folder, {"order": made.digest, "data": dataset.digest}) if checkpoints else None
    return net, train(net.module(), dataset, made, report or Progress(), clock or SetClock(), checkpoints=kept)


def weights(net: Any) -> F64:
    """All that a net learns, in one row."""
    vector: F64 = torch.nn.utils.parameters_to_vector(net.module().parameters()).detach().numpy().copy()
    return vector


class Ticking(SetClock):
    """A second passes whenever somebody looks."""

    def monotonic_ns(self) -> int:
        self.now += 10**9
        return self.now


class Progress:
    """Remembers what a fit reported; asks it to stop after `enough` reports."""

    def __init__(self, enough: int = 10**9) -> None:
        self.lines: list[dict[str, float]] = []
        self._enough = enough

    def __call__(self, *, step: int, steps: int, **figures: float) -> bool:
        self.lines.append({"step": step, "steps": steps, **figures})
        return len(self.lines) < self._enough
