"""What tests of the core share: ticks as columns without a codec, and a Folder fed by them."""

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from tickcast import plugin
from tickcast.columns import BarBatch, Forecasts, RawBatch, Rejects, Scores, TickBatch
from tickcast.engine.core.engine import Engine
from tickcast.engine.core.events import Outcome
from tickcast.engine.core.features import FeatureSet
from tickcast.engine.core.fold import BarBuilder, ClosedBars
from tickcast.engine.core.ladder import Ladder
from tickcast.plugin import Runner
from tickcast.questions import Answers, Questions
from tickcast.settings import Settings, load
from tickcast.symbols import SymbolTable

T0, SECOND = 1_700_000_000_000_000_000, 10**9
Tick = tuple[str, int, float, float]  # symbol, event time, price, size


def settings(**overrides: object) -> Settings:
    """Defaults with `section__key=value` overrides and no environment."""
    return load(overrides={k.replace("__", "."): _toml(v) for k, v in overrides.items()}, environ={})[0]


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def batch(
    ticks: Sequence[Tick],
    symbols: SymbolTable,
    *,
    first: int = 0,
    stamp_ns: int = -1,
    partition: int = 0,
    **columns: float,
) -> tuple[RawBatch, TickBatch]:
    """Ticks as one RawBatch of empty messages and its TickBatch."""
    n = len(ticks)
    zeros = np.zeros(n, np.int64)
    raw = RawBatch("t", partition, np.zeros(0, np.uint8), zeros, zeros, first + np.arange(n), np.full(n, stamp_ns))
    code = np.array([symbols.code(t[0]) for t in ticks], np.int32)
    price, size = (np.array([t[k] for t in ticks], np.float64) for k in (2, 3))
    nothing = np.full(n, np.nan)
    bid, ask = (np.full(n, columns[k]) if k in columns else nothing for k in ("bid", "ask"))
    sequence = np.full(n, int(columns.get("sequence", -1)))
    ts = np.array([t[1] for t in ticks], np.int64)
    return raw, TickBatch(code, ts, price, size, bid, ask, sequence, np.arange(n, dtype=np.int32), code * 0)


class TickFeed:
    """A decoder that hands out ticks prepared beforehand: the engine without a codec."""

    def __init__(self, symbols: SymbolTable) -> None:
        self._symbols = symbols
        self._ticks: dict[tuple[int, int], TickBatch] = {}

    def batches(self, ticks: Sequence[Tick], chunk: int, *, partition: int = 0) -> list[RawBatch]:
        ready = []
        for first in range(0, len(ticks), chunk):
            raw, decoded = batch(ticks[first : first + chunk], self._symbols, first=first, partition=partition)
            self._ticks[partition, first] = decoded
            ready.append(raw)
        return ready

    def forget_names(self) -> None:
        """No batch holds a name that it found no code for."""

    def decode(self, raw: RawBatch) -> tuple[TickBatch, Rejects]:
        none = Rejects(np.empty(0, np.int32), np.empty(0, np.uint8), np.empty(0, np.int32))
        return self._ticks[raw.partition, int(raw.offsets[0])], none


class Folding:
    """A Folder fed tick by tick or chunk by chunk, with all that it closed and refused."""

    def __init__(self, settings: Settings, **kwargs: object) -> None:
        self.symbols = SymbolTable(settings.symbols.limit)
        self.builder = BarBuilder(settings, self.symbols, feature_lookback=2, **kwargs)  # type: ignore[arg-type]
        self.closed: list[BarBatch] = []
        self.refused: list[tuple[int, int]] = []  # (offset, reason)
        self._next = 0

    def feed(self, ticks: Iterable[Tick], *, chunk: int = 1 << 30, **columns: float) -> "Folding":
        ticks = list(ticks)
        for first in range(0, len(ticks), chunk):
            raw, decoded = batch(ticks[first : first + chunk], self.symbols, first=self._next, **columns)  # type: ignore[arg-type]
            self._next += len(raw)
            for item in self.builder.fold(raw, decoded):
                if isinstance(item, ClosedBars):
                    self.closed.append(item.bars)
                else:
                    letters, rejects = item
                    self.refused += [
                        (int(letters.offsets[r]), int(reason))
                        for r, reason in zip(rejects.row, rejects.reason, strict=True)
                    ]
            self.closed += [item.bars for item in self.builder.closed()]
        return self

    @property
    def bars(self) -> BarBatch:
        return BarBatch.concat(self.closed)

    def count(self, reason: int) -> int:
        return int(self.builder.counts()[reason])


class Served:
    """An engine run over a tape of ticks in chunks: what it forecast and scored."""

    def __init__(
        self, s: Settings, ticks: Sequence[Tick], *, chunk: int, runners: list[Runner] | None = None,
        by_clock: bool = False,
    ) -> None:  # fmt: skip
        self.symbols = SymbolTable(s.symbols.limit)
        feed = self.feed = TickFeed(self.symbols)
        last_value = rung("naive", s)
        ladder = Ladder(runners or [last_value], last_value, s)
        features = FeatureSet(s.features.set, s.forecast.transform)
        self.engine = Engine(s, self.symbols, feed, features, ladder, by_clock=by_clock)
        self.outcomes = [self.engine.turn([raw], T0) for raw in feed.batches(ticks, chunk)]

    def turn(self, ticks: Sequence[Tick], *, now_ns: int) -> Outcome:
        """One turn with all of them, at that time."""
        return self.engine.turn(self.feed.batches(ticks, len(ticks)), now_ns)

    @property
    def forecasts(self) -> Forecasts:
        return Forecasts.concat([f for o in self.outcomes for f in o.forecasts])

    @property
    def scores(self) -> Scores:
        return Scores.concat([f for o in self.outcomes for f in o.scores])

    def ids(self) -> list[tuple[int, int]]:
        return [*zip(self.forecasts.id_high.tolist(), self.forecasts.id_low.tolist(), strict=True)]


class Off(Runner):
    """Says what another model says, so many one-bar moves too low."""

    def __init__(self, like: Runner, name: str = "off", *, by: float) -> None:
        self.card = msgspec.structs.replace(like.card, name=name, kind=name, digest=name)
        self._like, self._by = like, by

    def answer(self, questions: Questions) -> Answers:
        by = (self._by * questions.scale)[:, None, None]
        return Answers((self._like.answer(questions).quantiles - by).astype(np.float32))


def rung(kind: str, s: Settings) -> Runner:
    runner: Runner = plugin.find("models", kind)(
        transform=s.forecast.transform, horizon=s.forecast.horizon, levels=s.forecast.quantiles,
        season_bars=s.model.season_bars,
    )  # fmt: skip
    return runner


def walk(n: int, symbols: int, *, seed: int, step_ms: float = 40.0, sigma: float = 1e-3) -> list[Tick]:
    """A tape of random walks, several symbols taking turns at random."""
    rng = np.random.default_rng(seed)
    ts = T0 + np.cumsum(rng.exponential(step_ms * 1e6, n)).astype(np.int64)
    code = rng.integers(0, symbols, n)
    price = 100 * np.exp(np.cumsum(rng.normal(0, sigma, n)))
    size = rng.integers(1, 9, n)
    return [(f"S{c}", int(t), float(p), float(z)) for c, t, p, z in zip(code, ts, price, size, strict=True)]
