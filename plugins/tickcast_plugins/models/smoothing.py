"""Exponential smoothing: ETS with additive errors, its form chosen by Akaike's criterion, and the Theta method."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from tickcast.columns import F64
from tickcast.plugin import Report
from tickcast_plugins.models.recursion import Forecast, Recursion, SeasonalParams, information, least, unit

DAMPING = (0.8, 0.998)  # the range in which a trend may be damped


class Form(NamedTuple):
    """Which parts an exponential smoothing has."""

    trend: bool
    damped: bool
    season: int  # bars; 0 = none

    @property
    def start(self) -> list[float]:
        return [1.0, *([-2.0] if self.trend else []), *([0.0] if self.damped else []), *([-2.0] if self.season else [])]

    def rates(self, raw: F64) -> tuple[float, float, float, float]:
        """Rates of level, trend and season, and the damping, all in their ranges whatever `raw` holds."""
        left = list(unit(raw))
        alpha = left.pop(0)
        beta = alpha * left.pop(0) if self.trend else 0.0
        damping = DAMPING[0] + (DAMPING[1] - DAMPING[0]) * left.pop(0) if self.damped else 1.0
        gamma = (1 - alpha) * left.pop(0) if self.season else 0.0
        return alpha, beta, gamma, damping

    def __str__(self) -> str:
        trend = "Ad" if self.damped else "A" if self.trend else "N"
        return f"ETS(A,{trend},{f'A over {self.season} bars' if self.season else 'N'})"


class Ets(Recursion):
    kind = "ets"
    params_type = SeasonalParams

    def estimate(self, moves: F64, y: F64, report: Report) -> Forecast:
        path, horizon, season = moves.cumsum(axis=1), y.shape[1], self.params.season_bars
        shapes = [(False, False), (True, False), (True, True)]
        forms = [Form(*shape, cycle) for cycle in ((0, season) if season else (0,)) for shape in shapes]
        best, raw = chosen(path, forms, report)
        self.note(f"{best} with rates " + " ".join(f"{rate:.3g}" for rate in best.rates(raw)))
        return lambda moves: smoothed(moves.cumsum(axis=1), best, raw, horizon)


def chosen(path: F64, forms: Sequence[Form], report: Report) -> tuple[Form, F64]:
    """The form that Akaike's criterion prefers, and its parameters before they are rates."""
    first = max(1, *(form.season for form in forms))  # all forms are judged by the same errors
    best, lowest, raw = forms[0], np.inf, np.zeros(0)
    for step, form in enumerate(forms):
        found, loss = least(partial(_criterion, path, form, first), form.start)
        report(step=step + 1, steps=len(forms), loss=loss / path.size)
        if loss < lowest:
            best, lowest, raw = form, loss, found
    return best, raw


def _criterion(path: F64, form: Form, first: int, raw: F64) -> float:
    errors = smooth(path, form, raw)[0][:, first:]
    return information(float((errors**2).sum()), errors.size, len(raw))


def smooth(path: F64, form: Form, raw: F64) -> tuple[F64, F64, F64, F64]:
    """One-step errors [B, L], then level and slope [B] and the season [B, m] at the end, its oldest phase first.

    The first season, or the first bar, sets where level and season begin; there are no errors in it.
    """
    alpha, beta, gamma, damping = form.rates(raw)
    begin = max(form.season, 1)
    level, slope = path[:, :begin].mean(axis=1), np.zeros(len(path))
    season = path[:, :begin] - level[:, None]
    errors = np.zeros_like(path)
    for t in range(begin, path.shape[1]):
        phase = t % begin
        level = level + damping * slope
        error = path[:, t] - level - season[:, phase]
        level, slope = level + alpha * error, damping * slope + beta * error
        season[:, phase] += gamma * error
        errors[:, t] = error
    return errors, level, slope, np.roll(season, -(path.shape[1] % begin), axis=1)


def smoothed(path: F64, form: Form, raw: F64, horizon: int) -> F64:
    """[B, H]: the moves from the last value."""
    _, level, slope, season = smooth(path, form, raw)
    damping = form.rates(raw)[3]
    steps = np.cumsum(damping ** np.arange(1, horizon + 1))
    ahead = (level - path[:, -1])[:, None] + slope[:, None] * steps
    moved: F64 = ahead + season[:, np.arange(horizon) % season.shape[1]]
    return moved


class Theta(Recursion):
    """Simple smoothing with a part of the window's straight line as drift; rate and part by the errors of all steps."""

    kind = "theta"
    overlapping = True

    def estimate(self, moves: F64, y: F64, report: Report) -> Forecast:
        path, horizon = moves.cumsum(axis=1), y.shape[1]
        steps = np.sqrt(np.arange(1, horizon + 1))
        raw, loss = least(lambda raw: float((((y - drifted(path, raw, horizon)) / steps) ** 2).mean()), [1.0, -2.0])
        report(step=1, steps=1, loss=loss)
        self.note(f"rate {unit(raw[0]):.3g}, {unit(raw[1]):.3g} of the line's slope")
        return lambda moves: drifted(moves.cumsum(axis=1), raw, horizon)


def drifted(path: F64, raw: F64, horizon: int) -> F64:
    """[B, H]: the moves from the last value."""
    rate, part = unit(raw)
    length = path.shape[1]
    older = rate * (1 - rate) ** np.arange(length - 1, -1, -1)
    older[0] = (1 - rate) ** (length - 1)
    bar = np.arange(length) - (length - 1) / 2
    slope = path @ bar / (bar @ bar)
    ahead = np.arange(horizon) + (1 - (1 - rate) ** length) / rate
    moved: F64 = (path @ older - path[:, -1])[:, None] + part * slope[:, None] * ahead
    return moved
