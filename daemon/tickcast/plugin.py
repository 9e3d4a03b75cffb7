"""What a plugin must offer, and how it is found: by entry point, built-in ones by the same door as foreign ones."""

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import msgspec

from tickcast.columns import F32, F64, I32, I64, Bars, Inputs
from tickcast.errors import BadOutput, BadSettings
from tickcast.extras import missing_package
from tickcast.questions import Answers, Questions
from tickcast.records import ModelCard
from tickcast.reference import Reference
from tickcast.state import Arrays


class Feature(Protocol):
    """One or more numbers per closed bar. Built once per `[[features.set]]` entry with its parameters."""

    names: tuple[str, ...]  # the channels it gives, unique within a deployment
    version: int  # raised whenever a value changes
    lookback: int  # bars it reads, the newest included

    def compute(self, bars: Bars, symbol: I32, ordinal: I64, out: F64) -> None:
        """Fill out[i, :] for the bar `ordinal[i]` of `symbol[i]`, from it and the lookback - 1 bars before it.

        Called once per batch of closed bars and only for rows whose lookback is there; the same function computes
        history for training. It may read no bar after `ordinal[i]`: the ring may already hold some.
        """


class Runner(Protocol):
    """A loaded model that answers. `answer` is all that most need; what remembers earlier questions gives the rest."""

    card: ModelCard
    reference: Reference | None = None  # what it was fitted on, where that is known

    def answer(self, questions: Questions) -> Answers:
        """Quantiles [B, H, Q], ascending; and where the card has labels, how likely each is, of one call of the model.

        With `questions.tile` a row's bits may not depend on how many stand beside it. A state of a symbol is moved on
        by the questions of TICKS alone, which come in the order of its bars.
        """

    def state(self) -> Arrays:
        """Copies of all arrays that later answers depend on, for the snapshot; called between two calls of `answer`."""
        return {}

    def set_state(self, state: Arrays) -> None:
        """Go on from what `state` gave, which is the model's own now; called once, before the first `answer`."""
        return

    def forget(self, symbol: I64) -> None:
        """These codes go to other symbols, whose state begins with nothing."""
        return

    def predict(self, inputs: Inputs) -> F32:
        """Quantiles of windows by themselves."""
        return self.answer(Questions.of(inputs)).quantiles

    def probs(self, inputs: Inputs) -> F32:
        """How likely each label is after windows by themselves [B, H, C]."""
        probs = self.answer(Questions.of(inputs)).probs
        if probs is None:
            raise BadOutput(f"the model {self.card.name} gave no probabilities")
        return probs


class Report(Protocol):
    """How a fit tells of its progress; returns False when it should stop early."""

    def __call__(self, *, step: int, steps: int, **figures: float) -> bool: ...


class Kind(Protocol):
    """What a Model and a Net share. Built as `Kind(card)`; the card's parameters are checked there."""

    kind: str
    card: ModelCard

    def save(self, folder: Path) -> None:
        """Write what `load` needs: safetensors, JSON; never pickle."""

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote."""

    def predict(self, inputs: Inputs) -> F32:
        """As Runner.predict, in the training process."""


class Model(Kind, Protocol):
    """A kind of model that fits itself; its `save` writes `model.onnx`, too, and `step.onnx` if it can be stepped."""

    def fit(self, dataset: Any, report: Report) -> None:
        """Learn from the dataset's training part. Early stopping may look at its validation part only, widths may come
        from its calibration part.
        """


class KeepsSums(Model, Protocol):
    """A Model that can be fitted on by what is new: it keeps sums over its windows beside its files."""

    def go_on(self, folder: Path) -> None:
        """Begin with what the model in `folder` has counted, which is of the same recipe; called before `fit`, which
        then adds the windows of the training part that are not in it, and solves again."""

    def counted(self) -> dict[str, int]:
        """For the card, after the fit: windows that it went on from (`before`), and that are in its sums (`windows`),
        and until when their targets reach (`counted_to_ns`)."""


class Net(Kind, Protocol):
    """A torch model. It only gives the module: batch/train fits it and exports it."""

    def module(self) -> Any:
        """The torch.nn.Module; called with (past, mask, future, static) it returns what Runner.predict does."""

    def set_channels(self, center: F64, spread: F64) -> None:
        """Statistics [F - 1] of the channels after the first, from the training part; called once, before a fit
        that does not keep those of the model it goes on with."""

    def set_gaps(self, gaps: F64) -> None:
        """Distances [H, Q - 1] between quantiles in one-bar moves; called after a fit that trained the point only."""


class Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `optimize` may try for one parameter: a number from `low` to `high`, or one of `choices`."""

    kind: Literal["float", "int", "choice"]
    low: float = 0.0
    high: float = 0.0
    log: bool = False  # numbers are tried evenly by their logarithm
    choices: list[Any] = []

    def __post_init__(self) -> None:
        if self.kind == "choice":
            if not self.choices:
                raise ValueError("a choice needs choices")
        elif not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"low {self.low:g} and high {self.high:g} make no range")

    def holds(self, value: Any) -> bool:
        if self.kind == "choice":
            return value in self.choices
        return isinstance(value, (int, float)) and self.low <= value <= self.high


class Tunable(Protocol):
    """What a kind of model offers besides when `optimize` may choose among its `model_params`."""

    space: ClassVar[dict[str, Parameter]]  # each default lies within it
    params: Any  # a msgspec.Struct: the parameters it was built with


def names(group: str) -> list[str]:
    return sorted({point.name for point in entry_points(group=f"tickcast.{group}")})


def find(group: str, name: str) -> Callable[..., Any]:
    """The class registered under `name`; a plugin that fails to import is a refusal that names it."""
    points = [p for p in entry_points(group=f"tickcast.{group}") if p.name == name]
    if not points:
        known = ", ".join(names(group)) or "none"
        raise BadSettings(f"no {group[:-1]} named '{name}'", remedy=f"known: {known}")
    try:
        loaded: Callable[..., Any] = points[0].load()
    except Exception as error:  # a foreign module may raise anything at import
        if isinstance(error, ModuleNotFoundError) and (missing := missing_package(error)):
            raise missing from None
        raise BadSettings(f"the {group[:-1]} plugin '{name}' cannot be imported: {error!r}") from error
    return loaded
