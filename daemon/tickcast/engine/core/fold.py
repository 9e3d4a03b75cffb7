"""The BarBuilder: the folding kernel with its state, fed by one RawBatch of decoded ticks at a time."""

import hashlib
import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.columns import F64, I32, I64, U8, BarBatch, RawBatch, Rejects, TickBatch
from tickcast.engine.core import bars as folding
from tickcast.engine.core import fold_state
from tickcast.engine.core.bars import LATEST_NS
from tickcast.engine.core.fold_state import HeldMessage
from tickcast.engine.core.schedule import ALWAYS_OPEN, ClosedTime
from tickcast.engine.core.windows import ring, ring_columns
from tickcast.errors import REASON_COUNT, BadSettings, BadStore, Reason
from tickcast.settings import Settings
from tickcast.state import State, copied, put_back, put_rows
from tickcast.symbols import SymbolTable

ROOM = 1 << 16  # bars that one call of the kernel may close, at least
PARTITIONS = 256
LEAST_JUMP_MS, JUMP_BARS = 3_600_000, 100
MS = 10**6
LOUD = np.ones(REASON_COUNT, np.bool_)  # by outcome of a tick: whether it makes a dead letter
LOUD[[Reason.ACCEPTED, Reason.LATE, Reason.HELD, Reason.OTHER_EVENT, Reason.TOMBSTONE]] = False


class Adjustments(NamedTuple):
    """Splits, by symbol: from `ts` on, one old unit is `factor` new price units."""

    symbol: list[str]
    ts: I64
    factor: F64


NO_SPLITS = Adjustments([], np.empty(0, np.int64), np.empty(0))


class ClosedBars(NamedTuple):
    """Bars of one or more partitions, of each in the order in which they closed."""

    bars: BarBatch
    first: I64  # oldest bar of each symbol's window
    void_before: I64
    stamps_ns: I64  # broker timestamp of the record that closed it

    @classmethod
    def join(cls, parts: "list[ClosedBars]") -> "ClosedBars":
        """As one, in the order in which they closed."""
        if len(parts) == 1:
            return parts[0]
        bars, *columns = zip(*parts, strict=True)
        return cls(BarBatch.concat([*bars]), *(np.concatenate(column) for column in columns))


Refused = tuple[RawBatch, Rejects]  # messages, and which of them


class Feed(NamedTuple):
    """Ticks of a partition on their way through the fold."""

    raw: RawBatch
    ticks: TickBatch
    partition: int  # the engine's number
    latest_ns: int  # no later event time is believed
    outcome: U8  # by tick, errors.Reason
    waiting: I64  # ticks that wait to be confirmed; -1 = none


def rules_of(settings: Settings, feature_lookback: int, splits: Adjustments = NO_SPLITS) -> fold_state.Rules:
    bars, quality = settings.bars, settings.quality
    longest_fill = settings.window.lookback + settings.forecast.horizon
    every_ms = bars.every_ms if bars.kind == "time" else 0
    return fold_state.Rules(
        kind=folding.KINDS[bars.kind], every_ns=bars.every_ms * MS, every_ticks=bars.every_ticks,
        every_size=bars.every_size, lateness_ns=bars.lateness_ms * MS, on_gap=folding.GAPS[bars.on_gap],
        longest_fill=longest_fill, future_ns=quality.future_ms * MS, ancient_ns=quality.ancient_ms * MS,
        jump_ns=(quality.max_jump_ms or max(LEAST_JUMP_MS, JUMP_BARS * every_ms)) * MS,
        positive=settings.forecast.transform == "log_return", reject_crossed=quality.crossed == "reject",
        outlier_sigmas=quality.outlier_sigmas, adapt_every=settings.score.adapt_every_bars,
        slack=ring_length(settings, feature_lookback) - settings.window.lookback - feature_lookback,
        slots=bars.lateness_ms // bars.every_ms + 2 if bars.kind == "time" else 1,
        has_calendar=bars.calendar != "24x7", adjust_ns=splits.ts, adjust_factor=splits.factor,
    )  # fmt: skip


