"""The DriftWatch: detectors of every partition, which look at what closed bars settled and brought, and their alarms.

Coverage and skill are watched of every model. With a model that has a reference, the values of bars are, too: against
that of the model which is tried first. Everything moves at adaptation marks only, by the ticks of its own partition.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tickcast.columns import F64, I64, U8
from tickcast.engine.core import families
from tickcast.engine.core.channels import MISSING, Measured, measured, room
from tickcast.engine.core.detectors import ENDED, NOTHING, DetectorLimits
from tickcast.engine.core.drift_records import DriftNames, record_of
from tickcast.engine.core.families import FAMILIES, Seen
from tickcast.engine.core.fold import BarBuilder, ClosedBars
from tickcast.engine.core.ladder import Ladder, numbers_of
from tickcast.engine.core.scorekeeper import Scorekeeper
from tickcast.engine.core.scoring import LabelRows, SettledRows, labels_room
from tickcast.engine.core.watched import Watched, moved, watched_of
from tickcast.records import Drift
from tickcast.settings import Settings
from tickcast.state import State, copied, put_back, put_rows
from tickcast.symbols import SymbolTable

Mask = npt.NDArray[np.bool_]
TOLERANCE = 1.2  # times what a share should be is no drift yet
NOT_MEASURED = room(0, 0)


class DriftWatch:
    def __init__(
        self, settings: Settings, symbols: SymbolTable, builder: BarBuilder, scorekeeper: Scorekeeper,
        ladder: Ladder | None, *, channels: Sequence[str],
    ) -> None:  # fmt: skip
        self._settings, self._symbols, self._builder = settings, symbols, builder
        self._scorekeeper, self._channels = scorekeeper, channels
        self._ladder = ladder if settings.drift.enabled else None  # None = nothing is watched
        self._limits = limits_of(settings)
        self._told = np.zeros(0, np.int64)  # event times of the evaluations that `news` had
        self._turned = False  # an alarm ended between two turns
        self._measured: list[Measured] = []  # of the bars of this turn, not yet worked through
        if self._ladder is not None:
            self._watch(self._ladder)
            self._seen = self._nothing(0)

    def measure(self, closed: ClosedBars, values: F64) -> None:
        """Look at the values of closed bars while they are in the rings; `values` lie beside these."""
        if self._ladder is not None and self.watched.sketches is not None:
            bars, ring = closed.bars, self._builder.bars
            self._measured.append(
                measured(self.watched.sketches, ring, values, bars.symbol, bars.ordinal, closed.first)
            )

    def odd(self, bars: int) -> U8:
        """% of the values that are odd, of the bars that were measured and not yet worked through: so many."""
        if self._measured:
            return np.concatenate([part.share for part in self._measured])
        return np.full(bars, MISSING, np.uint8)

    def labels_room(self, rows: int) -> LabelRows:
        return labels_room(0 if self._ladder is None else rows)

    def follow(self, rows: SettledRows, labels: LabelRows, newest_mark: I64) -> list[Drift]:
        """Work through closed bars in order, those that were measured; what became of alarms."""
        if self._ladder is None:
            return []
        self._adopt_new_symbols()
        self._make_room(len(newest_mark))
        found, brought, at, seen = [], self._take_measured(), 0, self._seen
        while at >= 0:
            if self._turned:
                found += self._events()
            at = families.follow(
                seen.detectors, self.watched.streams, self._limits, seen.recent, seen.place, self.watched.lineup,
                self._expected, self._scorekeeper.group, rows, labels, brought, newest_mark, at,
            )  # fmt: skip
            self._turned = at >= 0
        return found

    def add_model(self) -> None:
        """The ladder has another one, which nobody asks yet."""
        if self._ladder is not None:
            self._move_in(self._seen, self.watched, np.arange(self.watched.lineup.models), self._ladder)

    def begin_anew(self) -> None:
        """Others answer from now on. Alarms end: they were about who serves no more, and whose evidence would stand."""
        if self._ladder is not None:
            self._begin(self._seen, self._ladder)
            self._end_alarms()

    def forget(self) -> None:
        """Some codes go to other symbols; what was seen of them stays with their groups."""
        self._known = 0

    def alarms(self) -> list[Drift]:
        """The families that alarm."""
        return [] if self._ladder is None else self._records(self._seen.detectors.alarm["on"] == 1)

    def news(self) -> list[Drift]:
        """Every family that was evaluated since this was asked for the last time, as it is."""
        if self._ladder is None:
            return []
        alarm = self._seen.detectors.alarm
        before = np.zeros(len(alarm), np.int64)
        before[: len(self._told)] = self._told
        self._told = alarm["as_of"].copy()
        return self._records((self._told > before) & (alarm["watched"] > 0))

    def snapshot(self) -> State:
        if self._ladder is None:
            return State({}, {"models": None})
        detectors, recent, place = self._seen
        state = State.join({"detectors": copied(detectors), "recent": copied(recent)})
        state.arrays["place"] = place.copy()
        models = [card.digest for card in self._ladder.cards]
        state.facts.update({"models": models, "whose": self.watched.whose, "turned": self._turned})
        return state

    def resume(self, state: State) -> None:
        """Put back what `snapshot` gave; the models are there already, and it is known who is tried first."""
        if self._ladder is None or state.facts["models"] is None:
            return
        ours = numbers_of(state.facts["models"], self._ladder.cards)
        then = watched_of(self._settings, self._ladder, channels=len(self._channels), models=ours)
        if then.whose != state.facts["whose"]:
            return
        seen = Seen.nothing(len(state.arrays["place"]), then.streams, then.lineup)
        put_back(state.part("detectors"), seen.detectors)
        put_back(state.part("recent"), seen.recent)
        put_rows(state.arrays["place"], seen.place, "place")
        self._move_in(seen, then, ours, self._ladder)
        self._turned = state.facts["turned"]

    def _watch(self, ladder: Ladder) -> None:
        """What the ladder has, from now on."""
        models = np.arange(len(ladder.cards))
        self.watched = watched_of(self._settings, ladder, channels=len(self._channels), models=models)
        self._expected = self.watched.expected(self._symbols.limit)
        self._known = 0

    def _nothing(self, partitions: int) -> Seen:
        return Seen.nothing(partitions, self.watched.streams, self.watched.lineup)

    def _move_in(self, seen: Seen, then: Watched, ours: I64, ladder: Ladder) -> None:
        """What was seen as others had it, whose models have the numbers `ours` here."""
        self._begin(seen, ladder)
        at, to = moved(then, self.watched, ours, len(seen.place))
        self._seen.detectors.stream[to] = seen.detectors.stream[at]
        self._seen.detectors.evidence[to] = seen.detectors.evidence[at]
        self._seen.recent.bins[:], self._seen.recent.came[:] = seen.recent

    def _begin(self, seen: Seen, ladder: Ladder) -> None:
        """Without evidence, in the same places and with the same alarms."""
        self._watch(ladder)
        self._seen = self._nothing(len(seen.place))
        self._seen.place[:] = seen.place
        self._seen.detectors.alarm[:] = seen.detectors.alarm

    def _end_alarms(self) -> None:
        alarm = self._seen.detectors.alarm
        was_on = alarm["on"] == 1
        alarm["since"][was_on] = np.repeat(self._seen.place["as_of"], len(FAMILIES))[was_on]
        alarm["event"][was_on], alarm["on"] = ENDED, 0
        alarm["statistic"] = alarm["bars"] = alarm["watched"] = 0
        self._turned |= bool(was_on.any())

    def _make_room(self, partitions: int) -> None:
        """For those that were met since."""
        if (more := partitions - len(self._seen.place)) > 0:
            self._seen = self._seen.with_more(self._nothing(more))

    def _take_measured(self) -> Measured:
        parts, self._measured = self._measured, []
        if len(parts) == 1:
            return parts[0]
        return Measured._make(map(np.concatenate, zip(*parts, strict=True))) if parts else NOT_MEASURED

    def _events(self) -> list[Drift]:
        """What became of alarms since somebody looked."""
        alarm = self._seen.detectors.alarm
        found = self._records(alarm["event"] != NOTHING)
        alarm["event"] = NOTHING
        return found

    def _records(self, which: Mask) -> list[Drift]:
        assert self._ladder is not None
        names = DriftNames(self._builder.sources(), self._ladder.cards, self._scorekeeper.groups, self._channels)
        ats = [divmod(at, len(FAMILIES)) for at in np.flatnonzero(which).tolist()]
        return [record_of(self._seen, self.watched, names, self._limits, at=at) for at in ats]

    def _adopt_new_symbols(self) -> None:
        if any(reference is not None for reference in self.watched.references):
            for code in range(self._known, len(self._symbols)):
                self.watched.adopt(self._expected, code, self._symbols.name(code))
        self._known = len(self._symbols)


def limits_of(settings: Settings) -> DetectorLimits:
    drift = settings.drift
    threshold = float(drift.mean_bars_between_false_alarms)
    return DetectorLimits(
        threshold=threshold, cooldown=float(drift.cooldown_bars), below=drift.hysteresis * threshold,
        tolerance=TOLERANCE, per_bar=settings.bars.kind == "time",
    )  # fmt: skip
