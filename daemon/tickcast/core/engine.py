"""The engine: events in, what happened out. One bare `turn`; no I/O, no logging, no clock of its own.

A turn folds ticks into bars, opens the questions that are due with their windows copied, asks each model once for
all of them, and then works through the closed bars in order: settle, adapt at marks, answer. See ARCHITECTURE.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tickcast.columns import (
    F64,
    I32,
    I64,
    U8,
    BarBatch,
    FeatureRows,
    Forecasts,
    Inputs,
    RawBatch,
    Rejects,
    TickBatch,
)  # fmt: skip
from tickcast.core import scoring, windows
from tickcast.core.asking import Asking, Wanted, rows_in
from tickcast.core.events import Event, Heartbeat, Letters, Outcome, Reached
from tickcast.core.features import FeatureSet
from tickcast.core.fold import Adjustments, ClosedBars, Folder, ring_length
from tickcast.core.ladder import Ladder, Raw
from tickcast.core.on_demand import Ask, Window
from tickcast.core.questions import NOBODY, due, make_ids
from tickcast.core.routes import DEFAULT, NO_MODEL, Routes
from tickcast.core.schedule import ALWAYS_OPEN, ClosedTime, target_times
from tickcast.core.scorekeeper import Scorekeeper, rows_of
from tickcast.errors import BadOutput, BadRequest, Quality, Reason
from tickcast.plugin import Runner
from tickcast.records import Command
from tickcast.settings import Settings
from tickcast.state import Array, Part, State, put_rows
from tickcast.symbols import SymbolTable


class Decoder(Protocol):
    def decode(self, raw: RawBatch) -> tuple[TickBatch, Rejects]: ...


U8_COLD, U8_IN_SAMPLE = np.uint8(Quality.ADAPTIVE_COLD), np.uint8(Quality.IN_SAMPLE)


@dataclass(slots=True)
class _Asked:
    """Bars closed in this turn, and the questions that they opened, not yet answered."""

    closed: ClosedBars
    rows: I64  # of `closed` that opened a question
    inputs: Inputs
    anchor: F64
    scale: F64
    model: I32


class Engine:
    def __init__(
        self, settings: Settings, symbols: SymbolTable, decoder: Decoder, features: FeatureSet, ladder: Ladder | None,
        *, closed_time: ClosedTime = ALWAYS_OPEN, adjustments: Adjustments | None = None,
    ) -> None:  # fmt: skip
        self.ladder = ladder
        self.feature_failures: dict[str, int] = {}  # by plugin: batches in which it failed
        self.last_failure = ""
        self.positions: dict[tuple[str, int], int] = {}  # next offset of every partition read
        self.folder = Folder(
            settings, symbols, feature_lookback=features.lookback, closed_time=closed_time, adjustments=adjustments
        )
        self.scorekeeper = Scorekeeper(settings, symbols, ladder.cards if ladder else [])
        self.routes = Routes(symbols, settings.symbols.groups, ladder.cards if ladder else [])
        self._asking = Asking(self, settings, symbols)
        self._settings = settings
        self._symbols = symbols
        self._decoder = decoder
        self._features = features
        self._transform = windows.TRANSFORMS[settings.forecast.transform]
        length = ring_length(settings, features.lookback)
        self._values = np.zeros((settings.symbols.limit * length, len(features.names)))
        self._pending: list[_Asked] = []
        self._outcome = Outcome()

    def turn(self, events: Sequence[Event], now_ns: int) -> Outcome:
        """Take the events in order and return all that happened. A command waits until what came before is answered."""
        self._outcome = outcome = Outcome()
        for event in events:
            if isinstance(event, RawBatch):
                self._take(event)
            elif isinstance(event, Heartbeat):
                for closed in self.folder.beat(event.topic, event.partition, ts=event.ts, offset=event.offset):
                    self._open_questions(closed)
                self._reach(Reached(event.topic, event.partition, event.offset + 1))
            elif isinstance(event, Letters):
                self._refuse(event)
            elif isinstance(event, Reached):
                self._reach(event)
            elif isinstance(event, Ask):
                self._want(event)
            else:
                self._answer(now_ns)
                self._obey(event)
        self._answer(now_ns)
        return outcome

    def newest_ns(self) -> int:
        return self.folder.newest_ns()

    def bars_needed(self) -> int:
        """Bars of history with which every model of the ladder can answer at once."""
        return self._settings.window.lookback + self._features.lookback

    def restore(self, bars: BarBatch) -> None:
        """Fill the windows with stored bars, sorted by symbol and ordinal, before the first turn."""
        self.folder.restore(bars)
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

    def _parts(self) -> dict[str, Part]:
        """What remembers something, in the order in which it is resumed."""
        ladder: dict[str, Part] = {} if self.ladder is None else {"ladder": self.ladder, "routes": self.routes}
        return {"symbols": self._symbols, "folder": self.folder, "score": self.scorekeeper, **ladder}

    def _ring(self) -> Iterator[tuple[str, Array, I64]]:
        """The columns of the rings, each with the rows that bars yet to come look back on."""
        lookback = self._settings.window.lookback
        rows = self.folder.newest_rows(max(lookback, self._features.lookback))
        yield from ((name, column, rows) for name, column in windows.ring_columns(self.folder.bars).items())
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

    def _take(self, raw: RawBatch) -> None:
        ticks, rejects = self._decoder.decode(raw)
        if len(rejects):
            self._refuse(Letters(raw, rejects))
        for item in self.folder.fold(raw, ticks):
            if isinstance(item, ClosedBars):
                self._open_questions(item)
            else:
                self._outcome.letters.append(Letters(*item))
        if len(raw):
            self._reach(Reached(raw.topic, raw.partition, int(raw.offsets[-1]) + 1))

    def _refuse(self, letters: Letters) -> None:
        """Count them; all but other messages of the feed become dead letters."""
        raw, rejects = letters
        self.folder.decode_rejects += np.bincount(rejects.reason, minlength=len(self.folder.decode_rejects))
        poison = rejects.take(rejects.reason != Reason.OTHER_EVENT)
        if len(poison):
            self._outcome.letters.append(Letters(raw, poison))

    def _reach(self, reached: Reached) -> None:
        source = (reached.topic, reached.partition)
        self.folder.partition(*source)
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
        window = self._window(bars.symbol[rows], bars.as_of[rows], bars.ordinal[rows], first[rows])
        self._pending.append(_Asked(closed, rows, *window, model[rows].astype(np.int32)))

    def _window(self, symbol: I32, as_of: I64, ordinal: I64, first: I64) -> Window:
        """What a model is asked at these bars, copied."""
        names = self._settings.features.future
        future = (
            windows.calendar_channels(self.targets(as_of), list(names))
            if names
            else np.empty((len(symbol), self._settings.forecast.horizon, 0), np.float32)
        )
        return Window(*windows.gather_inputs(
            self.folder.bars, self._values, symbol, ordinal, first,
            lookback=self._settings.window.lookback, transform=self._transform, future=future,
        ))  # fmt: skip

    def _want(self, ask: Ask) -> None:
        """Its windows as they are at this place in the stream; the models are asked together with what else is due."""
        self._open_closed()
        self._outcome.answers += self._asking.take(ask, self._window)

    def _remember(self, bars: BarBatch, first: I64) -> F64:
        """Compute the features of bars that are in the rings, and keep them beside the bars."""
        ring, values = self.folder.bars, self._compute(bars, first)
        self._values[ring.start[bars.symbol] + (bars.ordinal & ring.wrap)] = values
        return values

    def _compute(self, bars: BarBatch, first: I64) -> F64:
        return self._features.compute(self.folder.bars, bars.symbol, bars.ordinal, first, on_failure=self._note_failure)

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
        return target_times(self.folder.closed_time, as_of, steps=steps, every_ns=self.folder.rules.every_ns)

    def _answer(self, now_ns: int) -> None:
        """Ask the models once for all pending questions, then work through the closed bars in order."""
        self._open_closed()
        pending, self._pending = self._pending, []
        wanted = self._asking.waiting()
        if not (pending or wanted) or self.ladder is None:
            return
        asked = [self._shed(_join(pending), now_ns)] if pending else []
        raw = self.ladder.ask(*_together(asked, wanted))
        at = 0
        for questions in asked:
            at = len(questions.rows)
            self._settle(questions, rows_in(raw, slice(at)))
        for want in wanted:
            self._outcome.answers.append(self._asking.answer(want, rows_in(raw, slice(at, at + len(want)))))
            at += len(want)

    def _open_closed(self) -> None:
        for closed in self.folder.closed():
            self._open_questions(closed)

    def _settle(self, asked: _Asked, raw: Raw) -> None:
        """Work through closed bars, whose questions the models have answered."""
        bars = asked.closed.bars
        answers = self._answers(asked, raw)
        question = np.full(len(bars), -1, np.int64)
        question[asked.rows] = np.arange(len(asked.rows))
        rows = rows_of(bars, asked.closed.void_before, question)
        scores = self.scorekeeper.settle(rows, answers, self.folder.marks())
        if len(scores):
            self._outcome.scores.append(scores)
        if len(asked.rows):
            self._outcome.questions += len(asked.rows)
            flags = raw.flags | answers.cold * U8_COLD | answers.in_sample * U8_IN_SAMPLE
            self._outcome.forecasts.append(self._forecasts(asked, raw, answers, flags))

    def _shed(self, asked: _Asked, now_ns: int) -> _Asked:
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
        return _Asked(
            asked.closed, rows[keep], asked.inputs.take(keep), asked.anchor[keep], asked.scale[keep], asked.model[keep]
        )

    def _answers(self, asked: _Asked, raw: Raw) -> scoring.Answers:
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

    def _forecasts(self, asked: _Asked, raw: Raw, answers: scoring.Answers, flags: U8) -> Forecasts:
        """What is published, in the series' own unit of today."""
        bars, rows = asked.closed.bars.take(asked.rows), asked.rows
        anchor, scale = asked.anchor, asked.scale
        quantiles = windows.prices(self._transform, anchor, answers.wide * scale[:, None, None])
        factor = self.folder.unit_factor(bars.symbol, bars.as_of)
        if factor is not None:
            quantiles, anchor = quantiles * factor[:, None, None], anchor * factor
            scale = scale if self._transform == windows.LOG_RETURN else scale * factor
        return Forecasts(
            bars.symbol, bars.ordinal, bars.as_of, bars.tie, bars.partition, bars.offset, anchor, scale, raw.rung,
            raw.model, flags, answers.id_high, answers.id_low, windows.input_hash(asked.inputs),
            self.targets(bars.as_of), quantiles, answers.confidence, raw.probs, asked.closed.stamps_ns[rows],
        )  # fmt: skip


