"""Hostile ticks through the whole core: 64-bit extremes in every whole number, every kind of float, any chunks.

Told by `fuzz_fold` for the fuzz driver, and by tests/property/test_fold_extremes.py for `make test`.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from kit import T0, rung, settings
from tickcast.columns import BarBatch, RawBatch, Rejects, TickBatch
from tickcast.engine.core.bars import EARLIEST_NS, LATEST_NS
from tickcast.engine.core.engine import Engine
from tickcast.engine.core.events import Event, Heartbeat, Outcome
from tickcast.engine.core.features import FeatureSet
from tickcast.engine.core.fold import Adjustments
from tickcast.engine.core.ladder import Ladder
from tickcast.engine.core.schedule import ALWAYS_OPEN, parse_calendar
from tickcast.settings import Settings
from tickcast.symbols import SymbolTable

SECOND, YEAR = 10**9, 366 * 86_400 * 10**9
LEAST, MOST = -(1 << 63), (1 << 63) - 1
NAMES = ("A", "B", "C")
EDGES = np.array([
    LEAST, LEAST + 1, MOST, MOST - 1, 0, 1, -1, EARLIEST_NS, EARLIEST_NS - 1, LATEST_NS, LATEST_NS + 1, -(1 << 62),
    1 << 62,
])  # fmt: skip
FLOATS = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, 5e-324, 2e-308, 1e308, 1e150, -1e150, 1.0, 100.0])
SAME = ["symbol", "ordinal", "as_of", "tie", "open", "high", "low", "close", "volume", "mask", "gap", "offset"]
SMALL: dict[str, object] = {
    "window__lookback": 5, "forecast__horizon": 3, "uncertainty__memory_bars": 20, "symbols__limit": 4,
}  # fmt: skip
KINDS: list[dict[str, object]] = [
    {"bars__every_ms": 1000},
    {"bars__every_ms": 1000, "bars__calendar": "made below"},
    {"bars__every_ms": 1, "bars__lateness_ms": 3, "quality__max_jump_ms": 1},
    {"bars__every_ms": 700, "bars__on_gap": "join", "quality__outlier_sigmas": 5.0, "forecast__transform": "level"},
    {"bars__every_ms": 366 * 86_400_000, "bars__on_gap": "cold", "bars__lateness_ms": 366 * 86_400_000},
    {"bars__kind": "tick", "bars__every_ticks": 2, "score__adapt_every_bars": 4, "quality__ancient_ms": 10**6},
    {"bars__kind": "volume", "bars__every_size": 1e300, "forecast__transform": "difference"},
]
SPLITS = Adjustments(["A", "A"], np.array([T0, T0 + SECOND]), np.array([1e-3, 1e300]))
WEEKDAYS = 'zone = "UTC"\n[hours]\n' + "\n".join(f'{day} = ["08:00-16:00"]' for day in ("mon", "wed", "fri"))
HOURS = parse_calendar(WEEKDAYS, name="fuzz", every_ns=SECOND)


class Market:
    """One deployment, fed with batches made beforehand; it checks every outcome."""

    def __init__(self, s: Settings, *, splits: bool) -> None:
        symbols = SymbolTable(s.symbols.limit)
        self.codes = np.array([symbols.code(name) for name in NAMES], np.int32)
        self.consumed = 0
        self._decoded: dict[int, TickBatch] = {}
        self._ordinal: dict[int, int] = {}
        naive = rung("naive", s)
        self.engine = Engine(
            s, symbols, self, FeatureSet(s.features.set, s.forecast.transform), Ladder([naive], naive, s),
            adjustments=SPLITS if splits else None, closed_time=HOURS if s.bars.calendar != "24x7" else ALWAYS_OPEN,
            by_clock=True,
        )  # fmt: skip

    def decode(self, raw: RawBatch) -> tuple[TickBatch, Rejects]:
        return self._decoded.pop(id(raw)), Rejects(np.empty(0, np.int32), np.empty(0, np.uint8), np.empty(0, np.int32))

    def take(self, events: list[tuple[RawBatch, TickBatch] | Heartbeat], now_ns: int) -> Outcome:
        """One turn."""
        turn: list[Event] = []
        for event in events:
            if not isinstance(event, Heartbeat):
                self._decoded[id(event[0])] = event[1]
                self.consumed += len(event[1])
            turn.append(event if isinstance(event, Heartbeat) else event[0])
        with np.errstate(all="ignore"):
            outcome = self.engine.turn(turn, now_ns)
        counts = self.engine.builder.counts()
        assert counts.min() >= 0
        assert counts.sum() == self.consumed, "accepted, late, rejected and held do not add up"
        for bars in outcome.bars:
            self._check(bars)
        return outcome

    def _check(self, bars: BarBatch) -> None:
        assert ((bars.as_of >= EARLIEST_NS - YEAR) & (bars.as_of <= LATEST_NS + YEAR)).all()
        for name in ("open", "high", "low", "close", "volume"):
            assert np.isfinite(getattr(bars, name)).all()
        assert (bars.low <= bars.high).all()
        for symbol, ordinal in zip(bars.symbol.tolist(), bars.ordinal.tolist(), strict=True):
            assert ordinal == self._ordinal.get(symbol, -1) + 1
            self._ordinal[symbol] = ordinal


def fuzz_fold(rng: np.random.Generator, n: int) -> int:
    """Feed at least `n` ticks; raises where a promise is broken, returns how many were fed."""
    fed = 0
    while fed < n:
        s = settings(**SMALL, **KINDS[rng.integers(len(KINDS))])
        splits = rng.random() < 0.3
        whole, cut = (Market(s, splits=splits) for _ in range(2))
        now, total = T0, int(min(rng.integers(20, 400), max(n - fed, 20)))
        ticks, stamps, offset = _ticks(rng, total, whole.codes), _whole_numbers(rng, total, T0), _offset(rng, total)
        beat = Heartbeat("t", 0, ts=int(_whole_numbers(rng, 1, T0)[0]), offset=offset)
        both = [
            [bars for e in _batches(ticks, stamps, offset, size) for o in (market.take([e], now),) for bars in o.bars]
            + market.take([beat], now).bars
            for market, size in ((whole, total), (cut, int(rng.integers(1, 9))))
        ]
        _same(*(BarBatch.concat(bars) if bars else None for bars in both))
        np.testing.assert_array_equal(whole.engine.builder.counts(), cut.engine.builder.counts())
        fed += 2 * total
    return fed


def _same(one: BarBatch | None, other: BarBatch | None) -> None:
    """Chunks make no difference."""
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        for name in SAME:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def _batches(
    ticks: TickBatch, stamps: npt.NDArray[np.int64], offset: int, size: int
) -> Iterator[tuple[RawBatch, TickBatch]]:
    for first in range(0, len(ticks), size):
        part = ticks.take(slice(first, first + size))
        n = len(part)
        nothing = np.zeros(n, np.int64)
        raw = RawBatch(
            "t", 0, np.zeros(0, np.uint8), nothing, nothing, offset + first + np.arange(n), stamps[first : first + n]
        )
        yield raw, replace(part, row=np.arange(n, dtype=np.int32))


def _offset(rng: np.random.Generator, total: int) -> int:
    return int(rng.choice([0, 1 << 40, MOST - total - 1]))


def _ticks(rng: np.random.Generator, n: int, codes: npt.NDArray[np.int32]) -> TickBatch:
    price = np.where(rng.random(n) < 0.2, rng.choice(FLOATS, n), rng.uniform(1, 2, n))
    size = np.where(rng.random(n) < 0.2, rng.choice(FLOATS, n), rng.integers(0, 9, n))
    sequence = np.where(rng.random(n) < 0.5, -1, _whole_numbers(rng, n, 0))
    return TickBatch(
        rng.choice(codes, n), _whole_numbers(rng, n, T0), price, size, rng.choice(FLOATS, n), rng.choice(FLOATS, n),
        sequence, np.arange(n, dtype=np.int32), np.zeros(n, np.int32),
    )  # fmt: skip


def _whole_numbers(rng: np.random.Generator, n: int, near: int) -> npt.NDArray[np.int64]:
    """Extremes, what lies beside them, anything at all, and an honest walk from `near`, in runs."""
    walk = near + np.cumsum(rng.integers(-SECOND, 3 * SECOND, n))
    jumps = walk + rng.choice([3600 * SECOND, 40 * YEAR, -40 * YEAR, 86_400 * SECOND], n)
    edges = rng.choice(EDGES, n) + rng.integers(-2, 3, n)
    kind = np.repeat(rng.choice(4, n, p=[0.7, 0.1, 0.1, 0.1]), rng.integers(1, 7, n))[:n]
    return np.choose(kind, [walk, jumps, edges, rng.integers(LEAST, MOST, n)]).astype(np.int64)
