"""Tallied sums -> the figures a person reads, naive beside each. It only divides; what too few blocks tell is NaN."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast import figures as of
from tickcast.columns import F64, I64
from tickcast.engine.core import tally as column
from tickcast.engine.core.tally import CELL_NS, CELLS, FIRST, SPANS_NS, LevelColumns, ScoreTally, level_columns
from tickcast.records import Accuracy, IntervalFigures, Window

Figures = dict[str, F64]
Flags = npt.NDArray[np.bool_]
Told = dict[str, list[list[Any]]]  # by cell and step
COUNTS = {"n": column.N, "void": column.VOID, "outside": column.OUTSIDE}


class Whose(NamedTuple):
    """What a cell of the tally is about: the name and version of a model, and a group."""

    model: str
    version: str
    group: str


class Parts(NamedTuple):
    """Sums by partition and cell."""

    labels: F64  # [partitions, cells, J, W]
    classes: F64  # [partitions, cells, K]

    def of_steps(self, count: int) -> "Parts":
        return self._replace(labels=self.labels[:, :, :count])

    def take(self, cells: I64) -> "Parts":
        return Parts(self.labels[:, cells], self.classes[:, cells])


def sums_in(tally: ScoreTally, window: Window, now_ns: int, *, cells: int, per_cell: int) -> Parts:
    """What the window holds, of so many cells of each partition."""
    current = tally.current, tally.class_current
    if window == "all":
        found = [whole + more for whole, more in zip((tally.whole, tally.class_whole), current, strict=True)]
    else:
        which, is_in, recent = _within(tally, window, now_ns, per_cell)
        found = [
            np.einsum("cs,cs...->c...", is_in, ring[:, which]) + np.einsum("c,c...->c...", recent, more)
            for ring, more in zip((tally.ring, tally.class_ring), current, strict=True)
        ]
    return Parts(*(each.reshape(-1, cells, *each.shape[1:]) for each in found))


def _within(tally: ScoreTally, window: Window, now_ns: int, per_cell: int) -> tuple[slice, F64, F64]:
    """Which cells are of the window's kind, which of them are in it, and where what has yet to go there is."""
    if window == "rolling":
        which, newest, recent = slice(FIRST[-1], None), tally.marks // per_cell, np.ones(len(tally.marks))
    else:
        kind = [*SPANS_NS].index(window)
        which, newest = slice(FIRST[kind], FIRST[kind + 1]), np.full(len(tally.at), now_ns // CELL_NS[kind])
        recent = (tally.at // CELL_NS[kind] > newest - CELLS[kind]).astype(np.float64)
    number = tally.number[:, which]
    return which, (number > newest[:, None] - number.shape[1]).astype(np.float64), recent


def can_hold(window: Window, horizon: int, bar_ns: int) -> bool:
    """Whether a window is ever long enough to tell something of this step; of bars that take no set time, it may be."""
    return window not in SPANS_NS or 2 * of.LEAST_BLOCKS * horizon * bar_ns <= SPANS_NS[window]


def figures_of(parts: F64, levels: list[float], *, first: int | None) -> Figures:
    """[cells, J] of each figure, from sums [partitions, cells, J, W]; `first` is where among J one bar ahead is."""
    sums = parts.sum(axis=0)

    def mean(total: int, n: int = column.N) -> F64:
        return of.mean(sums[..., total], sums[..., n])

    loss, loss_naive = (mean(c, column.SCALED) for c in (column.PINBALL, column.PINBALL_NAIVE))
    missed, missed_naive = (mean(c, column.SCALED) for c in (column.ERROR, column.ERROR_NAIVE))
    right = mean(column.HITS, column.DIRECTED)
    low, high = of.wilson(right, _blocks(parts, column.BLOCK_D, *range(column.BLOCK_D2, column.BLOCK_H2 + 1)))
    return {
        "mae": mean(column.AE), "mae_naive": mean(column.AE_NAIVE), "mae_pct": 100 * mean(column.APE),
        "rmse": of.rmse(sums[..., column.SE], sums[..., column.N]),
        "rmse_pct": 100 * of.rmse(sums[..., column.SE_PCT], sums[..., column.N]),
        "mape": 100 * mean(column.MAPE, column.MAPE_N), "smape": 100 * mean(column.SMAPE),
        "r2": of.explained(*(sums[..., c] for c in (column.SE, column.Y, column.YY, column.N))),
        "r2_returns": of.explained(*(sums[..., c] for c in (column.SE_PCT, column.MOVE, column.MOVE_2, column.N))),
        "pinball": loss, "pinball_naive": loss_naive, "crps": 2 * loss, "width": mean(column.WIDTH),
        "directional": right, "directional_low": low, "directional_high": high,
        "directional_base": of.directional_base(sums[..., column.UPS], sums[..., column.DIRECTED]),
        "calibration": of.calibration(levels, _shares(sums, levels)), "skill": of.skill(loss, loss_naive),
        "skill_mae": of.skill(missed, missed_naive),
        "mase": of.mase(missed, np.nan if first is None else missed_naive[:, first : first + 1]),
    }  # fmt: skip


def _blocks(parts: F64, *columns: int) -> of.BlockSums:
    return of.BlockSums(*(parts[..., c] for c in (*columns, column.BLOCKS)))


def intervals_of(parts: F64, levels: list[float]) -> dict[str, Figures]:
    """[cells, J] of each figure, by what the interval is to hold."""
    sums, at = parts.sum(axis=0), level_columns(len(levels))
    return {
        name: _interval(parts, sums, at, levels, k, pair)
        for k, (name, pair) in enumerate(of.pairs_of(levels).items())
    }  # fmt: skip


def _interval(parts: F64, sums: F64, at: LevelColumns, levels: list[float], k: int, pair: tuple[int, int]) -> Figures:
    n = sums[..., column.JUDGED]
    held = of.mean(sums[..., at.inside + k], n)
    low, high = of.wilson(
        held, _blocks(parts, column.BLOCK_N, column.BLOCK_N2, at.block_in + k, at.block_i2 + k)
    )  # fmt: skip
    score = of.winkler(levels, pair, *(of.mean(sums[..., at.losses + end], n) for end in pair))
    return {
        "coverage": held, "coverage_low": low, "coverage_high": high, "width": of.mean(sums[..., at.widths + k], n),
        "winkler": score,
    }  # fmt: skip


def classes_of(sums: F64, is_step: Flags) -> Figures:
    """[cells, J] of each figure, from sums [cells, K] of one step."""
    n, came = sums[:, column.CLASSED], sums[:, column.CAME : column.GAPS]
    found = {
        "class_accuracy": of.mean(sums[:, column.CLASS_RIGHT], n), "class_accuracy_base": of.mean(came.max(axis=1), n),
        "log_loss": of.mean(sums[:, column.CLASS_LOST], n),
        "calibration_error": of.calibration_error(sums[:, column.GAPS :], n),
    }  # fmt: skip
    return {name: np.where(is_step, values[:, None], np.nan) for name, values in found.items()}


def records_of(
    parts: Parts,
    whose: list[Whose],
    horizons: list[int],
    levels: list[float],
    *,
    class_step: int,
    window: Window,
    **same: Any,
) -> list[Accuracy]:
    """A record of each cell in which something was settled, and each step. `same` is what all have in common."""
    here = np.flatnonzero(parts.labels[..., [*COUNTS.values()]].any(axis=(0, 2, 3)))
    labels, classes = parts.take(here)
    enough = labels[..., column.BLOCKS].max(axis=0) >= of.LEAST_BLOCKS
    columns = _columns(labels, levels, enough, first=horizons.index(1) if 1 in horizons else None)
    columns |= _known(classes_of(classes.sum(axis=0), np.arange(len(horizons)) == class_step), enough)
    within = [(name, _known(each, enough)) for name, each in intervals_of(labels, levels).items()]
    named = [f"{level:g}" for level in levels]
    shares = np.where(enough[..., None], _shares(labels.sum(axis=0), levels), np.nan).tolist()
    return [
        _record(
            whose[cell], same | {"horizon": horizon, "window": window} | _at(columns, i, j),
            coverage=dict(zip(named, shares[i][j], strict=True)),
            intervals={name: _interval_record(_at(figures, i, j)) for name, figures in within},
        )
        for i, cell in enumerate(here.tolist()) for j, horizon in enumerate(horizons)
    ]  # fmt: skip


def _record(
    whose: Whose, f: dict[str, Any], *, coverage: dict[str, float], intervals: dict[str, IntervalFigures]
) -> Accuracy:
    return Accuracy(
        model=whose.model, version=whose.version, group=whose.group, horizon=f["horizon"], window=f["window"],
        n=f["n"], void=f["void"], pending=f["pending"], mae=f["mae"], mae_naive=f["mae_naive"], mae_pct=f["mae_pct"],
        rmse=f["rmse"], rmse_pct=f["rmse_pct"], mape=f["mape"], smape=f["smape"], r2=f["r2"],
        r2_returns=f["r2_returns"], pinball=f["pinball"], pinball_naive=f["pinball_naive"], crps=f["crps"],
        coverage=coverage, width=f["width"], directional=f["directional"], directional_base=f["directional_base"],
        calibration=f["calibration"], skill=f["skill"], skill_mae=f["skill_mae"], as_of_ns=f["as_of_ns"],
        outside=f["outside"], blocks=f["blocks"], insufficient=f["insufficient"], mase=f["mase"],
        directional_low=f["directional_low"], directional_high=f["directional_high"], intervals=intervals,
        class_accuracy=f["class_accuracy"], class_accuracy_base=f["class_accuracy_base"], log_loss=f["log_loss"],
        calibration_error=f["calibration_error"],
    )  # fmt: skip


def _interval_record(f: dict[str, float]) -> IntervalFigures:
    return IntervalFigures(
        coverage=f["coverage"], coverage_low=f["coverage_low"], coverage_high=f["coverage_high"], width=f["width"],
        winkler=f["winkler"],
    )  # fmt: skip


def _columns(parts: F64, levels: list[float], enough: Flags, *, first: int | None) -> Told:
    sums = parts.sum(axis=0)
    return {
        **{name: sums[..., c].astype(np.int64).tolist() for name, c in COUNTS.items()},
        "blocks": parts[..., column.BLOCKS].max(axis=0).astype(np.int64).tolist(), "insufficient": (~enough).tolist(),
        **_known(figures_of(parts, levels, first=first), enough),
    }  # fmt: skip


def _known(found: Figures, enough: Flags) -> Told:
    return {name: np.where(enough, values, np.nan).tolist() for name, values in found.items()}


def _at(told: Told, i: int, j: int) -> dict[str, Any]:
    return {name: values[i][j] for name, values in told.items()}


def _shares(sums: F64, levels: list[float]) -> F64:
    """The calibration curve, [..., Q]."""
    return of.mean(sums[..., column.COVERED : level_columns(len(levels)).losses], sums[..., column.N, None])
