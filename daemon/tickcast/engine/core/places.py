"""Places: when all of the symbol table's are taken, whose another symbol may have. It decides; the engine clears them.

Everything is measured in event time and in offsets, and is part of a snapshot: so the same messages give the same
answer, however they are cut into batches.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tickcast.columns import I64, RawBatch, Rejects, Source
from tickcast.engine.core.bars import KINDS
from tickcast.engine.core.fold import MS, BarBuilder
from tickcast.engine.core.fold_state import NEVER
from tickcast.engine.core.schedule import trading_times
from tickcast.errors import Reason
from tickcast.settings import Settings
from tickcast.state import State
from tickcast.symbols import SymbolTable

MINUTE_NS = 60 * 10**9
NEWCOMER_NS = MINUTE_NS  # silence after which a symbol that never made a move may go
MADE_A_MOVE = 2  # closed bars
ONE_OF, AT_ONCE = 8, 64  # this part of all places is given back at once, or so many: each time the units are awaited
BLOCK = 128  # offsets of a partition within which nobody looks again once none was found: a flood costs little
NOBODY: I64 = np.empty(0, np.int64)


class Places:
    def __init__(self, settings: Settings, symbols: SymbolTable) -> None:
        self.leaving: I64 = NOBODY  # codes whose symbols are to be forgotten
        self._symbols = symbols
        self._silent_ns = settings.symbols.silent_ms * MS
        self._a_minute = settings.symbols.new_per_minute
        self._minute, self._passed = 0, 0  # of event time, and how many places passed in it
        self._refused: dict[Source, tuple[int, int]] = {}  # block in which one was last refused, and why

    def turning_points(self, raw: RawBatch, rejects: Rejects) -> Iterator[int]:
        """The messages before which to look for places: in each block the first with a name that found none."""
        homeless = np.flatnonzero(rejects.reason == Reason.SYMBOL_LIMIT)
        if not len(homeless):
            return
        source, rows = (raw.topic, raw.partition), rejects.row[homeless]
        block = raw.offsets[rows] // BLOCK
        last, why = self._refused.get(source, (-1, int(Reason.SYMBOL_LIMIT)))
        begins = [*np.flatnonzero(np.diff(block, prepend=last)).tolist(), len(rows)]
        rejects.reason[homeless[: begins[0]]] = why
        for first, end in pairwise(begins):
            yield int(rows[first])
            rejects.reason[homeless[first:end]] = self._refused[source][1]  # else nobody would have gone on

    def look(self, raw: RawBatch, row: int, builder: BarBuilder) -> bool:
        """Whether some places are given back, as soon as `leaving` is cleared; all before this message is folded."""
        if len(self.leaving):
            return True
        silent, passed = self._silent(builder), self._passed_by(builder.newest_ns() // MINUTE_NS)
        most = min(max(AT_ONCE, self._symbols.limit // ONE_OF), self._a_minute - passed)
        self.leaving = np.sort(silent[: max(most, 0)])
        if len(self.leaving):
            return True
        why = Reason.SYMBOL_RATE if len(silent) else Reason.SYMBOL_LIMIT
        self._refused[raw.topic, raw.partition] = int(raw.offsets[row]) // BLOCK, int(why)
        return False

    def pass_on(self, builder: BarBuilder) -> None:
        """`leaving` is cleared."""
        minute = builder.newest_ns() // MINUTE_NS
        self._minute, self._passed = minute, self._passed_by(minute) + len(self.leaving)
        self.leaving = NOBODY

    def _passed_by(self, minute: int) -> int:
        """How many places passed in that minute of event time."""
        return self._passed if minute == self._minute else 0

    def _silent(self, builder: BarBuilder) -> I64:
        """Those who may go, the longest silent first."""
        made, silence = builder.state.symbol["next"][: len(self._symbols)], self._silence(builder)
        may_go = (made < MADE_A_MOVE) & (silence >= min(NEWCOMER_NS, self._silent_ns or NEWCOMER_NS))
        if self._silent_ns:
            may_go |= silence >= self._silent_ns
        codes = np.flatnonzero(self._nothing_open(builder) & may_go)
        return codes[np.lexsort((codes, -silence[codes]))]

    def _silence(self, builder: BarBuilder) -> I64:
        """Trading time since each symbol's last tick, by the newest event time anywhere: else a partition that nobody
        writes to any more would hold its places for good. Of one that never had a tick more than of any other."""
        state = builder.state.symbol[: len(self._symbols)]
        now = np.full(len(state), builder.newest_ns())
        last = np.where(state["ticks"] > 0, state["newest"], NEVER)
        last = np.maximum(last, np.where(state["next"] > 0, state["as_of"], NEVER))
        silence: I64 = trading_times(builder.closed_time, now) - trading_times(builder.closed_time, last)
        return silence

    def _nothing_open(self, builder: BarBuilder) -> npt.NDArray[np.bool_]:
        """Who is known, and has no open time bar and no tick that waits to be confirmed."""
        known = len(self._symbols)
        free: npt.NDArray[np.bool_] = self._symbols.arrays.lengths[:known] > 0
        if builder.rules.kind == KINDS["time"]:
            free &= ~builder.state.open["ticks"][:known].any(axis=1)
        for held, part in zip(builder.state.held, builder.state.partition[: len(builder.partitions)], strict=False):
            free[held[: part["holds"]]["symbol"]] = False
        return free

    def snapshot(self) -> State:
        told = [[*source, *refused] for source, refused in self._refused.items()]
        return State(facts={"minute": self._minute, "passed": self._passed, "refused": told})

    def resume(self, state: State) -> None:
        self._minute, self._passed = state.facts["minute"], state.facts["passed"]
        self._refused = {(topic, number): (block, why) for topic, number, block, why in state.facts["refused"]}
