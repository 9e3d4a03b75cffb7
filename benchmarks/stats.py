"""How figures are measured and judged: medians, interleaved pairs, CPU time per item. It knows nothing of tickcast.

A benchmark script has a `main()` that returns its figures as a list of `Figure`; `run.py` finds and prints them.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal, NamedTuple

import numpy as np

RESAMPLES = 2000
INTERVAL = (5, 95)  # percentiles: the 90 % bootstrap interval


class Ratio(NamedTuple):
    """The cost of `a` in costs of `b`: the median over the pairs and its 90 % bootstrap interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. With a bar it is judged; `low` and `high` are given where it is a ratio of pairs."""

    name: str
    value: float
    unit: str
    bar: float | None = None
    better: Literal["lower", "higher"] = "lower"
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """None without a bar. A ratio fails only if its whole interval lies beyond the bar."""
        if self.bar is None:
            return None
        if self.better == "lower":
            return (self.value if self.low is None else self.low) <= self.bar
        return (self.value if self.high is None else self.high) >= self.bar

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "holds": self.holds}


def cpu_ns_per(items: int, fn: Callable[[], object], *, runs: int = 5) -> float:
    """CPU nanoseconds of the whole process, all threads, per item: the median of `runs` after one warm-up."""
    fn()
    return median(_spent_ns(fn, time.process_time_ns) for _ in range(runs)) / items


def wall_ns_per(items: int, fn: Callable[[], object], *, runs: int = 5) -> float:
    """Elapsed nanoseconds per item: the median of `runs` after one warm-up."""
    fn()
    return median(_spent_ns(fn, time.perf_counter_ns) for _ in range(runs)) / items


def paired_ratio(
    a: Callable[[], object],
    b: Callable[[], object],
    pairs: int = 5,
    *,
    clock: Callable[[], int] = time.process_time_ns,
) -> Ratio:
    """Cost of one call of `a` over cost of one call of `b`, in interleaved pairs whose order alternates."""
    a()
    b()
    ratios = []
    for pair in range(pairs):
        if pair % 2:
            cost_b = _spent_ns(b, clock)
            cost_a = _spent_ns(a, clock)
        else:
            cost_a = _spent_ns(a, clock)
            cost_b = _spent_ns(b, clock)
        ratios.append(cost_a / max(cost_b, 1))
    return ratio_of(ratios)


def ratio_of(ratios: list[float]) -> Ratio:
    """The median of paired ratios with its bootstrap interval; for pairs that were measured elsewhere."""
    rng = np.random.default_rng(0)
    resampled = np.median(rng.choice(ratios, (RESAMPLES, len(ratios))), axis=1)
    low, high = np.percentile(resampled, INTERVAL)
    return Ratio(median(ratios), float(low), float(high))


def _spent_ns(fn: Callable[[], object], clock: Callable[[], int]) -> int:
    began = clock()
    fn()
    return clock() - began
