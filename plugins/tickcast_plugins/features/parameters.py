"""What a feature's parameters may be: each check gives the value back or refuses it by name. It computes no feature."""

from collections.abc import Collection
from typing import Any

from tickcast.errors import BadSettings
from tickcast_plugins.features.series import SERIES

MOST_BARS = 10_000  # every symbol's ring holds at least as many bars as the longest lookback
LONGEST_SPAN = 1_000  # a recursive feature reads 8 times its span


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
