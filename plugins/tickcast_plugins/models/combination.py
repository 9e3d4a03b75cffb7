"""What every combination of fitted models shares: its members, what they said of the validation part, quantiles
weighed level by level, its files, and one graph that holds all of the members' graphs.

Quantiles are averaged per level (as Vincent did), not as a mixture of distributions: what ascends in every member
ascends in the average, and members that are as wide as the truth make a combination that is no wider.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from onnx.checker import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tickcast.columns import F32, F64, I64, Inputs
from tickcast.errors import BadData, BadModel, BadSettings
from tickcast.plugin import Parameter, Report
from tickcast.records import ModelCard
from tickcast_plugins.models.merged_graph import MemberGraph, Merged
from tickcast_plugins.models.torch_net import SCALE_FLOOR, read_params

WEIGHTS, MODEL = "weights.safetensors", "model.onnx"
TILE = 256  # rows: every member answers for every origin of each
MOST_MEMBERS = 16
Arrays = dict[str, Any]
Digests = Annotated[list[Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]], Meta(max_length=MOST_MEMBERS)]
Rows = Annotated[int, Meta(ge=100, le=100_000)]


class MemberSample(NamedTuple):
    """Windows of the validation part, which no member was fitted on; all in one-bar moves of the window."""

    answers: F32  # [N, M, H, Q]
    seen: F64  # [N, D]: what the weights may depend on
    target: F32  # [N, H]
    begin: I64  # [N]: when the window was known
    end: I64  # [N]: when its last target was


class Combination(ABC):
    """A plugin.Model made of fitted ones. Subclasses say what their weights depend on, and how they are learnt."""

    kind = ""
    params_type: type[msgspec.Struct]
    space: ClassVar[dict[str, Parameter]]  # of plugin.Tunable

    def __init__(self, card: ModelCard) -> None:
        self.params: Any = read_params(card, self.params_type)
        self.card = msgspec.structs.replace(card, model_params=msgspec.to_builtins(self.params))
        self.members: Sequence[Any] = ()
        self.arrays: Arrays = {}

    @property
    @abstractmethod
    def learnt(self) -> tuple[str, ...]:
        """Which of the arrays count as parameters beside the members' own."""

    @property
    def origins(self) -> tuple[int, ...]:
        """How many bars before the window's end each member is asked; the first is 0, now."""
        return (0,)

    @abstractmethod
    def seen(self, inputs: Inputs, said: F32) -> F64:
        """[n, D]: what the weights depend on; `said` [n, origins, M, H, Q] is what the members answered."""

    @abstractmethod
    def learn(self, sample: MemberSample, report: Report) -> Arrays:
        """Arrays that make weights of what was seen; what is worth telling a reader of the card goes to `note`."""

    @abstractmethod
    def weights(self, seen: F64) -> F64:
        """[n or 1, M], each row of them not negative and with the sum of 1."""

    @abstractmethod
    def weight_nodes(self, g: Merged, said: Sequence[str]) -> str:
        """As `weights`, in the graph; `said` holds the name of [origins, B, H, Q] of each member."""

    def combine(self, answers: F32, seen: F64) -> F32:
        """[n, H, Q] of [n, M, H, Q]: in order, so that every level is rounded alike and none can cross another."""
        weights = self.weights(seen).astype(np.float32)[:, :, None, None]
        total = answers[:, 0] * weights[:, 0]
        for i in range(1, answers.shape[1]):
            total = total + answers[:, i] * weights[:, i]
        return total

    def combine_nodes(self, g: Merged, answers: Sequence[str], said: Sequence[str]) -> str:
        return g.weighed(answers, self.weight_nodes(g, said))

    def fit(self, dataset: Any, report: Report) -> None:
        self.members = self._given(dataset)
        self.arrays = self.learn(self._sample(dataset), report)
        learnt = sum(int(np.size(array)) for name, array in self.arrays.items() if name in self.learnt)
        count = sum(member.card.parameters for member in self.members) + learnt
        self.card = msgspec.structs.replace(self.card, parameters=count)

    def note(self, text: str) -> None:
        """Goes into the card's description."""
        told = f"{self.card.description}; {text}" if self.card.description else text
        self.card = msgspec.structs.replace(self.card, description=told)

    def predict(self, inputs: Inputs) -> F32:
        if not self.members:
            raise BadModel(
                f"a model of kind '{self.kind}' answers by its members while it is fitted, and by {MODEL} ever after",
                remedy="open the folder as the daemon does",
            )
        out = np.empty((len(inputs), self.card.horizon, len(self.card.levels)), np.float32)
        for first in range(0, len(inputs), TILE):
            tile = inputs.take(slice(first, first + TILE))
            said = self.ask(tile)
            out[first : first + TILE] = self.combine(said[:, 0], self.seen(tile, said))
        return out

    def ask(self, inputs: Inputs) -> F32:
        """[n, origins, M, H, Q]"""
        windows = [earlier(inputs, back, is_level=self.card.transform == "level") for back in self.origins]
        return np.stack(
            [np.stack([member.predict(window) for member in self.members], axis=1) for window in windows], axis=1
        )

    def save(self, folder: Path) -> None:
        save_file({name: np.ascontiguousarray(array) for name, array in self.arrays.items()}, folder / WEIGHTS)
        g = Merged()
        said = []
        for i, member in enumerate(self.members):
            part = MemberGraph(member.graph, member.card, member.channels, member.calendar)
            said.append(g.ask(part, f"m{i}.", self.card, self.origins))
        answers = [g.pick(name, 0, axis=0) for name in said]
        try:
            written = g.model(self.card, self.combine_nodes(g, answers, said))
        except ValidationError as error:
            raise BadModel(f"the members' graphs cannot be one graph: {error}", remedy="fit the members anew") from None
        (folder / MODEL).write_bytes(written)

    def load(self, folder: Path) -> None:
        """What was learnt; the members' graphs are within `model.onnx`."""
        try:
            self.arrays = load_file(folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise BadModel(f"{folder / WEIGHTS} cannot be read: {error}", remedy="fit the model again") from error

    def _given(self, dataset: Any) -> Sequence[Any]:
        wanted, found = self.params.members, [member.card.digest for member in dataset.members]
        if not wanted or len(set(wanted)) < len(wanted):
            raise BadSettings(f"{self.kind} needs members, each of them once", remedy="name fitted models: --members")
        if wanted != found:
            raise BadModel(
                f"{self.kind}: the members in the job's folder are not those of the order",
                remedy="give the folders of exactly these models",
            )
        members: Sequence[Any] = dataset.members
        return members

    def _sample(self, dataset: Any) -> MemberSample:
        """At most `rows` windows, evenly spaced; without those that never moved, for they have no unit."""
        rows = dataset.parts.validation
        rows = rows[np.linspace(0, len(rows) - 1, min(self.params.rows, len(rows))).astype(np.int64)]
        parts = []
        for first in range(0, len(rows), TILE):
            own = rows[first : first + TILE]
            inputs, target, scale = dataset.batch(own)
            moved = scale > SCALE_FLOOR
            said, unit = self.ask(inputs), scale.astype(np.float32)
            as_of = dataset.history.bars.as_of
            tile = MemberSample(
                said[:, 0] / unit[:, None, None, None], self.seen(inputs, said), target / unit[:, None], as_of[own],
                as_of[own + self.card.horizon],
            )  # fmt: skip
            parts.append([column[moved] for column in tile])
        sample = MemberSample(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        if not len(sample.target):
            raise BadData("no window of the validation part ever moved", remedy="give a history of prices that change")
        return sample


def earlier(inputs: Inputs, back: int, *, is_level: bool) -> Inputs:
    """The window that ends so many bars before. Its calendar is not known."""
    if not back:
        return inputs
    past, mask = inputs.past[:, :-back], inputs.mask[:, :-back]
    if is_level:
        past = past.copy()
        past[:, :, 0] -= np.where(mask[:, -1:] > 0, past[:, -1:, 0], np.float32(0.0))
    return Inputs(past, mask, inputs.future, inputs.static)


def name_of(member: Any) -> str:
    return f"{member.card.name}@{member.card.version}"


def softmax(logits: F64) -> F64:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: F64 = raised / raised.sum(axis=1, keepdims=True)
    return shares


def mean_pinball(quantiles: F32, target: F32, levels: Sequence[float]) -> float:
    """What the card's `pinball` is, where both are in one-bar moves."""
    level, error = np.array(levels), target[:, :, None].astype(np.float64) - quantiles
    return float(np.maximum(level * error, (level - 1) * error).mean())
