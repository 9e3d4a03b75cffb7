"""The trials of a search -> its plots: value by trial, and value by each parameter. It draws only."""

import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tickcast.columns import F64
from tickcast.plugin import Parameter
from tickcast.records import TrialRow
from tickcast.ui.pages import svg

WIDE = 1300
FAR = 4.0  # times as far from the middle as the best: what lies beyond is drawn at the edge
Space = dict[str, Parameter]


class Sought(NamedTuple):
    """What the search was for."""

    metric: str
    most_is_best: bool

    @property
    def direction(self) -> str:
        return "higher is better" if self.most_is_best else "lower is better"

    @property
    def label(self) -> str:
        return f"{self.metric}, {self.direction}"


def value_by_trial(rows: Sequence[TrialRow], sought: Sought, ordered: TrialRow | None) -> str:
    """Every trial in the order in which they ended, and the best so far; those without a value lie on the axis."""
    values = values_of(rows)
    at = np.arange(len(rows), dtype=np.float64)
    best = (np.fmax if sought.most_is_best else np.fmin).accumulate(values)
    (low, high), shown = _edges(values, sought)
    untold = at[~np.isfinite(values)]

    def draw(width: int) -> svg.Plot:
        y = svg.number_axis(np.array([low, high]), sought.label)
        plot = svg.Plot(_count_axis(len(rows), svg.ticks_for(width)), y, title="Trials over time", width=width)
        if ordered is not None:
            plot.line(np.array([-0.5, len(rows) - 0.5]), np.full(2, float(ordered.value or 0.0)), "ideal")
        plot.line(np.repeat(at, 2)[1:], np.repeat(best, 2)[:-1], "model")
        plot.dots(untold, np.full(len(untold), y.low), "naive")
        plot.dots(at, shown, "model")
        return plot

    keys = [("model", "a trial; the line: best so far")]
    keys += [("ideal", "default parameters")] if ordered is not None else []
    keys += [("naive", "given up or failed, without a value")] if len(untold) else []
    return svg.legend(keys) + svg.fitted(draw, WIDE)


def value_by_parameter(
    name: str, parameter: Parameter, rows: Sequence[TrialRow], sought: Sought, best: TrialRow
) -> str:
    """Every trial that ended with a value at the value of one parameter; the best is dark."""
    values = values_of(rows)
    (low, high), shown = _edges(values, sought)
    places = places_of(name, parameter, rows)
    won = np.array([row.number == best.number for row in rows])

    def draw(width: int) -> svg.Plot:
        x = _axis_of(name, parameter, places, narrow=width == svg.SLIM)
        plot = svg.Plot(
            x, svg.number_axis(np.array([low, high]), sought.label), title=f"{sought.metric} by {name}", width=width
        )
        plot.dots(places[~won], shown[~won], "model")
        plot.dots(places[won], shown[won], "actual")
        return plot

    return svg.fitted(draw)


def values_of(rows: Sequence[TrialRow]) -> F64:
    """Of those that ended with one; the loss of one that was given up need not be the metric."""
    there = (row.value if row.state == "complete" and row.value is not None else math.nan for row in rows)
    return np.array([value if math.isfinite(value) else math.nan for value in there])


def far_off(rows: Sequence[TrialRow], sought: Sought) -> int:
    """How many trials are drawn at the edge of the plots."""
    values = values_of(rows)
    return int(np.count_nonzero(np.isfinite(values) & (_edges(values, sought)[1] != values)))


def _edges(values: F64, sought: Sought) -> tuple[tuple[float, float], F64]:
    """Where the axis of values begins and ends, and the values within: one trial that went astray flattens no plot."""
    there = values[np.isfinite(values)]
    best, middle = (float(there.max() if sought.most_is_best else there.min()), float(np.median(there)))
    edge = middle + FAR * (middle - best)
    shown = np.maximum(values, edge) if sought.most_is_best else np.minimum(values, edge)
    if best == middle:  # half of all are as good as the best: nothing says what is far
        shown = values
    inside = shown[np.isfinite(shown)]
    return (float(inside.min()), float(inside.max())), shown


def places_of(name: str, parameter: Parameter, rows: Sequence[TrialRow]) -> F64:
    """Where each row stands on the axis of a parameter."""
    taken = [row.params.get(name) for row in rows]
    if parameter.kind == "choice":
        known = [_text(choice) for choice in parameter.choices]
        return np.array([known.index(_text(value)) if _text(value) in known else math.nan for value in taken])
    numbers = np.array([float(value) if isinstance(value, int | float) else math.nan for value in taken])
    return svg.logarithms(numbers) if parameter.log else numbers


def _axis_of(name: str, parameter: Parameter, places: F64, *, narrow: bool) -> svg.Axis:
    if parameter.kind == "choice":
        names = [_text(choice) for choice in parameter.choices]
        fits = sum(map(len, names)) <= (30 if narrow else 60)
        return svg.named_axis(names if fits else [_cut(text, narrow=narrow, of=len(names)) for text in names], name)
    ends = [parameter.low, parameter.high]
    if parameter.log:
        return svg.factor_axis(np.append(places, np.log10(ends)), name, include=(), most=4 if narrow else 8)
    return svg.number_axis(np.append(places, ends), name)


def _cut(text: str, *, narrow: bool, of: int) -> str:
    most = max(3, (36 if narrow else 80) // of)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _count_axis(n: int, most: int) -> svg.Axis:
    step = next(base * 10**power for power in range(9) for base in (1, 2, 5) if n / (base * 10**power) <= most)
    ticks = [(float(at), f"{at:,}") for at in range(0, n, step)]
    return svg.Axis(-0.5, n - 0.5, "trials, in the order in which they ended", ticks)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
