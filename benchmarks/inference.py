"""What an answer costs: the whole Runner call of NHITS and of the rungs, and the opening of a model folder.

python benchmarks/run.py inference
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from stats import Figure, wall_ns_per
from tickcast.batch.train import fit
from tickcast.engine.inference.load import open_model
from tickcast.io.jobs.folder import BARS
from tickcast.io.jobs.orders import FitOrder
from tickcast.plugin import Runner, find
from tickcast.questions import Questions
from tickcast.testing import walks

LOOKBACK, HORIZON, HIDDEN = 96, 12, 64
LEVELS = [0.05, 0.25, 0.5, 0.75, 0.95]
RUNS = 5
MANY = 20_000


def main() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        model = fitted(Path(folder))
        runner = open_model(model)
        opening = wall_ns_per(1, lambda: open_model(model), runs=RUNS) / 1e6
    return [
        Figure("nhits, batch of 1", call_us(runner, 1, calls=500), "us", bar=60),
        Figure("nhits, batch of 32, per forecast", call_us(runner, 32, calls=200) / 32, "us"),
        Figure("nhits, batch of 1,024, per forecast", call_us(runner, 1024, calls=20) / 1024, "us", bar=2),
        Figure("nhits, 20,000 questions at once", call_us(runner, MANY, calls=1) / 1e3, "ms"),
        Figure("open a model folder, checked and warmed up", opening, "ms", bar=100),
        *(rung_figure(kind) for kind in ("naive", "seasonal", "holt")),
    ]


def fitted(folder: Path) -> Path:
    """One epoch on a random walk: an answer costs the same whatever was learnt."""
    n = 1000
    close = 100 * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 1e-3, n)))
    pl.DataFrame(
        {
            "symbol": ["A"] * n, "as_of_ns": np.arange(n) * 10**9, "tie": np.zeros(n, np.int32),
            **dict.fromkeys(("open", "high", "low", "close"), close), "volume": np.ones(n),
            "mask": np.ones(n, np.uint8), "gap": np.zeros(n, np.uint8),
        }
    ).write_parquet(folder / BARS)  # fmt: skip
    params = {"hidden": HIDDEN}
    FitOrder(lookback=LOOKBACK, horizon=HORIZON, levels=LEVELS, model_params=params, epochs=1).write(folder)
    return folder / str(fit.run(folder, lambda **_: True)["model"])


def call_us(runner: Runner, rows: int, *, calls: int) -> float:
    """Microseconds of one call: the median of the runs, each a mean over its calls."""
    questions = Questions.of(walks(runner, rows=rows, lookback=LOOKBACK))
    return wall_ns_per(calls, repeated(runner, questions, calls), runs=RUNS) / 1e3


def repeated(runner: Runner, questions: Questions, calls: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(calls):
            runner.answer(questions)

    return run


def rung_figure(kind: str) -> Figure:
    rung = find("models", kind)("log_return", HORIZON, LEVELS, 24)
    return Figure(f"{kind} rung, 20,000 questions at once", call_us(rung, MANY, calls=1) / 1e3, "ms")


if __name__ == "__main__":
    for figure in main():
        print(f"{figure.name:<45} {figure.value:10.3f} {figure.unit}")
