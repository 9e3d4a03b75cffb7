"""Published figures are those of a plain computation from forecasts and bars, in every window, late labels, gaps and
restarts in the middle included; and nothing in a label spoils them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
import pytest

from kit import SECOND, T0, Served, Tick, rung, walk
from kit import settings as kit_settings
from snapshotkit import KINDS, Running, small_settings, tape, turns
from tickcast import figures as of
from tickcast.batch.frames import forecast_table, score_table
from tickcast.batch.judge import report_figures
from tickcast.batch.train import classes
from tickcast.columns import F64, BarBatch, Forecasts
from tickcast.direction import LABELS
from tickcast.engine.core.tally import CELL_NS, CELLS, SPANS_NS
from tickcast.plugin import Runner
from tickcast.questions import Answers, Questions
from tickcast.records import Accuracy, Window
from tickcast.settings import Settings

HORIZONS = [1, 2, 3]
Key = tuple[str, str, int]  # model, group, horizon
OF_LOSSES = ("pinball", "pinball_naive", "crps", "skill")  # scores keep losses with 7 digits


class Label(NamedTuple):
    """A forecast and what came of it."""

    settled_ns: int
    asked_ns: int
    partition: int
    order: int
    anchor: float
    scale: float
    quantiles: F64
    truth: float  # NaN = void
    first: float  # price of its symbol


def labels_of(running: Running, options: Settings) -> dict[Key, list[Label]]:
    bars = BarBatch.concat([b for outcome in running.outcomes for b in outcome.bars])
    forecasts = Forecasts.concat([f for outcome in running.outcomes for f in outcome.forecasts])
    at = {(int(s), int(n)): row for row, (s, n) in enumerate(zip(bars.symbol, bars.ordinal, strict=True))}
    few = options.symbols.groups.get("few", [])
    found: dict[Key, list[Label]] = defaultdict(list)
    for i in range(len(forecasts)):
        symbol, ordinal = int(forecasts.symbol[i]), int(forecasts.ordinal[i])
        group = "few" if running.serving.symbols.name(symbol) in few else "all"
        for h in HORIZONS:
            if (row := at.get((symbol, ordinal + h))) is None:
                continue
            between = [at[symbol, ordinal + k] for k in range(1, h + 1)]
            void = not bars.mask[row] or bars.gap[between].any()
            found[running.serving.cards[forecasts.model[i]].name, group, h].append(Label(
                int(bars.as_of[row]), int(forecasts.as_of[i]), int(bars.partition[row]), row,
                float(forecasts.anchor[i]), float(forecasts.scale[i]), forecasts.quantiles[i, h - 1],
                np.nan if void else float(bars.close[row]), float(bars.close[at[symbol, 0]]),
            ))  # fmt: skip
    return {key: sorted(labels, key=lambda label: label.order) for key, labels in found.items()}


def in_window(labels: Sequence[Label], window: Window, now_ns: int) -> list[bool]:
    if window == "all":
        return [True] * len(labels)
    kind = [*SPANS_NS].index(window)
    return [label.settled_ns // CELL_NS[kind] > now_ns // CELL_NS[kind] - CELLS[kind] for label in labels]


def figures(labels: Sequence[Label], levels: list[float], *, log_return: bool) -> dict[str, Any]:
    """Of labels with a truth, from first principles."""
    y, anchor, scale, quantiles = (np.array([getattr(x, name) for x in labels]) for name in
                                   ("truth", "anchor", "scale", "quantiles"))  # fmt: skip
    point = quantiles[:, len(levels) // 2]
    error, naive, size, said = y - point, y - anchor, abs(anchor), (y != anchor) & (point != anchor)
    level = y - np.array([x.first for x in labels])
    moves = [np.log(x / a) if log_return else x - a for x, a in ((y, anchor), (quantiles, anchor[:, None]))]
    truth, wide = moves[0] / scale, moves[1] / scale[:, None]
    beyond = truth[:, None] - wide
    loss = np.maximum(np.array(levels) * beyond, (np.array(levels) - 1) * beyond)
    shares = (y[:, None] <= quantiles).mean(axis=0)
    found = {
        "n": len(y), "mae": abs(error).mean(), "mae_naive": abs(naive).mean(),
        "mae_pct": 100 * (abs(error) / size).mean(),
        "rmse": np.sqrt((error**2).mean()), "rmse_pct": 100 * np.sqrt(((error / size) ** 2).mean()),
        "mape": 100 * abs(error / y).mean(), "smape": 100 * (2 * abs(error) / (abs(y) + abs(point))).mean(),
        "r2": 1 - (error**2).sum() / ((level - level.mean()) ** 2).sum(),
        "r2_returns": 1 - ((error / size) ** 2).sum() / ((naive / size - (naive / size).mean()) ** 2).sum(),
        "pinball": loss.mean(), "crps": 2 * loss.mean(),
        "calibration": 1 - abs(np.array(levels) - shares).mean(),
        "coverage": dict(zip((f"{x:g}" for x in levels), shares, strict=True)),
    }  # fmt: skip
    if said.any():
        up = (naive > 0)[said].mean()
        found["directional"] = ((point - anchor) * naive > 0)[said].mean()
        found["directional_base"] = max(up, 1 - up)
    for low in range(len(levels) // 2):
        high, tail = len(levels) - 1 - low, levels[low]
        held = (wide[:, low] <= truth) & (truth <= wide[:, high])
        outside = np.maximum(wide[:, low] - truth, 0) + np.maximum(truth - wide[:, high], 0)
        width = wide[:, high] - wide[:, low]
        found[f"{levels[high] - tail:.6g}"] = {
            "coverage": held.mean(), "width": width.mean(), "winkler": (width + outside / tail).mean(),
        }  # fmt: skip
    found["missed"], found["missed_naive"] = abs(truth - wide[:, len(levels) // 2]).mean(), abs(truth).mean()
    return found


def closing_labels(labels: Iterable[Label]) -> list[Label]:
    """Those with which a block begins, so that the one before is closed."""
    found, first, longest = [], 0, 0
    for label in labels:
        if np.isnan(label.truth):
            continue
        if longest and (label.settled_ns - first) // 2 >= longest:
            found.append(label)
            longest = 0
        first = first if longest else label.settled_ns
        longest = max(longest, label.settled_ns - label.asked_ns, 1)
    return found


def the_same(published: Any, computed: Any) -> None:
    assert published == pytest.approx(computed, rel=1e-9, abs=1e-9)


def check(running: Running, options: Settings, window: Window) -> int:
    """How many records had figures."""
    now_ns, levels = running.engine.newest_ns(), options.forecast.quantiles
    told = {
        (row.model, row.group, row.horizon): row
        for row in running.engine.scorekeeper.accuracy(now_ns, window=window)
    }  # fmt: skip
    log_return, full, one_step = options.forecast.transform == "log_return", 0, dict[tuple[str, str], float]()
    for key, every in labels_of(running, options).items():
        within = [label for label, is_in in zip(every, in_window(every, window, now_ns), strict=True) if is_in]
        known = [label for label in within if not np.isnan(label.truth)]
        if key not in told:
            assert not within
            continue
        row = told[key]
        assert (row.n, row.void, row.outside) == (len(known), len(within) - len(known), 0)
        partitions = {label.partition for label in every}
        closed = [
            sum(in_window(closing_labels(x for x in every if x.partition == p), window, now_ns)) for p in partitions
        ]
        assert row.blocks == max(closed)
        assert row.insufficient == (row.blocks < of.LEAST_BLOCKS)
        if row.insufficient:
            assert np.isnan([row.mae, row.skill, row.mase, row.directional_low, *row.coverage.values()]).all()
            continue
        full += 1
        compare(row, figures(known, levels, log_return=log_return), one_step)
    return full


def compare(row: Accuracy, computed: dict[str, Any], one_step: dict[tuple[str, str], float]) -> None:
    missed = computed.pop("missed")
    one_step.setdefault((row.model, row.group), computed.pop("missed_naive"))
    the_same(row.mase, missed / one_step[row.model, row.group])
    for name, value in computed.items():
        if name in row.intervals:
            for figure, expected in value.items():
                the_same(getattr(row.intervals[name], figure), expected)
            assert row.intervals[name].coverage_low <= value["coverage"] <= row.intervals[name].coverage_high
        else:
            the_same(getattr(row, name), value)
    if "directional" in computed:
        assert row.directional_low <= row.directional <= row.directional_high


@pytest.mark.parametrize("kind", KINDS[:6], ids=str)
def test_figures_of_every_window_are_those_of_its_forecasts_and_truths_wherever_the_run_was_cut(
    kind: dict[str, object],
) -> None:
    options, some = small_settings(**kind), turns(tape(5), 5)
    running, full = Running(options), 0
    for number in range(3):
        running.take(some[number * len(some) // 3 : (number + 1) * len(some) // 3])
        for window in ("all", "day", "hour", "minute"):
            full += check(running, options, window)
        again = Running(options)
        again.engine.resume(running.engine.snapshot())
        again.outcomes, running = running.outcomes, again
    assert full >= 3


@pytest.mark.parametrize("transform", ["log_return", "difference"])
@pytest.mark.parametrize("one", [False, True])
def test_a_report_of_the_same_labels_has_the_same_figures(transform: str, one: bool) -> None:
    options = small_settings(
        bars__every_ms=500, forecast__horizon=1, forecast__transform=transform, symbols__groups="{}"
    )  # fmt: skip
    running = Running(options)
    running.take(turns([message for message in tape(5) if not one or b'"S0"' in message.text], 5))
    levels, serving = options.forecast.quantiles, running.serving
    forecasts, scores = (pl.concat([pl.from_arrow(each) for each in tables]) for tables in (  # type: ignore[type-var]
        [forecast_table(f, serving) for outcome in running.outcomes for f in outcome.forecasts],
        [score_table(s, serving) for outcome in running.outcomes for s in outcome.scores],
    ))  # fmt: skip
    joined = report_figures.with_quantiles(scores, forecasts.lazy())
    labels = report_figures.labels(joined, log_return=transform == "log_return", levels=levels)
    told = [row for row in running.engine.scorekeeper.accuracy(0, window="all") if not row.insufficient]
    assert told
    for row in told:
        (found,) = report_figures.by(labels.settled.filter(pl.col("model") == row.model), "horizon", levels)
        outer = row.intervals[f"{levels[-1] - levels[0]:.6g}"]
        assert found.pop("horizon") == row.horizon
        expected = {name: getattr(outer if name in ("coverage", "winkler") else row, name) for name in found}
        if not one:
            assert found.pop("r2") is None
        for name, value in found.items():
            if value is None:
                assert np.isnan(expected[name]), name
            elif name in OF_LOSSES:
                assert value == pytest.approx(expected[name], rel=1e-7, abs=1e-7)
            else:
                the_same(value, expected[name])
    assert [each["level"] for each in report_figures.reliability(labels.settled, levels)] == levels


class Classes(Runner):
    """Says with a probability that rises and falls which way it goes."""

    def __init__(self, s: Settings) -> None:
        self._naive = rung("naive", s)
        self.card = msgspec.structs.replace(
            self._naive.card,
            name="classes",
            kind="classes",
            digest="classes",
            labels=LABELS,
            model_params={"band": 0.5},
        )

    def answer(self, questions: Questions) -> Answers:
        n, steps = len(questions), self.card.horizon
        up = 0.2 + 0.6 * (questions.as_of // SECOND % 9) / 8
        probs = np.stack([0.9 - up, np.full(n, 0.1), up], axis=1)[:, None].repeat(steps, axis=1)
        return Answers(self._naive.answer(questions).quantiles, probs.astype(np.float32))


def test_figures_of_classes_are_those_of_their_probabilities_and_what_came() -> None:
    s = kit_settings(window__lookback=8, forecast__horizon=2, features__set="[]")
    served = Served(s, walk(9000, 3, seed=2), chunk=100, runners=[Classes(s)])
    keeper, f = served.engine.scorekeeper, served.forecasts
    rows = {row.horizon: row for row in keeper.accuracy(T0, window="all") if row.model == "classes"}
    assert np.isnan([rows[1].class_accuracy, rows[1].calibration_error]).all()
    bars = BarBatch.concat([b for outcome in served.outcomes for b in outcome.bars])
    bars = bars.take(bars.mask == 1)
    close = {(int(a), int(b)): float(c) for a, b, c in zip(bars.symbol, bars.ordinal, bars.close, strict=True)}
    truth = np.array([close.get((int(a), int(b) + 2), np.nan) for a, b in zip(f.symbol, f.ordinal, strict=True)])
    known = np.isfinite(truth) & (f.model == [card.name for card in keeper._cards].index("classes"))
    move, edge = np.log(truth / f.anchor)[known] / f.scale[known], 0.5 * 2**0.5
    came, probs = np.where(move < -edge, 0, np.where(move > edge, 2, 1)), f.probs[known].astype(float)
    sure, right = probs.max(axis=1), probs.argmax(axis=1) == came
    tenths = np.floor(sure * 10)
    gap = sum(abs((right - sure)[tenths == tenth].sum()) for tenth in np.unique(tenths))
    row = rows[2]
    assert row.n == len(came) > 500
    the_same(row.class_accuracy, right.mean())
    the_same(row.class_accuracy_base, np.bincount(came).max() / len(came))
    the_same(row.log_loss, -np.log(probs[np.arange(len(came)), came]).mean())
    the_same(row.calibration_error, gap / len(came))
    the_same(row.calibration_error, float(of.calibration_error(classes._gaps(sure, right).sum(axis=0), len(came))))


def test_the_rolling_window_holds_the_newest_label_bars_and_at_most_a_twentieth_more() -> None:
    s = kit_settings(window__lookback=8, forecast__horizon=1, score__window_bars=60, features__set="[]")
    ticks: list[Tick] = [("S", T0 + i * SECOND, 100.0 + (i % 7), 1.0) for i in range(400)]
    keeper = Served(s, ticks, chunk=37).engine.scorekeeper
    (rolling,), (whole,) = (keeper.accuracy(T0 + 400 * SECOND, window=window) for window in ("rolling", "all"))
    assert 60 <= rolling.n <= 63 < whole.n
    assert keeper.rolling_skill(0) == 0.0  # it is last value


@pytest.mark.parametrize("transform", ["log_return", "difference", "level"])
def test_prices_that_no_sum_holds_are_counted_and_leave_the_figures_of_all_others_finite(transform: str) -> None:
    s = kit_settings(
        bars__kind="tick", window__lookback=8, forecast__horizon=2, forecast__transform=transform, features__set="[]",
        quality__outlier_sigmas=0,
    )  # fmt: skip
    price = np.r_[100.0 + np.arange(200) % 9, 1e148, 1e149, 1e-148, 1e140, 100.0 + np.arange(200) % 9]
    ticks: list[Tick] = [("A", T0 + i * 10**6, float(p), 1.0) for i, p in enumerate(price)]
    served = Served(s, ticks, chunk=50, runners=[rung("holt", s)])
    for window in ("all", "day", "hour", "minute", "rolling"):
        for row in served.engine.scorekeeper.accuracy(T0 + SECOND, window=window):
            if row.model != "holt" or window == "rolling":
                continue
            assert row.outside > 0
            assert not row.insufficient
            for name in (
                "mae",
                "rmse",
                "rmse_pct",
                "mape",
                "smape",
                "r2",
                "r2_returns",
                "pinball",
                "skill",
                "mase",
                "width",
            ):
                assert np.isfinite(getattr(row, name)), name
    assert np.isfinite(served.engine.scorekeeper._tally.whole).all()
