"""What is done for those who ask: copy windows, choose who answers, word the answer. The engine asks the models.

They ride in the same call of the model as the ticks' questions, and are neither published nor scored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tickcast.columns import I32, I64, U8
from tickcast.engine.core import windows
from tickcast.engine.core.fold import BarBuilder
from tickcast.engine.core.ladder import Ladder, Raw
from tickcast.engine.core.on_demand import Ask, AskAnswer, GivenWindow
from tickcast.engine.core.questions import NOBODY
from tickcast.engine.core.routes import Routes
from tickcast.engine.core.scorekeeper import Scorekeeper
from tickcast.errors import BadOutput, BadRequest
from tickcast.settings import Settings
from tickcast.symbols import SymbolTable

Copy = Callable[[I32, I64, I64, I64], GivenWindow]  # of the bars (symbol, as_of, ordinal, first)


class EngineParts(Protocol):
    """The engine's, as they are needed here."""

    builder: BarBuilder
    ladder: Ladder | None
    routes: Routes
    scorekeeper: Scorekeeper

    def targets(self, as_of: I64) -> I64: ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """An Ask with its windows copied, not yet answered."""

    ask: Ask
    symbol: I32  # -1 = none that is known
    as_of: I64
    window: GivenWindow
    model: I32

    def __len__(self) -> int:
        return len(self.symbol)


class Asking:
    def __init__(self, parts: EngineParts, settings: Settings, symbols: SymbolTable) -> None:
        self._parts, self._symbols = parts, symbols
        self._transform = windows.TRANSFORMS[settings.forecast.transform]
        self._waiting: list[Wanted] = []

    def take(self, ask: Ask, copy: Copy) -> list[AskAnswer]:
        """Answers that can be given at once: why there is none, or that of a model which is asked apart."""
        try:
            want = self._gathered(ask, copy)
            if ask.runner is None:
                self._waiting.append(want)
                return []
            assert self._parts.ladder is not None
            return [self.answer(want, self._parts.ladder.ask_other(ask.runner, want.window.inputs))]
        except (BadRequest, BadOutput) as refused:
            return [AskAnswer(ask, refused)]

    def waiting(self) -> list[Wanted]:
        """Those who wait, who are the caller's now."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def answer(self, want: Wanted, raw: Raw) -> AskAnswer:
        """Widened as the symbol's own forecasts are, in its unit of today."""
        parts, window = self._parts, want.window
        units = raw.moves / window.scale[:, None, None]
        whose = raw.model, want.symbol, parts.builder.home_of(want.symbol)
        wide, sure = parts.scorekeeper.widened(units, *whose)
        level, n = want.ask.confidence_level, wide.shape[2]
        if level is not None:  # its two bounds ride behind the quantiles
            wide = np.concatenate([wide, parts.scorekeeper.interval(level, units, wide, *whose)], axis=2)
        moves = wide * window.scale[:, None, None]
        anchor, prices = window.anchor, windows.prices(self._transform, window.anchor, moves)
        factor = None if want.ask.given else parts.builder.unit_factor(want.symbol, want.as_of)
        if factor is not None:
            prices, anchor = prices * factor[:, None, None], anchor * factor
        return AskAnswer(
            want.ask, None, want.as_of, parts.targets(want.as_of), anchor, window.scale, prices[:, :, :n], sure,
            raw.probs, raw.model, raw.rung, raw.flags, None if level is None else prices[:, :, n:],
        )  # fmt: skip

    def _gathered(self, ask: Ask, copy: Copy) -> Wanted:
        parts = self._parts
        if parts.ladder is None:
            raise BadRequest("this deployment forecasts nothing", remedy="set model.default to another than none")
        levels = parts.scorekeeper.levels
        if ask.confidence_level is not None and not levels[0] < 0.5 < levels[-1]:
            raise BadRequest(
                "an interval needs a level on each side of the median", remedy="forecast.quantiles names the levels"
            )
        if ask.given is not None:
            symbol = np.array([self._symbols.find(ask.symbols[0]) if ask.symbols else -1], np.int32)
            window, as_of, held = ask.given.window, np.array([ask.given.as_of]), np.array([ask.given.bars])
        else:
            symbol = self._codes(ask.symbols)
            ordinal, first, as_of = parts.builder.newest_bars(symbol)
            held, window = ordinal - first + 1, copy(symbol, as_of, ordinal, first)
        chosen = parts.routes.choose(parts.ladder.choose(held), np.maximum(symbol, 0), held)
        return Wanted(ask, symbol, as_of, window, _who_answers(ask, parts.ladder, chosen, held))

    def _codes(self, names: tuple[str, ...]) -> I32:
        codes = [self._symbols.find(name) for name in names]
        if -1 in codes:
            raise BadRequest(
                f"no symbol '{names[codes.index(-1)]}' has been seen", remedy="`symbols` lists those that have"
            )
        return np.array(codes, np.int32)


def rows_in(raw: Raw, at: slice) -> Raw:
    parts: list[Any] = [column[at] for column in raw]
    return Raw(*parts)


def _who_answers(ask: Ask, ladder: Ladder, chosen: U8, bars_held: I64) -> I32:
    """The model of each row: the one that was asked for, else `chosen`. One that is not the ladder's has no number."""
    if ask.runner is not None:
        chosen = np.where(bars_held >= ask.runner.card.need_bars, 0, NOBODY).astype(np.uint8)
    elif ask.model:
        number = ladder.number(ask.model)
        chosen = np.where(bars_held >= ladder.cards[number].need_bars, number, NOBODY).astype(np.uint8)
    if (chosen == NOBODY).any():
        cold = ask.symbols[int((chosen == NOBODY).argmax())] if ask.symbols else "the window"
        raise BadRequest(f"{cold} has too few bars to be forecast", remedy="ask again when it has more")
    return chosen.astype(np.int32)
