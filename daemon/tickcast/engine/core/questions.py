"""Questions are opened here: by bars that close, and by who asks; their windows are copied, and it is said who is to
answer. And what a forecast is called. It never predicts.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from numba import njit

from tickcast.columns import F64, I32, I64, U8, U64, BarBatch, Bars, Inputs
from tickcast.engine.core import windows
from tickcast.engine.core.bars import KINDS
from tickcast.engine.core.events import Ask
from tickcast.engine.core.features import FeatureSet
from tickcast.engine.core.fold import BarBuilder, ClosedBars
from tickcast.engine.core.ladder import NOBODY, Ladder
from tickcast.engine.core.routes import Routes
from tickcast.engine.core.schedule import target_times
from tickcast.engine.core.windows import mix
from tickcast.errors import BadOutput, BadRequest
from tickcast.questions import TICKS, Questions
from tickcast.records import ModelCard
from tickcast.scales import speeds
from tickcast.settings import Settings
from tickcast.state import Array, State, put_rows
from tickcast.symbols import SymbolArrays, SymbolTable

Mask = npt.NDArray[np.bool_]
Windows = tuple[Inputs, F64, F64]  # with anchor and scale
TILE_DETERMINISTIC = 32  # rows of every call of a graph


class Questioner:
    """Opens questions, and keeps what windows are made of beside the bars: their features' values."""

    def __init__(
        self, settings: Settings, symbols: SymbolTable, builder: BarBuilder, features: FeatureSet,
        ladder: Ladder | None, routes: Routes,
    ) -> None:  # fmt: skip
        self.feature_failures: dict[str, int] = {}  # by plugin: batches in which it failed
        self.last_failure = ""
        self._settings, self._symbols, self._builder = settings, symbols, builder
        self._features, self._ladder, self._routes = features, ladder, routes
        self._lookback = settings.window.lookback
        self._transform = windows.TRANSFORMS[settings.forecast.transform]
        self._speeds = speeds(settings.window.scale, self._lookback)
        self._tile = TILE_DETERMINISTIC if settings.runtime.deterministic else 0
        self.values = np.zeros((len(builder.bars.close), len(features.names)))

    def of_bars(self, closed: ClosedBars, due: Mask, *, before: int) -> Questions:
        """Those of the bars that are `due`, but of cold symbols; so many others closed `before` them in this turn."""
        model = self._choose(closed.bars.symbol, closed.bars.ordinal - closed.first + 1)
        rows = np.flatnonzero(due & (model != NOBODY))
        bars, first = closed.bars, closed.first[rows]
        symbol, ordinal, as_of = bars.symbol[rows], bars.ordinal[rows], bars.as_of[rows]
        inputs, anchor, scale = self._windows(self._builder.bars, self.values, symbol, ordinal, first, as_of)
        return Questions(
            asker=np.full(len(rows), TICKS, np.int32), symbol=symbol, ordinal=ordinal, as_of=as_of, row=before + rows,
            model=model[rows].astype(np.int32), anchor=anchor, scale=scale, inputs=inputs,
            names=self._symbols.names, tile=self._tile,
        )  # fmt: skip

    def of_ask(self, ask: Ask, asker: int) -> Questions:
        """Those of who asks, by number; BadRequest where there is no answer, BadOutput where a feature gives none."""
        if self._ladder is None:
            raise BadRequest("this deployment forecasts nothing", remedy="set model.default to another than none")
        levels = self._settings.forecast.quantiles
        wants_widths = ask.confidence_level is not None or ask.bounds is not None
        if wants_widths and not levels[0] < 0.5 < levels[-1]:
            raise BadRequest(
                "it needs a level on each side of the median", remedy="forecast.quantiles names the levels"
            )
        if ask.bars is None:
            symbol = self._codes(ask.symbols)
            ordinal, first, as_of = self._builder.newest_bars(symbol)
            held = ordinal - first + 1
            window = self._windows(self._builder.bars, self.values, symbol, ordinal, first, as_of)
        else:
            symbol = np.array([self._symbols.find(ask.symbols[0]) if ask.symbols else -1], np.int32)
            as_of, held = np.array([ask.as_of]), np.array([len(ask.bars.close)])
            ordinal, window = np.array([-1]), self._windows_of(ask.bars, as_of)
        inputs, anchor, scale = window
        model, none = self._who_answers(ask, symbol, held), np.full(len(symbol), -1)
        return Questions(
            asker=np.full(len(symbol), asker, np.int32), symbol=symbol, ordinal=ordinal, as_of=as_of, row=none,
            model=model, anchor=anchor, scale=scale, inputs=inputs, names=self._symbols.names, tile=self._tile,
        )  # fmt: skip

    def targets(self, as_of: I64) -> I64:
        """[B, H] ends of the bars to come; -1 where nobody knows them."""
        steps, builder = self._settings.forecast.horizon, self._builder
        if self._settings.bars.kind != "time":
            return np.full((len(as_of), steps), -1, np.int64)
        return target_times(builder.closed_time, as_of, steps=steps, every_ns=builder.rules.every_ns)

    def remember(self, bars: BarBatch, first: I64) -> F64:
        """Compute the features of bars that are in the rings, and keep them beside the bars."""
        ring, values = self._builder.bars, self.compute(bars, first)
        self.values[ring.start[bars.symbol] + (bars.ordinal & ring.wrap)] = values
        return values

    def compute(self, bars: BarBatch, first: I64) -> F64:
        return self._features.compute(
            self._builder.bars, bars.symbol, bars.ordinal, first, on_failure=self._note_failure
        )

    def forget(self, codes: I64) -> None:
        self.values.reshape(self._settings.symbols.limit, -1)[codes] = 0

    def snapshot(self) -> State:
        """Of bars and values what bars yet to come look back on."""
        return State({name: np.take(column, rows, axis=0) for name, column, rows in self._rings()})

    def resume(self, state: State) -> None:
        for name, column, rows in self._rings():
            put_rows(state.arrays[name], column, name, rows)

    def _rings(self) -> Iterator[tuple[str, Array, I64]]:
        rows = self._builder.newest_rows(max(self._lookback, self._features.lookback))
        yield from ((name, column, rows) for name, column in windows.ring_columns(self._builder.bars).items())
        yield "values", self.values, rows[:, -self._lookback :]

    def _note_failure(self, kind: str, failure: BadOutput) -> None:
        """A feature without a value makes its windows unusable: those questions are answered by last value, flagged."""
        self.feature_failures[kind] = self.feature_failures.get(kind, 0) + 1
        self.last_failure = str(failure)

    def _windows(self, bars: Bars, values: F64, symbol: I32, ordinal: I64, first: I64, as_of: I64) -> Windows:
        """Copies of those that end at `ordinal` and begin no earlier than `first`, with anchor and scale."""
        names, shape = self._settings.features.future, (len(symbol), self._settings.forecast.horizon, 0)
        future = windows.calendar_channels(self.targets(as_of), [*names]) if names else np.empty(shape, np.float32)
        return windows.gather_inputs(
            bars, values, symbol, ordinal, first, lookback=self._lookback, transform=self._transform, future=future,
            speeds=self._speeds,
        )  # fmt: skip

    def _windows_of(self, bars: Bars, as_of: I64) -> Windows:
        """That of bars which somebody brings along, by the same features and the same gather as the rings'."""
        count, features = len(bars.close), self._features
        if not all(np.isfinite(column).all() for column in bars[:5]):
            raise BadRequest("a given bar is not a number")
        if self._transform == windows.LOG_RETURN and not all((column > 0).all() for column in bars[:4]):
            raise BadRequest("prices must be positive: forecast.transform is log_return")
        if count <= features.lookback:
            raise BadRequest(
                f"{count} bars are too few: features look back {features.lookback}",
                remedy=f"give {self._lookback} and those",
            )
        if self._settings.features.future and ((as_of < 0) | (self.targets(as_of)[:, 0] < 0)).any():
            raise BadRequest("this deployment's models look at the calendar", remedy="give `as_of`, the last bar's end")
        symbol, ordinal, first = np.zeros(count, np.int32), np.arange(count), np.zeros(count, np.int64)
        values = np.nan_to_num(features.compute(bars, symbol, ordinal, first))
        first += features.lookback - 1  # older bars have no values: for the model they are not there
        return self._windows(bars, values, symbol[-1:], ordinal[-1:], first[-1:], as_of)

    def _codes(self, names: tuple[str, ...]) -> I32:
        codes = [self._symbols.find(name) for name in names]
        if -1 in codes:
            raise BadRequest(
                f"no symbol '{names[codes.index(-1)]}' has been seen", remedy="`symbols` lists those that have"
            )
        return np.array(codes, np.int32)

    def _choose(self, symbol: I32, bars_held: I64) -> U8:
        assert self._ladder is not None
        return self._routes.choose(self._ladder.choose(bars_held), symbol, bars_held)

    def _who_answers(self, ask: Ask, symbol: I32, bars_held: I64) -> I32:
        """The model of each row: the one that was asked for, else who answers the ticks. One that is not the ladder's
        has no number."""
        assert self._ladder is not None
        if ask.runner is not None:
            model = np.where(bars_held >= ask.runner.card.need_bars, 0, NOBODY)
        elif ask.model:
            number = self._ladder.number(ask.model)
            model = np.where(bars_held >= self._ladder.cards[number].need_bars, number, NOBODY)
        else:
            model = self._choose(np.maximum(symbol, 0), bars_held)
        if (model == NOBODY).any():
            cold = ask.symbols[int((model == NOBODY).argmax())] if ask.symbols else "the window"
            raise BadRequest(f"{cold} has too few bars to be forecast", remedy="ask again when it has more")
        return model.astype(np.int32)


