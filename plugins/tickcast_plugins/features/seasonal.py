"""Trend, seasons and remainder at the window's last bar: MSTL, from the window alone. It learns nothing.

Seasonal-trend decomposition by local regression (STL) without robustness weights is linear in the series, and so is
its repetition over several periods (MSTL). What it gives at the last bar is therefore a fixed weighted sum over the
window; the weights are worked out once, by decomposing each unit series.
"""

from collections.abc import Sequence

import numpy as np

from tickcast.columns import F64, I32, I64, Bars
from tickcast.errors import BadSettings
from tickcast_plugins.features import parameters
from tickcast_plugins.features.linear import newest, weigh
from tickcast_plugins.features.series import lookback_of

LONGEST = 1_000  # bars: the weights take time by the cube of them
ROUNDS, INNER = 2, 2  # of MSTL over the periods, and of STL over season and trend


def local_line(among: F64, at: F64, neighbours: int) -> F64:
    """The matrix [at, among] that gives the local line through the values `among` at the places `at` (LOESS)."""
    far = np.abs(at[:, None] - among[None, :])
    count = len(among)
    reach = np.partition(far, min(neighbours, count) - 1, axis=1)[:, min(neighbours, count) - 1]
    reach = np.maximum(reach * max(1.0, neighbours / count), 1e-9)[:, None]
    weights = np.clip(1 - (far / reach) ** 3, 0, None) ** 3
    weights /= weights.sum(axis=1, keepdims=True)
    middle = weights @ among
    offset = among[None, :] - middle[:, None]
    moment = (weights * offset**2).sum(axis=1)
    slope = np.divide(at - middle, moment, out=np.zeros(len(at)), where=moment > 1e-9)
    found: F64 = weights * (1 + slope[:, None] * offset)
    return found


def moving_mean(values: F64, length: int) -> F64:
    """Of each run of so many rows."""
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    found: F64 = (sums[length:] - sums[:-length]) / length
    return found


def odd_from(value: float) -> int:
    """The least odd whole number that is not below."""
    return 2 * int(np.ceil((value - 1) / 2)) + 1


def stl(values: F64, period: int, neighbours: int) -> tuple[F64, F64]:
    """Season and trend of every column of `values`, as Cleveland and others (1990) have it."""
    length = len(values)
    place = np.arange(length, dtype=np.float64)
    trend_over = odd_from(1.5 * period / (1 - 1.5 / neighbours))
    to_trend, to_low = (local_line(place, place, over) for over in (trend_over, odd_from(period)))
    trend = np.zeros_like(values)
    season = trend
    for _ in range(INNER):
        cycles = np.empty((length + 2 * period, values.shape[1]))
        for phase in range(period):  # each phase over the cycles, and one cycle beyond either end
            own = (values - trend)[phase::period]
            among = np.arange(len(own), dtype=np.float64)
            cycles[phase::period] = local_line(among, np.arange(-1, len(own) + 1.0), neighbours) @ own
        low = moving_mean(moving_mean(moving_mean(cycles, period), period), 3)
        season = cycles[period : period + length] - to_low @ low
        trend = to_trend @ (values - season)
    return season, trend


def weights_at_last(length: int, periods: Sequence[int]) -> F64:
    """Weights over the window [2 + periods, length]: trend, the season of each period, remainder."""
    unit = np.eye(length)
    seasons = [np.zeros_like(unit) for _ in periods]
    rest, trend = unit, unit
    for _ in range(ROUNDS):
        for number, period in enumerate(periods):
            rest = rest + seasons[number]
            seasons[number], trend = stl(rest, period, 11 + 4 * number)
            rest = rest - seasons[number]
    parts = [trend[-1], *(season[-1] for season in seasons)]
    return np.stack([*parts, newest(length) - sum(parts)])


class MstlParts:
    """Trend, the season of each period, and what remains, at the newest value."""

    version = 1

    def __init__(self, *, window: int = 96, periods: Sequence[int] = (24,), of: str = "close") -> None:
        self._series = parameters.series(of)
        parameters.bars("window", window, least=8, most=LONGEST)
        ascending = sorted(parameters.several("periods", periods))
        if ascending[0] < 2 or 2 * ascending[-1] > window:
            raise BadSettings(f"periods must be from 2 to half the window of {window} bars, not {ascending}")
        self._weights = weights_at_last(window, ascending)
        name = f"mstl_{window}_{'_'.join(map(str, ascending))}"
        channels = ("trend", *(f"season_{period}" for period in ascending), "remainder")
        self.names = tuple(f"{name}_{channel}{parameters.suffix(of, 'close')}" for channel in channels)
        self.lookback = lookback_of(self._series, window)

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        """The trend is a weighted mean; the others are differences, whose weights sum to 0."""
        trend, others = np.empty((len(symbol), 1)), np.empty((len(symbol), len(self.names) - 1))
        weigh(bars, symbol, ordinal, self._weights[:1], self._series, 1.0, trend)
        weigh(bars, symbol, ordinal, self._weights[1:], self._series, 0.0, others)
        out[:, :1], out[:, 1:] = trend, others
