"""MSTL: seasons of several lengths are taken out of the window, what is left is smoothed by ETS without a season, and
the seasons go on as their profiles. All of it comes from the window alone: every bar is a refit, and none sees a later
one.

Taking out is linear in the window: it is part of the one dot product per step that serves. Before it, moves far beyond
the usual are cut off, so that a wild tick bends no profile.
"""

from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from tickcast.columns import F32, F64
from tickcast.errors import BadSettings
from tickcast.plugin import Report
from tickcast_plugins.features.seasonal import local_line
from tickcast_plugins.models.onnx_graph import Graph
from tickcast_plugins.models.recursion import Forecast, Recursion, RecursionParams
from tickcast_plugins.models.smoothing import Form, chosen, smoothed

ROUNDS = 6  # of taking out one season after the other; more change little
SPAN = 1.5  # seasons that the trend under a season is drawn through, as in STL
CUTS = 3  # of what is too far: each shows better what is usual


Period = Annotated[int, Meta(ge=2, le=2048)]


class MstlParams(RecursionParams, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    # of seasons, in bars
    periods: Annotated[list[Period], Meta(max_length=4)] = msgspec.field(default_factory=list)
    clip: Annotated[float, Meta(ge=1)] = 4.0  # usual moves, beyond which a move is cut off


class Mstl(Recursion):
    kind = "mstl"
    params_type = MstlParams

    def __init__(self, card: Any) -> None:
        super().__init__(card)
        periods = self.params.periods
        if len({*periods}) < len(periods) or 2 * max(periods, default=0) > card.lookback:
            raise BadSettings(
                f"{self.kind}: periods = {periods} in a window of {card.lookback} bars",
                remedy="give seasons of different lengths that each fit twice into window.lookback",
            )

    def estimate(self, moves: F64, y: F64, report: Report) -> Forecast:
        path, horizon, length = cut(moves, self.params.clip).cumsum(axis=1), y.shape[1], moves.shape[1]
        profiles = decomposition(length, sorted(self.params.periods))
        forms = [Form(trend, damped, 0) for trend, damped in ((False, False), (True, False), (True, True))]
        form, raw = chosen(path - seasons(path, profiles, np.arange(length)), forms, report)
        told, rates = ", ".join(map(str, sorted(self.params.periods))), " ".join(f"{r:.3g}" for r in form.rates(raw))
        self.note(f"seasons of {told or 'no'} bars, the rest {form} with rates {rates}")

        def forecast(moves: F64) -> F64:
            path = moves.cumsum(axis=1)
            found = seasons(path, profiles, np.arange(length + horizon))
            rest = smoothed(path - found[:, :length], form, raw, horizon)
            moved: F64 = rest + found[:, length:] - found[:, length - 1 : length]
            return moved

        return forecast

    def point(self, x: F32) -> F64:
        answer: F64 = cut(x.astype(np.float64), self.params.clip) @ self.arrays["weights"] + self.arrays["bias"]
        return answer

    def point_nodes(self, g: Graph, x: str) -> str:
        most = g.constant(self.params.clip**2 / self.card.lookback)
        for _ in range(CUTS):
            bound = g.add("Sqrt", g.add("Mul", g.sum(g.add("Mul", x, x)), most))
            x = g.add("Max", g.add("Min", x, bound), g.add("Neg", bound))
        return super().point_nodes(g, x)


def cut(moves: F64, clip: float) -> F64:
    """Moves [B, L], none further than `clip` times the RMS of the window's moves after the cut before."""
    for _ in range(CUTS):
        bound = clip * np.sqrt((moves**2).mean(axis=1, keepdims=True))
        moves = np.clip(moves, -bound, bound)
    return moves


def decomposition(length: int, periods: list[int]) -> list[F64]:
    """Matrices [L, m], one a period: a path times it is the season's value by bar modulo m, zero on average.

    Each is the mean over the cycles of what the other seasons and the trend leave over, found in turns.
    """
    whole = np.eye(length)
    profiles = [np.zeros((length, period)) for period in periods]
    means = [_phase_means(length, period) for period in periods]
    place = np.arange(length, dtype=np.float64)
    trends = [local_line(place, place, int(SPAN * period) | 1).T for period in periods]
    for _ in range(ROUNDS):
        for i, period in enumerate(periods):
            others = [season[:, np.arange(length) % len(season[0])] for j, season in enumerate(profiles) if j != i]
            left = whole - sum(others, np.zeros_like(whole))
            trend = (left - profiles[i][:, np.arange(length) % period]) @ trends[i]
            profile = (left - trend) @ means[i]
            profiles[i] = profile - profile.mean(axis=1, keepdims=True)
    return profiles


def seasons(path: F64, profiles: list[F64], bars: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> F64:
    """[B, N]: all seasons together at these bars, counted from the path's first."""
    found = np.zeros((len(path), len(bars)))
    for profile in profiles:
        found += (path @ profile)[:, bars % profile.shape[1]]
    return found


def _phase_means(length: int, period: int) -> F64:
    """[L, m]: a path times it is its mean at every place of the cycle."""
    at = (np.arange(length)[:, None] % period == np.arange(period)).astype(np.float64)
    means: F64 = at / at.sum(axis=0)
    return means
