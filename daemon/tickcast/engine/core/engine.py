"""The engine: events in, what happened out. One bare `turn`; no I/O, no logging, no clock of its own.

A turn folds ticks into bars, opens the questions that are due with their windows copied, asks each model once for
all of them, and then works through the closed bars in order: settle, adapt at marks, answer. See ARCHITECTURE.md.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tickcast.columns import F64, BarBatch, FeatureRows, RawBatch, Rejects, TickBatch
from tickcast.engine.core.bars import LATEST_NS
from tickcast.engine.core.drift import DriftWatch
from tickcast.engine.core.events import Ask, AskAnswer, Event, Heartbeat, Letters, Outcome, Reached
from tickcast.engine.core.features import FeatureSet
from tickcast.engine.core.fold import LOUD, Adjustments, BarBuilder, ClosedBars
from tickcast.engine.core.forecaster import Forecaster
from tickcast.engine.core.ladder import Ladder, LadderAnswers
from tickcast.engine.core.places import Places
from tickcast.engine.core.questions import Questioner, due
from tickcast.engine.core.regimes import Regimes
from tickcast.engine.core.routes import DEFAULT, NO_MODEL, Routes
from tickcast.engine.core.schedule import ALWAYS_OPEN, ClosedTime
from tickcast.engine.core.scorekeeper import Scorekeeper, rows_of
from tickcast.engine.core.shadows import Due, ShadowOrder, Shadows
from tickcast.errors import BadOutput, BadRequest
from tickcast.plugin import Runner
from tickcast.questions import TICKS, Questions
from tickcast.records import Command
from tickcast.settings import Settings
from tickcast.state import HasState, State
from tickcast.symbols import SymbolTable


class DecodesTicks(Protocol):
    def decode(self, raw: RawBatch) -> tuple[TickBatch, Rejects]: ...

    def forget_names(self) -> None: ...


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
        self.regimes = Regimes(settings, symbols)
        self.places = Places(settings, symbols)
        self._ahead_ns = settings.quality.ahead_ms * 10**6 if by_clock else 0
        self._settings, self._symbols, self._decoder, self._features = settings, symbols, decoder, features
        self._forecaster = None if ladder is None else Forecaster(
            settings, symbols, self.builder, ladder, questioner=self.questioner, scorekeeper=self.scorekeeper
        )  # fmt: skip
        self.shadows = None if ladder is None or self._forecaster is None else Shadows(
            settings, symbols, ladder, serving=self.routes, scorekeeper=self.scorekeeper, forecaster=self._forecaster
        )  # fmt: skip
        self._closed: list[ClosedBars] = []  # in this turn, not yet worked through
        self._open: list[Questions] = []  # of these bars, and of who asks
        self._asks: list[Ask] = []  # who asks, by number
        self._outcome = Outcome()

    def turn(self, events: Sequence[Event], now_ns: int) -> Outcome:
        """Take the events in order and return all that happened. A command waits until what came before is answered.

        What is `left` in the outcome waits for places of silent symbols: give it again after `pass_places`. Shadows
        answer at the beginning of the next turn, which may be empty.
        """
        self._outcome = outcome = Outcome()
        self._ask_shadows()
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

    @property
    def asks_shadows(self) -> bool:
        """The next turn does, even an empty one."""
        return self.shadows is not None and self.shadows.waiting

    def pass_places(self) -> None:
        """Symbols that were silent too long are as if they had never been, and others may have their codes. Only when
        nothing is under way any more that names a symbol by its code."""
        codes = self.places.leaving
        if self.shadows is not None:
            self.shadows.forget(codes)
        for part in (self.builder, self.scorekeeper, self.questioner, self.regimes):
            part.forget(codes)
        self.drift.forget()
        if self.ladder is not None:
            self.ladder.forget(codes)
        self.routes.forget()
        self._decoder.forget_names()
        self._symbols.free(codes)
        self.places.pass_on(self.builder)

    def newest_ns(self) -> int:
        return self.builder.newest_ns()

    def pace(self) -> tuple[int, int]:
        """Bars that the symbol has closed which closed most, and the usual time from one to the next; 0 before two."""
        builder = self.builder
        closed = builder.state.symbol["next"]
        code = np.array([int(closed.argmax())], np.int32)
        ordinal, first, newest = (int(column[0]) for column in builder.newest_bars(code))
        if ordinal <= first:
            return int(closed.max()), 0
        ring = builder.bars
        held = np.arange(max(first, ordinal - ring.wrap), ordinal + 1)  # fewer after a restart: the others are 0
        at = ring.as_of[ring.start[code[0]] + (held & ring.wrap)]
        oldest = int((at != 0).argmax())
        return int(closed.max()), max((newest - int(at[oldest])) // max(ordinal - int(held[oldest]), 1), 1)

    def _reached_ns(self) -> int:
        """The event time that every partition with a tick has come to; 0 before the first."""
        newest = self.builder.state.partition["newest"]
        return int(newest[newest > 0].min(initial=LATEST_NS)) if newest.any() else 0

    def bars_needed(self) -> int:
        """Bars of history with which every model of the ladder can answer at once."""
        return self._settings.window.lookback + self._features.lookback

    def restore(self, bars: BarBatch) -> None:
        """Fill the windows with stored bars, sorted by symbol and ordinal, before the first turn."""
        self.builder.restore(bars)
        self.regimes.follow(bars)
        _, start, inverse = np.unique(bars.symbol, return_index=True, return_inverse=True)
        self.questioner.remember(bars, bars.ordinal[start][inverse])

    def snapshot(self) -> State:
        """A copy of all that decides later outcomes. Between two turns; no question is pending then, nor a shadow."""
        parts: dict[str, HasState] = {"ring": self.questioner} | self._parts()
        if self.shadows:
            parts["shadows"] = self.shadows
        state = State.join({name: part.snapshot() for name, part in parts.items()})
        state.facts["positions"] = [[*source, offset] for source, offset in self.positions.items()]
        state.facts["failures"] = [self.questioner.feature_failures.copy(), self.questioner.last_failure]
        return state

    def resume(self, state: State) -> None:
        """Go on where the engine of the snapshot stood: later turns give what it would have given, bit by bit.

        Only before the first turn. After a refusal this engine is half filled: build another one.
        """
        for name, part in self._parts().items():
            if name in state.facts:  # what an older version's does not have is learnt anew
                part.resume(state.part(name))
        if self.shadows is not None and "shadows" in state.facts:
            self.shadows.resume(state.part("shadows"))
        self.questioner.resume(state.part("ring"))
        self.positions = state.positions
        self.questioner.feature_failures, self.questioner.last_failure = state.facts["failures"]

    def _parts(self) -> dict[str, HasState]:
        """What remembers something, in the order in which it is resumed."""
        ladder: dict[str, HasState] = {} if self.ladder is None else {"ladder": self.ladder, "routes": self.routes}
        parts: dict[str, HasState] = {"symbols": self._symbols, "folder": self.builder, "places": self.places}
        return parts | {"score": self.scorekeeper} | ladder | {"drift": self.drift, "regimes": self.regimes}

    def install(self, runner: Runner) -> None:
        """Another model, which nobody is asked of before `use_model` names it. Between two turns."""
        if self.ladder is None:
            raise BadRequest("this deployment forecasts nothing", remedy="set model.default to another than none")
        if self.ladder.add(runner):
            self.scorekeeper.add_model()
            if self.shadows is not None:
                self.shadows.add_model()
            self.drift.add_model()

    def _obey(self, command: Command) -> None:
        """The barrier has been kept. `use_model`: an installed model, by digest or name, answers a route from now on;
        no model takes a route back. `shadow_model`: it answers beside whoever does; no model ends that."""
        if self.ladder is None or self.shadows is None:
            return
        model, route = str(command.args.get("model", "")), str(command.args.get("route", DEFAULT))
        if command.command == "use_model":
            number = self.ladder.number(model) if model or route == DEFAULT else NO_MODEL
            self.shadows.promote(number, route)
            if route == DEFAULT:
                self.ladder.prefer(number)
            else:
                self.routes.set(route, number)
            self.drift.begin_anew()
        elif command.command == "shadow_model" and model:
            rest = {name: command.args[name] for name in ("contest", "block_ns", "every") if name in command.args}
            self.shadows.begin(ShadowOrder(route, self.ladder.number(model), **rest))
        elif command.command == "shadow_model":
            self.shadows.end(route)

    def _ask_shadows(self) -> None:
        """What they say of the turns before."""
        if self.shadows is not None and self.shadows.waiting:
            forecasts, blocks = self.shadows.answer()
            self._outcome.shadows += forecasts
            self._outcome.blocks += blocks

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
        self._ask_shadows()
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
        assert self._forecaster is not None
        bars, entries = closed.bars, self._forecaster.entries(closed.bars, questions, answers)
        question = np.full(len(bars), -1, np.int64)
        question[questions.row] = np.arange(len(questions))
        regime, odd = self.regimes.follow(bars), self.drift.odd(len(bars))
        entries = entries._replace(regime=regime[questions.row], odd=odd[questions.row])
        rows, marks = rows_of(bars, closed.void_before, question), self.builder.marks()
        labels = self.drift.labels_room(len(bars))
        scores = self.scorekeeper.settle(rows, entries, marks, labels)
        self._outcome.drift += self.drift.follow(rows, labels, marks)
        if len(scores):
            self._outcome.scores.append(scores)
        if self.shadows:
            self.shadows.note(Due(
                closed, questions, id_high=entries.id_high, id_low=entries.id_low, marks=marks, scores=scores,
                newest_ns=self._reached_ns(),
            ))  # fmt: skip
        if len(questions):
            self._outcome.questions += len(questions)
            self._outcome.forecasts.append(self._forecaster.forecasts(closed, questions, answers, entries))

    def _reply(self, ask: Ask, questions: Questions, answers: LadderAnswers) -> None:
        assert self._forecaster is not None
        try:
            answer = self._forecaster.reply(ask, questions, answers)
        except BadRequest as refused:
            answer = AskAnswer(ask, refused)
        self._outcome.answers.append(answer)
