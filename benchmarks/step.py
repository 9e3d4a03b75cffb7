"""Step mode beside the window: what a forecast costs and what it is worth, on hourly bars of 27 crypto pairs.

python benchmarks/run.py step          some minutes; the same data, seed, order and number of windows for all
"""

import tempfile
from pathlib import Path

import numpy as np

from accuracy_data import write_bars
from stats import Figure, wall_ns_per
from tickcast.batch.judge.hold_out import evaluate
from tickcast.batch.train import fit
from tickcast.batch.train.dataset import Dataset, load_dataset
from tickcast.columns import F32, Inputs
from tickcast.engine.inference.load import open_model
from tickcast.engine.inference.stepping import StepRunner
from tickcast.io.jobs.orders import FitOrder
from tickcast.plugin import Runner
from tickcast.questions import Questions
from tickcast.testing import walks

KINDS = ("gru", "lstm", "tcn")
LOOKBACK, HORIZON, HOUR_MS = 96, 12, 3_600_000
EPOCHS, WINDOWS = 8, 8_192
BATCHES = {1: 300, 27: 100, 1024: 5}  # rows of a call, and calls of a run


def main() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        return [figure for kind in KINDS for figure in of_kind(kind, Path(folder))]


def of_kind(kind: str, folder: Path) -> list[Figure]:
    window, _ = fitted(folder / f"{kind}-window", kind, "window")
    runner, dataset = fitted(folder / f"{kind}-step", kind, "step")
    assert isinstance(runner, StepRunner)
    figures = [
        Figure(f"{kind}, window: hold-out skill", window.card.metrics["skill"], ""),
        Figure(f"{kind}, step, each window from zeros: hold-out skill", runner.card.metrics["skill"], ""),
        Figure(f"{kind}, step, moved on bar by bar: hold-out skill", followed_skill(runner, dataset), ""),
    ]
    for rows, calls in BATCHES.items():
        figures += [
            Figure(f"{kind}, window, batch of {rows:,}, per forecast", predict_us(window, rows, calls), "us"),
            Figure(f"{kind}, step, batch of {rows:,}, per forecast", follow_us(runner, rows, calls), "us"),
        ]
    return figures


def fitted(folder: Path, kind: str, mode: str) -> tuple[Runner, Dataset]:
    folder.mkdir()
    write_bars(folder, "crypto", 3)
    bars = {"kind": "time", "every_ms": HOUR_MS, "on_gap": "carry"}
    order = FitOrder(
        kind=kind, model_params={"mode": mode}, bars=bars, lookback=LOOKBACK, horizon=HORIZON, epochs=EPOCHS,
        windows_per_epoch=WINDOWS, validation_windows=4_096, patience=EPOCHS, seed=1,
    )  # fmt: skip
    order.write(folder)
    model = folder / str(fit.run(folder, lambda **_: True)["model"])
    return open_model(model), load_dataset(folder, FitOrder.read(folder))


def followed_skill(runner: StepRunner, dataset: Dataset) -> float:
    """As the card's, with states that go through the whole hold-out as live ones do."""
    rows = dataset.parts.holdout
    rows = rows[np.lexsort((dataset.history.symbol[rows], dataset.history.ordinal[rows]))]
    symbol, ordinal, at = dataset.history.symbol[rows], dataset.history.ordinal[rows], 0

    def predict(inputs: Inputs) -> F32:
        nonlocal at
        part, at = slice(at, at + len(inputs)), at + len(inputs)
        return runner.answer(Questions.of(inputs, symbol[part], ordinal[part])).quantiles

    return float(evaluate(predict, np.array(runner.card.last_value), dataset, rows, runner.card.levels)["skill"])


def predict_us(runner: Runner, rows: int, calls: int) -> float:
    questions = Questions.of(walks(runner, rows=rows, lookback=LOOKBACK))

    def run() -> None:
        for _ in range(calls):
            runner.answer(questions)

    return wall_ns_per(calls * rows, run) / 1e3


def follow_us(runner: StepRunner, rows: int, calls: int) -> float:
    """Every call is the next bar of so many symbols."""
    inputs, symbol, bar = walks(runner, rows=rows, lookback=LOOKBACK), np.arange(rows, dtype=np.int32), 10**6

    def run() -> None:
        nonlocal bar
        for _ in range(calls):
            bar += 1
            runner.answer(Questions.of(inputs, symbol, np.full(rows, bar)))

    return wall_ns_per(calls * rows, run) / 1e3


if __name__ == "__main__":
    for figure in main():
        print(f"{figure.name:<55} {figure.value:10.4f} {figure.unit}")
