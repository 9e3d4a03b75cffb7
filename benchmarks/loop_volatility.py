"""Is the width of what comes forecastable? Pinball skill of the volatility kinds on hourly crypto, walked forward.

    python benchmarks/run.py loop_volatility

27 symbols, log returns; the last third of the span is judged in FOLDS parts, each by models that were fitted on what
lies before it: training, validation and calibration, with a horizon between any two. Beside each stands last value with
the RMS of the window's last 96 bars, the default; the same conformal machinery, at its default settings, moves the
quantiles of both, bar by bar from the calibration part on, each by its own labels. Intervals by bootstrap over weeks. A
bar counts as reached only if the whole interval lies above it.
"""

import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numba import njit

from accuracy_data import HOUR_NS, crypto_bars, crypto_frame
from stats import Figure, cpu_ns_per
from tickcast.batch.train import fit, parity
from tickcast.batch.train.dataset import Channels, Dataset
from tickcast.batch.train.history import BarHistory, read_history
from tickcast.batch.train.splits import SplitRows, usable_windows
from tickcast.batch.train.train import train
from tickcast.clock import SystemClock
from tickcast.columns import F64, I64
from tickcast.engine.core import uncertainty
from tickcast.engine.core.features import FeatureSet
from tickcast.engine.inference.stepping import StepRunner
from tickcast.figures import last_value_quantiles, pinball
from tickcast.io.jobs.folder import BARS
from tickcast.io.jobs.orders import FitOrder
from tickcast.questions import Questions
from tickcast.settings import Settings
from tickcast.settings.engine import FeatureEntry

FOLDS, TESTED = 3, 1 / 3  # of the span
CUTS = (0.8, 0.9)  # of what lies before a fold: training, validation, calibration
LOOKBACK, UNIT_BARS, HORIZONS = 336, 96, [1, 4, 12, 24]
HORIZON, WEEK_NS = HORIZONS[-1], 7 * 24 * HOUR_NS
DRAWS, INTERVAL = 2000, (5, 95)
BARS_OF_BEST = {1: 1.5, 4: 1.2, 12: 1.0}  # percent of pinball
COST_US = 2.0
AT_ONCE = 1024  # symbols that close a bar together
RANGE = [{"kind": "parkinson"}]
SEASON = {"future": ["day_of_week"]}
NET: dict[str, Any] = {
    "lookback": UNIT_BARS, "epochs": 4, "windows_per_epoch": 32_768, "learning_rate": 3e-4, "seed": 1, **SEASON,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "ewma_vol": {"kind": "ewma_vol"},
    "garch": {"kind": "garch"},
    "gjr": {"kind": "gjr"},
    "har": {"kind": "har", **SEASON},
    "realised_range": {"kind": "realised_range", "features": RANGE, **SEASON},
    **{
        f"{kind} on {scale}": {"kind": kind, "scale": scale, **NET}
        for kind in ("nlinear", "nhits")
        for scale in ("rms", "har")
    },
}


class Judged(NamedTuple):
    """One row a forecast of the folds."""

    week: I64
    own: F64  # [N, J] pinball loss in one-bar moves
    beside: F64  # the same of last value


