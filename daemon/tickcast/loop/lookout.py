"""Every so often one line of log on how the daemon does, and a warning with its remedy where ticks are mostly refused.

It counts nothing itself: it compares what the engine has counted with what that was at the last look.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np
import structlog

from tickcast import remedies
from tickcast.clock import Clock
from tickcast.columns import Source
from tickcast.engine.codec.seen import LONGEST, seen
from tickcast.engine.core.events import Letters
from tickcast.engine.core.fold import BarBuilder
from tickcast.errors import Reason
from tickcast.figures import skill
from tickcast.records import Accuracy, Health
from tickcast.settings import Settings

FEWEST_TICKS = 10  # of a partition, from which most of them may be called late


class Samples:
    """One refused message of each reason since it was last asked."""

    def __init__(self) -> None:
        self._kept: dict[Reason, tuple[str, bytes]] = {}

    def note(self, letters: Iterable[Letters]) -> None:
        for raw, rejects, _ in letters:
            numbers, first = np.unique(rejects.reason, return_index=True)
            for reason, at in zip(map(Reason, numbers.tolist()), first.tolist(), strict=True):
                if reason not in self._kept:
                    begin, end = int(raw.starts[rejects.row[at]]), int(raw.ends[rejects.row[at]])
                    self._kept[reason] = raw.topic, raw.data[begin : min(end, begin + LONGEST + 1)].tobytes()

    def take(self, settings: Settings) -> dict[str, str]:
        """What each holds where its reason looks, by the reason's name."""
        kept, self._kept = self._kept, {}
        return {
            reason.name.lower(): seen(message, reason, settings.codec, topic)
            for reason, (topic, message) in kept.items()
        }


class Lookout:
    """`look` is called every `runtime.heartbeat_s`. The first window begins when it is made."""

    def __init__(
        self, settings: Settings, builder: BarBuilder, samples: Samples, health: Callable[[], Health], clock: Clock
    ) -> None:
        self.late: frozenset[Source] = frozenset()  # partitions whose ticks were mostly late in the last window
        self._settings, self._builder, self._samples = settings, builder, samples
        self._health, self._clock = health, clock
        self._log = structlog.get_logger()
        self._then, self._then_ns = health(), clock.monotonic_ns()
        self._arrived = builder.arrived()

    def look(self, accuracy: Iterable[Accuracy]) -> None:
        health, now_ns = self._health(), self._clock.monotonic_ns()
        before, passed_s = self._then, max((now_ns - self._then_ns) / 1e9, 1e-9)
        self._then, self._then_ns = health, now_ns
        window = {name: count - before.reasons.get(name, 0) for name, count in health.reasons.items()}
        window = {name: count for name, count in window.items() if count > 0}
        self._log.info(
            "heartbeat", state=health.state, ticks_per_s=round((health.consumed - before.consumed) / passed_s, 1),
            bars=health.bars - before.bars, forecasts=health.forecasts - before.forecasts, skill=skill_of(accuracy),
            refused={name: n for name, n in window.items() if Reason[name.upper()] not in remedies.UNREFUSED},
            cold=health.cold, unanswered=health.unanswered - before.unanswered, lag_records=health.lag_records,
        )  # fmt: skip
        samples = self._samples.take(self._settings)
        if remedies.mostly_refused(window):
            self._log.warning("ticks_refused", reason=remedies.sentence(window, self._settings, samples))
        self._look_at_partitions()

    def _look_at_partitions(self) -> None:
        arrived, late = self._builder.arrived(), set[Source]()
        for source, (ticks, too_late) in arrived.items():
            ticks_before, late_before = self._arrived.get(source, (0, 0))
            ticks, too_late = ticks - ticks_before, too_late - late_before
            if 2 * too_late > ticks >= FEWEST_TICKS:
                late.add(source)
                told = remedies.sentence({"accepted": ticks - too_late, "late": too_late}, self._settings)
                self._log.error("partition_late", partition=source, reason=told)
        for source in self.late - late:
            self._log.info("partition_in_time", partition=source)
        self.late, self._arrived = frozenset(late), arrived


def skill_of(accuracy: Iterable[Accuracy]) -> float | None:
    """Against last value, over all that was scored lately; None = nothing was."""
    scored = [(row.n * row.pinball, row.n * row.pinball_naive) for row in accuracy if math.isfinite(row.skill)]
    own, of_last_value = (sum(losses) for losses in zip(*scored)) if scored else (0.0, 0.0)
    return round(float(skill(own, of_last_value)), 4) if of_last_value else None
