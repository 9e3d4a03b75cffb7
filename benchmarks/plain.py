"""The same work as the engine's, tick by tick in plain Python: the oracle of the tests and the peer in the bench.

It is written from the rules of docs/bars.md alone and shares no code with the kernels.
"""

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field

LATE, HELD, JUMP, ACCEPTED = "late", "held", "jump", "accepted"


@dataclass
class Bar:
    symbol: str
    as_of: int
    tie: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    ticks: int
    mask: int
    gap: int


@dataclass
class _Open:
    ticks: list[tuple[int, int, float]] = field(default_factory=list)  # (event time, arrival, price)
    volume: float = 0.0


class PlainBars:
    """One partition. Give it ticks in arrival order; `bars` are the closed ones, in order of closing."""

    def __init__(
        self, *, kind="time", every=1000, lateness=0, on_gap="carry", longest_fill=108, jump=3_600_000_000_000
    ):  # type: ignore[no-untyped-def]
        self.kind, self.every, self.lateness, self.on_gap = kind, every, lateness, on_gap
        self.longest_fill, self.jump = longest_fill, jump
        self.bars: list[Bar] = []
        self.outcomes: dict[int, str] = {}
        self._open: dict[int, dict[str, _Open]] = defaultdict(dict)  # interval -> symbol -> bar
        self._one: dict[str, _Open] = {}
        self._last: dict[str, tuple[int, Bar]] = {}
        self._newest: int | None = None
        self._newest_of: dict[str, int] = {}
        self._closed_to: int | None = None
        self._held: list[tuple[int, str, int, float, float]] = []
        self._arrivals = 0

    def tick(self, symbol: str, ts: int, price: float, size: float) -> None:
        number = self._arrivals
        self._arrivals += 1
        agrees = self._is_far_ahead(ts) and not self._is_late(symbol, ts)
        if self._held and not (agrees and ts >= self._held[0][2] - self.jump):
            self.outcomes |= {held[0]: JUMP for held in self._held}
            self._held = []
        elif self._held and (len(self._held) == 4 or self._confirms(symbol)):
            before, self._held = self._held, []
            for held in before:
                self._judge(*held, trusted=True)
        self._judge(number, symbol, ts, price, size)

    def _judge(
        self, number: int, symbol: str, ts: int, price: float, size: float, *, trusted: bool = False
    ) -> None:  # fmt: skip
        if self._is_late(symbol, ts):
            self.outcomes[number] = LATE
        elif self._is_far_ahead(ts) and not trusted:
            self.outcomes[number] = HELD
            self._held.append((number, symbol, ts, price, size))
        else:
            self.outcomes[number] = ACCEPTED
            self._enter(number, symbol, ts, price, size)

    def _confirms(self, symbol: str) -> bool:
        return symbol in self._newest_of and (symbol != self._held[0][1] or len(self._newest_of) == 1)

    def _is_late(self, symbol: str, ts: int) -> bool:
        if self.kind == "time":
            return self._closed_to is not None and ts < self._closed_to
        return ts < self._newest_of.get(symbol, ts) - self.lateness

    def _is_far_ahead(self, ts: int) -> bool:
        return self._newest is not None and ts - (self._newest - self.lateness) > self.jump

    def _enter(self, number: int, symbol: str, ts: int, price: float, size: float) -> None:
        self._newest = ts if self._newest is None else max(self._newest, ts)
        self._newest_of[symbol] = max(self._newest_of.get(symbol, ts), ts)
        if self.kind == "time":
            watermark = self._newest - self.lateness
            if self._closed_to is None:
                self._closed_to = (ts - self.lateness) // self.every * self.every
            for interval in sorted(i for i in self._open if i + self.every <= watermark):
                for name, bar in self._open.pop(interval).items():
                    self._close_interval(name, interval, bar)
            self._closed_to = max(self._closed_to, watermark // self.every * self.every)
            bar = self._open[ts // self.every * self.every].setdefault(symbol, _Open())
        else:
            bar = self._one.setdefault(symbol, _Open())
        bar.ticks.append((ts, number, price))
        bar.volume += size
        full = (self.kind == "tick" and len(bar.ticks) >= self.every) or (
            self.kind == "volume" and bar.volume >= self.every
        )
        if full:
            self._close(symbol, self._newest_of[symbol], self._one.pop(symbol), gap=0)

    def _close_interval(self, symbol: str, interval: int, bar: _Open) -> None:
        gap = 0
        if symbol in self._last:
            last_interval, last = self._last[symbol]
            missing = (interval - last_interval) // self.every - 1
            if self.on_gap == "carry" and missing <= self.longest_fill:
                for k in range(missing):
                    end = last_interval + (k + 2) * self.every
                    c = last.close
                    self.bars.append(Bar(symbol, end, 0, c, c, c, c, 0.0, 0, 0, 0))
            else:
                gap = int(missing > 0)
        self._close(symbol, interval + self.every, bar, gap=gap)
        self._last[symbol] = interval, self.bars[-1]

    def _close(self, symbol: str, as_of: int, bar: _Open, *, gap: int) -> None:
        prices = [price for _, _, price in bar.ticks]
        tie = 0
        if self.kind != "time" and symbol in self._last and self._last[symbol][1].as_of == as_of:
            tie = self._last[symbol][1].tie + 1
        closed = Bar(
            symbol, as_of, tie, min(bar.ticks)[2], max(prices), min(prices), max(bar.ticks)[2], bar.volume,
            len(prices), 1, gap,
        )  # fmt: skip
        self.bars.append(closed)
        self._last[symbol] = as_of, closed


class PlainEngine:
    """JSON messages -> bars -> features -> last-value forecasts -> their errors, in the most direct Python."""

    def __init__(self, *, every_ns: int, horizons: list[int], window: int = 20) -> None:
        self.folder = PlainBars(every=every_ns)
        self.closes: dict[str, list[tuple[float, int]]] = defaultdict(list)
        self.features: dict[str, tuple[float, float, float]] = {}
        self.errors: dict[int, list[float]] = {h: [0.0, 0.0] for h in horizons}
        self._window = window
        self._seen = 0

    def message(self, text: bytes) -> None:
        tick = json.loads(text)
        price, size = float(tick["price"]), float(tick["size"])
        if not (math.isfinite(price) and math.isfinite(size)) or price <= 0 or size < 0:
            return
        self.folder.tick(tick["symbol"], int(tick["ts"]), price, size)
        for bar in self.folder.bars[self._seen :]:
            self._on_bar(bar)
        self._seen = len(self.folder.bars)

    def _on_bar(self, bar: Bar) -> None:
        closes = self.closes[bar.symbol]
        closes.append((bar.close, bar.mask))
        for horizon, total in self.errors.items():
            k = len(closes) - 1 - horizon
            if k >= 1 and bar.mask and closes[k][1]:  # a symbol is asked from its second bar on, at real bars
                total[0] += 1
                total[1] += abs(bar.close - closes[k][0])
        recent = [close for close, _ in closes[-self._window :]]
        mean = sum(recent) / len(recent)
        deviation = math.sqrt(sum((c - mean) ** 2 for c in recent) / len(recent))
        move = math.log(closes[-1][0] / closes[-2][0]) if len(closes) > 1 else math.nan
        self.features[bar.symbol] = move, mean, deviation
