"""What a fit is told: its order, the model that it begins with, whom it reports to. It fits nothing."""

from pathlib import Path
from typing import NamedTuple

import msgspec

from tickcast.clock import Clock
from tickcast.engine.inference.model_folder import verify_strictly
from tickcast.errors import BadSettings
from tickcast.io.jobs.orders import FitOrder, WarmStart
from tickcast.plugin import Report
from tickcast.records import ModelCard


class Parent(NamedTuple):
    """The model that a fit begins with."""

    start: WarmStart
    folder: Path
    card: ModelCard


class FitJob(NamedTuple):
    """What a fit is told, and with what it tells."""

    folder: Path
    order: FitOrder
    parent: Parent | None
    report: Report
    clock: Clock


def read_parent(job_folder: Path, order: FitOrder) -> Parent | None:
    """The folder's card and every file's hash are checked before anything of it is used."""
    if order.start is None:
        return None
    folder = job_folder / order.start.folder
    return Parent(order.start, folder, verify_strictly(folder))


def completed(order: FitOrder, parent: Parent | None) -> FitOrder:
    """Going on with a model needs its own parameters: the order may leave them out, and may not contradict them."""
    if parent is None or parent.start.mode == "transfer":
        return order
    other = [name for name, value in order.model_params.items() if parent.card.model_params.get(name) != value]
    if other:
        raise BadSettings(
            f"start: the model in {parent.folder} was built with another {', '.join(other)}",
            remedy="leave that parameter out, or set start.mode = transfer",
        )
    return msgspec.structs.replace(order, model_params=parent.card.model_params)
