"""A window that somebody brings along, as a model takes it: the same features and the same gather as the rings'."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tickcast.columns import F32, F64, I64, Bars
from tickcast.engine.core import windows
from tickcast.engine.core.features import FeatureSet
from tickcast.engine.core.on_demand import GivenWindow
from tickcast.errors import BadRequest
from tickcast.settings import Settings


class GivenBars(NamedTuple):
    """Oldest first; all real bars that follow one another."""

    open: F64
    high: F64
    low: F64
    close: F64
    volume: F64

    @classmethod
    def of_closes(cls, closes: Sequence[float]) -> "GivenBars":
        close = np.array(closes, np.float64)
        return cls(close, close, close, close, np.zeros(len(close)))


def window_of(given: GivenBars, targets_ns: I64 | None, features: FeatureSet, settings: Settings) -> GivenWindow:
    """BadRequest where the bars are too few or no numbers that this deployment can work with.

    `targets_ns` [1, H] are the ends of the bars to come, None where nobody knows them.
    """
    count, lookback = len(given.close), settings.window.lookback
    transform = windows.TRANSFORMS[settings.forecast.transform]
    if not all(np.isfinite(column).all() for column in given):
        raise BadRequest("a given bar is not a number")
    if transform == windows.LOG_RETURN and not all((column > 0).all() for column in given[:4]):
        raise BadRequest("prices must be positive: forecast.transform is log_return")
    if count <= features.lookback:
        raise BadRequest(
            f"{count} bars are too few: features look back {features.lookback}", remedy=f"give {lookback} and those"
        )
    bars = _as_ring(given)
    symbol, ordinal, first = np.zeros(count, np.int32), np.arange(count), np.zeros(count, np.int64)
    values = np.zeros((len(bars.close), len(features.names)))
    values[:count] = np.nan_to_num(features.compute(bars, symbol, ordinal, first))
    warm = features.lookback - 1  # older bars have no values: for the model they are not there
    future = _future(targets_ns, settings)
    return GivenWindow(*windows.gather_inputs(
        bars, values, symbol[-1:], ordinal[-1:], first[-1:] + warm, lookback=lookback, transform=transform,
        future=future,
    ))  # fmt: skip


def _as_ring(given: GivenBars) -> Bars:
    count = len(given.close)
    bars = windows.ring(1, 1 << count.bit_length())
    for name, column in given._asdict().items():
        getattr(bars, name)[:count] = column
    bars.mask[:count] = 1
    return bars


def _future(targets_ns: I64 | None, settings: Settings) -> F32:
    names: list[str] = [*settings.features.future]
    if targets_ns is None:
        targets_ns = np.full((1, settings.forecast.horizon), -1, np.int64)
    if names and (targets_ns < 0).any():
        raise BadRequest("this deployment's models look at the calendar", remedy="give `as_of`, the last bar's end")
    return windows.calendar_channels(targets_ns, names)
