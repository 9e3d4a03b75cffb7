"""Does the 90 % interval hold 90 % of the truths, at every scored step up to 96, and how soon again after a shock?

    python benchmarks/run.py coverage_by_step

The whole engine at its default settings, bars in, scores out; the naive rung, and an NHITS that was fitted on the first
part of the same bars and is scored on the rest. Steps with fewer than 100 h settled bars per symbol are told without a
verdict: so few labels of step h, which overlap h-fold, say little.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from coverage_cases import CASES, doubling, written
from stats import Figure
from tickcast.batch.by_hand.fit import fit
from tickcast.columns import F64, I64, Scores
from tickcast.io.jobs.prepare import fit_order
from tickcast.io.tape.tape import Tape
from tickcast.loop.build import build
from tickcast.settings import Settings, load

HORIZON, NOMINAL, WITHIN = 96, 90.0, 2.0
LABELS_FOR_A_VERDICT = 100  # settled bars per symbol, for each bar of the step
FITTED = 0.5  # share of the bars that NHITS may see
NHITS = {"hidden": 64, "epochs": 3, "windows_per_epoch": 20_000, "seed": 1}
SHOCK_SEEDS, SHOCK_SYMBOLS, SHOCK_AT, SHOCK_BARS, SHOCK_STEP = 5, 200, 1_000, 1_400, 12
SHOCK_WITHIN, SHOCK_BACK, SHOCK_MEAN = 5.0, 80, 25  # points, bars, bars
CHUNK = 20_000


class Step(NamedTuple):
    horizon: int
    labels: int
    coverage: float  # percent
    counts: bool  # there are labels enough for a verdict


def deployment(every_ns: int, **more: str) -> Settings:
    given = {
        "bars.every_ms": str(every_ns // 10**6),
        "model.default": "naive",
        "forecast.horizon": str(HORIZON),
        **more,
    }
    return load(overrides=given, environ={})[0]


def scores_of(settings: Settings, path: Path) -> Iterator[tuple[Scores, I64]]:
    """What was settled outside a training span, by the turn, and which model of the ladder made each."""
    tape = Tape(path, settings, chunk=CHUNK)
    engine = build(tape.settings).engine
    for batch in tape:
        for scores in engine.turn([batch], 0).scores:
            yield scores, np.flatnonzero((scores.model == 0) & (scores.in_sample == 0))


def steps(settings: Settings, path: Path) -> list[Step]:
    """Of the first model of the ladder."""
    horizons = settings.scored_horizons()
    n, covered, symbols = np.zeros(len(horizons)), np.zeros(len(horizons)), set[int]()
    for scores, own in scores_of(settings, path):
        n += np.isfinite(scores.actual[own]).sum(axis=0)
        covered += scores.covered[own].sum(axis=0)
        symbols |= {*scores.symbol[own].tolist()}
    each = n / max(len(symbols), 1)
    return [
        Step(h, int(n[j]), float(100 * covered[j] / n[j]), bool(each[j] >= LABELS_FOR_A_VERDICT * h))
        for j, h in enumerate(horizons)
        if n[j]
    ]


def fitted(settings: Settings, frame: pl.DataFrame, folder: Path) -> Path:
    """An NHITS of the first part of the bars."""
    until = frame["ts"].min() + FITTED * (frame["ts"].max() - frame["ts"].min())  # type: ignore[operator]
    data = written(frame.filter(pl.col("ts") <= until), folder / "fit.parquet")
    order = fit_order(settings, kind="nhits", name="nhits", params=NHITS)
    fit(settings, data, folder / "model", order=order)
    return folder / "model"


def told(name: str, found: list[Step]) -> Figure:
    """The step that is furthest off; one without a verdict stands in brackets."""
    judged = [abs(step.coverage - NOMINAL) for step in found if step.counts]
    each = (f"{step.horizon}: {step.coverage:.1f}" for step in found)
    note = ", ".join(text if step.counts else f"({text})" for text, step in zip(each, found, strict=True))
    return Figure(f"{name}: furthest from 90 %", float(max(judged, default=0.0)), "points", WITHIN, "lower", note=note)


def after_a_shock(folder: Path) -> Figure:
    """Bars from the doubling of volatility until the truths of every later stretch are covered as they should be."""
    covered = np.mean([_by_bar(folder, seed) for seed in range(SHOCK_SEEDS)], axis=0)
    stretches = np.convolve(covered, np.full(SHOCK_MEAN, 1 / SHOCK_MEAN), "valid")
    ends = np.arange(SHOCK_MEAN, SHOCK_BARS - SHOCK_STEP) + SHOCK_STEP  # the bar that the last truth of a stretch is of
    off = ends[(np.abs(100 * stretches - NOMINAL) > SHOCK_WITHIN) & (ends >= SHOCK_AT)]
    back = int(off.max(initial=SHOCK_AT - 1)) + 1 - SHOCK_AT
    name = f"bars until step {SHOCK_STEP} is within 85..95 % after volatility doubled"
    return Figure(name, float(back), "bars", SHOCK_BACK, note=f"{SHOCK_SYMBOLS} symbols, means of {SHOCK_MEAN} bars")


def _by_bar(folder: Path, seed: int) -> F64:
    """Coverage of the last step by the bar at which the forecast was made, up to the last that is settled."""
    settings = deployment(3600 * 10**9, **{"window.lookback": "25", "forecast.horizon": str(SHOCK_STEP)})
    frame = doubling(SHOCK_SYMBOLS, SHOCK_BARS, SHOCK_AT, seed)
    path, first = written(frame, folder / "shock.parquet"), int(frame["ts"].min())  # type: ignore[arg-type]
    n, covered = np.zeros(SHOCK_BARS), np.zeros(SHOCK_BARS)
    for scores, own in scores_of(settings, path):
        bar = (scores.as_of[own] - first) // (3600 * 10**9) - 1
        np.add.at(n, bar, 1)
        np.add.at(covered, bar, scores.covered[own, -1])
    share: F64 = covered / np.maximum(n, 1)
    return share[: SHOCK_BARS - SHOCK_STEP - 1]


def main() -> list[Figure]:
    folder, figures = Path(tempfile.mkdtemp(prefix="coverage-")), []
    try:
        for name, (read, every_ns) in CASES.items():
            frame = read()
            path, settings = written(frame, folder / "bars.parquet"), deployment(every_ns)
            figures.append(told(f"{name}, naive", steps(settings, path)))
            model = fitted(settings, frame, folder)
            figures.append(told(f"{name}, NHITS", steps(deployment(every_ns, **{"model.default": str(model)}), path)))
            shutil.rmtree(model)
            print(figures[-2], figures[-1], sep="\n", flush=True)
        figures.append(after_a_shock(folder))
    finally:
        shutil.rmtree(folder)
    return figures


if __name__ == "__main__":
    for figure in main():
        print(figure)
