"""Logs, latency histograms and the lag of the event loop. It observes; nothing may depend on what it saw.

Events are named <Noun><PastVerb> and counted per batch, never per tick.
"""

import asyncio
import logging
import math
import sys
from collections import deque
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec
import numpy as np
import structlog

from tickcast.clock import Clock
from tickcast.columns import I64
from tickcast.settings.service import LogSettings

Event = MutableMapping[str, Any]

BUCKETS_PER_OCTAVE = 16  # a percentile is right within 2.2 %
OCTAVES = 48  # 2^48 ns = 78 hours
NS_PER_MS = 1e6
REPEAT_NS = 10 * 10**9  # what a library says again within it is counted, not written
MOST_SAID = 1000
MINUTE_NS, MARK_NS = 60 * 10**9, 5 * 10**9


def set_up_logging(log: LogSettings, *, clock: Clock, stream: TextIO | None = None) -> None:
    """Send structlog's events and the standard library's records to one stream, in one format."""
    out = sys.stderr if stream is None else stream
    console = log.format == "console" or (log.format == "auto" and out.isatty())
    level = logging.getLevelNamesMapping()[log.level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _unless_repeated(Repeats(clock)),
            _stamper(clock),
            *([] if console else [structlog.processors.format_exc_info]),
            structlog.dev.ConsoleRenderer(colors=out.isatty()) if console else _as_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[_ToStructlog(clock)], force=True)


def _stamper(clock: Clock) -> structlog.typing.Processor:
    def stamp(logger: Any, name: str, event: Event) -> Event:
        event["at"] = datetime.fromtimestamp(clock.now_ns() / 1e9, UTC).isoformat(timespec="milliseconds")
        return event

    return stamp


def _as_json(logger: Any, name: str, event: Event) -> str:
    """One line; a value that JSON does not know is written as its text rather than lost."""
    return msgspec.json.encode(dict(event), enc_hook=str).decode()


class Repeats:
    """What is said again within ten seconds is counted: without a broker the Kafka client would repeat 300 a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._said: dict[object, tuple[int, int]] = {}  # when it was last written, and how often came since

    def __len__(self) -> int:
        return len(self._said)

    def since(self, what: object) -> int | None:
        """None: it was written a moment ago. Else it is to be written now, and came so often since it last was."""
        now = self._clock.monotonic_ns()
        written, since = self._said.get(what, (now - REPEAT_NS, 0))
        if now - written < REPEAT_NS:
            self._said[what] = written, since + 1
            return None
        if len(self._said) >= MOST_SAID:
            self._said.clear()
        self._said[what] = now, 0
        return since


def _unless_repeated(repeats: Repeats) -> structlog.typing.Processor:
    """Of the daemon's own events, too: a warning for the reason that the last one had."""

    def once(logger: Any, name: str, event: Event) -> Event:
        if event["level"] != "warning" or "reason" not in event or "logger" in event:
            return event
        since = repeats.since((event["event"], event["reason"]))
        if since is None:
            raise structlog.DropEvent
        if since:
            event["repeated"] = since
        return event

    return once


class _ToStructlog(logging.Handler):
    """Gives the records of libraries to structlog."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.repeats = Repeats(clock)

    def emit(self, record: logging.LogRecord) -> None:
        since = self.repeats.since((record.name, str(record.msg)))
        if since is None:
            return
        log = structlog.get_logger().bind(logger=record.name, **({"repeated": since} if since else {}))
        log.log(record.levelno, record.getMessage(), exc_info=record.exc_info)


class Latency:
    """A histogram of durations in logarithmic buckets: constant memory, cheap to fill a batch at a time."""

    def __init__(self) -> None:
        self.counts = np.zeros(OCTAVES * BUCKETS_PER_OCTAVE, np.int64)
        self.max_ns = 0

    def __len__(self) -> int:
        return int(self.counts.sum())

    def record(self, duration_ns: int) -> None:
        bucket = int(math.log2(max(duration_ns, 1)) * BUCKETS_PER_OCTAVE)
        self.counts[min(bucket, len(self.counts) - 1)] += 1
        self.max_ns = max(self.max_ns, duration_ns)

    def record_many(self, durations_ns: I64) -> None:
        """Add a batch; a negative duration (two clocks that disagree) counts as zero."""
        if not len(durations_ns):
            return
        buckets = (np.log2(np.maximum(durations_ns, 1)) * BUCKETS_PER_OCTAVE).astype(np.int64)
        np.add.at(self.counts, np.minimum(buckets, len(self.counts) - 1), 1)
        self.max_ns = max(self.max_ns, int(durations_ns.max()))

    def percentile_ns(self, percent: float) -> float:
        return self._percentile_ns(self.counts, percent)

    def _percentile_ns(self, counts: I64, percent: float) -> float:
        """The middle of the bucket that holds it, never above the largest duration seen; 0 when empty."""
        total = int(counts.sum())
        if not total:
            return 0.0
        bucket = int(np.searchsorted(counts.cumsum(), percent / 100 * total))
        return float(min(2 ** ((bucket + 0.5) / BUCKETS_PER_OCTAVE), self.max_ns))

    def summary_since_ms(self, before: I64) -> dict[str, float]:
        """Of what came since the counts were these; the largest is as right as a percentile."""
        counts = np.maximum(self.counts - before, 0)  # below them where it was cleared
        parts = {"p50": 50.0, "p99": 99.0, "max": 100.0}
        return {name: self._percentile_ns(counts, percent) / NS_PER_MS for name, percent in parts.items()}

    def summary_ms(self) -> dict[str, float]:
        """As `Health.latency_life_ms` and `Health.loop_lag_life_ms` want it."""
        return {
            "p50": self.percentile_ns(50) / NS_PER_MS,
            "p99": self.percentile_ns(99) / NS_PER_MS,
            "max": self.max_ns / NS_PER_MS,
        }

    def clear(self) -> None:
        self.counts[:] = 0
        self.max_ns = 0


class LastMinute:
    """What a histogram was told in the last minute, or a little more. `mark` it every few seconds."""

    def __init__(self, latency: Latency, clock: Clock) -> None:
        self._latency, self._clock = latency, clock
        self._marks: deque[tuple[int, I64]] = deque()
        self.mark()

    def mark(self) -> None:
        now = self._clock.monotonic_ns()
        while len(self._marks) > 1 and self._marks[1][0] <= now - MINUTE_NS:
            self._marks.popleft()
        if not self._marks or now - self._marks[-1][0] >= MARK_NS:
            self._marks.append((now, self._latency.counts.copy()))

    def summary_ms(self) -> dict[str, float]:
        """As `Health.latency_ms` and `Health.loop_lag_ms` want it."""
        self.mark()
        return self._latency.summary_since_ms(self._marks[0][1])


class LoopLag:
    """How late the event loop wakes a sleeper. Run `watch` as a task; `latency` fills as it goes.

    A block of the loop hides the wake-ups that it swallowed; they are counted too, each as late as it would have
    been, so that a percentile is one of time and not of wake-ups. Timers of uvloop are rounded to 1 ms.
    """

    def __init__(self, clock: Clock, *, every_ms: float = 5.0) -> None:
        self.latency = Latency()
        self._clock = clock
        self._every_ns = int(every_ms * NS_PER_MS)

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            before = self._clock.monotonic_ns()
            await asyncio.sleep(self._every_ns / 1e9)
            self.record(self._clock.monotonic_ns() - before - self._every_ns)

    def record(self, late_ns: int) -> None:
        self.latency.record_many(np.arange(max(late_ns, 0), -1, -self._every_ns))
