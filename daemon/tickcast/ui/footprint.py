"""The memory that an engine's state will take under given settings, measured on small ones. It builds no large one."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tickcast.loop.build import build
from tickcast.settings import Settings

SMALL, LARGE = 256, 512  # powers of two: the tables of these sizes are exactly twice as large


def state_bytes(settings: Settings, make: Callable[[Settings], Any] = build) -> int:
    """Bytes of all arrays that serving allocates, scaled to `symbols.limit`; loaded models are not among them.

    Every array has either a fixed size or one that is proportional to the number of symbols, so two small engines
    tell what a large one takes, whatever it consists of.
    """
    small, large = (array_bytes(make(_with_limit(settings, limit))) for limit in (SMALL, LARGE))
    per_symbol = (large - small) / (LARGE - SMALL)
    return round(small + per_symbol * (settings.symbols.limit - SMALL))


def array_bytes(thing: object) -> int:
    """Bytes of all numpy arrays that can be reached from `thing`, each counted once."""
    return sum(array.nbytes for array in _arrays(thing, set()))


def _with_limit(settings: Settings, limit: int) -> Settings:
    return settings.model_copy(update={"symbols": settings.symbols.model_copy(update={"limit": limit})})


def _arrays(thing: object, seen: set[int]) -> Iterator[np.ndarray[Any, Any]]:
    if id(thing) in seen or isinstance(thing, str | bytes | int | float | type):
        return
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        if isinstance(thing.base, np.ndarray):  # a view: its owner is what takes the memory
            yield from _arrays(thing.base, seen)
        else:
            yield thing
        return
    for part in _parts(thing):
        yield from _arrays(part, seen)


def _parts(thing: object) -> Iterator[object]:
    if isinstance(thing, dict):
        yield from thing.values()
    elif isinstance(thing, list | tuple | set):
        yield from thing
    elif type(thing).__module__.split(".")[0] in ("tickcast", "tickcast_plugins"):
        yield from getattr(thing, "__dict__", {}).values()
        for kind in type(thing).__mro__:
            yield from (getattr(thing, name, None) for name in getattr(kind, "__slots__", ()))