def ring_length(settings: Settings, feature_lookback: int) -> int:
    """Bars kept of each symbol: the window, what its features read, and room for a whole gap's fill in one batch."""
    window, fill = settings.window.lookback, settings.window.lookback + settings.forecast.horizon
    return 1 << (window + feature_lookback + fill + 1).bit_length()


class BarBuilder:
    def __init__(
        self, settings: Settings, symbols: SymbolTable, *, feature_lookback: int, closed_time: ClosedTime = ALWAYS_OPEN,
        adjustments: Adjustments | None = None,
    ) -> None:  # fmt: skip
        self._splits = adjustments or NO_SPLITS
        self.rules = rules_of(settings, feature_lookback, self._splits)
        self.closed_time = closed_time
        self.bars = ring(settings.symbols.limit, ring_length(settings, feature_lookback))
        self.partitions: dict[tuple[str, int], int] = {}
        self.decode_rejects = np.zeros(REASON_COUNT, np.int64)
        self._symbols = symbols
        self._state = fold_state.fresh_state(settings.symbols.limit, PARTITIONS, self.rules.slots)
        self._adjustments: dict[str, list[int]] = {}
        for row, name in enumerate(self._splits.symbol):
            self._adjustments.setdefault(name, []).append(row)
        self._room = fold_state.room(max(ROOM, self.rules.longest_fill + 1))
        self._waiting: set[int] = set()  # partitions that may have bars in the room
        self._known = 0
        self._batch = 0
        self._held: dict[int, list[HeldMessage]] = {}

    def sources(self) -> list[tuple[str, int]]:
        """(topic, partition) by the engine's number."""
        return list(self.partitions)

    def partition(self, topic: str, partition: int) -> int:
        """The engine's number of a partition."""
        key = (topic, partition)
        if key not in self.partitions:
            if len(self.partitions) == PARTITIONS:
                raise BadSettings(f"more than {PARTITIONS} partitions", remedy="run more slots")
            self.partitions[key] = len(self.partitions)
        return self.partitions[key]

    def marks(self) -> I64:
        """The newest adaptation mark of every partition."""
        marks: I64 = self._state.partition["mark"][: len(self.partitions)].copy()
        return marks

    def newest_ns(self) -> int:
        """The largest event time that was accepted anywhere; 0 before the first."""
        return max([0, *(int(self._state.partition[p]["newest"]) for p in range(len(self.partitions)))])

    def newest_of(self, source: tuple[str, int]) -> int:
        """The largest event time accepted from a partition."""
        return int(self._state.partition[self.partitions[source]]["newest"])

    def counts(self) -> I64:
        """Ticks and messages by Reason."""
        total: I64 = self._state.counts.sum(axis=0) + self.decode_rejects
        return total

    def arrived(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Ticks of each partition that came to the fold, and how many of them were late."""
        counts = self._state.counts
        return {
            source: (int(counts[p].sum()), int(counts[p, Reason.LATE])) for source, p in list(self.partitions.items())
        }

    @property
    def crossed(self) -> int:
        return int(self._state.crossed[0])

    def bars_held(self) -> I64:
        """Bars since each symbol was last cold."""
        state = self._state.symbol[: len(self._symbols)]
        held: I64 = state["next"] - state["first"]
        return held

    def newest_bars(self, symbol: I32) -> tuple[I64, I64, I64]:
        """Ordinal of the last closed bar of each, of its oldest since it was last cold, and the last one's as_of."""
        state = self._state.symbol[symbol]
        return state["next"] - 1, state["first"].copy(), state["as_of"].copy()

    def home_of(self, symbol: I32) -> I32:
        """The partition that each lives in; -1 where that is not known."""
        home: I32 = np.where(symbol >= 0, self._state.symbol["partition"][symbol], -1).astype(np.int32)
        return home

    @property
    def state(self) -> fold_state.FoldState:
        """To be read only."""
        return self._state

    def forget(self, codes: I64) -> None:
        """As if these had never been: their bars, and what is open of them. They are free to go."""
        home = self._state.symbol["partition"][codes]
        np.subtract.at(self._state.partition["symbols"], home[home >= 0], 1)
        fresh = fold_state.fresh_state(1, 1, 1)
        self._state.symbol[codes], self._state.open[codes] = fresh.symbol[0], fresh.open[0, 0]
        for column in ring_columns(self.bars).values():
            column.reshape(self._symbols.limit, -1)[codes] = 0
        self._known = 0

    def fold(self, raw: RawBatch, ticks: TickBatch, latest_ns: int = LATEST_NS) -> Iterator[ClosedBars | Refused]:
        """Leaves closed bars to `closed`; yields those that must be worked off before this partition may close more,
        and what was refused. No event time beyond `latest_ns` is believed.
        """
        p = self.partition(raw.topic, raw.partition)
        self._adopt_new_symbols()
        if p in self._waiting:
            yield from self.closed()
        outcome, waiting = np.zeros(len(ticks), np.uint8), np.full(fold_state.HELD_MOST, -1)
        feed = Feed(raw, ticks, p, min(latest_ns, LATEST_NS), outcome, waiting)
        first = self._run(feed, 0, self.rules)
        while first < len(ticks):
            yield from self.closed()
            if self._state.partition[p]["confirmed"]:
                yield from self._enter_held(feed, int(ticks.row[first]))
            first = self._run(feed, first, self.rules)
        yield from self._refused(feed)

    def closed(self) -> Iterator[ClosedBars]:
        """The bars that were not yielded yet, as one group, if there are any."""
        self._waiting.clear()
        if self._room.used[0]:
            c = fold_state.columns_for(int(self._room.used[0]))
            folding.split(self._room.bars, c)
            self._room.used[0] = 0
            bars = BarBatch(**{name: getattr(c, name) for name in BarBatch.__slots__})
            yield ClosedBars(bars, c.first, c.void_before, c.stamp)

    def _run(self, feed: Feed, first: int, rules: fold_state.Rules) -> int:
        """One call of the kernel, from the tick `first` on; what it closed is then in `_room` and in the rings."""
        raw, ticks, p, latest_ns, outcome, waiting = feed
        self._batch += 1
        self._waiting.add(p)
        before = int(self._room.used[0])
        columns = (ticks.symbol, ticks.ts, ticks.price, ticks.size, ticks.bid, ticks.ask, ticks.sequence, ticks.row)
        taken = folding.fold(
            self._state, rules, self.closed_time, self._room, p, columns, raw.stamps_ns, latest_ns, first, self._batch,
            outcome, waiting,
        )  # fmt: skip
        folding.store(self.bars, self._room.bars[before : self._room.used[0]], p, raw.offsets, raw.stamps_ns)
        return int(taken)

    def _enter_held(self, feed: Feed, row: int) -> Iterator[ClosedBars | Refused]:
        """The tick at `row` has confirmed the held ones, which now enter before it; their time is not asked again."""
        raw, p = feed.raw, feed.partition
        yield from self._false_jumps(p, source := (raw.topic, raw.partition))
        part, before = self._state.partition[p], self._held.pop(p, [])
        count = int(part["holds"])
        self._state.counts[p, Reason.HELD] -= count
        part["holds"] = part["confirmed"] = 0
        verdict, ticks = np.zeros(count, np.uint8), _as_ticks(self._state.held[p, :count], row)
        held = Feed(raw, ticks, p, LATEST_NS, verdict, np.full(count, -1))
        trusting = self.rules._replace(jump_ns=folding.NEVER_JUMPS, future_ns=0, ancient_ns=0)
        first = 0
        while (first := self._run(held, first, trusting)) < count:
            yield from self.closed()
        yield from self.closed()
        feed.outcome[feed.waiting[len(before) : count]] = verdict[len(before) :]
        feed.waiting[:] = -1
        yield from self._letters(verdict, before, source)

    def beat(self, topic: str, partition: int, *, ts: int, offset: int) -> Iterator[ClosedBars]:
        """A heartbeat as a batch of one row that is no tick."""
        raw = HeldMessage(np.zeros(0, np.uint8), 0, -1, offset, -1).batch((topic, partition))
        row = np.zeros(1, fold_state.HELD)
        row["symbol"], row["ts"], row["sequence"] = folding.HEARTBEAT, ts, -1
        yield from (item for item in self.fold(raw, _as_ticks(row, 0)) if isinstance(item, ClosedBars))

    def restore(self, bars: BarBatch) -> None:
        """Put stored bars, sorted by symbol and ordinal, into the rings, as if they had just closed."""
        at = self.bars.start[bars.symbol] + (bars.ordinal & self.bars.wrap)
        for name, column in ring_columns(self.bars).items():
            column[at] = getattr(bars, name)
        starts = np.flatnonzero(np.diff(bars.symbol, prepend=-1))
        fresh = bars.gap.astype(bool) & (self.rules.on_gap != folding.GAPS["join"])
        for first, end in zip(starts, [*starts[1:], len(bars)], strict=True):
            breaks = np.flatnonzero(fresh[first:end])
            state, last = self._state.symbol[bars.symbol[first]], end - 1
            state["close"] = bars.close[last]
            state["first"] = bars.ordinal[first + (breaks[-1] if len(breaks) else 0)]
            state["next"], state["as_of"], state["tie"] = bars.ordinal[last] + 1, bars.as_of[last], bars.tie[last]
            state["interval"], state["void_before"] = bars.as_of[last] - self.rules.every_ns, bars.ordinal[last] + 1
            if self.rules.kind != folding.KINDS["time"]:
                state["newest"], state["ticks"] = bars.as_of[last], 1

    def begin(self, source: tuple[str, int], *, newest_ns: int, closed_to_ns: int) -> None:
        """Event time of a partition whose bars were restored; for time bars, ticks before `closed_to_ns` come late."""
        part = self._state.partition[self.partition(*source)]
        part["newest"] = newest_ns
        if self.rules.kind == folding.KINDS["time"]:
            part["closed_to"] = closed_to_ns

    def settle_in(self, symbols: I32, partitions: I32) -> None:
        """The partition that each of these symbols comes from."""
        self._state.symbol["partition"][symbols] = partitions
        homes = self._state.symbol["partition"][: len(self._symbols)]
        self._state.partition["symbols"] = np.bincount(homes[homes >= 0], minlength=PARTITIONS)

    def _refused(self, feed: Feed) -> Iterator[Refused]:
        """What became dead letters; and the messages of ticks that are held from now on are kept."""
        raw, ticks, p, _, outcome, waiting = feed
        yield from self._false_jumps(p, (raw.topic, raw.partition))
        for i in waiting[waiting >= 0]:
            self._held.setdefault(p, []).append(HeldMessage.of(raw, int(ticks.row[i])))
        if outcome.any() and len(bad := np.flatnonzero(LOUD[outcome])):
            yield raw, Rejects(ticks.row[bad], outcome[bad], ticks.number[bad])

    def _false_jumps(self, p: int, source: tuple[str, int]) -> Iterator[Refused]:
        """The ticks held since an earlier batch, if they were contradicted in this one."""
        part = self._state.partition[p]
        if part["refused"]:
            part["refused"] = 0
            before = self._held.pop(p)
            yield from self._letters(np.full(len(before), Reason.JUMP, np.uint8), before, source)

    def _letters(self, verdict: U8, messages: list[HeldMessage], source: tuple[str, int]) -> Iterator[Refused]:
        """Of messages that were held since an earlier batch."""
        for reason, message in zip(verdict, messages, strict=False):
            if LOUD[reason]:
                yield message.batch(source), Rejects.of(0, reason, number=-1)

    def _adopt_new_symbols(self) -> None:
        """Point new symbols at their adjustments."""
        if self._adjustments and self._known < len(self._symbols):
            for code in range(self._known, len(self._symbols)):
                rows = self._adjustments.get(self._symbols.name(code), [])
                if rows:
                    state = self._state.symbol[code]
                    state["adjust_from"], state["adjust_to"] = rows[0], rows[-1] + 1
        self._known = len(self._symbols)

    def unit_factor(self, symbol: I32, as_of: I64) -> F64 | None:
        """What turns prices of a symbol's first day into those of `as_of`; None where no split is known."""
        if not self._adjustments:
            return None
        factor = np.ones(len(symbol))
        state, splits = self._state, self._splits
        for i in np.flatnonzero(state.symbol["adjust_to"][symbol] > state.symbol["adjust_from"][symbol]):
            one = state.symbol[symbol[i]]
            rows = slice(one["adjust_from"], one["adjust_to"])
            factor[i] = np.prod(splits.factor[rows][splits.ts[rows] <= as_of[i]])
        return factor

    def snapshot(self) -> State:
        """All but the rings. Splits and trading hours are files of the settings: only their digest is in it."""
        state = State.join({
            "fold": copied(
                self._state,
                dict.fromkeys(fold_state.PER_SYMBOL, len(self._symbols))
                | dict.fromkeys(fold_state.PER_PARTITION, len(self.partitions)),
            ),
            "codec": State({"rejects": self.decode_rejects.copy()}),
            "held": State(
                {f"{p}.{k}": one.data for p, held in self._held.items() for k, one in enumerate(held)},
                {str(p): [[*one[1:]] for one in held] for p, held in self._held.items()},
            ),
        })  # fmt: skip
        state.facts["sources"] = [[*source, self.newest_of(source)] for source in self.partitions]
        state.facts["batch"] = self._batch
        state.facts["past"] = self._digest_of_past()
        return state

    def resume(self, state: State) -> None:
        """Put back what `snapshot` gave; the symbols are there already."""
        for topic, partition, _ in state.facts["sources"]:
            self.partition(topic, partition)
        self._batch = state.facts["batch"]
        put_back(state.part("fold"), self._state)
        put_rows(state.arrays["codec.rejects"], self.decode_rejects, "codec.rejects")
        if self._digest_of_past() != state.facts["past"]:
            raise BadStore("splits or trading hours changed within the time that the state covers")
        held = state.part("held")
        self._held = {
            int(p): [HeldMessage(held.arrays[f"{p}.{k}"].copy(), *one) for k, one in enumerate(facts)]
            for p, facts in held.facts.items()
        }
        self._state.symbol["adjust_from"] = self._state.symbol["adjust_to"] = 0
        self._adopt_new_symbols()

    def newest_rows(self, keep: int) -> I64:
        """[known symbols, keep]: where in the rings the newest bars of each symbol lie, oldest first."""
        known = len(self._symbols)
        ordinal = self._state.symbol["next"][:known, None] + np.arange(-keep, 0)
        rows: I64 = self.bars.start[:known, None] + (ordinal & self.bars.wrap)
        return rows

    def _digest_of_past(self) -> str:
        """Of the splits and closed spans that have begun: later ones may still be added to their files."""
        now = self.newest_ns()
        spans, splits = self.closed_time.start <= now, np.flatnonzero(self._splits.ts <= now)
        columns = (self.closed_time.start[spans], self.closed_time.end[spans], self._splits.ts[splits],
                   self._splits.factor[splits])  # fmt: skip
        names = json.dumps([self._splits.symbol[row] for row in splits])
        return hashlib.sha256(b"".join([names.encode(), *(column.tobytes() for column in columns)])).hexdigest()


def _as_ticks(held: npt.NDArray[np.void], row: int) -> TickBatch:
    """Ticks as the partition keeps them, all of them by the message at `row`."""
    known = {name: np.ascontiguousarray(held[name]) for name in fold_state.HELD.names or ()}
    nothing, rows = np.full(len(held), np.nan), np.full(len(held), row, np.int32)
    return TickBatch(**known, bid=nothing, ask=nothing, row=rows, number=np.zeros(len(held), np.int32))


def match_group(groups: dict[str, list[str]], name: str) -> int:
    """The number of the first group whose patterns fit; group 0 is `all` and takes the rest."""
    for number, patterns in enumerate(groups.values(), start=1):
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            return number
    return 0