@njit(cache=True, nogil=True)
def _due(kind, every_ns, every_bars, as_of, ordinal, mask, out):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        step = as_of[i] // every_ns if kind == 0 else ordinal[i] + 1
        out[i] = mask[i] == 1 and step % every_bars == 0


def due(settings: Settings, as_of: I64, ordinal: I64, mask: U8) -> Mask:
    """Rows whose turn it is. Time bars go by as_of, so every symbol is asked at the same instants."""
    out, every_ns, every_bars = (
        np.empty(len(as_of), np.bool_),
        settings.bars.every_ms * 10**6,
        settings.forecast.every_bars,
    )
    _due(KINDS[settings.bars.kind], every_ns, every_bars, as_of, ordinal, mask, out)
    return out


def bar_identity(settings: Settings) -> dict[str, object]:
    """The settings that decide which bars exist: part of every forecast id and model card."""
    every = {"time": "every_ms", "tick": "every_ticks", "volume": "every_size"}[settings.bars.kind]
    return {
        "kind": settings.bars.kind, every: getattr(settings.bars, every), "on_gap": settings.bars.on_gap,
        "calendar": settings.bars.calendar,
    }  # fmt: skip


def id_seeds(cards: Sequence[ModelCard], settings: Settings) -> U64:
    """[models, 2]: 128 bits of (model digest, bar settings, H), which every id of that model starts from."""
    seeds = np.empty((len(cards), 2), np.uint64)
    for i, card in enumerate(cards):
        text = json.dumps([card.digest, bar_identity(settings), settings.forecast.horizon], sort_keys=True)
        seeds[i] = np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), np.uint64)
    return seeds


