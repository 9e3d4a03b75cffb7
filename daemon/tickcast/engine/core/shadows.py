"""Shadows: models that answer beside those that serve, from the same windows, and are scored as they are. Nothing that
they say is served, and no forecast waits for them: they are asked when a turn is over.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from tickcast.columns import I32, I64, U64, Forecasts, Scores
from tickcast.engine.core.blocks import BlockRow, Blocks
from tickcast.engine.core.fold import ClosedBars
from tickcast.engine.core.forecaster import Forecaster
from tickcast.engine.core.ladder import Ladder
from tickcast.engine.core.routes import NO_MODEL, Routes, narrowness
from tickcast.engine.core.scorekeeper import Scorekeeper, rows_of
from tickcast.questions import Questions
from tickcast.settings import Settings
from tickcast.state import State
from tickcast.symbols import SymbolTable


@dataclass(frozen=True, slots=True)
class ShadowOrder:
    """Who is to answer beside the model of a route, for the symbols that the route decides about, and for how much of
    the time. Last value need not be asked: it is beside every model, and so is beside it together with another."""

    route: str
    model: int  # by number
    contest: str  # by which its blocks are known
    block_ns: int  # of event time: one observation of the contest
    every: int = 1  # of so many blocks one is asked, as a whole


class Due(NamedTuple):
    """What a turn closed and asked, as it stood then; the shadows have yet to be asked."""

    closed: ClosedBars
    questions: Questions
    id_high: U64  # of the forecasts that serve: by these the scores of both find each other
    id_low: U64
    marks: I64
    scores: Scores  # of what serves, settled in that turn
    newest_ns: int  # that every partition has reached


Key = tuple[str, bool]  # a route, and whether who is beside its model is asked


class Shadows:
    def __init__(
        self, settings: Settings, symbols: SymbolTable, ladder: Ladder, *, serving: Routes, scorekeeper: Scorekeeper,
        forecaster: Forecaster,
    ) -> None:  # fmt: skip
        """Beside what serves by these routes, and is scored by that keeper."""
        self._settings, self._symbols, self._ladder = settings, symbols, ladder
        self._serving, self._scorekeeper, self._forecaster = serving, scorekeeper, forecaster
        self._orders: dict[Key, ShadowOrder] = {}
        self._blocks: dict[Key, Blocks] = {}
        self._keeper: Scorekeeper | None = None  # a book of its own, made with the first shadow
        self._due: list[Due] = []

    def __len__(self) -> int:
        return len(self._orders)

    @property
    def waiting(self) -> bool:
        """Somebody has yet to be asked."""
        return bool(self._due)

    def begin(self, order: ShadowOrder) -> None:
        """From now on; another one of that route ends. One that served before goes on with the widths it had then."""
        key, groups = (order.route, order.model != self._ladder.last_value), self._serving.groups_in(order.route)
        self._end(key)
        self._orders[key] = order
        self._blocks[key] = Blocks(order.contest, order.block_ns)
        if order.model != self._ladder.last_value:
            self._keeper = self._keeper or self._fresh_keeper()
            self._keeper.take_over(self._scorekeeper, order.model, groups)

    def end(self, route: str) -> None:
        """All of the route; what is open of it goes with it."""
        for is_asked in (True, False):
            self._end((route, is_asked))

    def _end(self, key: Key) -> None:
        if self._orders.pop(key, None) is None:
            return
        del self._blocks[key]
        if not any(asked for _, asked in self._orders):
            self._keeper = None
        if not self._orders:
            self._due.clear()

    def contests(self) -> dict[str, str]:
        """That are on, each with its route."""
        return {order.contest: order.route for order in self._orders.values()}

    def note(self, due: Due) -> None:
        """To be asked by `answer`."""
        if self._orders:
            self._due.append(due)

    def answer(self) -> tuple[list[Forecasts], list[BlockRow]]:
        """Ask, settle and compare for all turns that were noted, in their order: forecasts, and blocks that closed."""
        said, rows = [], []
        due, self._due = self._due, []
        whose = self._whose()
        for turn in due:
            self._compare_last_value(turn.scores)
            if self._keeper is not None:
                forecasts, settled = self._answer(turn, self._keeper, whose)
                self._compare(turn.scores, settled, whose)
                said += [forecasts] if len(forecasts) else []
            rows += [row for blocks in self._blocks.values() for row in blocks.close(turn.newest_ns)]
        return said, rows

    def promote(self, model: int, route: str) -> None:
        """A shadow that serves from now on brings its widths along, and is none any more."""
        order = self._orders.get((route, True))
        if self._keeper is not None and order is not None and order.model == model:
            self._scorekeeper.take_over(self._keeper, model, self._serving.groups_in(route))
        self.end(route)

    def forget(self, codes: I64) -> None:
        """These codes go to other symbols."""
        if self._keeper is not None:
            self._keeper.forget(codes)

    def add_model(self) -> None:
        if self._keeper is not None:
            self._keeper.add_model()

    def _answer(self, due: Due, keeper: Scorekeeper, whose: I32) -> tuple[Forecasts, Scores]:
        model = self._choose(due, whose)
        rows = np.flatnonzero(model != NO_MODEL)
        asked = replace(due.questions.take(rows), model=model[rows])
        answers, useless = self._ladder.ask_shadows(asked)
        for number, order in enumerate(self._asked()):
            failed = useless & (whose[asked.symbol] == number)
            self._blocks[order.route, True].add_failed(asked.as_of[failed])
        rows, asked, answers = rows[~useless], asked.take(~useless), answers.take(~useless)
        entries = self._forecaster.entries(due.closed.bars, asked, answers)
        question = np.full(len(due.closed.bars), -1, np.int64)
        question[asked.row] = np.arange(len(asked))
        settled = keeper.settle(
            rows_of(due.closed.bars, due.closed.void_before, question),
            entries._replace(id_high=due.id_high[rows], id_low=due.id_low[rows]), due.marks,
        )  # fmt: skip
        return self._forecaster.forecasts(due.closed, asked, answers, entries), settled

    def _choose(self, due: Due, whose: I32) -> I32:
        """Whose turn it is beside the model that serves: none where something else than the route's model answered."""
        questions, bars = due.questions, due.closed.bars
        held = bars.ordinal[questions.row] - due.closed.first[questions.row] + 1
        model = np.full(len(questions), NO_MODEL, np.int32)
        for number, order in enumerate(self._asked()):
            is_its = (whose[questions.symbol] == number) & (questions.model == self._champion(order.route))
            turn = (questions.as_of // order.block_ns) % order.every == 0
            fits = held >= self._ladder.cards[order.model].need_bars
            model[is_its & turn & fits] = order.model
        return model

    def _whose(self) -> I32:
        """By symbol, which of those that are asked is asked of it: that of the narrowest route."""
        asked = self._asked()
        found = np.full(self._symbols.limit, -1, np.int32)
        for number in sorted(range(len(asked)), key=lambda number: narrowness(asked[number].route)):
            found[self._serving.reach(asked[number].route)] = number
        return found

    def _champion(self, route: str) -> int:
        stands = self._serving.stands(route)
        return self._ladder.first_number if stands == NO_MODEL else stands

    def _compare(self, served: Scores, settled: Scores, whose: I32) -> None:
        """The labels that both have; what a shadow was fitted on says nothing."""
        _, ours, theirs = np.intersect1d(served.id_low, settled.id_low, assume_unique=True, return_indices=True)
        fair = (served.id_high[ours] == settled.id_high[theirs]) & (settled.in_sample[theirs] == 0)
        ours, theirs = ours[fair], theirs[fair]
        for number, order in enumerate(self._asked()):
            own = (settled.model[theirs] == order.model) & (whose[settled.symbol[theirs]] == number)
            self._blocks[order.route, True].add(
                settled.as_of[theirs][own], served.loss[ours][own], settled.loss[theirs][own]
            )  # fmt: skip

    def _compare_last_value(self, served: Scores) -> None:
        """Where the route's model answered: last value's loss is known of every label."""
        for (route, is_asked), order in self._orders.items():
            if is_asked:
                continue
            own = (served.model == self._champion(route)) & self._serving.reach(route)[served.symbol]
            own &= (served.in_sample == 0) & ((served.as_of // order.block_ns) % order.every == 0)
            self._blocks[route, False].add(served.as_of[own], served.loss[own], served.loss_naive[own])

    def _asked(self) -> list[ShadowOrder]:
        return [order for (_, is_asked), order in self._orders.items() if is_asked]

    def _fresh_keeper(self) -> Scorekeeper:
        ladder = self._ladder
        return Scorekeeper(self._settings, self._symbols, ladder.cards, last_value=ladder.last_value)

    def snapshot(self) -> State:
        """After `answer`: nothing is due."""
        assert not self._due
        parts = {f"blocks {blocks.contest}": blocks.snapshot() for blocks in self._blocks.values()}
        if self._keeper is not None:
            parts["keeper"] = self._keeper.snapshot()
        state = State.join(parts)
        cards = self._ladder.cards
        state.facts["orders"] = [
            [order.route, cards[order.model].digest, order.contest, order.block_ns, order.every]
            for order in self._orders.values()
        ]
        return state

    def resume(self, state: State) -> None:
        """The models are installed already."""
        for route, digest, contest, block_ns, every in state.facts["orders"]:
            order = ShadowOrder(route, self._ladder.number(digest), contest, block_ns, every)
            self.begin(order)
            self._blocks[route, order.model != self._ladder.last_value].resume(state.part(f"blocks {contest}"))
        if self._keeper is not None:
            self._keeper.resume(state.part("keeper"))
