"""Kalman filter of a local level or a local linear trend, its variances by maximum likelihood. The gains depend on the
variances alone, so the filter is one dot product per step, exact from the window's first bar on.
"""

import numpy as np

from tickcast.columns import F64
from tickcast.plugin import Report
from tickcast_plugins.models.recursion import Forecast, Recursion, least

TREND_PRIOR = 1.0  # variance of the slope before the window, in squared one-bar moves


class Kalman(Recursion):
    kind = "kalman"

    def estimate(self, moves: F64, y: F64, report: Report) -> Forecast:
        path, horizon = moves.cumsum(axis=1), y.shape[1]
        best, least_loss, logs = "", np.inf, np.zeros(0)
        for step, (name, start) in enumerate((("level", [-2.0, 0.0]), ("trend", [-2.0, 0.0, -6.0]))):
            found, loss = least(lambda logs: surprise(path, logs), start)
            loss += len(start)
            report(step=step + 1, steps=2, loss=loss / moves.size)
            if loss < least_loss:
                best, least_loss, logs = name, loss, found
        values = " ".join(f"{value:.3g}" for value in np.exp(logs))
        self.note(f"local {best}, variances of noise, level and slope in squared one-bar moves: {values}")
        return lambda moves: filtered(moves.cumsum(axis=1), logs, horizon)


def gains(logs: F64, length: int) -> tuple[F64, F64]:
    """Kalman gains [L, 2] of level and slope, and the variances [L] of the one-step errors; bar 0 sets the level."""
    noise, level, *slope = np.exp(np.clip(logs, -20.0, 20.0))
    gain, variance = np.zeros((length, 2)), np.ones(length)
    p00, p01, p11 = noise, 0.0, TREND_PRIOR if slope else 0.0
    for t in range(1, length):
        p00, p01, p11 = p00 + 2 * p01 + p11 + level, p01 + p11, p11 + sum(slope)
        variance[t] = p00 + noise
        gain[t] = p00 / variance[t], p01 / variance[t]
        p00, p01, p11 = p00 * (1 - gain[t, 0]), p01 * (1 - gain[t, 0]), p11 - gain[t, 1] * p01
    return gain, variance


def surprise(path: F64, logs: F64) -> float:
    """Minus the log-likelihood of the paths [B, L], but for a constant."""
    gain, variance = gains(logs, path.shape[1])
    errors, _, _ = run(path, gain)
    squares = (errors**2).sum(axis=0) / variance[1:]
    return 0.5 * float((len(path) * np.log(variance[1:]) + squares).sum())


def filtered(path: F64, logs: F64, horizon: int) -> F64:
    """[B, H]: the moves from the last value that level and slope at the window's end stand for."""
    _, level, slope = run(path, gains(logs, path.shape[1])[0])
    ahead: F64 = (level - path[:, -1])[:, None] + slope[:, None] * np.arange(1, horizon + 1)
    return ahead


def run(path: F64, gain: F64) -> tuple[F64, F64, F64]:
    """One-step errors [B, L - 1], level and slope [B] at the end."""
    level, slope = path[:, 0], np.zeros(len(path))
    errors = np.empty((len(path), path.shape[1] - 1))
    for t in range(1, path.shape[1]):
        level = level + slope
        error = path[:, t] - level
        level, slope = level + gain[t, 0] * error, slope + gain[t, 1] * error
        errors[:, t - 1] = error
    return errors, level, slope
