"""The fitted models that a combination is made of: opened from the job's folder, held to its order, and each asked
about its part of a window. It combines nothing, and changes no file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tickcast.columns import F32, Inputs
from tickcast.engine.inference.load import open_model
from tickcast.engine.inference.model_folder import GRAPH, verify_strictly
from tickcast.errors import BadData, BadModel
from tickcast.io.jobs.folder import MEMBERS
from tickcast.io.jobs.orders import FitOrder
from tickcast.plugin import Runner
from tickcast.records import FeatureSpec, ModelCard

ALIKE = ("bars", "transform", "levels")
REMEDY = "fit the members with the settings of the combination"


class Member:
    """A model folder that answers for a combination; its graph lies at `graph`."""

    def __init__(self, graph: Path, runner: Runner, order: FitOrder, specs: Sequence[FeatureSpec]) -> None:
        self.graph, self.card = graph, runner.card
        self._runner, self._horizon = runner, order.horizon
        own = [*specs]
        self.channels = [0, *(1 + own.index(spec) for spec in self.card.features)]  # of the combination's window
        pairs = [2 * order.future.index(name) for name in self.card.future]
        self.calendar = [column for first in pairs for column in (first, first + 1)]

    def predict(self, inputs: Inputs) -> F32:
        """As its Runner does, from the combination's inputs and for the combination's horizon."""
        last = slice(inputs.past.shape[1] - self.card.lookback, None)
        past, mask = inputs.past[:, last][:, :, self.channels], inputs.mask[:, last]
        future = inputs.future[:, : self.card.horizon, self.calendar]
        if future.shape[1] < self.card.horizon:  # only of one that reads no calendar
            future = np.empty((len(inputs), self.card.horizon, 0), np.float32)
        parts = (np.ascontiguousarray(part) for part in (past, mask, future, inputs.static))
        answer: F32 = self._runner.predict(Inputs(*parts))[:, : self._horizon]
        return answer

    def figures(self, found: dict[str, Any]) -> dict[str, Any]:
        """What it is, and what it is worth alone."""
        named = {name: getattr(self.card, name) for name in ("name", "version", "kind", "digest", "parameters")}
        return {**named, "cost_us": self.card.cost_us, **found}


def open_members(job_folder: Path, order: FitOrder, specs: Sequence[FeatureSpec]) -> list[Member]:
    """Those of `members/0`, `members/1` ..., in that order; none where there is no such folder."""
    root = job_folder / MEMBERS
    if not root.is_dir():
        return []
    folders = [root / str(number) for number in range(len([*root.iterdir()]))]
    return [_open(folder, order, specs) for folder in folders]


def _open(folder: Path, order: FitOrder, specs: Sequence[FeatureSpec]) -> Member:
    """The folder's card and every file's hash are checked before anything of it is used."""
    card = verify_strictly(folder)
    _refuse_unlike(card, order, specs)
    return Member(folder / GRAPH, open_model(folder), order, specs)


def _refuse_unlike(card: ModelCard, order: FitOrder, specs: Sequence[FeatureSpec]) -> None:
    who = f"the member {card.name}@{card.version}"
    for name in ALIKE:
        if getattr(card, name) != getattr(order, name):
            raise BadModel(f"{who} has {name} = {getattr(card, name)}, not {getattr(order, name)}", remedy=REMEDY)
    if card.lookback > order.lookback or card.horizon < order.horizon:
        raise BadModel(
            f"{who} has lookback {card.lookback} and horizon {card.horizon}, this order {order.lookback} and "
            f"{order.horizon}",
            remedy="a member may see less and forecast further than the combination, not the other way round",
        )
    lacking = [spec.name for spec in card.features if spec not in specs]
    if lacking := lacking + [name for name in card.future if name not in order.future]:
        raise BadModel(f"{who} reads {', '.join(lacking)}, which the combination has not", remedy=REMEDY)
    if card.future and card.horizon != order.horizon:
        raise BadModel(
            f"{who} reads the calendar of {card.horizon} bars, the combination knows that of {order.horizon}",
            remedy="fit it with the horizon of the combination",
        )


def refuse_foreknowledge(members: Sequence[Member], holdout_ns: int) -> None:
    """The combination's hold-out, which begins there, must be news to every member, or its figures say nothing."""
    for member in members:
        if member.card.trained_to_ns > holdout_ns:
            raise BadData(
                f"the member {member.card.name}@{member.card.version} was fitted on bars of the hold-out",
                remedy="fit members and combination on the same history, or the combination on a later one",
            )
