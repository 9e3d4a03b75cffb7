"""The engine: events in, what happened out. One bare `turn`; no I/O, no logging, no clock of its own.

A turn folds ticks into bars, opens the questions that are due with their windows copied, asks each model once for
all of them, and then works through the closed bars in order: settle, adapt at marks, answer. See ARCHITECTURE.md.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tickcast.columns import F64, BarBatch, FeatureRows, Forecasts, RawBatch, Rejects, TickBatch
from tickcast.engine.core import windows
from tickcast.engine.core.bars import LATEST_NS
from tickcast.engine.core.drift import DriftWatch
from tickcast.engine.core.events import Ask, AskAnswer, Event, Heartbeat, Letters, Outcome, Reached
from tickcast.engine.core.features import FeatureSet
from tickcast.engine.core.fold import LOUD, Adjustments, BarBuilder, ClosedBars
from tickcast.engine.core.ladder import Ladder, LadderAnswers
from tickcast.engine.core.places import Places
from tickcast.engine.core.questions import Questioner, due, id_seeds, make_ids
from tickcast.engine.core.routes import DEFAULT, NO_MODEL, Routes
from tickcast.engine.core.schedule import ALWAYS_OPEN, ClosedTime
from tickcast.engine.core.scorekeeper import Scorekeeper, rows_of
from tickcast.engine.core.scoring import Entries
from tickcast.errors import BadOutput, BadRequest, Quality
from tickcast.plugin import Runner
from tickcast.questions import TICKS, Questions
from tickcast.records import Command
from tickcast.settings import Settings
from tickcast.state import HasState, State
from tickcast.symbols import SymbolTable


class DecodesTicks(Protocol):
    def decode(self, raw: RawBatch) -> tuple[TickBatch, Rejects]: ...

    def forget_names(self) -> None: ...


ADAPTIVE_COLD, IN_SAMPLE = np.uint8(Quality.ADAPTIVE_COLD), np.uint8(Quality.IN_SAMPLE)


class Engine:
    def __init__(
        self, settings: Settings, symbols: SymbolTable, decoder: DecodesTicks, features: FeatureSet,
        ladder: Ladder | None, *, closed_time: ClosedTime = ALWAYS_OPEN, adjustments: Adjustments | None = None,
        by_clock: bool = False,
    ) -> None:  # fmt: skip
        """`by_clock`: the ticks are of now, so none is believed that is too far ahead of the clock of its turn."""
        self.ladder = ladder
        self.positions: dict[tuple[str, int], int] = {}  # next offset of every partition read
        self.builder = BarBuilder(
            settings, symbols, feature_lookback=features.lookback, closed_time=closed_time, adjustments=adjustments
        )
        cards, last_value = (ladder.cards, ladder.last_value) if ladder else ([], 0)
        self.scorekeeper = Scorekeeper(settings, symbols, cards, last_value=last_value)
        self.routes = Routes(symbols, settings.symbols.groups, cards)
        self.questioner = Questioner(settings, symbols, self.builder, features, ladder, self.routes)
        self.drift = DriftWatch(settings, symbols, self.builder, self.scorekeeper, ladder, channels=features.names)
        self.places = Places(settings, symbols)
        self._ahead_ns = settings.quality.ahead_ms * 10**6 if by_clock else 0
        self._settings = settings
        self._symbols = symbols
        self._decoder = decoder
        self._features = features
        self._transform = windows.TRANSFORMS[settings.forecast.transform]
        self._seeds = id_seeds(cards, settings)
        self._closed: list[ClosedBars] = []  # in this turn, not yet worked through
        self._open: list[Questions] = []  # of these bars, and of who asks
        self._asks: list[Ask] = []  # who asks, by number
        self._outcome = Outcome()

    def turn(self, events: Sequence[Event], now_ns: int) -> Outcome:
        """Take the events in order and return all that happened. A command waits until what came before is answered.

        What is `left` in the outcome waits for places of silent symbols: give it again after `pass_places`.
        """
        self._outcome = outcome = Outcome()
        for event in events:
            if outcome.left and not isinstance(event, Ask | Command):
                outcome.left.append(event)
            elif isinstance(event, RawBatch):
                self._take(event, now_ns)
            elif isinstance(event, Heartbeat):
                for closed in self.builder.beat(event.topic, event.partition, ts=event.ts, offset=event.offset):
                    self._open_questions(closed)
                self._reach(Reached(event.topic, event.partition, event.offset + 1))
            elif isinstance(event, Letters):
                self._counted(event.rejects)
                self._outcome.letters.append(event)
            elif isinstance(event, Reached):
                self._reach(event)
            elif isinstance(event, Ask):
                self._want(event)
            else:
                self._answer(now_ns)
                self._obey(event)
        self._answer(now_ns)
        if outcome.left:
            self._void_leaving()
        return outcome

    def pass_places(self) -> None:
        """Symbols that were silent too long are as if they had never been, and others may have their codes. Only when
        nothing is under way any more that names a symbol by its code."""
        codes = self.places.leaving
        self.builder.forget(codes)
        self.scorekeeper.forget(codes)
        self.questioner.forget(codes)
        self.drift.forget()
        if self.ladder is not None:
            self.ladder.forget(codes)
        self.routes.forget()
        self._decoder.forget_names()
        self._symbols.free(codes)
        self.places.pass_on(self.builder)

    def newest_ns(self) -> int:
        return self.builder.newest_ns()

    def bars_needed(self) -> int:
        """Bars of history with which every model of the ladder can answer at once."""
        return self._settings.window.lookback + self._features.lookback

    def restore(self, bars: BarBatch) -> None:
        """Fill the windows with stored bars, sorted by symbol and ordinal, before the first turn."""
        self.builder.restore(bars)
        _, start, inverse = np.unique(bars.symbol, return_index=True, return_inverse=True)
        self.questioner.remember(bars, bars.ordinal[start][inverse])

    def snapshot(self) -> State:
        """A copy of all that decides later outcomes. Between two turns; no question is pending then."""
        parts: dict[str, HasState] = {"ring": self.questioner} | self._parts()
        state = State.join({name: part.snapshot() for name, part in parts.items()})
        state.facts["positions"] = [[*source, offset] for source, offset in self.positions.items()]
        state.facts["failures"] = [self.questioner.feature_failures.copy(), self.questioner.last_failure]
        return state

    def resume(self, state: State) -> None:
        """Go on where the engine of the snapshot stood: later turns give what it would have given, bit by bit.

        Only before the first turn. After a refusal this engine is half filled: build another one.
        """
        for name, part in self._parts().items():
            if name != "drift" or name in state.facts:  # an older version's has none: what drifts is learnt anew
                part.resume(state.part(name))
        self.questioner.resume(state.part("ring"))
        self.positions = state.positions
        self.questioner.feature_failures, self.questioner.last_failure = state.facts["failures"]

    def _parts(self) -> dict[str, HasState]:
        """What remembers something, in the order in which it is resumed."""
        ladder: dict[str, HasState] = {} if self.ladder is None else {"ladder": self.ladder, "routes": self.routes}
        parts: dict[str, HasState] = {"symbols": self._symbols, "folder": self.builder, "places": self.places}
        return parts | {"score": self.scorekeeper} | ladder | {"drift": self.drift}

    def install(self, runner: Runner) -> None:
        """Another model, which nobody is asked of before `use_model` names it. Between two turns."""
        if self.ladder is None:
            raise BadRequest("this deployment forecasts nothing", remedy="set model.default to another than none")
        if self.ladder.add(runner):
            self.scorekeeper.add_model()
            self.drift.look_anew()
            self._seeds = id_seeds(self.ladder.cards, self._settings)

    def _obey(self, command: Command) -> None:
        """The barrier has been kept. `use_model`: an installed model, by digest or name, answers a route from now on;
        no model takes a route back."""
        if command.command == "use_model" and self.ladder is not None:
            model, route = str(command.args.get("model", "")), str(command.args.get("route", DEFAULT))
            number = self.ladder.number(model) if model or route == DEFAULT else NO_MODEL
            if route == DEFAULT:
                self.ladder.prefer(number)
                self.drift.look_anew()
            else:
                self.routes.set(route, number)

    def _take(self, raw: RawBatch, now_ns: int) -> None:
        ticks, rejects = self._decoder.decode(raw)
        refused: list[Rejects] = []
        done, begin = raw, 0
        for row in self.places.turning_points(raw, rejects) if len(rejects) else ():
            end = int(np.searchsorted(ticks.row, row))
            refused += self._fold(raw, ticks.take(slice(begin, end)), now_ns)
            begin = end
            if self.places.look(raw, row, self.builder):
                done, ticks, rejects = raw.part(0, row), ticks.take(slice(end)), rejects.take(rejects.row < row)
                self._outcome.left.append(raw.part(row, len(raw)))
                break
        refused += self._fold(raw, ticks.take(slice(begin, None)) if begin else ticks, now_ns)
        if len(rejects):
            refused = [self._counted(rejects), *refused]
        if refused:
            self._write_letters(done, refused, came=len(ticks) + len(rejects))
        if len(done):
            self._reach(Reached(done.topic, done.partition, int(done.offsets[-1]) + 1))

    def _fold(self, raw: RawBatch, ticks: TickBatch, now_ns: int) -> list[Rejects]:
        """What of these was refused."""
        refused = []
        for item in self.builder.fold(raw, ticks, now_ns + self._ahead_ns if self._ahead_ns else LATEST_NS):
            if isinstance(item, ClosedBars):
                self._open_questions(item)
            elif item[0] is raw:
                refused.append(item[1])
            else:
                self._outcome.letters.append(Letters(*item, whole=False))
        return refused

    def _void_leaving(self) -> None:
        """Whoever is to be forgotten leaves no question behind."""
        codes = self.places.leaving
        home = self.builder.home_of(codes.astype(np.int32))
        now = np.full(len(codes), self.newest_ns())
        closed = self.builder.state.symbol["next"][codes]
        scores = self.scorekeeper.void(codes, closed_bars=closed, partition=home, now_ns=now)
        if len(scores):
            self._outcome.scores.append(scores)

    def _counted(self, rejects: Rejects) -> Rejects:
        """Count them; gives those that are to become dead letters."""
        self.builder.decode_rejects += np.bincount(rejects.reason, minlength=len(self.builder.decode_rejects))
        return rejects.take(LOUD[rejects.reason])

    def _write_letters(self, raw: RawBatch, refused: list[Rejects], *, came: int) -> None:
        """The rejects of codec and quality side by side, so that a message with several becomes one letter."""
        rejects = refused[0] if len(refused) == 1 else Rejects.concat(refused)
        if not len(rejects):
            return
        if len(refused) > 1:
            rejects = rejects.take(np.lexsort((rejects.number, rejects.row)))
        self._outcome.letters.append(Letters(raw, rejects, whole=len(rejects) == came))

    def _reach(self, reached: Reached) -> None:
        source = (reached.topic, reached.partition)
        self.builder.partition(*source)
        self._outcome.positions[source] = self.positions[source] = reached.next_offset

    def _open_questions(self, closed: ClosedBars) -> None:
        """Compute the features of the bars just closed and copy the windows of the questions that are due."""
        bars, first = closed.bars, closed.first
        self._outcome.bars.append(bars)
        publish = self._settings.features.publish
        if self.ladder is None and not publish:
            return
        is_due = due(self._settings, bars.as_of, bars.ordinal, bars.mask)
        if self.ladder is None:  # no window will ever look back on the values of the other bars
            asked = bars.take(is_due)
            self._publish_vectors(asked, self.questioner.compute(asked, first[is_due]))
            return
        values = self.questioner.remember(bars, first)
        if publish:
            self._publish_vectors(bars.take(is_due), values[is_due])
        self.drift.measure(closed, self.questioner.values)
        questions = self.questioner.of_bars(closed, is_due, before=sum(len(c.bars) for c in self._closed))
        self._outcome.unanswered += int(np.count_nonzero(is_due)) - len(questions)
        self._closed.append(closed)
        self._open.append(questions)

    def _publish_vectors(self, bars: BarBatch, values: F64) -> None:
        """Where every feature has a value."""
        rows = np.flatnonzero(np.isfinite(values).all(axis=1))
        if len(rows):
            b = bars.take(rows)
            self._outcome.vectors.append(FeatureRows(
                symbol=b.symbol, as_of=b.as_of, tie=b.tie, partition=b.partition, offset=b.offset, values=values[rows]
            ))  # fmt: skip

    def _want(self, ask: Ask) -> None:
        """Its windows as they are at this place in the stream; the models are asked together with what else is due."""
        self._open_closed()
        try:
            questions = self.questioner.of_ask(ask, len(self._asks))
            if ask.runner is None:
                self._asks.append(ask)
                self._open.append(questions)
            else:
                assert self.ladder is not None
                self._reply(ask, questions, self.ladder.ask_other(ask.runner, questions))
        except (BadRequest, BadOutput) as refused:
            self._outcome.answers.append(AskAnswer(ask, refused))

    def _open_closed(self) -> None:
        for closed in self.builder.closed():
            self._open_questions(closed)

    def _answer(self, now_ns: int) -> None:
        """Ask the models once for all that is open; then work through closed bars in order, and reply to who asks."""
        self._open_closed()
        closed, opened, asks = self._closed, self._open, self._asks
        self._closed, self._open, self._asks = [], [], []
        if not opened or self.ladder is None:
            return
        bars = ClosedBars.join(closed) if closed else None
        questions = self._shed(Questions.concat(opened), bars, now_ns)
        answers = self.ladder.ask(questions)
        if bars is not None:
            rows = np.flatnonzero(questions.asker == TICKS)
            own = (questions.take(rows), answers.take(rows)) if asks else (questions, answers)
            self._settle(bars, *own)
        for number, ask in enumerate(asks):  # widened by what the ticks before have settled
            rows = np.flatnonzero(questions.asker == number)
            self._reply(ask, questions.take(rows), answers.take(rows))

    def _shed(self, questions: Questions, closed: ClosedBars | None, now_ns: int) -> Questions:
        """Under overload `conflate` or `skip`, take back ticks' questions that are not to be asked, and count them."""
        overload = self._settings.forecast.overload
        if overload == "process" or closed is None:
            return questions
        keep = questions.asker != TICKS
        rows = np.flatnonzero(~keep)
        if overload == "conflate":
            latest = rows[::-1]
            keep[latest[np.unique(questions.symbol[latest], return_index=True)[1]]] = True
        else:
            stamp = closed.stamps_ns[questions.row[rows]]
            keep[rows] = (stamp < 0) | (now_ns - stamp <= self._settings.forecast.deadline_ms * 10**6)
        self._outcome.unasked += len(questions) - int(np.count_nonzero(keep))
        return questions.take(keep)

    def _settle(self, closed: ClosedBars, questions: Questions, answers: LadderAnswers) -> None:
        """Work through closed bars, whose questions the models have answered."""
        bars, entries = closed.bars, self._entries(closed.bars, questions, answers)
        question = np.full(len(bars), -1, np.int64)
        question[questions.row] = np.arange(len(questions))
        rows, marks = rows_of(bars, closed.void_before, question), self.builder.marks()
        labels = self.drift.labels_room(len(bars))
        scores = self.scorekeeper.settle(rows, entries, marks, labels)
        self._outcome.drift += self.drift.follow(rows, labels, marks)
        if len(scores):
            self._outcome.scores.append(scores)
        if len(questions):
            self._outcome.questions += len(questions)
            self._outcome.forecasts.append(self._forecasts(closed, questions, answers, entries))

    def _entries(self, bars: BarBatch, questions: Questions, answers: LadderAnswers) -> Entries:
        """The answers in units of scale, named, with room for what is published."""
        assert self.ladder is not None
        model, as_of, n = answers.model, questions.as_of, len(questions)
        high, low = make_ids(
            self._seeds, model, self._symbols.arrays, symbol=questions.symbol, as_of=as_of, tie=bars.tie[questions.row]
        )
        seen = (as_of >= self.ladder.trained_from[model]) & (as_of <= self.ladder.trained_to[model])
        units = answers.moves / questions.scale[:, None, None]
        return Entries(
            raw=units, anchor=questions.anchor, scale=questions.scale, model=model, in_sample=seen.astype(np.uint8),
            id_high=high, id_low=low, wide=np.empty_like(units), confidence=np.empty(n, np.float32),
            cold=np.empty(n, np.uint8),
        )  # fmt: skip

    def _forecasts(
        self, closed: ClosedBars, questions: Questions, answers: LadderAnswers, entries: Entries
    ) -> Forecasts:
        bars = closed.bars.take(questions.row)
        factor = self.builder.unit_factor(bars.symbol, bars.as_of)
        quantiles, anchor, scale = self._in_prices(questions, entries.wide, factor)
        return Forecasts(
            symbol=bars.symbol, ordinal=bars.ordinal, as_of=bars.as_of, tie=bars.tie, partition=bars.partition,
            offset=bars.offset, anchor=anchor, scale=scale, rung=answers.rung, model=answers.model,
            flags=answers.flags | entries.cold * ADAPTIVE_COLD | entries.in_sample * IN_SAMPLE,
            id_high=entries.id_high, id_low=entries.id_low, input_hash=windows.input_hash(questions.inputs),
            target_ns=self.questioner.targets(bars.as_of), quantiles=quantiles, confidence=entries.confidence,
            probs=answers.probs, stamp_ns=closed.stamps_ns[questions.row],
        )  # fmt: skip

    def _reply(self, ask: Ask, questions: Questions, answers: LadderAnswers) -> None:
        """Widened as the symbol's own forecasts are."""
        symbol, as_of, level = questions.symbol, questions.as_of, ask.confidence_level
        whose = answers.model, symbol, self.builder.home_of(symbol)
        units = answers.moves / questions.scale[:, None, None]
        wide, sure = self.scorekeeper.widened(units, *whose)
        levels = wide.shape[2]
        if level is not None:  # its two bounds ride behind the quantiles
            wide = np.concatenate([wide, self.scorekeeper.interval(level, units, wide, *whose)], axis=2)
        factor = None if ask.bars is not None else self.builder.unit_factor(symbol, as_of)
        prices, anchor, scale = self._in_prices(questions, wide, factor)
        self._outcome.answers.append(AskAnswer(
            ask, as_of=as_of, target_ns=self.questioner.targets(as_of), anchor=anchor, scale=scale,
            quantiles=prices[:, :, :levels], confidence=sure, probs=answers.probs, model=answers.model,
            rung=answers.rung, flags=answers.flags, interval=None if level is None else prices[:, :, levels:],
        ))  # fmt: skip

    def _in_prices(self, questions: Questions, wide: F64, factor: F64 | None) -> tuple[F64, F64, F64]:
        """Quantiles, anchor and scale in the series' own unit of today, which is `factor` of the first day's."""
        anchor, scale = questions.anchor, questions.scale
        quantiles = windows.prices(self._transform, anchor, wide * scale[:, None, None])
        if factor is not None:
            quantiles, anchor = quantiles * factor[:, None, None], anchor * factor
            scale = scale if self._transform == windows.LOG_RETURN else scale * factor
        return quantiles, anchor, scale
