"""The Ladder: the models of a deployment, best first, and the one call that asks them. A model that gives something
unusable is replaced for that question by the one that was first before it, else by last value; the forecast says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tickcast.columns import F32, F64, I32, I64, U8, Columns
from tickcast.compiled import lean_njit
from tickcast.direction import LABELS
from tickcast.errors import BadModel, BadOutput, BadRequest, BadStore, Quality
from tickcast.plugin import Runner
from tickcast.questions import Questions
from tickcast.records import ModelCard
from tickcast.settings import Settings
from tickcast.state import State

NEVER = -(1 << 62)  # where a model was not trained, no as_of lies in its span
LARGEST_MOVE = float(np.finfo(np.float32).max)  # the store keeps forecasts as float32
LARGEST_LOG_MOVE = float(np.log(LARGEST_MOVE))
RUNGS = ("naive", "seasonal", "holt", "model", "fallback")
MODEL, FALLBACK = RUNGS.index("model"), RUNGS.index("fallback")
NOBODY = 255  # as a model's number: the symbol is cold
MOST_MODELS = NOBODY  # their numbers are bytes
ALL = slice(None)
Mask = npt.NDArray[np.bool_]
Rows = I64 | slice
OFF_ONE = 1e-3  # by which probabilities may miss the sum of one


@dataclass(frozen=True, slots=True)
class LadderAnswers(Columns):
    """What was answered, up to the deployment's horizon, and by whom."""

    moves: F64  # [B, H, Q], ascending in Q
    probs: F32  # [B, C] of the last step, as in Forecasts
    model: I32  # -1 = one that is not of the ladder
    rung: U8  # index into RUNGS
    flags: U8  # errors.Quality