@njit(cache=True, nogil=True)
def ids(seeds, model, table, symbol, as_of, tie, high, low):  # type: ignore[no-untyped-def]
    """128-bit forecast ids from (seed of the model, symbol name, as_of, tie): the same on every run and machine."""
    for i in range(len(symbol)):
        a, b = seeds[model[i], 0], seeds[model[i], 1]
        for k in range(table.lengths[symbol[i]]):
            byte = np.uint64(table.names[symbol[i], k])
            a = (a ^ byte) * np.uint64(0x100000001B3)
            b = (b + byte) * np.uint64(0x9E3779B97F4A7C15)
        t, n = np.uint64(as_of[i]), np.uint64(tie[i])
        a = mix(mix(a ^ t) + n)
        b = mix(mix(b + t) ^ (n * np.uint64(0xD1B54A32D192ED03)))
        high[i], low[i] = mix(a + b * np.uint64(3)), mix(b ^ (a >> np.uint64(1)))


def make_ids(seeds: U64, model: I32, table: SymbolArrays, *, symbol: I32, as_of: I64, tie: I32) -> tuple[U64, U64]:
    high, low = np.empty(len(symbol), np.uint64), np.empty(len(symbol), np.uint64)
    ids(seeds, model, table, symbol, as_of, tie, high, low)
    return high, low
