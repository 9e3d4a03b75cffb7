"""What a search takes from those before it: parameters to begin with, and trials to go on from. It fits nothing.

How like two data sets are is the distance of their signatures, by exact search over all that are known.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tickcast.batch.tune.spaces import Space
from tickcast.io.jobs.orders import FitOrder, TuneOrder
from tickcast.io.jobs.past import EarlierSearch
from tickcast.io.store.ledger_rows import TrajectoryRow
from tickcast.loop.signature import ALIKE, STILL, Signature, distance, read_signature
from tickcast.plugin import Parameter


class Start(NamedTuple):
    """Parameters that a search tries early."""

    origin: str  # the job whose search found them
    distance: float
    params: dict[str, Any]  # whole, and within the space


def starts_of(
    trajectories: Sequence[TrajectoryRow], signature: Signature, order: TuneOrder, space: Space, first: dict[str, Any]
) -> list[Start]:
    """Of the nearest searches for the same, those that are near enough; what the order tries anyway is left out."""
    near = [
        (away, -row.at_ns, row.job, row.params)
        for row in trajectories
        if row.made_by == order.job and row.metric == order.metric and asks_the_same(row.fit, order.fit)
        if (known := read_signature(row.signature)) is not None and (away := distance(known, signature)) <= ALIKE
    ]
    found: list[Start] = []
    for away, _, job, params in sorted(near, key=lambda one: one[:3]):
        start = within(params, space, first, fixed=set(order.space))
        if start is not None and start not in (first, *(other.params for other in found)):
            found.append(Start(job, round(away, 4), start))
    return found[: order.past_searches]


def still_alike(earlier: Sequence[EarlierSearch], signature: Signature) -> list[EarlierSearch]:
    """Those whose data were so like these that their trials tell of these, too."""
    return [
        search for search in earlier
        if (known := read_signature(search.signature)) is not None and distance(known, signature) <= STILL
    ]  # fmt: skip


def asks_the_same(past: dict[str, Any], order: FitOrder) -> bool:
    """The kind, and the settings that change what the same parameters are worth."""
    same = ("kind", "transform", "horizon")
    return all(past.get(name) == getattr(order, name) for name in same) and (
        past.get("bars", {}).get("kind") == order.bars.get("kind")
    )


def within(params: dict[str, Any], space: Space, first: dict[str, Any], *, fixed: set[str]) -> dict[str, Any] | None:
    """These parameters moved into the space, what they leave out as in `first`; None where they are not of this kind,
    or no numbers.
    """
    if set(params) - set(space) - fixed:
        return None
    moved = first | {name: _moved(space[name], value) for name, value in params.items() if name in space}
    return None if None in moved.values() else moved


def _moved(parameter: Parameter, value: Any) -> Any:
    if parameter.kind == "choice":
        return value if value in parameter.choices else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        return None
    low, high = parameter.low, parameter.high
    return int(np.clip(round(value), low, high)) if parameter.kind == "int" else float(np.clip(value, low, high))
