"""Plots as inline SVG: lines, bands, dots, columns on two axes. It knows no colour: the page's style sheet does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
LEFT, RIGHT, TOP, BOTTOM = 62, 26, 12, 40  # room around the plotting area, in units of the view box
USUAL, SLIM = 640, 340  # half a page, and a phone
HALF_LETTER = 3.4  # of a tick's text, in the same units
MOST_POINTS = 800  # a line with more is decimated
LEAST_BOX = 3.0
MINUTE, HOUR, DAY = 60, 3_600, 86_400
TIME_STEPS_S = (1, 2, 5, 10, 15, 30, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE,
                HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 30 * DAY, 91 * DAY,
                182 * DAY, 365 * DAY, 1826 * DAY)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Axis:
    """Where an axis begins and ends, its label, and what stands at its ticks."""

    low: float
    high: float
    label: str
    ticks: Sequence[tuple[float, str]]


def decimate(x: Values, y: Values, points: int = MOST_POINTS) -> tuple[Values, Values]:
    """At most so many points, keeping the lowest and highest of every stretch: no spike is lost."""
    if len(x) <= points:
        return x, y
    edges = np.linspace(0, len(x), max(points // 2, 1) + 1).astype(np.int64)
    kept = []
    for first, last in pairwise(edges):
        stretch = np.nan_to_num(y[first:last], nan=0.0)
        kept += sorted({first + int(np.argmin(stretch)), first + int(np.argmax(stretch))})
    rows = np.array(kept)
    return x[rows], y[rows]


def number_axis(values: Values, label: str, *, include: Sequence[float] = (), margin: float = 0.06) -> Axis:
    """An axis that holds all finite values and those to include, with ticks at round numbers."""
    finite = np.concatenate([np.asarray(values, np.float64).ravel(), np.asarray(include, np.float64)])
    finite = finite[np.isfinite(finite)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    flat = low == high
    room = (high - low) * margin or (max(abs(high) * margin, 1e-12) if high else 0.01)
    low, high = (
        low if low in include and not flat else low - room,
        high if high in include and not flat else high + room,
    )
    step = _round_step((high - low) / 5)
    places = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    return Axis(low, high, label, [(float(at), _number(float(at), step)) for at in places])


def factor_axis(logarithms: Values, label: str, *, include: Sequence[float] = (0.0,), most: int = 8) -> Axis:
    """Of values given as logarithms to base 10: ticks at round factors, 1 among them unless told otherwise."""
    axis = number_axis(logarithms, label, include=include)
    at = [float(np.log10(factor)) + power for power in range(-9, 10) for factor in (1, 2, 5)]
    inside = [place for place in at if axis.low <= place <= axis.high]
    if len(inside) > most:
        inside = [place for place in inside if abs(place - round(place)) < 1e-9]
    if len(inside) < 3:  # less than a factor of two: round numbers between
        span = number_axis(10 ** np.array([axis.low, axis.high]), label, margin=0.0)
        return Axis(axis.low, axis.high, label, [(float(np.log10(value)), text) for value, text in span.ticks])
    return Axis(axis.low, axis.high, label, [(place, f"{10**place:,.6g}") for place in inside])


def logarithms(values: Values) -> Values:
    """To base 10; NaN of what has none."""
    found: Values = np.log10(np.where(values > 0, values, np.nan))
    return found


def ticks_for(width: int) -> int:
    """The most that fit beside each other."""
    return 3 if width <= SLIM else 7 if width <= USUAL else 14


def time_axis(low_ns: float, high_ns: float, label: str = "event time, UTC", *, most: int = 7) -> Axis:
    """Ticks at round times; the date stands where the day changes or the step is long."""
    seconds = max((high_ns - low_ns) / 1e9, 1e-3)
    step = next((step for step in TIME_STEPS_S if seconds / step <= most), TIME_STEPS_S[-1])
    first = int(np.ceil(low_ns / 1e9 / step))
    places = [at * step for at in range(first, int(high_ns / 1e9 // step) + 1)]
    return Axis(low_ns, high_ns, label, [(at * 1e9, _moment(at, step, at == places[0])) for at in places])


def lane_axis(names: Sequence[str]) -> Axis:
    """The first on top: lane k lies between -k - 0.5 and -k + 0.5."""
    return Axis(-len(names) + 0.5, 0.5, "", [(-float(at), name) for at, name in enumerate(names)])


def named_axis(names: Sequence[str], label: str) -> Axis:
    """One place for each name: 0, 1, 2, ..."""
    return Axis(-0.5, len(names) - 0.5, label, list(enumerate(names)))


def _round_step(rough: float) -> float:
    power = 10.0 ** np.floor(np.log10(rough))
    return float(next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999))


def _number(value: float, step: float) -> str:
    if abs(value) < step / 1e6:
        return "0"
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3g}"
    decimals = next((places for places in range(12) if abs(step * 10**places - round(step * 10**places)) < 1e-6), 12)
    return f"{value:,.{decimals}f}"


def _moment(seconds: int, step: int, first: bool) -> str:
    text = str(np.datetime64(seconds, "s"))
    date, clock = text[:10], text[11:]
    if step >= DAY:
        return date
    shown = clock if step < MINUTE else clock[:5]
    return f"{date[5:]} {shown}" if first or seconds % DAY == 0 else shown


class Plot:
    """What is drawn first lies below. Every mark takes the CSS class that colours it."""

    def __init__(self, x: Axis, y: Axis, *, title: str, width: int = 640, height: int = 280) -> None:
        self._x, self._y, self._title = x, y, title
        self._width, self._height = width, height
        self._marks: list[str] = []

    def line(self, x: Values, y: Values, css: str) -> None:
        """A line that breaks where y is NaN."""
        x, y = decimate(np.asarray(x, np.float64), np.asarray(y, np.float64))
        pieces, pen = [], "M"
        for at, value in zip(x, y, strict=True):
            if not np.isfinite(value):
                pen = "M"
                continue
            pieces.append(f"{pen}{self._across(at)} {self._up(value)}")
            pen = "L"
        if pieces:
            self._marks.append(f'<path class="line {css}" d="{"".join(pieces)}"/>')

    def band(self, x: Values, low: Values, high: Values, css: str) -> None:
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            return
        there = [f"{self._across(at)} {self._up(value)}" for at, value in zip(x, low, strict=True)]
        back = [f"{self._across(at)} {self._up(value)}" for at, value in zip(x[::-1], high[::-1], strict=True)]
        self._marks.append(f'<path class="band {css}" d="M{"L".join(there + back)}Z"/>')

    def dots(self, x: Values, y: Values, css: str) -> None:
        for at, value in zip(x, y, strict=True):
            if np.isfinite(value):
                self._marks.append(
                    f'<circle class="dot {css}" cx="{self._across(at)}" cy="{self._up(value)}" r="3.5"/>'
                )

    def columns(self, x: Values, heights: Values, css: str, *, width: float = 0.8, shift: float = 0.0) -> None:
        """Columns from zero, `width` wide in units of x."""
        for at, value in zip(x, heights, strict=True):
            if not np.isfinite(value):
                continue
            left, right = self._place(at + shift - width / 2), self._place(at + shift + width / 2)
            top, bottom = sorted((self._rise(value), self._rise(max(self._y.low, 0.0))))
            self._marks.append(
                f'<rect class="column {css}" x="{left:.1f}" y="{top:.1f}" '
                f'width="{max(right - left, 0.5):.1f}" height="{max(bottom - top, 0.0):.1f}"/>'
            )

    def span(self, low: float, high: float, css: str) -> None:
        """A stretch of the x axis, shaded over the whole height."""
        left, right = (self._place(min(max(at, self._x.low), self._x.high)) for at in (low, high))
        self._marks.append(
            f'<rect class="span {css}" x="{left:.1f}" y="{TOP}" width="{max(right - left, 0):.1f}" '
            f'height="{self._height - TOP - BOTTOM}"/>'
        )

    def box(self, x: tuple[float, float], y: tuple[float, float], css: str, label: str, *, inside: str = "") -> None:
        """From one to the other on both axes; the label shows under the pointer, what is to stand inside where it fits.
        None is too narrow to be seen."""
        left, right = (self._place(min(max(at, self._x.low), self._x.high)) for at in x)
        right = max(right, left + LEAST_BOX)
        top, bottom = sorted(self._rise(at) for at in y)
        self._marks.append(
            f'<rect class="box {css}" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
            f'height="{bottom - top:.1f}" rx="2"><title>{escape(label)}</title></rect>'
        )
        if inside and right - left > 2 * HALF_LETTER * len(inside) + 8:
            at = f'x="{left + 5:.1f}" y="{(top + bottom) / 2 + 4:.1f}"'
            self._marks.append(f'<text class="inside" {at}>{escape(inside)}</text>')

    def svg(self) -> str:
        return (
            f'<svg viewBox="0 0 {self._width} {self._height}" role="img" aria-label="{escape(self._title)}">'
            f"{self._grid()}{''.join(self._marks)}</svg>"
        )

    def _grid(self) -> str:
        right, bottom = self._width - RIGHT, self._height - BOTTOM
        parts = []
        for at, text in self._y.ticks:
            up = self._up(at)
            parts.append(f'<path class="grid" d="M{LEFT} {up}H{right}"/>')
            parts.append(f'<text x="{LEFT - 8}" y="{float(up) + 4:.1f}" text-anchor="end">{escape(text)}</text>')
        for at, text in self._x.ticks:
            across = self._across(at)
            centre = min(self._place(at), self._width - HALF_LETTER * len(text))  # none is cut at the right edge
            parts.append(f'<path class="tick" d="M{across} {bottom}v4"/>')
            parts.append(f'<text x="{centre:.1f}" y="{bottom + 17}" text-anchor="middle">{escape(text)}</text>')
        middle, half = (LEFT + right) / 2, (TOP + bottom) / 2
        below = f'x="{middle:.0f}" y="{self._height - 5}"'
        beside = f'transform="translate(12 {half:.0f}) rotate(-90)"'
        parts.append(f'<path class="frame" d="M{LEFT} {bottom}H{right}"/>')
        for place, text in ((below, self._x.label), (beside, self._y.label)):
            parts.append(f'<text class="label" {place} text-anchor="middle">{escape(text)}</text>')
        return "".join(parts)

    def _place(self, x: float) -> float:
        return LEFT + (x - self._x.low) / (self._x.high - self._x.low) * (self._width - LEFT - RIGHT)

    def _rise(self, y: float) -> float:
        bottom = self._height - BOTTOM
        return bottom - (y - self._y.low) / (self._y.high - self._y.low) * (bottom - TOP)

    def _across(self, x: float) -> str:
        return f"{self._place(x):.1f}"

    def _up(self, y: float) -> str:
        return f"{self._rise(y):.1f}"


def fitted(draw: Callable[[int], Plot], width: int = USUAL) -> str:
    """The plot at that width and once more for a phone, of which the page shows the one that fits."""
    return f'<div class="broad">{draw(width).svg()}</div><div class="slim">{draw(SLIM).svg()}</div>'


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """(CSS class, text) pairs as a line of keys above a plot."""
    keys = "".join(f'<span><i class="key {css}"></i>{escape(text)}</span>' for css, text in entries)
    return f'<p class="legend">{keys}</p>'
