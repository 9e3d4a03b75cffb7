"""Features of frequency: where a bar lies in the day or week, and how strongly the window swings at each frequency."""

import numpy as np
from numba import njit

from tickcast.columns import F64, I32, I64, Bars
from tickcast_plugins.features import parameters
from tickcast_plugins.features.linear import weighted_sum
from tickcast_plugins.features.series import LOG_RETURN, lookback_of, values_of

DAY_NS = 86_400 * 10**9
PERIODS_NS = {"day": (DAY_NS, 0), "week": (7 * DAY_NS, 4 * DAY_NS)}  # 1970 began on a Thursday: weeks from Sunday


@njit(cache=True, nogil=True)
def phases(bars, symbol, ordinal, period_ns, shift_ns, out):  # type: ignore[no-untyped-def]
    """Sine and cosine of 1, 2, 3 ... turns per period, each from the one before by one rotation."""
    for i in range(len(symbol)):
        as_of = bars.as_of[bars.start[symbol[i]] + (ordinal[i] & bars.wrap)]
        angle = 2 * np.pi * (((as_of + shift_ns) % period_ns) / period_ns)
        sine, cosine = np.sin(angle), np.cos(angle)
        a, b = sine, cosine
        for c in range(0, out.shape[1], 2):
            out[i, c], out[i, c + 1] = a, b
            a, b = a * cosine + b * sine, b * cosine - a * sine


@njit(cache=True, nogil=True)
def amplitudes(bars, symbol, ordinal, sines, cosines, out):  # type: ignore[no-untyped-def]
    """2 / length x the modulus of the discrete Fourier transform of the log returns at each row's frequency."""
    length = sines.shape[1]
    scratch = np.empty(2 * length + 1)
    for i in range(len(symbol)):
        moves = values_of(LOG_RETURN, bars.close, bars.start[symbol[i]], ordinal[i], length, bars.wrap, scratch)
        for c in range(sines.shape[0]):
            a, b = weighted_sum(sines[c], moves, 0.0), weighted_sum(cosines[c], moves, 0.0)
            out[i, c] = 2.0 / length * np.sqrt(a * a + b * b)


class Fourier:
    """Sine and cosine of the bar's end in the day or week (UTC), at 1 .. n turns per period."""

    version = 1
    lookback = 1

    def __init__(self, *, n: int = 5, period: str = "day") -> None:
        parameters.bars("n", n, most=100)
        self._period_ns, self._shift_ns = PERIODS_NS[parameters.choice("period", period, PERIODS_NS)]
        self.names = tuple(f"fourier_{period}_{k}_{wave}" for k in range(1, n + 1) for wave in ("sin", "cos"))

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        phases(bars, symbol, ordinal, self._period_ns, self._shift_ns, out)


class Spectrum:
    """Amplitudes of the window's log returns at 1 .. n swings per window."""

    version = 1

    def __init__(self, *, window: int = 64, n: int = 5) -> None:
        parameters.bars("window", window, least=4, most=2_000)
        parameters.bars("n", n, most=window // 2)
        angle = 2 * np.pi * np.outer(np.arange(1, n + 1), np.arange(window)) / window
        self._sines, self._cosines = np.sin(angle), np.cos(angle)
        self.names = tuple(f"spectrum_{window}_{k}" for k in range(1, n + 1))
        self.lookback = lookback_of(LOG_RETURN, window)

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        amplitudes(bars, symbol, ordinal, self._sines, self._cosines, out)