def order_of(fields: dict[str, Any]) -> FitOrder:
    bars = {"kind": "time", "every_ms": HOUR_NS // 10**6, "on_gap": "carry"}
    return FitOrder(**{"lookback": LOOKBACK, "horizon": HORIZON, "bars": bars, **fields})


def folds(history: BarHistory, order: FitOrder) -> Iterator[Dataset]:
    features = FeatureSet([FeatureEntry.model_validate(entry) for entry in order.features], order.transform)
    values = features.compute(history.bars, history.symbol, history.ordinal, history.first)
    channels = Channels(values, features.specs, features.lookback)
    rows = usable_windows(history, need_bars=LOOKBACK + 1, horizon=HORIZON)
    as_of = history.bars.as_of
    first, last = int(as_of.min()), int(as_of.max())
    edges = [last - int((last - first) * TESTED * (1 - k / FOLDS)) for k in range(FOLDS + 1)]
    for begin, end in pairwise(edges):
        cuts = [first, *(first + int((begin - first) * cut) for cut in CUTS), begin, end]
        yield Dataset(history, channels, parts_of(history, rows, cuts), order)


def parts_of(history: BarHistory, rows: I64, cuts: list[int]) -> SplitRows:
    """Windows by part; no target of one lies beyond its cut, and a horizon after it belongs to nobody."""
    as_of = history.bars.as_of
    targets = as_of[rows + HORIZON]
    parts = [
        rows[(as_of[rows] > begin + HORIZON * HOUR_NS * (i > 0)) & (targets <= end)]
        for i, (begin, end) in enumerate(pairwise(cuts))
    ]
    edges = np.empty((len(history.names), len(cuts)), np.int64)
    for s, (start, stop) in enumerate(zip(history.bars.start, history.ends, strict=True)):
        edges[s] = start + np.searchsorted(as_of[start:stop], cuts, side="right")
    edges[:, 0] = history.bars.start
    return SplitRows(*parts, edges=edges)


def fitted(order: FitOrder, dataset: Dataset) -> Any:
    model: Any = fit.build(order, dataset)
    if hasattr(model, "module"):
        model.set_channels(*dataset.channel_statistics())
        train(model.module(), dataset, order, unwatched, SystemClock())
    else:
        model.fit(dataset, unwatched)
    return model


def unwatched(**_: object) -> bool:
    return True


def judged(model: Any, dataset: Dataset) -> Judged:
    """The stream of calibration and hold-out, bar by bar; the latter counts."""
    parts, history = dataset.parts, dataset.history
    rows = np.concatenate([parts.calibration, parts.holdout])
    rows = rows[np.argsort(history.bars.as_of[rows], kind="stable")]
    at = np.array(HORIZONS) - 1
    raw, truth, moved = np.empty((len(rows), len(at), len(model.card.levels))), np.empty((len(rows), len(at))), []
    for first in range(0, len(rows), 2048):
        inputs, target, _ = dataset.batch(rows[first : first + 2048])
        own = inputs.past[:, -UNIT_BARS:, 0].astype(np.float64) * inputs.mask[:, -UNIT_BARS:]
        unit = np.sqrt((own**2).sum(axis=1) / np.maximum(inputs.mask[:, -UNIT_BARS:].sum(axis=1), 1))
        moved.append(unit > 1e-6)
        unit = np.maximum(unit, 1e-6)
        raw[first : first + 2048] = model.predict(inputs)[:, at] / unit[:, None, None]
        truth[first : first + 2048] = target[:, at] / unit[:, None]
    keep = np.concatenate(moved)
    rows, raw, truth = rows[keep], raw[keep], truth[keep]
    moment = (history.bars.as_of[rows] - history.bars.as_of[rows[0]]) // HOUR_NS
    levels = np.array(model.card.levels)
    naive = np.broadcast_to(last_value_quantiles(levels.tolist(), HORIZONS), raw.shape).copy()
    counts = history.bars.as_of[rows] >= history.bars.as_of[parts.holdout].min()
    own, beside = (pinball(levels, widened(each, truth, moment, levels), truth)[counts] for each in (raw, naive))
    return Judged(history.bars.as_of[rows[counts]] // WEEK_NS, own, beside)


def widened(raw: F64, truth: F64, moment: I64, levels: F64) -> F64:
    """As the daemon publishes them: quantiles of a moment are moved by what was settled up to it."""
    settings = Settings().uncertainty
    state, out = uncertainty.fresh(1, len(HORIZONS), levels.tolist()), np.empty_like(raw)
    begins = np.searchsorted(moment, np.arange(moment[-1] + 2))
    follow(
        state, raw, truth, begins, levels, np.array(HORIZONS), levels.tolist().index(0.5), out,
        settings.gamma, float(settings.memory_bars), settings.max_widening,
    )  # fmt: skip
    return out


@njit(cache=True)
def follow(state, raw, truth, begins, levels, horizons, median, out, gamma, memory, bound):  # type: ignore[no-untyped-def]
    """Labels of the bars that close now, then the mark, then the forecasts that are made now."""
    each = np.arange(1, len(horizons) + 1)
    for now in range(len(begins) - 1):
        for j in range(len(horizons)):
            then = now - horizons[j]
            if then >= 0:
                for i in range(begins[then], begins[then + 1]):
                    uncertainty.note(state, 0, j, levels, raw[i, j], out[i, j], truth[i, j])
        uncertainty.adapt(state, 0, 1, levels, horizons, gamma, memory, bound, True)
        for i in range(begins[now], begins[now + 1]):
            uncertainty.widen(state.move, 0, levels, each, median, raw, out, i)


def skills(found: list[Judged]) -> list[tuple[float, float, float]]:
    """Percent of pinball by horizon, with its interval over weeks."""
    week = np.concatenate([one.week for one in found])
    _, at = np.unique(week, return_inverse=True)
    sums = [np.zeros((at.max() + 1, len(HORIZONS))) for _ in range(2)]
    for total, name in zip(sums, ("own", "beside"), strict=True):
        np.add.at(total, at, np.concatenate([getattr(one, name) for one in found]))
    drawn = np.random.default_rng(0).integers(0, len(sums[0]), (DRAWS, len(sums[0])))
    gains = 100 * (1 - sums[0][drawn].sum(axis=1) / sums[1][drawn].sum(axis=1))
    value = 100 * (1 - sums[0].sum(axis=0) / sums[1].sum(axis=0))
    low, high = np.percentile(gains, INTERVAL, axis=0)
    return list(zip(value.tolist(), low.tolist(), high.tolist(), strict=True))


def stepped_us(model: Any, fields: dict[str, Any], dataset: Dataset) -> float:
    """CPU time of one forecast, a bar of many symbols at a time, each moving its state on."""
    stepping: Any = fit.build(order_of({**fields, "model_params": {"mode": "step"}}), dataset)
    stepping.card = msgspec.structs.replace(stepping.card, symbols=model.card.symbols)
    stepping.arrays = model.arrays
    with tempfile.TemporaryDirectory() as name:
        stepping.save(Path(name))
        runner, inputs = StepRunner(Path(name), stepping.card), parity.probe_inputs(stepping.card, AT_ONCE, seed=0)
        symbol, at = np.arange(AT_ONCE, dtype=np.int32), [LOOKBACK]

        def one_bar() -> None:
            at[0] += 1
            runner.answer(Questions.of(inputs, symbol, np.full(AT_ONCE, at[0])))

        return cpu_ns_per(AT_ONCE, one_bar, runs=101) / 1e3


def read() -> BarHistory:
    with tempfile.TemporaryDirectory() as name:
        crypto_bars(crypto_frame()).write_parquet(Path(name) / BARS)
        return read_history(Path(name), on_gap="carry")


def figures_of(name: str, found: list[Judged], *, judged_by: bool) -> list[Figure]:
    out = []
    for horizon, (value, low, high) in zip(HORIZONS, skills(found), strict=True):
        bar = BARS_OF_BEST.get(horizon) if judged_by else None
        out.append(Figure(f"{name}: pinball skill at step {horizon}", value, "%", None, "higher", low, high))
        if bar is not None:
            out.append(Figure(f"{name}: low end of it at step {horizon}", low, "%", bar, "higher"))
    return out


def main() -> list[Figure]:
    history, figures, best = read(), [], "realised_range"
    for name, fields in KINDS.items():
        order, found, cost = order_of(fields), [], None
        for dataset in folds(history, order):
            model = fitted(order, dataset)
            found.append(judged(model, dataset))
            if cost is None and not hasattr(model, "module"):
                cost = stepped_us(model, fields, dataset)
        figures += figures_of(name, found, judged_by=name == best)
        if cost is not None:
            figures.append(Figure(f"{name}: a forecast by a step", cost, "us", COST_US))
        print(*figures[-6:], sep="\n", flush=True)
    return figures


if __name__ == "__main__":
    KINDS = {name: fields for name, fields in KINDS.items() if name in sys.argv[1:] or not sys.argv[1:]}
    main()
