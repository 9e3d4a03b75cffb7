"""Trend with knots and Fourier seasons, drawn through the window by ridge regression and carried on, as Prophet does,
plus what the calendar of the next bar tells. How far the curve is trusted is learnt, which Prophet does not do.
"""

from typing import Annotated, ClassVar

import msgspec
import numpy as np
from msgspec import Meta

from tickcast.columns import F64
from tickcast.plugin import Parameter, Report
from tickcast_plugins.models.classical import Arrays, LinearMap, RowSample, error_of

SMOOTHNESS = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4)  # penalties of a bend, among which the validation part chooses
KNOT_SHARE = 0.8  # of the window: later bends would be noise
SEASON_PENALTY, CALENDAR_PENALTY = 1.0, 1e-3


class ProphetParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card."""

    rows: Annotated[int, Meta(ge=100, le=200_000)] = 20_000
    knots: Annotated[int, Meta(ge=0, le=64)] = 8
    periods: Annotated[list[Annotated[float, Meta(ge=2)]], Meta(max_length=8)] = []  # of seasons, in bars
    harmonics: Annotated[int, Meta(ge=1, le=16)] = 3


class ProphetLike(LinearMap):
    kind = "prophet_like"
    params_type = ProphetParams
    space: ClassVar = {"knots": Parameter("int", 0, 16), "harmonics": Parameter("int", 1, 6)}
    reads_channels = False

    def learn(self, train: RowSample, validation: RowSample, report: Report) -> Arrays:
        length, horizon = self.card.lookback, self.card.horizon
        steps = np.sqrt(np.arange(1, horizon + 1))
        best, least, told = np.zeros((train.x.shape[1], horizon)), np.inf, ""
        for step, penalty in enumerate(SMOOTHNESS):
            bent, level = self.curve(penalty)
            moves = train.x[:, :length].astype(np.float64)
            both = np.stack([((moves @ bent) / steps).ravel(), ((moves @ level) / steps).ravel()], axis=1)
            trust = np.linalg.lstsq(both, (train.y / steps).ravel())[0]
            curve = trust[0] * bent + trust[1] * level
            calendar = _regression(train.x[:, length:].astype(np.float64), train.y - moves @ curve)
            weights = np.concatenate([curve, calendar])
            error = error_of(validation.x @ weights, validation.y)
            if error < least:
                best, least = weights, error
                told = f"penalty {penalty:g}, trust in the curve {trust[0]:.3g}, in its level {trust[1]:.3g}"
            if not report(step=step + 1, steps=len(SMOOTHNESS), validation_loss=error):
                break
        self.note(told)
        return {"weights": best, "bias": np.zeros(horizon)}

    def curve(self, penalty: float) -> tuple[F64, F64]:
        """[L, H] twice, for moves: how the curve goes on from its end, and how far its end lies from the last value."""
        length, horizon = self.card.lookback, self.card.horizon
        bars = np.arange(1 - length, horizon + 1)
        design = self.design(bars / length)
        seasons = design.shape[1] - 2 - self.params.knots
        costs = [0.0, 1e-3, *[penalty / length] * self.params.knots, *[SEASON_PENALTY] * seasons]
        seen = design[:length]
        solved = np.linalg.solve(seen.T @ seen + np.diag(costs) + 1e-9 * np.eye(len(costs)), seen.T)
        last_value = np.zeros(length)
        last_value[-1] = 1.0
        from_path = design[length - 1 :] @ solved  # [1 + H, L]
        path_of_moves = np.tri(length)
        bent = (from_path[1:] - from_path[0]) @ path_of_moves
        level = np.broadcast_to((from_path[0] - last_value) @ path_of_moves, bent.shape)
        return bent.T, level.T

    def design(self, at: F64) -> F64:
        """Columns of the curve where the last bar is 0 and the window is 1 long: line, bends, seasons."""
        knots = -1 + KNOT_SHARE * np.arange(1.0, self.params.knots + 1) / max(self.params.knots, 1)
        columns: list[F64] = [np.ones_like(at), at, *(np.maximum(at - knot, 0.0) for knot in knots)]
        for period in self.params.periods:
            for harmonic in range(1, self.params.harmonics + 1):
                if period / harmonic >= 2:
                    angle = 2 * np.pi * harmonic * at * self.card.lookback / period
                    columns += [np.sin(angle), np.cos(angle)]
        return np.stack(columns, axis=1)


def _regression(x: F64, y: F64) -> F64:
    """[K, H]"""
    products: F64 = x.T @ x + (CALENDAR_PENALTY * len(x) + 1e-9) * np.eye(x.shape[1])
    return np.asarray(np.linalg.solve(products, x.T @ y), np.float64)