class Ladder:
    """`runners` in the order in which they are tried; `last_value` answers where one of them fails."""

    def __init__(self, runners: Sequence[Runner], last_value: Runner, settings: Settings) -> None:
        self._settings = settings
        self.runners: list[Runner] = []
        self.cards: list[ModelCard] = []  # grows when a model is added, for all who hold it
        for runner in [*runners, last_value]:
            self.add(runner)
        self.last_value = self.number(last_value.card.digest)  # its number
        self._order = list(range(len(runners)))
        self._firsts = [0]  # who was tried first, the newest last: the one before stands in for it
        self._largest = LARGEST_LOG_MOVE if settings.forecast.transform == "log_return" else LARGEST_MOVE
        self._shape = (settings.forecast.horizon, len(settings.forecast.quantiles))

    def add(self, runner: Runner) -> bool:
        """Load another model, which nobody is asked of yet; False where it is here already."""
        card = runner.card
        if any(known.digest == card.digest for known in self.cards):
            return False
        if len(self.cards) == MOST_MODELS:
            raise BadRequest(f"{MOST_MODELS} models are loaded, more cannot be", remedy="restart with fewer")
        _must_fit(card, self._settings)
        self.runners.append(runner)
        self.cards.append(card)
        self.trained_from = np.array([card.trained_from_ns for card in self.cards], np.int64)
        self.trained_to = np.array([card.trained_to_ns or NEVER for card in self.cards], np.int64)
        self._rungs = np.array(
            [RUNGS.index(card.kind) if card.kind in RUNGS else MODEL for card in self.cards], np.uint8
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
        """The model for each symbol by how many bars it has; NOBODY where it is cold."""
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
        return self.cards[self.first_number]

    @property
    def first_number(self) -> int:
        return self._order[0]

    def forget(self, symbol: I64) -> None:
        """These codes go to other symbols: none goes on from what they carried on."""
        for runner in self.runners:
            runner.forget(symbol)

    def snapshot(self) -> State:
        """Who is tried in which order, and what models remember of earlier questions."""
        remembered = {str(number): runner.state() for number, runner in enumerate(self.runners)}
        state = State.join({number: State(arrays) for number, arrays in remembered.items() if arrays})
        state.facts["models"], state.facts["order"] = [card.digest for card in self.cards], [*self._order]
        state.facts["firsts"] = [*self._firsts]
        return state

    def resume(self, state: State) -> None:
        """Put back what `snapshot` gave: open questions and figures know a model by its number."""
        ours = numbers_of(state.facts["models"], self.cards)
        self._order, self._firsts = (ours[state.facts[name]].tolist() for name in ("order", "firsts"))
        for theirs, number in enumerate(ours):
            if str(theirs) in state.facts:
                remembered = state.part(str(theirs)).arrays
                self.runners[number].set_state({name: array.copy() for name, array in remembered.items()})

    def ask(self, questions: Questions) -> LadderAnswers:
        """One call per model for all of its questions."""
        asked, answers = questions.model, self._room(len(questions))
        if len(asked) and (asked == asked[0]).all():
            self._ask(answers, int(asked[0]), questions, ALL)
        else:
            for number in np.unique(asked):
                self._ask(answers, int(number), questions, np.flatnonzero(asked == number))
        return answers

    def ask_shadows(self, questions: Questions) -> tuple[LadderAnswers, Mask]:
        """Where a model fails nobody stands in for it; and where one did."""
        answers, useless = self._room(len(questions)), np.zeros(len(questions), np.bool_)
        for number in np.unique(questions.model):
            rows = np.flatnonzero(questions.model == number)
            useless[rows] = self._enter(answers, int(number), questions, rows)
        return answers, useless

    def ask_other(self, runner: Runner, questions: Questions) -> LadderAnswers:
        """A model that is not of the ladder; BadOutput where its answer cannot be used."""
        answers = self._room(len(questions))
        answers.model[:], answers.rung[:], answers.flags[:] = -1, MODEL, 0
        if self._find_useless(answers, runner, questions, ALL).any():
            raise BadOutput(f"the model {runner.card.name} gave nothing usable")
        return answers

    def _ask(self, answers: LadderAnswers, number: int, questions: Questions, where: Rows) -> None:
        """A model; and where it fails, who was first before it; and where that fails or there is none, last value, with
        its own spread or none where the window's moves overflow."""
        useless = self._enter(answers, number, questions, where)
        if not useless.any():
            return
        rows, questions = np.arange(len(questions))[where][useless], questions.alone()
        before = self._firsts[-2] if number == self._firsts[-1] and len(self._firsts) > 1 else number
        if before != number and self.cards[before].need_bars <= self.cards[number].need_bars:
            useless = self._enter(answers, before, questions, rows)
            answers.flags[rows] = Quality.FALLBACK
            rows = rows[useless]
        if len(rows):
            useless = self._enter(answers, self.last_value, questions, rows)
            answers.moves[rows[useless]], answers.probs[rows[useless]] = 0.0, np.nan
            answers.rung[rows], answers.flags[rows] = FALLBACK, Quality.FALLBACK

    def _enter(self, answers: LadderAnswers, number: int, questions: Questions, where: Rows) -> Mask:
        """What a model answers there, and that it was this one; and where that is no use."""
        answers.model[where], answers.rung[where], answers.flags[where] = number, self._rungs[number], 0
        return self._find_useless(answers, self.runners[number], questions, where)

    def _find_useless(self, answers: LadderAnswers, runner: Runner, questions: Questions, where: Rows) -> Mask:
        """Put in what a model answers there; and where that is no use."""
        if where is not ALL:
            questions = questions.take(where)
        useless, last = np.ones(len(questions), np.bool_), self._shape[0]
        try:
            given = runner.answer(questions)
            answers.moves[where] = given.quantiles[:, :last]
            if not runner.card.labels:
                answers.probs[where] = np.nan
            elif given.probs is None:
                return useless
            else:
                answers.probs[where] = given.probs[:, last - 1, :]
        except Exception:  # a foreign model may raise anything; its fate is the fallback, flagged on each forecast
            return useless
        find_unusable(answers.moves[where], self._largest, useless)
        if runner.card.labels:
            probs = answers.probs[where]
            useless |= (probs < 0).any(axis=1) | ~(np.abs(probs.sum(axis=1) - 1) <= OFF_ONE)
        return useless

    def _room(self, rows: int) -> LadderAnswers:
        return LadderAnswers(
            moves=np.empty((rows, *self._shape)), probs=np.empty((rows, len(LABELS)), np.float32),
            model=np.empty(rows, np.int32), rung=np.empty(rows, np.uint8), flags=np.empty(rows, np.uint8),
        )  # fmt: skip


def choose_rungs(needs: Sequence[tuple[int, int]], bars_held: I64) -> U8:
    """The first of (model, bars it needs) whose need each symbol meets; NOBODY where it is cold."""
    model = np.full(len(bars_held), NOBODY, np.uint8)
    for number, need in reversed(needs):
        model[bars_held >= need] = number
    return model


def numbers_of(digests: Sequence[str], cards: Sequence[ModelCard]) -> I64:
    """The number that each of these models has here; BadStore where one is not loaded."""
    here = {card.digest: number for number, card in enumerate(cards)}
    if missing := [digest for digest in digests if digest not in here]:
        raise BadStore(
            f"the state was made with the model {missing[0][:12]}, which is not loaded", remedy="it starts anew"
        )
    return np.array([here[digest] for digest in digests], np.int64)


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


def _must_fit(card: ModelCard, settings: Settings) -> None:
    lookback, forecast = settings.window.lookback, settings.forecast
    for wrong, why in (
        (card.lookback > lookback, f"looks back {card.lookback} bars, window.lookback is {lookback}"),
        (card.horizon < forecast.horizon, f"reaches {card.horizon} bars ahead, forecast.horizon is {forecast.horizon}"),
        (
            card.levels != forecast.quantiles,
            f"has quantiles {card.levels}, forecast.quantiles are {forecast.quantiles}",
        ),
    ):
        if wrong:
            raise BadModel(
                f"model {card.name} {why}",
                remedy="train a model with this deployment's settings, or change them to the model's",
            )
