"""The Ladder: the models of a deployment, best first, and the one call that asks them. A model that gives something
unusable is replaced by last value for that question, and the forecast says so.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.columns import F64, I32, I64, U8, Inputs
from tickcast.core.questions import choose_rungs, id_seeds
from tickcast.errors import BadModel, BadRequest, Quality
from tickcast.plugin import Runner
from tickcast.settings import Settings

TILE_DETERMINISTIC = 32  # rows of every call: a row's result may depend on how many stand beside it
NEVER = -(1 << 62)  # where a model was not trained, no as_of lies in its span
RUNGS = ("naive", "seasonal", "holt", "model", "fallback")


class Raw(NamedTuple):
    """What the models said."""

    moves: F64  # [B, H, Q], ascending in Q
    model: I32
    rung: U8  # index into RUNGS
    flags: U8  # errors.Quality


class Ladder:
    """`runners` in the order in which they are tried; `last_value` answers where one of them fails."""

    def __init__(self, runners: Sequence[Runner], last_value: Runner, settings: Settings) -> None:
        self.runners = [*runners]
        if all(runner.card.digest != last_value.card.digest for runner in runners):
            self.runners.append(last_value)
        self.cards = [runner.card for runner in self.runners]
        self.seeds = id_seeds(self.cards, settings)
        self.trained_from = np.array([card.trained_from_ns for card in self.cards], np.int64)
        self.trained_to = np.array([card.trained_to_ns or NEVER for card in self.cards], np.int64)
        self._tried = len(runners)
        self._last = next(i for i, card in enumerate(self.cards) if card.digest == last_value.card.digest)
        self._order = list(range(self._tried))
        self._rungs = np.array(
            [RUNGS.index(c.kind) if c.kind in RUNGS else RUNGS.index("model") for c in self.cards], np.uint8
        )
        self._tile = TILE_DETERMINISTIC if settings.runtime.deterministic else 0
        self._shape = (settings.forecast.horizon, len(settings.forecast.quantiles))
        for card in self.cards:
            _must_fit(card.lookback, card.horizon, card.levels, card.name, settings)

    def choose(self, bars_held: I64) -> U8:
        """The model for each symbol by how many bars it has; questions.NOBODY where it is cold."""
        return choose_rungs([(i, self.cards[i].need_bars) for i in self._order], bars_held)

    def prefer(self, name: str) -> None:
        """Try the loaded model of that name first."""
        first = next((i for i, card in enumerate(self.cards[: self._tried]) if card.name == name), None)
        if first is None:
            raise BadRequest(
                f"no loaded model is named '{name}'", remedy=f"loaded: {', '.join(c.name for c in self.cards)}"
            )
        self._order = [first, *(i for i in self._order if i != first)]

    def ask(self, inputs: Inputs, model: I32) -> Raw:
        """One call per model for all of its questions."""
        moves = np.empty((len(inputs), *self._shape))
        answered = model.copy()
        rung, flags = self._rungs[model], np.zeros(len(inputs), np.uint8)
        for code in np.unique(model):
            rows = np.flatnonzero(model == code)
            whole = len(rows) == len(inputs)
            said = self._predict(self.runners[code], inputs if whole else inputs.take(rows))
            bad = rows[_unusable(said)] if said is not None else rows
            if said is not None:
                moves[rows] = said
            if len(bad):
                moves[bad] = self._predict(self.runners[self._last], inputs.take(bad))
                answered[bad], rung[bad] = self._last, RUNGS.index("fallback")
                flags[bad] = Quality.FALLBACK
        return Raw(moves, answered, rung, flags)

    def _predict(self, runner: Runner, inputs: Inputs) -> F64 | None:
        """None where the model raised: any plugin may, and serving goes on."""
        horizon = self._shape[0]
        try:
            if not self._tile:
                return runner.predict(inputs)[:, :horizon].astype(np.float64)
            parts = [
                runner.predict(_padded(inputs.take(slice(i, i + self._tile)), self._tile))[: len(inputs) - i, :horizon]
                for i in range(0, len(inputs), self._tile)
            ]
            return np.concatenate(parts).astype(np.float64)
        except Exception:  # a foreign model may raise anything; its fate is the fallback, flagged on each forecast
            return None


def _padded(inputs: Inputs, rows: int) -> Inputs:
    short = rows - len(inputs)
    if not short:
        return inputs
    return Inputs(*(np.concatenate([part, np.zeros((short, *part.shape[1:]), part.dtype)]) for part in
                    (inputs.past, inputs.mask, inputs.future, inputs.static)))  # fmt: skip


def _unusable(moves: F64) -> npt.NDArray[np.bool_]:
    """Rows that are not finite, or whose quantiles cross."""
    finite = np.isfinite(moves).all(axis=(1, 2))
    ordered = (moves[:, :, 1:] >= moves[:, :, :-1]).all(axis=(1, 2))
    return np.asarray(~(finite & ordered))


def _must_fit(lookback: int, horizon: int, levels: list[float], name: str, settings: Settings) -> None:
    remedy = "train a model with this deployment's settings, or change them to the model's"
    if lookback > settings.window.lookback:
        raise BadModel(
            f"model {name} looks back {lookback} bars, window.lookback is {settings.window.lookback}", remedy=remedy
        )
    if horizon < settings.forecast.horizon:
        raise BadModel(
            f"model {name} reaches {horizon} bars ahead, forecast.horizon is {settings.forecast.horizon}", remedy=remedy
        )
    if levels != settings.forecast.quantiles:
        raise BadModel(
            f"model {name} has quantiles {levels}, forecast.quantiles are {settings.forecast.quantiles}", remedy=remedy
        )
