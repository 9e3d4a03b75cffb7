"""Where the next trial of a study lies: Optuna's samplers, one of our own, and a grid. None keeps anything.

Each trial gets a sampler of its own, seeded by the study's seed and the trial's place in it; what it proposes depends
on that and on the finished trials alone. So a study that was killed goes on as if it had not been.
"""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tickcast.batch.tune.spaces import Space
from tickcast.columns import F64
from tickcast.errors import BadSettings
from tickcast.plugin import Parameter

if TYPE_CHECKING:
    from cmaes import CMA

GRID_POINTS = 3  # of a range: its ends and its middle
LARGEST_GRID = 1_000_000
SPREAD = 1 / 6  # of the first generation, in lengths of a range


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """As Optuna knows them. A choice is its JSON text: Optuna's own hold no lists."""
    return {name: _distribution(parameter) for name, parameter in space.items()}


def encoded(space: Space, params: dict[str, Any]) -> dict[str, Any]:
    return {name: _text(value) if space[name].kind == "choice" else value for name, value in params.items()}


def decoded(space: Space, params: dict[str, Any]) -> dict[str, Any]:
    return {
        name: msgspec.json.decode(value) if space[name].kind == "choice" else value for name, value in params.items()
    }


def make_sampler(kind: str, space: Space, *, seed: int, place: int) -> BaseSampler:
    """The sampler of the `place`-th trial; a grid's trials are given, so any will do for it."""
    own = int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
    if kind == "tpe":
        return TPESampler(seed=own)
    if kind == "gp":
        return GPSampler(seed=own, warn_independent_sampling=False)
    if kind == "cmaes":
        return Evolution(space, seed=own)
    return RandomSampler(seed=own)


def grid_point(space: Space, *, seed: int, place: int) -> dict[str, Any] | None:
    """The `place`-th point of the grid in an order by seed; None behind its last."""
    axes = [_axis(parameter) for parameter in space.values()]
    size = int(np.prod([len(axis) for axis in axes], dtype=np.float64))
    if size > LARGEST_GRID:
        raise BadSettings(
            f"a grid over {len(axes)} parameters has {size:,} points",
            remedy="set parameters of space to null, or take another sampler",
        )
    if place >= size:
        return None
    chosen = int(np.random.default_rng(seed).permutation(size)[place])
    point = next(itertools.islice(itertools.product(*axes), chosen, None))
    return dict(zip(space, point, strict=True))


class Evolution(BaseSampler):
    """CMA-ES over the numbers, choices at random. It begins around the first trial.

    Optuna's own keeps its state in the study with pickle, which is banned here. This one has no state: it repeats the
    generations that the study holds. A pruned trial ranks behind every one that ended.
    """

    def __init__(self, space: Space, *, seed: int) -> None:
        self._numbers = {name: parameter for name, parameter in space.items() if parameter.kind != "choice"}
        self._seed, self._others = seed, RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return distributions(self._numbers)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        if not ended or len(self._numbers) < 2:  # the algorithm knows no single dimension
            return {}
        point = self._after(ended, -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0).ask()
        return {name: _outside(parameter, x) for (name, parameter), x in zip(self._numbers.items(), point, strict=True)}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._others.sample_independent(study, trial, param_name, param_distribution)

    def _after(self, ended: Sequence[FrozenTrial], sign: float) -> "CMA":
        """As it is once all whole generations have been told; its own draws begin after that."""
        from cmaes import CMA  # takes as long as torch

        unit = np.tile([0.0, 1.0], (len(self._numbers), 1))
        optimizer = CMA(mean=self._inside(ended[0]), sigma=SPREAD, bounds=unit, seed=self._seed)
        size, later = optimizer.population_size, ended[1:]
        for first in range(0, len(later) - size + 1, size):
            ranked = sorted(later[first : first + size], key=lambda trial: _merit(trial, sign))
            optimizer.tell([(self._inside(trial), float(rank)) for rank, trial in enumerate(ranked)])
        return optimizer

    def _inside(self, trial: FrozenTrial) -> F64:
        """Its numbers as a point of the unit cube."""
        return np.array([_share(parameter, trial.params[name]) for name, parameter in self._numbers.items()])


def _merit(trial: FrozenTrial, sign: float) -> tuple[bool, float]:
    return trial.state != TrialState.COMPLETE, np.inf if trial.value is None else sign * trial.value


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.kind == "choice":
        return CategoricalDistribution([_text(choice) for choice in parameter.choices])
    if parameter.kind == "int":
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _axis(parameter: Parameter) -> list[Any]:
    if parameter.kind == "choice":
        return parameter.choices
    return list(dict.fromkeys(_outside(parameter, x) for x in np.linspace(0, 1, GRID_POINTS)))


def _share(parameter: Parameter, value: float) -> float:
    """How far along its range a value lies, from 0 to 1."""
    low, high = parameter.low, parameter.high
    if parameter.log:
        low, high, value = np.log(low), np.log(high), np.log(value)
    return float((value - low) / (high - low))


def _outside(parameter: Parameter, share: float) -> Any:
    low, high = parameter.low, parameter.high
    if parameter.log:
        value = float(np.exp(np.log(low) + share * (np.log(high) - np.log(low))))
    else:
        value = low + float(share) * (high - low)
    value = low if share <= 0 else high if share >= 1 else min(max(value, low), high)  # whatever rounding made of it
    return round(value) if parameter.kind == "int" else value
