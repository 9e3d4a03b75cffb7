"""What a feature's parameters may be: each check gives the value back or refuses it by name. It computes no feature."""

import hashlib
from collections.abc import Collection
from typing import Any

import numpy as np

from tickcast.columns import F64
from tickcast.errors import BadSettings
from tickcast_plugins.features.series import SERIES, lookback_of

MOST_BARS = 10_000  # every symbol's ring holds at least as many bars as the longest lookback
LONGEST_SPAN = 1_000  # a recursive feature reads 8 times its span
MOST_LEARNT = 1e6  # learnt numbers are in units of a window's own moves


def bars(name: str, value: Any, *, least: int = 1, most: int = MOST_BARS) -> int:
    """A number of bars, or of other things that are counted."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadSettings(f"{name} must be a whole number from {least} to {most}, not {value!r}")
    return value


def several(name: str, value: Any) -> list[int]:
    """A list of different numbers of bars."""
    if not isinstance(value, list | tuple) or not value or len(set(value)) < len(value):
        raise BadSettings(f"{name} must be a list of one number of bars or more, each once, not {value!r}")
    return [bars(name, each) for each in value]


def positive(name: str, value: Any, *, most: float = 1_000.0) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= most:
        raise BadSettings(f"{name} must be a number above 0, at most {most:g}, not {value!r}")
    return float(value)


def choice(name: str, value: Any, known: Collection[str]) -> str:
    if not isinstance(value, str) or value not in known:
        raise BadSettings(f"{name} must be one of {', '.join(known)}, not {value!r}")
    return value


def series(value: Any) -> int:
    """The series that a feature is `of`, as the number that kernels take."""
    return SERIES[choice("of", value, SERIES)]


def suffix(of: str, usual: str) -> str:
    """Tells a channel of another series than the usual one from it."""
    return "" if of == usual else f"_{of}"


class OverSeries:
    """A feature that gives one number of the last `window` values of a series."""

    version = 1
    kind: str  # what its channel is called
    least, most = 1, MOST_BARS

    def __init__(self, *, window: int = 24, of: str = "close") -> None:
        self._series = series(of)
        self._window = bars("window", window, least=self.least, most=self.most)
        self.names = (f"{self.kind}_{window}{suffix(of, 'close')}",)
        self.lookback = lookback_of(self._series, window)


def learnt(name: str, value: Any, *, shape: tuple[int, ...]) -> F64:
    """Numbers that `tickcast learn` fitted, as a list or a list of equally long ones; -1 in `shape` = one or more."""
    try:
        found = np.array(value, np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    fits = found.ndim == len(shape) and found.size > 0
    if not fits or any(wanted not in (-1, there) for wanted, there in zip(shape, found.shape)):
        form = " x ".join("n" if wanted == -1 else str(wanted) for wanted in shape)
        raise BadSettings(f"{name} must be {form} numbers", remedy="`tickcast learn` prints the whole entry")
    if not np.isfinite(found).all() or np.abs(found).max() > MOST_LEARNT:
        raise BadSettings(f"{name} must be finite numbers, none beyond {MOST_LEARNT:g}")
    return found


def fingerprint(learnt_to_ns: Any, *values: F64) -> str:
    """A part of the channels' names: a model that was fitted on other learnt numbers then refuses to serve."""
    if not isinstance(learnt_to_ns, int) or isinstance(learnt_to_ns, bool) or learnt_to_ns <= 0:
        raise BadSettings(f"learnt_to_ns must be the time of the last bar learnt from, not {learnt_to_ns!r}",
                          remedy="`tickcast learn` prints the whole entry")  # fmt: skip
    said = b"".join(np.ascontiguousarray(value, "<f8").tobytes() for value in values)
    return hashlib.sha256(said).hexdigest()[:6]
