"""The engine's clock, monotonic time and fresh ids: the only place that asks the system for any of them.

Event time travels in columns and is never read from here.
"""

import secrets
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now_ns(self) -> int:
        """Wall time for schedules, staleness and `produced_ns`."""

    def monotonic_ns(self) -> int:
        """For measuring latency."""


class SystemClock:
    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.perf_counter_ns()


class SetClock:
    """Stands still until told otherwise: replay drives it with event time, tests by hand."""

    def __init__(self, now_ns: int = 0) -> None:
        self.now = now_ns

    def now_ns(self) -> int:
        return self.now

    def monotonic_ns(self) -> int:
        return time.perf_counter_ns()

    def advance_to(self, now_ns: int) -> None:
        self.now = max(self.now, now_ns)


def fresh_id() -> str:
    return secrets.token_hex(16)


def moment(ns: int) -> str:
    """The whole second, as a person reads it and `--until` takes it."""
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
