"""What learns on line, and what it is worth: fits that add what is new, and points corrected by what they were off.

    python benchmarks/run.py loop_online

Correction: the whole engine, bars in, scores out, with `inference.bias_correction` and without it, paired by forecast.
The models were fitted on the first half of the bars and are scored on the rest; intervals by bootstrap over weeks.
Beside real series walks without any bias, and a model that is off by PLANTED one-bar moves times the root of the step.

Fits: a month of hourly crypto added to what a year left, beside a fit in full of all of it. Both are whole jobs: bars
read, windows gathered, the model exported, checked and judged.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl

from accuracy_data import HOUR_NS, crypto_bars, crypto_frame
from coverage_by_step import CHUNK, FITTED
from coverage_cases import crypto, garch, written
from stats import Figure, paired_ratio
from tickcast.batch.by_hand.fit import fit as fit_by_hand
from tickcast.batch.train import fit
from tickcast.columns import F64, I64, U64
from tickcast.io.jobs.folder import BARS, MODEL, START
from tickcast.io.jobs.orders import FitOrder, WarmStart
from tickcast.io.jobs.prepare import fit_order
from tickcast.io.tape.tape import Tape
from tickcast.loop.build import build
from tickcast.plugin import Runner
from tickcast.questions import Answers, Questions
from tickcast.records import Command
from tickcast.settings import Settings, load

WEEK_NS, DRAWS, INTERVAL = 7 * 24 * HOUR_NS, 2000, (2.5, 97.5)
MOST_LOST = -0.1  # percent of pinball where there is no bias
PLANTED, LEFT = 0.5, 0.1  # one-bar moves, times the root of the step; part of it
YEAR, MONTH = 365 * 24, 30 * 24  # bars
PARAMS: dict[str, dict[str, Any]] = {
    "ridge": {},
    "nlinear": {"epochs": 3, "windows_per_epoch": 32_768, "seed": 1},
    "naive_bayes": {},
}
CASES: dict[str, tuple[Callable[[], pl.DataFrame], tuple[str, ...], float | None]] = {  # bars, kinds, most that is lost
    "crypto by the hour": (crypto, ("ridge", "nlinear", "naive_bayes"), None),
    "GARCH walk": (lambda: garch(bars=15_000), ("ridge",), MOST_LOST),
}


class Kept(NamedTuple):
    """Of the forecasts of the first model, in the order in which they were settled."""

    id: U64
    as_of: I64
    loss: F64  # [N, J]
    naive: F64
    point: F64  # in one-bar moves


class Off(Runner):
    """Last value, so many one-bar moves times the root of the step too low."""

    def __init__(self, like: Runner, by: float) -> None:
        self.card = msgspec.structs.replace(like.card, name="off", kind="off", digest="off")
        self._like, self._by = like, by

    def answer(self, questions: Questions) -> Answers:
        steps = np.sqrt(np.arange(1, self.card.horizon + 1))
        by = (self._by * questions.scale)[:, None, None] * steps[:, None]
        return Answers((self._like.answer(questions).quantiles - by).astype(np.float32))


def deployment(correcting: bool, **more: str) -> Settings:
    given = {"bars.every_ms": str(HOUR_NS // 10**6), "inference.bias_correction": str(correcting).lower(), **more}
    return load(overrides=given, environ={})[0]


def kept(settings: Settings, path: Path, *, planted: float = 0.0) -> Kept:
    tape, number = Tape(path, settings, chunk=CHUNK), 0
    serving = build(tape.settings)
    engine, ladder = serving.engine, serving.ladder
    assert ladder is not None
    if planted:
        engine.install(Off(ladder.runners[ladder.last_value], planted))
        engine.turn([Command(id="", command="use_model", args={"model": "off"})], 0)
        number = ladder.number("off")
    found = []
    for batch in tape:
        for scores in engine.turn([batch], 0).scores:
            own = scores.take((scores.model == number) & (scores.in_sample == 0))
            point = np.log(own.point / own.anchor[:, None]) / own.scale[:, None]
            found.append((own.id_low, own.as_of, own.loss, own.loss_naive, point))
    return Kept(*(np.concatenate(column) for column in zip(*found, strict=True)))


def gains(on: Kept, off: Kept) -> tuple[F64, F64, F64]:
    """Percent of pinball by step that the correction saves, with its interval over weeks."""
    assert (on.id == off.id).all(), "both answer the same questions"
    there = np.isfinite(on.loss) & np.isfinite(off.loss)
    _, week = np.unique(off.as_of // WEEK_NS, return_inverse=True)
    sums = [np.zeros((week.max() + 1, on.loss.shape[1])) for _ in range(2)]
    for total, each in zip(sums, (on, off), strict=True):
        np.add.at(total, week, np.where(there, each.loss, 0.0))
    drawn = np.random.default_rng(0).integers(0, len(sums[0]), (DRAWS, len(sums[0])))
    low, high = np.percentile(
        100 * (1 - sums[0][drawn].sum(axis=1) / sums[1][drawn].sum(axis=1)), INTERVAL, axis=0
    )  # fmt: skip
    return 100 * (1 - sums[0].sum(axis=0) / sums[1].sum(axis=0)), low, high


def told(name: str, settings: Settings, path: Path, *, bar: float | None = None) -> list[Figure]:
    """What the correction gains at the first, the middle and the last scored step."""
    horizons, inference = settings.scored_horizons(), settings.inference
    off = kept(settings, path)
    on = kept(settings.model_copy(update={"inference": inference.model_copy(update={"bias_correction": True})}), path)
    value, low, high = gains(on, off)
    skill = 100 * (1 - np.nansum(off.loss, axis=0) / np.nansum(off.naive, axis=0))
    found = []
    for j in (0, len(horizons) // 2, len(horizons) - 1):
        note = f"without it its skill is {skill[j]:+.2f} %, {len(off.id):,} forecasts"
        found.append(Figure(
            f"{name}: correction gains at step {horizons[j]}", float(value[j]), "%", None, "higher", float(low[j]),
            float(high[j]), note=note,
        ))  # fmt: skip
        if bar is not None:
            found.append(Figure(f"{name}: low end of it at step {horizons[j]}", float(low[j]), "%", bar, "higher"))
    return found


def planted(path: Path) -> list[Figure]:
    """Bars until no more than LEFT of the planted error is left in the points of a bar, in their mean."""
    settings, figures = deployment(True, **{"model.default": "naive"}), []
    found = kept(settings, path, planted=PLANTED)
    bar = (found.as_of - found.as_of.min()) // HOUR_NS
    for j, horizon in enumerate(settings.scored_horizons()):
        n, total = (np.bincount(bar, w, bar.max() + 1) for w in (None, found.point[:, j]))
        left = np.abs(total / np.maximum(n, 1)) / (PLANTED * np.sqrt(horizon))
        is_gone = (n > 0) & (left <= LEFT)
        until = int(is_gone.argmax()) if is_gone.any() else len(n)
        later = float(left[until:][n[until:] > 0].mean()) if is_gone.any() else float("nan")
        name = f"planted {PLANTED} moves: bars until at most {LEFT:.0%} of it is left at step {horizon}"
        figures.append(Figure(name, float(until), "bars", None, note=f"{later:.0%} is left in the mean from then on"))
    return figures


def corrections(folder: Path) -> list[Figure]:
    figures: list[Figure] = []
    for case, (read, kinds, bar) in CASES.items():
        frame = read()
        path = written(frame, folder / "bars.parquet")
        until = frame["ts"].min() + FITTED * (frame["ts"].max() - frame["ts"].min())  # type: ignore[operator]
        known = written(frame.filter(pl.col("ts") <= until), folder / "fit.parquet")
        for kind in kinds:
            settings = deployment(False)
            shutil.rmtree(folder / "model", ignore_errors=True)
            fit_by_hand(settings, known, folder / "model", order=fit_order(settings, kind=kind, params=PARAMS[kind]))
            settings = deployment(False, **{"model.default": str(folder / "model")})
            figures += told(f"{case}, {kind}", settings, path, bar=bar)
            print(*figures[-6:], sep="\n", flush=True)
    path = written(garch(symbols=20, bars=3_000), folder / "bars.parquet")
    return figures + planted(path)


def added(folder: Path) -> list[Figure]:
    """A month on top of a year."""
    frame = crypto_bars(crypto_frame())
    end = int(frame["as_of_ns"].max())  # type: ignore[arg-type]
    all_of_it = frame.filter(pl.col("as_of_ns") > end - (YEAR + MONTH) * HOUR_NS)
    bars = {"kind": "time", "every_ms": HOUR_NS // 10**6, "on_gap": "carry"}
    figures = []
    for kind in ("ridge", "naive_bayes"):
        order = FitOrder(kind=kind, bars=bars, model_params={"rows": 200_000})
        year = job(folder / "year", all_of_it.filter(pl.col("as_of_ns") <= end - MONTH * HOUR_NS), order)
        year()
        full = job(folder / "full", all_of_it, order)
        on = msgspec.structs.replace(order, start=WarmStart(mode="partial"))
        uncounted = int(0.3 * YEAR) + MONTH + 2 * order.lookback
        short = all_of_it.filter(pl.col("as_of_ns") > end - uncounted * HOUR_NS)
        for which, given in (("all bars given", all_of_it), ("given what is not counted and its look-back", short)):
            partial = job(folder / "partial", given, on, start=folder / "year" / MODEL)
            ratio = paired_ratio(full, partial, clock=time.process_time_ns)
            name = f"{kind}: a fit in full in fits that add a month to a year, {which}"
            figures.append(Figure(name, ratio.median, "x", None, "higher", ratio.low, ratio.high))
            print(figures[-1], flush=True)
    return figures


def job(folder: Path, frame: pl.DataFrame, order: FitOrder, start: Path | None = None) -> Callable[[], object]:
    """A filled folder; each call fits it anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    frame.write_parquet(folder / BARS)
    order.write(folder)
    if start is not None:
        shutil.copytree(start, folder / START)

    def again() -> None:
        shutil.rmtree(folder / MODEL, ignore_errors=True)
        fit.run(folder, lambda **_: True)

    return again


def main() -> list[Figure]:
    folder = Path(tempfile.mkdtemp(prefix="online-"))
    try:
        return added(folder) + corrections(folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
