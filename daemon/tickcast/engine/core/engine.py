"""The engine: events in, what happened out. One bare `turn`; no I/O, no logging, no clock of its own.

A turn folds ticks into bars, opens the questions that are due with their windows copied, asks each model once for
all of them, and then works through the closed bars in order: settle, adapt at marks, answer. See ARCHITECTURE.md.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from tickcast.columns import F64, I32, I64, U8, BarBatch, FeatureRows, Forecasts, RawBatch, Rejects, TickBatch
from tickcast.engine.core import scoring, windows
from tickcast.engine.core.asked import Asked, join, together
from tickcast.engine.core.asking import Asking, rows_in
from tickcast.engine.core.bars import LATEST_NS
from tickcast.engine.core.events import Event, Heartbeat, Letters, Outcome, Reached
from tickcast.engine.core.features import FeatureSet
from tickcast.engine.core.fold import LOUD, Adjustments, BarBuilder, ClosedBars, ring_length
from tickcast.engine.core.ladder import Ladder, Raw
from tickcast.engine.core.on_demand import Ask, GivenWindow
from tickcast.engine.core.places import Places
from tickcast.engine.core.questions import NOBODY, due, make_ids
from tickcast.engine.core.routes import DEFAULT, NO_MODEL, Routes
from tickcast.engine.core.schedule import ALWAYS_OPEN, ClosedTime, target_times
from tickcast.engine.core.scorekeeper import Scorekeeper, rows_of
from tickcast.errors import BadOutput, BadRequest, Quality
from tickcast.plugin import Runner
from tickcast.records import Command
from tickcast.settings import Settings
from tickcast.state import Array, HasState, State, put_rows
from tickcast.symbols import SymbolTable


class DecodesTicks(Protocol):
    def decode(self, raw: RawBatch) -> tuple[TickBatch, Rejects]: ...

    def forget_names(self) -> None: ...


U8_COLD, U8_IN_SAMPLE = np.uint8(Quality.ADAPTIVE_COLD), np.uint8(Quality.IN_SAMPLE)


class Engine:
    def __init__(
        self, settings: Settings, symbols: SymbolTable, decoder: DecodesTicks, features: FeatureSet,
        ladder: Ladder | None, *, closed_time: ClosedTime = ALWAYS_OPEN, adjustments: Adjustments | None = None,
        by_clock: bool = False,
    ) -> None:  # fmt: skip
        """`by_clock`: the ticks are of now, so none is believed that is too far ahead of the clock of its turn."""
        self.ladder = ladder
        self.feature_failures: dict[str, int] = {}  # by plugin: batches in which it failed
        self.last_failure = ""
        self.positions: dict[tuple[str, int], int] = {}  # next offset of every partition read
        self.builder = BarBuilder(
            settings, symbols, feature_lookback=features.lookback, closed_time=closed_time, adjustments=adjustments
        )
        cards, last_value = (ladder.cards, ladder.last_value) if ladder else ([], 0)
        self.scorekeeper = Scorekeeper(settings, symbols, cards, last_value=last_value)
        self.routes = Routes(symbols, settings.symbols.groups, cards)
        self._asking = Asking(self, settings, symbols)
        self.places = Places(settings, symbols)
        self._ahead_ns = settings.quality.ahead_ms * 10**6 if by_clock else 0
        self._settings = settings
        self._symbols = symbols
        self._decoder = decoder
        self._features = features
        self._transform = windows.TRANSFORMS[settings.forecast.transform]
        length = ring_length(settings, features.lookback)
        self._values = np.zeros((settings.symbols.limit * length, len(features.names)))
        self._pending: list[Asked] = []
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
        self._values.reshape(self._settings.symbols.limit, -1)[codes] = 0
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
        self._remember(bars, bars.ordinal[start][inverse])

    def snapshot(self) -> State:
        """A copy of all that decides later outcomes. Between two turns; no question is pending then."""
        ring = State({name: np.take(column, rows, axis=0) for name, column, rows in self._ring()})
        state = State.join({"ring": ring} | {name: part.snapshot() for name, part in self._parts().items()})
        state.facts["positions"] = [[*source, offset] for source, offset in self.positions.items()]
        state.facts["failures"] = [self.feature_failures.copy(), self.last_failure]
        return state

    def resume(self, state: State) -> None:
        """Go on where the engine of the snapshot stood: later turns give what it would have given, bit by bit.

        Only before the first turn. After a refusal this engine is half filled: build another one.
        """
        for name, part in self._parts().items():
            part.resume(state.part(name))
        for name, column, rows in self._ring():
            put_rows(state.arrays[f"ring.{name}"], column, name, rows)
        self.positions = state.positions
        self.feature_failures, self.last_failure = state.facts["failures"]

    def _parts(self) -> dict[str, HasState]:
        """What remembers something, in the order in which it is resumed."""
        ladder: dict[str, HasState] = {} if self.ladder is None else {"ladder": self.ladder, "routes": self.routes}
        parts: dict[str, HasState] = {"symbols": self._symbols, "folder": self.builder, "places": self.places}
        return parts | {"score": self.scorekeeper} | ladder

    def _ring(self) -> Iterator[tuple[str, Array, I64]]:
        """The columns of the rings, each with the rows that bars yet to come look back on."""
        lookback = self._settings.window.lookback
        rows = self.builder.newest_rows(max(lookback, self._features.lookback))
        yield from ((name, column, rows) for name, column in windows.ring_columns(self.builder.bars).items())
        yield "values", self._values, rows[:, -lookback:]

    def install(self, runner: Runner) -> None:
        """Another model, which nobody is asked of before `use_model` names it. Between two turns."""
        if self.ladder is None:
            raise BadRequest("this deployment forecasts nothing", remedy="set model.default to another than none")
        if self.ladder.add(runner):
            self.scorekeeper.add_model()

    def _obey(self, command: Command) -> None:
        """The barrier has been kept. `use_model`: an installed model, by digest or name, answers a route from now on;
        no model takes a route back."""
        if command.command == "use_model" and self.ladder is not None:
            model, route = str(command.args.get("model", "")), str(command.args.get("route", DEFAULT))
            number = self.ladder.number(model) if model or route == DEFAULT else NO_MODEL
            if route == DEFAULT:
                self.ladder.prefer(number)
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
            self._publish_vectors(bars.take(is_due), self._compute(bars.take(is_due), first[is_due]))
            return
        values = self._remember(bars, first)
        if publish:
            self._publish_vectors(bars.take(is_due), values[is_due])
        held = bars.ordinal - first + 1
        model = self.routes.choose(self.ladder.choose(held), bars.symbol, held)
        rows = np.flatnonzero(is_due & (model != NOBODY))
        self._outcome.unanswered += int(np.count_nonzero(is_due)) - len(rows)
        window = self._window(bars.symbol[rows], bars.as_of[rows], bars.ordinal[rows], first[rows])
        self._pending.append(Asked(closed, rows, *window, model[rows].astype(np.int32)))

    def _window(self, symbol: I32, as_of: I64, ordinal: I64, first: I64) -> GivenWindow:
        """What a model is asked at these bars, copied."""
        names = self._settings.features.future
        future = (
            windows.calendar_channels(self.targets(as_of), list(names))
            if names
            else np.empty((len(symbol), self._settings.forecast.horizon, 0), np.float32)
        )
        return GivenWindow(*windows.gather_inputs(
            self.builder.bars, self._values, symbol, ordinal, first,
            lookback=self._settings.window.lookback, transform=self._transform, future=future,
        ))  # fmt: skip

    def _want(self, ask: Ask) -> None:
        """Its windows as they are at this place in the stream; the models are asked together with what else is due."""
        self._open_closed()
        self._outcome.answers += self._asking.take(ask, self._window)

    def _remember(self, bars: BarBatch, first: I64) -> F64:
        """Compute the features of bars that are in the rings, and keep them beside the bars."""
        ring, values = self.builder.bars, self._compute(bars, first)
        self._values[ring.start[bars.symbol] + (bars.ordinal & ring.wrap)] = values
        return values

    def _compute(self, bars: BarBatch, first: I64) -> F64:
        return self._features.compute(
            self.builder.bars, bars.symbol, bars.ordinal, first, on_failure=self._note_failure
        )

    def _note_failure(self, kind: str, failure: BadOutput) -> None:
        """A feature without a value makes its windows unusable: those questions are answered by last value, flagged."""
        self.feature_failures[kind] = self.feature_failures.get(kind, 0) + 1
        self.last_failure = str(failure)

    def _publish_vectors(self, bars: BarBatch, values: F64) -> None:
        """Where every feature has a value."""
        rows = np.flatnonzero(np.isfinite(values).all(axis=1))
        if len(rows):
            b = bars.take(rows)
            self._outcome.vectors.append(FeatureRows(b.symbol, b.as_of, b.tie, b.partition, b.offset, values[rows]))

    def targets(self, as_of: I64) -> I64:
        steps = self._settings.forecast.horizon
        if self._settings.bars.kind != "time":
            return np.full((len(as_of), steps), -1, np.int64)
        return target_times(self.builder.closed_time, as_of, steps=steps, every_ns=self.builder.rules.every_ns)

    def _answer(self, now_ns: int) -> None:
        """Ask the models once for all pending questions, then work through the closed bars in order."""
        self._open_closed()
        pending, self._pending = self._pending, []
        wanted = self._asking.waiting()
        if not (pending or wanted) or self.ladder is None:
            return
        asked = [self._shed(join(pending), now_ns)] if pending else []
        raw = self.ladder.ask(*together(asked, wanted))
        at = 0
        for questions in asked:
            at = len(questions.rows)
            self._settle(questions, rows_in(raw, slice(at)))
        for want in wanted:
            self._outcome.answers.append(self._asking.answer(want, rows_in(raw, slice(at, at + len(want)))))
            at += len(want)

    def _open_closed(self) -> None:
        for closed in self.builder.closed():
            self._open_questions(closed)

    def _settle(self, asked: Asked, raw: Raw) -> None:
        """Work through closed bars, whose questions the models have answered."""
        bars = asked.closed.bars
        answers = self._answers(asked, raw)
        question = np.full(len(bars), -1, np.int64)
        question[asked.rows] = np.arange(len(asked.rows))
        rows = rows_of(bars, asked.closed.void_before, question)
        scores = self.scorekeeper.settle(rows, answers, self.builder.marks())
        if len(scores):
            self._outcome.scores.append(scores)
        if len(asked.rows):
            self._outcome.questions += len(asked.rows)
            flags = raw.flags | answers.cold * U8_COLD | answers.in_sample * U8_IN_SAMPLE
            self._outcome.forecasts.append(self._forecasts(asked, raw, answers, flags))

    def _shed(self, asked: Asked, now_ns: int) -> Asked:
        """Under overload `conflate` or `skip`, take back questions that are not to be asked; they are counted."""
        overload, rows = self._settings.forecast.overload, asked.rows
        if overload == "process" or not len(rows):
            return asked
        if overload == "conflate":
            symbol = asked.closed.bars.symbol[rows][::-1]
            keep = np.sort(len(rows) - 1 - np.unique(symbol, return_index=True)[1])
        else:
            stamp = asked.closed.stamps_ns[rows]
            keep = np.flatnonzero((stamp < 0) | (now_ns - stamp <= self._settings.forecast.deadline_ms * 10**6))
        self._outcome.unasked += len(rows) - len(keep)
        return Asked(
            asked.closed, rows[keep], asked.inputs.take(keep), asked.anchor[keep], asked.scale[keep], asked.model[keep]
        )

    def _answers(self, asked: Asked, raw: Raw) -> scoring.Answers:
        """The raw answers in units of scale, named, with room for what is published."""
        assert self.ladder is not None
        bars, rows = asked.closed.bars, asked.rows
        symbol, as_of = bars.symbol[rows], bars.as_of[rows]
        high, low = make_ids(
            self.ladder.seeds, raw.model, self._symbols.arrays, symbol=symbol, as_of=as_of, tie=bars.tie[rows]
        )
        in_sample = (
            (as_of >= self.ladder.trained_from[raw.model]) & (as_of <= self.ladder.trained_to[raw.model])
        ).astype(np.uint8)
        units = raw.moves / asked.scale[:, None, None]
        return scoring.Answers(
            units, asked.anchor, asked.scale, raw.model, in_sample, high, low, np.empty_like(units),
            np.empty(len(rows), np.float32), np.empty(len(rows), np.uint8),
        )  # fmt: skip

    def _forecasts(self, asked: Asked, raw: Raw, answers: scoring.Answers, flags: U8) -> Forecasts:
        """What is published, in the series' own unit of today."""
        bars, rows = asked.closed.bars.take(asked.rows), asked.rows
        anchor, scale = asked.anchor, asked.scale
        quantiles = windows.prices(self._transform, anchor, answers.wide * scale[:, None, None])
        factor = self.builder.unit_factor(bars.symbol, bars.as_of)
        if factor is not None:
            quantiles, anchor = quantiles * factor[:, None, None], anchor * factor
            scale = scale if self._transform == windows.LOG_RETURN else scale * factor
        return Forecasts(
            bars.symbol, bars.ordinal, bars.as_of, bars.tie, bars.partition, bars.offset, anchor, scale, raw.rung,
            raw.model, flags, answers.id_high, answers.id_low, windows.input_hash(asked.inputs),
            self.targets(bars.as_of), quantiles, answers.confidence, raw.probs, asked.closed.stamps_ns[rows],
        )  # fmt: skip
