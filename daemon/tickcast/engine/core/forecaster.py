"""The Forecaster: what models answered becomes forecasts, with a name, widths and prices. It asks nobody."""

import numpy as np

from tickcast.columns import F64, I32, U64, BarBatch, Forecasts
from tickcast.engine.core import windows
from tickcast.engine.core.channels import MISSING
from tickcast.engine.core.events import Ask, AskAnswer
from tickcast.engine.core.fold import BarBuilder, ClosedBars
from tickcast.engine.core.ladder import Ladder, LadderAnswers
from tickcast.engine.core.leaving import TAILS, leaving
from tickcast.engine.core.questions import Questioner, id_seeds, make_ids
from tickcast.engine.core.scorekeeper import Scorekeeper
from tickcast.engine.core.scoring import Entries
from tickcast.errors import BadRequest, Quality
from tickcast.figures import spread_of
from tickcast.questions import Questions
from tickcast.regimes import NORMAL
from tickcast.settings import Settings
from tickcast.symbols import SymbolTable

IN_SAMPLE = np.uint8(Quality.IN_SAMPLE)


class Forecaster:
    def __init__(
        self, settings: Settings, symbols: SymbolTable, builder: BarBuilder, ladder: Ladder, *,
        questioner: Questioner, scorekeeper: Scorekeeper,
    ) -> None:  # fmt: skip
        self._settings, self._symbols, self._builder, self._ladder = settings, symbols, builder, ladder
        self._questioner, self._scorekeeper = questioner, scorekeeper
        self._transform = windows.TRANSFORMS[settings.forecast.transform]
        self._seeds = id_seeds(ladder.cards, settings)

    def entries(self, bars: BarBatch, questions: Questions, answers: LadderAnswers) -> Entries:
        """The answers in units of scale, named, with room for what is published."""
        model, as_of, n = answers.model, questions.as_of, len(questions)
        high, low = self._ids(model, bars, questions)
        seen = (as_of >= self._ladder.trained_from[model]) & (as_of <= self._ladder.trained_to[model])
        units = answers.moves / questions.scale[:, None, None]
        return Entries(
            raw=units, anchor=questions.anchor, scale=questions.scale, model=model, in_sample=seen.astype(np.uint8),
            id_high=high, id_low=low, wide=np.empty_like(units), confidence=np.empty(n, np.float32),
            probs=answers.probs, flags=np.empty(n, np.uint8), regime=np.full(n, NORMAL, np.uint8),
            odd=np.full(n, MISSING, np.uint8),
        )  # fmt: skip

    def _ids(self, model: I32, bars: BarBatch, questions: Questions) -> tuple[U64, U64]:
        if len(self._seeds) < len(self._ladder.cards):
            self._seeds = id_seeds(self._ladder.cards, self._settings)
        return make_ids(
            self._seeds, model, self._symbols.arrays, symbol=questions.symbol, as_of=questions.as_of,
            tie=bars.tie[questions.row],
        )  # fmt: skip

    def forecasts(
        self, closed: ClosedBars, questions: Questions, answers: LadderAnswers, entries: Entries
    ) -> Forecasts:
        bars = closed.bars.take(questions.row)
        factor = self._builder.unit_factor(bars.symbol, bars.as_of)
        quantiles, anchor, scale = self._in_prices(questions, entries.wide, factor)
        return Forecasts(
            symbol=bars.symbol, ordinal=bars.ordinal, as_of=bars.as_of, tie=bars.tie, partition=bars.partition,
            offset=bars.offset, anchor=anchor, scale=scale, rung=answers.rung, model=answers.model,
            flags=answers.flags | entries.flags | entries.in_sample * IN_SAMPLE,
            id_high=entries.id_high, id_low=entries.id_low, input_hash=windows.input_hash(questions.inputs),
            target_ns=self._questioner.targets(bars.as_of), quantiles=quantiles, sigma=self._sigma(entries.wide, scale),
            confidence=entries.confidence, probs=answers.probs, stamp_ns=closed.stamps_ns[questions.row],
        )  # fmt: skip

    def reply(self, ask: Ask, questions: Questions, answers: LadderAnswers) -> AskAnswer:
        """Widened as the symbol's own forecasts are; BadRequest where they cannot tell what is asked."""
        symbol, as_of, level = questions.symbol, questions.as_of, ask.confidence_level
        whose = answers.model, symbol, self._builder.home_of(symbol)
        units = answers.moves / questions.scale[:, None, None]
        wide, sure, corrected = self._scorekeeper.widened(units, *whose)
        levels = wide.shape[2]
        if level is not None:  # its two bounds ride behind the quantiles
            wide = np.concatenate([wide, self._scorekeeper.interval(level, units, wide, *whose)], axis=2)
        factor = None if ask.bars is not None else self._builder.unit_factor(symbol, as_of)
        prices, anchor, scale = self._in_prices(questions, wide, factor)
        return AskAnswer(
            ask, as_of=as_of, target_ns=self._questioner.targets(as_of), anchor=anchor, scale=scale,
            quantiles=prices[:, :, :levels], sigma=self._sigma(wide[:, :, :levels], scale), confidence=sure,
            probs=answers.probs, model=answers.model, rung=answers.rung, flags=answers.flags | corrected,
            interval=None if level is None else prices[:, :, levels:],
            leaving=None if ask.bounds is None else self._leaving(ask.bounds, anchor, scale, units, wide, whose),
        )  # fmt: skip

    def _leaving(
        self, bounds: tuple[float, float], anchor: F64, scale: F64, units: F64, wide: F64, whose: tuple[I32, I32, I32]
    ) -> F64:
        """[N, H] What is known of each step is where it ends: on which way, only where neither way is likelier."""
        if wide[:, :, self._settings.forecast.quantiles.index(0.5)].any():
            raise BadRequest(
                "who answers says where the price will be at each step, and not on which way it goes there",
                remedy="ask one whose point is the last value: model = naive, or a volatility kind",
            )  # fmt: skip
        if not (bounds[0] < anchor.min() and anchor.max() < bounds[1]):
            raise BadRequest(
                "the last close has left already", remedy=f"it is {anchor[0]:g}: `low` and `high` go around it"
            )
        at = np.maximum(bounds, 0.0) if self._transform == windows.LOG_RETURN else np.array(bounds)
        with np.errstate(divide="ignore"):  # no price of such a series reaches 0
            away = windows.moves_of(self._transform, anchor, np.tile(at, (len(anchor), 1))) / scale[:, None]
        reach = self._scorekeeper.reach(TAILS, units, wide, *whose)
        return np.stack([leaving(known, *np.abs(far)) for known, far in zip(reach, away, strict=True)])

    def _sigma(self, wide: F64, scale: F64) -> F64:
        sigma: F64 = spread_of(self._settings.forecast.quantiles, wide) * scale[:, None]
        return sigma

    def _in_prices(self, questions: Questions, wide: F64, factor: F64 | None) -> tuple[F64, F64, F64]:
        """Quantiles, anchor and scale in the series' own unit of today, which is `factor` of the first day's."""
        anchor, scale = questions.anchor, questions.scale
        quantiles = windows.prices(self._transform, anchor, wide * scale[:, None, None])
        if factor is not None:
            quantiles, anchor = quantiles * factor[:, None, None], anchor * factor
            scale = scale if self._transform == windows.LOG_RETURN else scale * factor
        return quantiles, anchor, scale
