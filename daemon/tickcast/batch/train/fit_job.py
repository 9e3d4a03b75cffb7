"""What a fit is told: its order, the models that it begins with and follows, whom it reports to. It fits nothing."""

from pathlib import Path
from typing import NamedTuple

import msgspec

from tickcast.clock import Clock
from tickcast.engine.inference.model_folder import verify_strictly
from tickcast.errors import BadModel, BadSettings
from tickcast.io.jobs.orders import FitOrder, WarmStart
from tickcast.plugin import Report
from tickcast.records import ModelCard

ALIKE = (  # or what a fit goes on with means another thing
    "kind", "transform", "lookback", "horizon", "levels", "features", "future",
)  # fmt: skip


class Parent(NamedTuple):
    """The model that a fit begins with."""

    start: WarmStart
    folder: Path
    card: ModelCard


class JudgedFit(NamedTuple):
    """The model that the hold-out spoke for, before the same was fitted on all bars."""

    folder: Path
    card: ModelCard


class FitJob(NamedTuple):
    """What a fit is told, and with what it tells."""

    folder: Path  # where it keeps its checkpoints and leaves its model
    order: FitOrder
    parent: Parent | None
    report: Report
    clock: Clock
    judged: JudgedFit | None = None

    @property
    def parent_digest(self) -> str:
        return self.parent.card.digest if self.parent else ""

    @property
    def seen_to_ns(self) -> int:
        """What its parent learnt from ended there."""
        return self.parent.card.trained_to_ns if self.parent else 0

    def with_parents_span(self, from_ns: int, to_ns: int) -> tuple[int, int]:
        """Of event times: its weights know what its parent's knew."""
        if not self.seen_to_ns:
            return from_ns, to_ns
        assert self.parent is not None
        return min(from_ns, self.parent.card.trained_from_ns), max(to_ns, self.seen_to_ns)

    @property
    def time_s(self) -> float:
        """Of two fits the first has half of the order's time, the second all that is left."""
        of = self.order.time_budget_s
        if self.order.against is None:
            return of
        return of / 2 if self.judged is None else max(of / 2, of - self.judged.card.metrics["fit"]["seconds"])


class InTwo:
    """Reports two fits as one: whatever each of them counts, it is half of the work."""

    def __init__(self, report: Report) -> None:
        self._report, self._steps, self._half = report, 0, 0

    def __call__(self, *, step: int, steps: int, **figures: float) -> bool:
        self._steps = self._steps or steps
        done = self._half * self._steps + step * self._steps // max(steps, 1)
        return self._report(step=done, steps=2 * self._steps, **figures)

    def go_on(self) -> bool:
        """To the second; False where the work is to end."""
        self._half = 1
        return self._report(step=self._steps or 1, steps=2 * (self._steps or 1))


def read_parent(job_folder: Path, order: FitOrder) -> Parent | None:
    """The folder's card and every file's hash are checked before anything of it is used."""
    if order.start is None:
        return None
    folder = job_folder / order.start.folder
    return Parent(order.start, folder, verify_strictly(folder))


def refuse_unlike(card: ModelCard, parent: Parent, *, remedy: str, also: tuple[str, ...] = ()) -> None:
    if other := [name for name in (*ALIKE, *also) if getattr(card, name) != getattr(parent.card, name)]:
        raise BadModel(
            f"start: the model in {parent.folder} has another {', '.join(other)} than this fit", remedy=remedy
        )


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
