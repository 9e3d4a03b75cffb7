"""Answers by steps: a state of every symbol, which each bar moves on through `step.onnx`. It reads a whole window only
where a symbol's state stands elsewhere; who asks beside the ticks gets the sequence form, `model.onnx`.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tickcast.columns import F32, I32, I64, Inputs
from tickcast.engine.inference.model_folder import STEP_GRAPH
from tickcast.engine.inference.onnx import TILE, OnnxRunner, open_session, run_in_tiles
from tickcast.errors import BadModel, BadStore
from tickcast.questions import TICKS, Answers, Questions
from tickcast.records import ModelCard
from tickcast.state import Arrays

GIVEN, OUTPUTS = {"state", "bar", "mask", "future", "static"}, ["state_after", "quantiles"]  # of the graph
NOWHERE = -(1 << 62)  # the bar of a state that is not there: from it every bar is far
ROOM = 64  # symbols at first


class StepRunner(OnnxRunner):
    """A model folder with both graphs. One engine's: a table knows symbols by their codes.

    A symbol whose state stands some bars before, fewer than its window has, goes on from there by what the window holds
    of them; one that stands elsewhere begins anew at its window's first bar.
    """

    def __init__(self, folder: Path, card: ModelCard, *, tile: int = TILE) -> None:
        super().__init__(folder, card, tile=tile)
        self._stepping = open_session(folder / STEP_GRAPH)
        given = {node.name: node.shape for node in self._stepping.get_inputs()}
        width = given.get("state", [""])[-1]
        outputs = [node.name for node in self._stepping.get_outputs()]
        if not {"state", "bar", "mask"} <= set(given) <= GIVEN or outputs != OUTPUTS or not isinstance(width, int):
            raise BadModel(f"{folder / STEP_GRAPH} is no step of a state by a bar", remedy="fit the model again")
        self._wanted_of_a_step = list(given)
        self._states = np.zeros((ROOM, width), np.float32)
        self._stands_at = np.full(ROOM, NOWHERE)

    def state(self) -> Arrays:
        known = np.flatnonzero(self._stands_at != NOWHERE)
        return {"symbol": known, "stands_at": self._stands_at[known], "states": self._states[known]}

    def set_state(self, state: Arrays) -> None:
        known, states = state["symbol"], state["states"]
        if states.shape != (len(known), self._states.shape[1]):
            raise BadStore(f"the state of {self.card.name} is {states.shape}, a step takes {self._states.shape[1]}")
        self._stands_at[:] = NOWHERE
        self._make_room(int(known.max(initial=-1)) + 1)
        self._states[known], self._stands_at[known] = states, state["stands_at"]

    def answer(self, questions: Questions) -> Answers:
        of_ticks = questions.asker == TICKS
        if of_ticks.all():
            return Answers(self._follow(questions))
        if not of_ticks.any():
            return super().answer(questions)
        quantiles = np.empty((len(questions), self.card.horizon, len(self.card.levels)), np.float32)
        quantiles[of_ticks] = self._follow(questions.take(of_ticks))
        quantiles[~of_ticks] = super().answer(questions.take(~of_ticks)).quantiles
        return Answers(quantiles)

    def _follow(self, questions: Questions) -> F32:
        symbol, ordinal, inputs = questions.symbol, questions.ordinal, self.placed(questions)
        self._make_room(int(symbol.max(initial=-1)) + 1)
        out = np.empty((len(questions), self.card.horizon, len(self.card.levels)), np.float32)
        for rows in turns_of(symbol):
            out[rows] = self._move_on(inputs, rows, symbol[rows], ordinal[rows], questions.tile)
        return out

    def forget(self, symbol: I64) -> None:
        self._stands_at[symbol[symbol < len(self._stands_at)]] = NOWHERE

    def from_nothing(self, inputs: Inputs) -> F32:
        """As `predict`, bar by bar through the windows; no symbol's state is read or changed."""
        rows, inputs = np.arange(len(inputs)), self.placed(Questions.of(inputs))
        states = np.zeros((len(rows), self._states.shape[1]), np.float32)
        return self._walk(inputs, rows, states, np.full(len(rows), self.card.lookback), 0)[1]

    def _move_on(self, inputs: Inputs, rows: I64, symbol: I32, ordinal: I64, tile: int) -> F32:
        """One bar of each symbol, and those before it that its state has not seen."""
        ahead, length = ordinal - self._stands_at[symbol], self.card.lookback
        goes_on = (ahead > 0) & (ahead < length)
        states = np.where(goes_on[:, None], self._states[symbol], np.float32(0.0))
        self._stands_at[symbol] = NOWHERE  # until all has gone well
        states, quantiles = self._walk(inputs, rows, states, np.where(goes_on, ahead, length), tile)
        self._states[symbol] = states
        self._stands_at[symbol] = np.where(np.isfinite(states).all(axis=1), ordinal, NOWHERE)
        return quantiles

    def _walk(self, inputs: Inputs, rows: I64, states: F32, bars: I64, tile: int) -> tuple[F32, F32]:
        """The states after the newest `bars[i]` bars of the windows `rows`, and what is answered there."""
        for back in range(int(bars.max(initial=1)), 1, -1):
            some = np.flatnonzero(bars >= back)
            states[some] = self._step(inputs, rows[some], states[some], back, tile)[0]
        return self._step(inputs, rows, states, 1, tile)

    def _step(self, inputs: Inputs, rows: I64, states: F32, back: int, tile: int) -> tuple[F32, F32]:
        """The states after the bar that is `back` bars from the windows' end, and what is answered there."""
        given = {
            "state": states, "bar": inputs.past[rows, -back], "mask": inputs.mask[rows, -back],
            "future": inputs.future[rows], "static": inputs.static[rows],
        }  # fmt: skip
        wanted = {name: given[name] for name in self._wanted_of_a_step}
        after, quantiles = run_in_tiles(self._stepping, wanted, tile or self._tile, full=tile > 0)
        return after, quantiles

    def _make_room(self, symbols: int) -> None:
        have = len(self._stands_at)
        if symbols > have:
            more = max(symbols, 2 * have) - have
            self._states = np.concatenate([self._states, np.zeros((more, self._states.shape[1]), np.float32)])
            self._stands_at = np.concatenate([self._stands_at, np.full(more, NOWHERE)])


def turns_of(symbol: I32) -> Iterator[I64]:
    """Rows in groups that hold no symbol twice: the first of every symbol, the second, and so on."""
    order = np.argsort(symbol, kind="stable")
    ranked = symbol[order]
    begins = np.flatnonzero(np.diff(ranked, prepend=-1))
    place = np.arange(len(order)) - np.repeat(begins, np.diff(begins, append=len(order)))
    for turn in range(int(place.max(initial=-1)) + 1):
        yield np.sort(order[place == turn])
