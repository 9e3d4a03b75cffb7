"""The Ladder: the models of a deployment, best first, and the one call that asks them. A model that gives something
unusable is replaced for that question by the one that was first before it, else by last value; the forecast says so.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.columns import F32, F64, I32, I64, U8, Inputs
from tickcast.compiled import lean_njit
from tickcast.direction import LABELS
from tickcast.engine.core.questions import NOBODY, choose_rungs, id_seeds, numbers_of
from tickcast.errors import BadModel, BadOutput, BadRequest, Quality
from tickcast.plugin import Following, Labelled, Runner, Stepped
from tickcast.records import ModelCard
from tickcast.settings import Settings
from tickcast.state import State

TILE_DETERMINISTIC = 32  # rows of every call: a row's result may depend on how many stand beside it
NEVER = -(1 << 62)  # where a model was not trained, no as_of lies in its span
LARGEST_MOVE = float(np.finfo(np.float32).max)  # the store keeps forecasts as float32
LARGEST_LOG_MOVE = float(np.log(LARGEST_MOVE))
RUNGS = ("naive", "seasonal", "holt", "model", "fallback")
MOST_MODELS = NOBODY  # their numbers are bytes
OFF_ONE = 1e-3  # by which probabilities may miss the sum of one


class Said(NamedTuple):
    """What one model said."""

    moves: F64  # [B, H, Q]
    probs: F32  # [B, C], as in Forecasts


class Raw(NamedTuple):
    """What the models said."""

    moves: F64  # [B, H, Q], ascending in Q
    probs: F32  # [B, C]
    model: I32
    rung: U8  # index into RUNGS
    flags: U8  # errors.Quality


class Ladder:
    """`runners` in the order in which they are tried; `last_value` answers where one of them fails."""

    def __init__(self, runners: Sequence[Runner], last_value: Runner, settings: Settings) -> None:
        self._settings = settings
        self.runners: list[Runner] = []
        self._follows: list[Following | None] = []  # which of them follow symbols; to ask each time takes 10 us
        self.cards: list[ModelCard] = []  # grows when a model is added, for all who hold it
        for runner in [*runners, last_value]:
            self.add(runner)
        self.last_value = self.number(last_value.card.digest)  # its number
        self._order = list(range(len(runners)))
        self._firsts = [0]  # who was tried first, the newest last: the one before stands in for it
        self._tile = TILE_DETERMINISTIC if settings.runtime.deterministic else 0
        self._largest = LARGEST_LOG_MOVE if settings.forecast.transform == "log_return" else LARGEST_MOVE
        self._shape = (settings.forecast.horizon, len(settings.forecast.quantiles))

    def add(self, runner: Runner) -> bool:
        """Load another model, which nobody is asked of yet; False where it is here already."""
        card = runner.card
        if any(known.digest == card.digest for known in self.cards):
            return False
        if len(self.cards) == MOST_MODELS:
            raise BadRequest(f"{MOST_MODELS} models are loaded, more cannot be", remedy="restart with fewer")
        _must_fit(card.lookback, card.horizon, card.levels, card.name, self._settings)
        self.runners.append(runner)
        self._follows.append(runner if isinstance(runner, Following) else None)
        self.cards.append(card)
        self.seeds = id_seeds(self.cards, self._settings)
        self.trained_from = np.array([card.trained_from_ns for card in self.cards], np.int64)
        self.trained_to = np.array([card.trained_to_ns or NEVER for card in self.cards], np.int64)
        self._rungs = np.array(
            [RUNGS.index(c.kind) if c.kind in RUNGS else RUNGS.index("model") for c in self.cards], np.uint8
        )
        return True

    def number(self, model: str) -> int:
        """The newest loaded model of that digest or name."""
        for number, card in reversed([*enumerate(self.cards)]):
            if model in (card.digest, card.name):
                return number
        names = ", ".join(dict.fromkeys(card.name for card in self.cards))
        raise BadRequest(f"no loaded model is named '{model}'", remedy=f"loaded: {names}")

    def choose(self, bars_held: I64) -> U8:
        """The model for each symbol by how many bars it has; questions.NOBODY where it is cold."""
        return choose_rungs([(i, self.cards[i].need_bars) for i in self._order], bars_held)

    def prefer(self, number: int) -> None:
        """Try this model first; the rungs stay behind it. Another net that was first only stands in where this one
        fails; going back to one that was first before takes those after it away.
        """
        if number in self._firsts:
            del self._firsts[self._firsts.index(number) + 1 :]
        else:
            self._firsts.append(number)
        rungs = [i for i in self._order if i != number and self.cards[i].kind in RUNGS]
        self._order = [number, *rungs]

    @property
    def first(self) -> ModelCard:
        """Of the model that is tried first."""
        return self.cards[self._order[0]]

    def forget(self, symbol: I64) -> None:
        """These codes go to other symbols: none goes on from what they carried on."""
        for follower in self._follows:
            if follower is not None:
                follower.forget(symbol)

    def snapshot(self) -> State:
        """Who is tried in which order, and what stepped models carry on."""
        carried = {str(i): State(r.state()) for i, r in enumerate(self.runners) if isinstance(r, Stepped)}
        state = State.join(carried)
        state.facts["models"], state.facts["order"] = [card.digest for card in self.cards], [*self._order]
        state.facts["firsts"] = [*self._firsts]
        return state

    def resume(self, state: State) -> None:
        """Put back what `snapshot` gave: open questions and figures know a model by its number."""
        ours = numbers_of(state.facts["models"], self.cards)
        self._order, self._firsts = (ours[state.facts[name]].tolist() for name in ("order", "firsts"))
        for theirs, number in enumerate(ours):
            runner = self.runners[number]
            if isinstance(runner, Stepped):
                runner.set_state({name: array.copy() for name, array in state.part(str(theirs)).arrays.items()})

    def ask(self, inputs: Inputs, model: I32, symbol: I32, ordinal: I64) -> Raw:
        """One call per model for all of its questions. `symbol` and `ordinal` are those of the newest bar of each, for
        models that follow a symbol bar by bar; symbol -1 = nobody's, asked beside the ticks."""
        moves, probs = np.empty((len(inputs), *self._shape)), np.empty((len(inputs), len(LABELS)), np.float32)
        answered = model.copy()
        rung, flags = self._rungs[model], np.zeros(len(inputs), np.uint8)
        raw = Raw(moves, probs, answered, rung, flags)
        for code in model[:1] if (model == model[:1]).all() else np.unique(model):
            rows = np.flatnonzero(model == code)
            where = slice(None) if len(rows) == len(inputs) else rows
            said = self._say(int(code), inputs.take(where), symbol[rows], ordinal[rows])
            bad = rows if said is None else rows[self._unusable(said.moves)]
            if said is not None:
                moves[where], probs[where] = said
            if len(bad):
                bad = self._let_stand_in(int(code), bad, inputs, raw)
            if len(bad):
                moves[bad], probs[bad] = self._last_value(inputs.take(bad)), np.nan
                answered[bad], rung[bad] = self.last_value, RUNGS.index("fallback")
                flags[bad] = Quality.FALLBACK
        return raw

    def _let_stand_in(self, code: int, bad: I64, inputs: Inputs, raw: Raw) -> I64:
        """Who was first before `code` answers where that failed; returns the rows where neither is any use."""
        before = self._firsts[-2] if code == self._firsts[-1] and len(self._firsts) > 1 else code
        if before == code or self.cards[before].need_bars > self.cards[code].need_bars:
            return bad
        said = self._predict(self.runners[before], inputs.take(bad))
        if said is None:
            return bad
        fits = ~self._unusable(said.moves)
        rows = bad[fits]
        raw.moves[rows], raw.probs[rows] = said.moves[fits], said.probs[fits]
        raw.model[rows], raw.rung[rows], raw.flags[rows] = before, self._rungs[before], Quality.FALLBACK
        return bad[~fits]

    def ask_other(self, runner: Runner, inputs: Inputs) -> Raw:
        """A model that is not of the ladder; BadOutput where its answer cannot be used."""
        said = self._predict(runner, inputs)
        if said is None or self._unusable(said.moves).any():
            raise BadOutput(f"the model {runner.card.name} gave nothing usable")
        number, rung = np.full(len(inputs), -1, np.int32), RUNGS.index("model")
        return Raw(*said, number, np.full(len(inputs), rung, np.uint8), np.zeros(len(inputs), np.uint8))

    def _last_value(self, inputs: Inputs) -> F64:
        """What the last value's own spread is, or none where the window's moves overflow."""
        said = self._predict(self.runners[self.last_value], inputs)
        if said is None:
            return np.zeros((len(inputs), *self._shape))
        said.moves[self._unusable(said.moves)] = 0.0
        return said.moves

    def _unusable(self, moves: F64) -> npt.NDArray[np.bool_]:
        unusable = np.empty(len(moves), np.bool_)
        find_unusable(moves, self._largest, unusable)
        return unusable

    def _say(self, code: int, inputs: Inputs, symbol: I32, ordinal: I64) -> Said | None:
        """As `_predict`; a model that follows symbols is told whose bars these are, where they are somebody's."""
        runner, follower = self.runners[code], self._follows[code]
        if follower is None:
            return self._predict(runner, inputs)
        theirs = symbol >= 0
        if theirs.all():
            return self._follow(follower, inputs, symbol, ordinal)
        joined = Said(np.empty((len(inputs), *self._shape)), _no_probs(len(inputs)))
        followed = self._follow(follower, inputs.take(theirs), symbol[theirs], ordinal[theirs])
        for rows, said in ((theirs, followed), (~theirs, self._predict(runner, inputs.take(~theirs)))):
            if said is None:
                return None
            joined.moves[rows] = said.moves
        return joined

    def _follow(self, runner: Following, inputs: Inputs, symbol: I32, ordinal: I64) -> Said | None:
        try:
            said = runner.follow(inputs, symbol, ordinal, tile=self._tile)
        except Exception:  # as in `_predict`
            return None
        return Said(said[:, : self._shape[0]].astype(np.float64, order="C"), _no_probs(len(said)))

    def _predict(self, runner: Runner, inputs: Inputs) -> Said | None:
        """None where the model raised: any plugin may, and serving goes on."""
        try:
            if not self._tile:
                return self._answer(runner, inputs)
            parts = [
                self._answer(runner, _padded(inputs.take(slice(i, i + self._tile)), self._tile))
                for i in range(0, len(inputs), self._tile)
            ]
            return Said(*(np.concatenate(kind)[: len(inputs)] for kind in zip(*parts, strict=True)))
        except Exception:  # a foreign model may raise anything; its fate is the fallback, flagged on each forecast
            return None

    def _answer(self, runner: Runner, inputs: Inputs) -> Said:
        """One call of the model, up to the deployment's horizon."""
        horizon = self._shape[0]
        if not (runner.card.labels and isinstance(runner, Labelled)):
            return Said(runner.predict(inputs)[:, :horizon].astype(np.float64, order="C"), _no_probs(len(inputs)))
        quantiles, shares = runner.answer(inputs)
        said = Said(
            quantiles[:, :horizon].astype(np.float64, order="C"), shares[:, horizon - 1].reshape(-1, len(LABELS))
        )
        fits = (said.probs >= 0).all(axis=1) & (np.abs(said.probs.sum(axis=1) - 1) <= OFF_ONE)
        said.moves[~fits] = np.nan  # probabilities that are none make the answer as useless as quantiles that are none
        return said


def _no_probs(rows: int) -> F32:
    return np.full((rows, len(LABELS)), np.nan, np.float32)


def _padded(inputs: Inputs, rows: int) -> Inputs:
    short = rows - len(inputs)
    if not short:
        return inputs
    return Inputs(*(np.concatenate([part, np.zeros((short, *part.shape[1:]), part.dtype)]) for part in
                    (inputs.past, inputs.mask, inputs.future, inputs.static)))  # fmt: skip


@lean_njit
def find_unusable(moves, largest, unusable):  # type: ignore[no-untyped-def]
    """Rows of [B, H, Q] with a move that is no number or beyond `largest`, or whose quantiles cross."""
    for i in range(moves.shape[0]):
        fits = True
        for h in range(moves.shape[1]):
            before = -largest
            for q in range(moves.shape[2]):
                fits &= before <= moves[i, h, q] <= largest
                before = moves[i, h, q]
        unusable[i] = not fits


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