def _together(asked: list[_Asked], wanted: list[Wanted]) -> tuple[Inputs, I32, I32, I64]:
    """What the models are asked, which of them, and about which bars; those that somebody asks about are nobody's."""
    inputs = [*(a.inputs for a in asked), *(w.window.inputs for w in wanted)]
    nobody = [np.full(len(w), -1, np.int32) for w in wanted]
    return (
        Inputs.concat(inputs) if len(inputs) > 1 else inputs[0],
        np.concatenate([*(a.model for a in asked), *(w.model for w in wanted)]),
        np.concatenate([*(a.closed.bars.symbol[a.rows] for a in asked), *nobody]),
        np.concatenate([*(a.closed.bars.ordinal[a.rows] for a in asked), *nobody]),
    )


def _join(pending: list[_Asked]) -> _Asked:
    """All of a turn's closed bars as one, in the order in which they closed."""
    if len(pending) == 1:
        return pending[0]
    starts = np.cumsum([0, *(len(a.closed.bars) for a in pending[:-1])])
    closed = ClosedBars(
        BarBatch.concat([a.closed.bars for a in pending]), np.concatenate([a.closed.first for a in pending]),
        np.concatenate([a.closed.void_before for a in pending]), np.concatenate([a.closed.stamps_ns for a in pending]),
    )  # fmt: skip
    return _Asked(
        closed, np.concatenate([a.rows + start for a, start in zip(pending, starts, strict=True)]),
        Inputs.concat([a.inputs for a in pending]), np.concatenate([a.anchor for a in pending]),
        np.concatenate([a.scale for a in pending]), np.concatenate([a.model for a in pending]),
    )  # fmt: skip
