"""Ensembles: fitted models whose quantiles are averaged, with weights that are equal, given, learnt on the validation
part, or set anew for every window by how the members did within it.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np
import torch
from msgspec import Meta

from tickcast.columns import F32, F64, Inputs
from tickcast.errors import BadSettings
from tickcast.plugin import Parameter, Report
from tickcast.records import ModelCard
from tickcast_plugins.models.combination import (
    Arrays,
    Combination,
    Digests,
    MemberSample,
    Rows,
    mean_pinball,
    name_of,
    softmax,
)
from tickcast_plugins.models.descent import descend
from tickcast_plugins.models.merged_graph import Merged
from tickcast_plugins.models.recent_skill import RecentSkill

SHARPNESS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # of which the validation part chooses; 0 is the mean


class EnsembleParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`model_params` of a card. `weights` mean something to `weighted` only, `origins` and `stride` to `skill`."""

    members: Digests = []
    method: Literal["mean", "median", "weighted", "stacked", "skill"] = "mean"
    weights: list[Annotated[float, Meta(ge=0)]] = []  # empty = by the inverse of the error on the validation part
    origins: Annotated[int, Meta(ge=1, le=32)] = 6
    stride: Annotated[int, Meta(ge=1, le=256)] = 2  # bars
    rows: Rows = 4096


class Ensemble(Combination):
    kind = "ensemble"
    params_type = EnsembleParams
    space: ClassVar = {"method": Parameter("choice", choices=["mean", "median", "weighted", "stacked"])}

    def __init__(self, card: ModelCard) -> None:
        super().__init__(card)
        self._skill: RecentSkill | None = None
        if self.params.method == "skill":
            self._skill = RecentSkill(self.card, self.params.origins, self.params.stride)

    @property
    def learnt(self) -> tuple[str, ...]:
        is_given = self.params.method in ("mean", "median") or bool(self.params.weights)
        return () if is_given else ("weights", "sharpness")

    @property
    def origins(self) -> tuple[int, ...]:
        return (0, *self._skill.backs) if self._skill else (0,)

    def seen(self, inputs: Inputs, said: F32) -> F64:
        return self._skill.seen(inputs, said) if self._skill else np.empty((len(inputs), 0))

    def learn(self, sample: MemberSample, report: Report) -> Arrays:
        found: Arrays = getattr(self, f"_by_{self.params.method}")(sample, report)
        if "weights" in found:
            shares = zip(map(name_of, self.members), found["weights"][0], strict=True)
            self.note(f"{self.params.method}: " + ", ".join(f"{name} {share:.3f}" for name, share in shares))
        if self.params.method != "stacked":  # which tells of its own steps
            report(step=1, steps=1)
        return found

    def weights(self, seen: F64) -> F64:
        return softmax(-self.arrays["sharpness"] * seen) if self._skill else np.asarray(self.arrays["weights"])

    def weight_nodes(self, g: Merged, said: Sequence[str]) -> str:
        if self._skill is None:
            return g.constant(self.arrays["weights"])
        logits = g.add("Mul", self._skill.nodes(g, said), g.constant(-self.arrays["sharpness"]))
        return g.add("Softmax", logits, axis=1)

    def combine(self, answers: F32, seen: F64) -> F32:
        if self.params.method != "median":
            return super().combine(answers, seen)
        ordered, low, high = np.sort(answers, axis=1), (answers.shape[1] - 1) // 2, answers.shape[1] // 2
        middle: F32 = (ordered[:, low] + ordered[:, high]) * np.float32(0.5)
        return middle

    def combine_nodes(self, g: Merged, answers: Sequence[str], said: Sequence[str]) -> str:
        if self.params.method != "median":
            return super().combine_nodes(g, answers, said)
        ordered, count = [*answers], len(answers)
        for turn in range(count):  # neighbours change places; after so many turns the smallest comes first
            for i in range(turn % 2, count - 1, 2):
                pair = ordered[i : i + 2]
                ordered[i : i + 2] = g.add("Min", *pair), g.add("Max", *pair)
        middle = g.add("Add", ordered[(count - 1) // 2], ordered[count // 2])
        return g.add("Mul", middle, g.constant(0.5))

    def _given(self, dataset: Any) -> Sequence[Any]:
        members = super()._given(dataset)
        if self._skill is None:
            return members
        need = max(member.card.lookback for member in members) + self._skill.backs[-1]
        if need > self.card.lookback:
            raise BadSettings(
                f"skill asks its members up to {self._skill.backs[-1]} bars back, which takes a window of {need} bars, "
                f"not {self.card.lookback}",
                remedy=f"set window.lookback = {need}, fewer origins or a shorter stride, or fit members with less",
            )
        if reading := [name_of(member) for member in members if member.calendar]:
            raise BadSettings(
                f"skill cannot ask {', '.join(reading)} about earlier bars, whose calendar a question does not hold",
                remedy="take another method, or members without features.future",
            )
        return members

    def _by_mean(self, sample: MemberSample, report: Report) -> Arrays:
        return {"weights": np.full((1, sample.answers.shape[1]), 1 / sample.answers.shape[1])}

    def _by_median(self, sample: MemberSample, report: Report) -> Arrays:
        return {}

    def _by_weighted(self, sample: MemberSample, report: Report) -> Arrays:
        given = np.array(self.params.weights)
        if not len(given):
            given = 1 / np.maximum(self._errors(sample), 1e-12)
        elif len(given) != sample.answers.shape[1] or not given.sum() > 0:
            raise BadSettings("weights are not one for each member, or all zero", remedy="give one for each member")
        return {"weights": (given / given.sum())[None]}

    def _by_stacked(self, sample: MemberSample, report: Report) -> Arrays:
        """Not negative and with the sum of 1, so that widths keep their meaning: what minimises the pinball loss."""
        logits = torch.zeros(1, sample.answers.shape[1], requires_grad=True)
        descend(sample, self.card.levels, [logits], lambda _: logits, report)
        return {"weights": torch.softmax(logits, dim=1).detach().numpy().astype(np.float64)}

    def _by_skill(self, sample: MemberSample, report: Report) -> Arrays:
        losses = []
        for sharpness in SHARPNESS:
            self.arrays = {"sharpness": np.array(sharpness)}
            losses.append(mean_pinball(self.combine(sample.answers, sample.seen), sample.target, self.card.levels))
        best = int(np.argmin(losses))
        gain = 1 - losses[best] / losses[0]
        asked = f"each member is asked {len(self.origins)} times a forecast"
        self.note(f"skill: sharpness {SHARPNESS[best]:g}, {gain:.2%} off the mean's error; {asked}")
        return {"sharpness": np.array(SHARPNESS[best])}

    def _errors(self, sample: MemberSample) -> F64:
        answers = np.moveaxis(sample.answers, 1, 0)
        return np.array([mean_pinball(answer, sample.target, self.card.levels) for answer in answers])
