"""How seldom alarms of drift are false, how soon a change is found, and what an evaluation costs.

    python benchmarks/run.py loop_drift

100 streams, each a partition of its own, at the default settings. Quiet ones of 20,000 bars: for every family the mean
number of bars between two alarms, all of which are false. Then streams that change after 3,000 bars: in how many the
family that is there for it raises an alarm within 2,000 more, and after how many bars; beside it Page-Hinkley and ADWIN
on the same hits. Walks and crypto go the whole way: fitted, served by the engine, judged by what the fit left.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from accuracy_data import HOUR_NS
from coverage_cases import T0, written
from drift_cases import (
    CHANGE_AT,
    CHANGED,
    CHANGES,
    QUIET,
    STREAMS,
    TRAINED,
    Market,
    bars_of,
    crypto_moves,
    garch_moves,
    quiet,
)
from drift_peers import alarms_of
from stats import Figure, cpu_ns_per
from tickcast import plugin
from tickcast.batch.by_hand.fit import fit
from tickcast.batch.train.history import BarHistory
from tickcast.batch.train.reference import Rows, block_of, describe, width_of
from tickcast.columns import F64, I64, Bars, RawBatch, Rejects, TickBatch
from tickcast.engine.core import families
from tickcast.engine.core.channels import MISSING, ODD, Measured, measured
from tickcast.engine.core.detectors import RAISED
from tickcast.engine.core.drift import limits_of
from tickcast.engine.core.engine import Engine
from tickcast.engine.core.families import FAMILIES, Expected, Seen
from tickcast.engine.core.features import FeatureSet
from tickcast.engine.core.ladder import Ladder
from tickcast.engine.core.scoring import LabelRows, SettledRows
from tickcast.engine.core.watched import Watched, watched_of
from tickcast.engine.core.windows import UNWRAPPED
from tickcast.engine.inference.load import open_model
from tickcast.io.jobs.prepare import fit_order
from tickcast.plugin import Runner
from tickcast.questions import Answers, Questions
from tickcast.reference import Reference
from tickcast.settings import Settings, load
from tickcast.symbols import SymbolTable

CHUNK = 500
PEERS = ("Page-Hinkley", "ADWIN")
WITHIN, LEAST_FOUND = 2_000, 95
STAY = 0.2  # correlation from bar to bar of the streams that change
COST_SYMBOLS, COST_CHANNELS, COST_MS = 1_000, 32, 20.0
FEATURES = '[{kind = "realised_volatility", window = 24}, {kind = "rsi"}, {kind = "zscore", window = 48}]'
SETTINGS = {"bars.every_ms": str(HOUR_NS // 10**6), "window.lookback": "24", "forecast.horizon": "4"}


def deployment(**more: str) -> Settings:
    return load(overrides={**SETTINGS, **more}, environ={})[0]


def rung(settings: Settings) -> Runner:
    forecast = settings.forecast
    runner: Runner = plugin.find("models", "naive")(
        transform=forecast.transform, horizon=forecast.horizon, levels=forecast.quantiles, season_bars=24
    )
    return runner


class Referred(Runner):
    """Last value by another name, with a reference."""

    def __init__(self, settings: Settings, reference: Reference) -> None:
        self._naive, self.reference = rung(settings), reference
        self.card = msgspec.structs.replace(self._naive.card, name="referred", kind="referred", digest="referred")

    def answer(self, questions: Questions) -> Answers:
        return self._naive.answer(questions)


def flat(values: F64) -> tuple[BarHistory, F64]:
    """Values [bars, streams, F] as they lie beside bars: stream after stream."""
    bars, streams, channels = values.shape
    rows = bars * streams
    symbol = np.repeat(np.arange(streams, dtype=np.int32), bars)
    start, nothing = np.arange(streams) * bars, np.zeros(rows)
    at = Bars(
        open=nothing, high=nothing, low=nothing, close=nothing, volume=nothing, mask=np.ones(rows, np.uint8),
        as_of=np.tile(np.arange(bars), streams), start=start, wrap=UNWRAPPED,
    )  # fmt: skip
    names = [f"S{s:03d}" for s in range(streams)]
    history = BarHistory(names, at, np.zeros(rows, np.uint8), symbol, nothing.astype(np.int64), start + bars, "")
    return history, np.ascontiguousarray(values.transpose(1, 0, 2)).reshape(rows, channels)


def reference_of(market: Market) -> Reference:
    """As a fit would leave it, but for the ratios of losses, which are 1 by construction."""
    history, values = flat(market.values)
    of_values = describe(history, values, np.arange(len(history)), watch_target=True, per_bar=True)
    ratio = market.loss.sum() / market.loss_naive.sum()
    of = Rows.at(history.symbol, history.bars.as_of, symbols=STREAMS, per_bar=True)
    missed, loss, beside = (column.T.ravel() for column in market[1:])
    of_misses, of_losses = block_of(of, missed, np.ones(len(missed))), block_of(of, loss, ratio * beside)
    width = width_of(of, loss, ratio * beside, int(of_losses.bars))
    return Reference(
        symbols=np.frombuffer(bytearray(msgspec.json.encode(history.names)), np.uint8),
        missed_block=np.array([of_misses.bars]), missed_left=np.array([of_misses.left]),
        loss=np.full(STREAMS + 1, ratio), loss_width=np.array([width]),
        loss_block=np.array([of_losses.bars]), loss_left=np.array([of_losses.left]), **of_values,
    )  # fmt: skip


class Alarm(NamedTuple):
    family: str
    stream: int
    bar: int


class Watch:
    """The families of streams without an engine around them."""

    def __init__(self, settings: Settings, reference: Reference) -> None:
        ladder = Ladder([Referred(settings, reference)], rung(settings), settings)
        channels = len(reference.low)
        self.watched: Watched = watched_of(settings, ladder, channels=channels, models=np.arange(2))
        self.expected: Expected = self.watched.expected(STREAMS)
        for code, name in enumerate(reference.names()):
            self.watched.adopt(self.expected, code, name)
        self.seen = Seen.nothing(STREAMS, self.watched.streams, self.watched.lineup)
        self.limits, self.group = limits_of(settings), np.zeros(STREAMS, np.int32)

    def alarms(self, market: Market) -> tuple[list[Alarm], Measured]:
        """Those of all bars, and what was measured of these [bars x streams]."""
        found, history_and_values, parts = [], flat(market.values), []
        for first in range(0, len(market.missed), CHUNK):
            part = measured_between(self.watched, *history_and_values, first, min(first + CHUNK, len(market.missed)))
            found += self._follow(market, first, part)
            parts.append(part)
        return found, Measured._make(map(np.concatenate, zip(*parts, strict=True)))

    def _follow(self, market: Market, first: int, brought: Measured) -> Iterator[Alarm]:
        bars = len(brought.far) // STREAMS
        stream, bar = np.tile(np.arange(STREAMS), bars), np.repeat(np.arange(first, first + bars), STREAMS)
        rows, labels, at = rows_of(stream, bar), labels_of(market, slice(first, first + bars), stream), 0
        newest, alarm = np.full(STREAMS, first + bars + 1), self.seen.detectors.alarm
        while at >= 0:
            at = families.follow(
                self.seen.detectors, self.watched.streams, self.limits, self.seen.recent, self.seen.place,
                self.watched.lineup, self.expected, self.group, rows, labels, brought, newest, at,
            )  # fmt: skip
            for i in np.flatnonzero(alarm["event"] == RAISED):
                yield Alarm(FAMILIES[i % len(FAMILIES)], int(i) // len(FAMILIES), int(alarm[i]["since"]))
            alarm["event"] = 0


def measured_between(watched: Watched, history: BarHistory, values: F64, first: int, last: int) -> Measured:
    assert watched.sketches is not None
    bars = last - first
    symbol = np.tile(np.arange(STREAMS, dtype=np.int32), bars)
    ordinal = np.repeat(np.arange(first, last), STREAMS)
    return measured(watched.sketches, history.bars, values, symbol, ordinal, np.zeros(len(symbol), np.int64))


def rows_of(stream: I64, bar: I64) -> SettledRows:
    n = len(stream)
    return SettledRows(
        symbol=stream.astype(np.int32), ordinal=bar, close=np.zeros(n), as_of=bar, mask=np.ones(n, np.uint8),
        void_before=np.zeros(n, np.int64), mark=bar + 1, partition=stream.astype(np.int32), question=np.full(n, -1),
    )  # fmt: skip


def labels_of(market: Market, bars: slice, stream: I64) -> LabelRows:
    of = [np.ascontiguousarray(column[bars].ravel()) for column in market[1:]]
    return LabelRows((2 * stream).astype(np.int32), of[0].astype(np.uint8), of[1], of[2])


def told_quiet(name: str, found: list[Alarm], settings: Settings) -> Iterator[Figure]:
    bar = float(settings.drift.mean_bars_between_false_alarms)
    for family in FAMILIES:
        count = sum(alarm.family == family for alarm in found)
        between = STREAMS * QUIET / max(count, 1)
        yield Figure(f"{name}, {family}: bars between alarms", between, "bars", bar, "higher", note=f"{count} alarms")


def peers_quiet(name: str, missed: F64) -> Iterator[Figure]:
    """On the same quiet misses that the family of coverage counts."""
    for peer in PEERS:
        count = int(np.count_nonzero(alarms_of(peer, missed)))
        yield Figure(f"{name}, {peer} on misses: bars between alarms", missed.size / max(count, 1), "bars")


def told_change(name: str, family: str, channel: int, stay: float, settings: Settings) -> Iterator[Figure]:
    change, market = CHANGES[name][0], quiet(CHANGED, stay, seed=5)
    change(market, stay)
    found, brought = Watch(settings, reference_of(quiet(TRAINED, stay, seed=4))).alarms(market)
    hits = hits_of(market, brought, family, channel)
    ours = first_after([a.bar for a in found if a.family == family], [a.stream for a in found if a.family == family])
    peers = {}
    for peer in PEERS:
        bar, stream = np.nonzero(alarms_of(peer, hits))
        peers[peer] = first_after(bar, stream), np.count_nonzero(bar < CHANGE_AT)
    false = sum(alarm.bar < CHANGE_AT and alarm.family == family for alarm in found)
    beside = [f"{peer} {told(*of)}" for peer, of in peers.items()]
    note = "; ".join([told(ours, false), *beside, "always: 0 bars, each bar before is false", "never: none found"])
    count = float(np.isfinite(ours).sum())
    yield Figure(f"{name}: found by {family}", count, "of 100", LEAST_FOUND, "higher", note=note)
    yield Figure(f"{name}: median delay", float(np.median(ours)), "bars")


def hits_of(market: Market, brought: Measured, family: str, channel: int) -> F64:
    """[bars, streams] what the family counts."""
    if family == "coverage":
        return market.missed
    place = brought.place[:, channel]
    of = brought.far == 1 if family == "joint" else (place >= ODD) & (place != MISSING)
    return of.reshape(-1, STREAMS).astype(np.float64)


def first_after(bar: Any, stream: Any) -> F64:
    """[streams] Bars from the change to the first alarm after it; inf = none in time."""
    delay = np.full(STREAMS, np.inf)
    for at, of in zip(bar, stream, strict=True):
        if CHANGE_AT <= at < CHANGE_AT + WITHIN:
            delay[of] = min(delay[of], at - CHANGE_AT)
    return delay


def told(delay: F64, false: int) -> str:
    median = float(np.median(delay))
    return f"{np.isfinite(delay).sum()} found, median {median:.0f} bars, {false} before"


class Feed:
    """A decoder that hands out one tick a bar."""

    def __init__(self) -> None:
        self.ticks: dict[tuple[int, int], TickBatch] = {}

    def forget_names(self) -> None:
        """There are no names."""

    def decode(self, raw: RawBatch) -> tuple[TickBatch, Rejects]:
        none = Rejects(np.empty(0, np.int32), np.empty(0, np.uint8), np.empty(0, np.int32))
        return self.ticks.pop((raw.partition, int(raw.offsets[0]))), none

    def batch(self, stream: int, first: int, ts: I64, price: F64) -> RawBatch:
        n, nothing = len(ts), np.full(len(ts), np.nan)
        zeros, code = np.zeros(n, np.int64), np.full(n, stream, np.int32)
        self.ticks[stream, first] = TickBatch(
            code, ts, price, np.ones(n), nothing, nothing, np.full(n, -1), np.arange(n, dtype=np.int32), code * 0
        )
        return RawBatch("t", stream, np.zeros(0, np.uint8), zeros, zeros, first + np.arange(n), np.full(n, -1))


def served(moves: F64, folder: Path) -> list[Alarm]:
    """All that the engine says of a market whose first part a model was fitted on."""
    settings = deployment(**{"features.set": FEATURES})
    path = written(bars_of(moves[:TRAINED], T0, HOUR_NS), folder / "fit.parquet")
    fit(settings, path, folder / "model", order=fit_order(settings, kind="ridge", name="ridge", params={}))
    symbols, feed, last_value = SymbolTable(settings.symbols.limit), Feed(), rung(settings)
    for stream in range(STREAMS):
        symbols.code(f"S{stream:03d}")
    features = FeatureSet(settings.features.set, settings.forecast.transform)
    ladder = Ladder([open_model(folder / "model"), last_value], last_value, settings)
    engine = Engine(settings, symbols, feed, features, ladder)
    price = 100 * np.exp(np.cumsum(moves, axis=0))[TRAINED:]
    ts = T0 + (TRAINED + np.arange(len(price))) * HOUR_NS + HOUR_NS // 2
    found = []
    for first in range(0, len(price), CHUNK):
        part = slice(first, first + CHUNK)
        batches = [feed.batch(s, first, ts[part], np.ascontiguousarray(price[part, s])) for s in range(STREAMS)]
        outcome = engine.turn(batches, 0)  # type: ignore[arg-type]
        found += [Alarm(d.family, d.partition, 0) for d in outcome.drift if d.event == "raised"]
    return found


def cost() -> Figure:
    """Of one instant at which every symbol closes a bar, in one partition."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((40, COST_SYMBOLS, COST_CHANNELS))
    history, flat_values = flat(values)
    of_values = describe(history, flat_values, np.arange(len(history)), watch_target=True, per_bar=True)
    alone = reference_of(quiet(1_000, 0.0, seed=0)).arrays()
    names = np.frombuffer(bytearray(msgspec.json.encode(history.names)), np.uint8)
    reference = Reference(**{**alone, **of_values, "symbols": names, "loss": np.ones(COST_SYMBOLS + 1)})
    settings = deployment()
    ladder = Ladder([Referred(settings, reference)], rung(settings), settings)
    watched = watched_of(settings, ladder, channels=COST_CHANNELS, models=np.arange(2))
    expected, group = watched.expected(COST_SYMBOLS), np.zeros(COST_SYMBOLS, np.int32)
    seen, limits = Seen.nothing(1, watched.streams, watched.lineup), limits_of(settings)
    symbol, first = np.arange(COST_SYMBOLS), np.zeros(COST_SYMBOLS, np.int64)
    none = np.ones(COST_SYMBOLS)
    labels = LabelRows(group.copy(), np.zeros(COST_SYMBOLS, np.uint8), none, none)
    mark = [0]

    def evaluate() -> None:
        mark[0] += 1
        assert watched.sketches is not None
        ordinal = np.full(COST_SYMBOLS, mark[0] % 40)
        brought = measured(watched.sketches, history.bars, flat_values, symbol.astype(np.int32), ordinal, first)
        rows = rows_of(symbol, np.full(COST_SYMBOLS, mark[0]))._replace(partition=group)
        newest = np.array([mark[0] + 2])
        families.follow(
            seen.detectors, watched.streams, limits, seen.recent, seen.place, watched.lineup, expected, group, rows,
            labels, brought, newest, 0,
        )  # fmt: skip

    ms = cpu_ns_per(1, evaluate, runs=51) / 1e6
    return Figure("an evaluation of 1,000 symbols x 32 features", ms, "ms", COST_MS)


def main() -> list[Figure]:
    settings, figures = deployment(), [cost()]
    for name, stay in (("i.i.d.", 0.0), ("AR(1) .2", 0.2), ("AR(1) .4", 0.4)):
        market = quiet(QUIET, stay, seed=2)
        found, _ = Watch(settings, reference_of(quiet(TRAINED, stay, seed=1))).alarms(market)
        figures += told_quiet(name, found, settings)
        figures += peers_quiet(name, market.missed)
    for name, (_, family, channel) in CHANGES.items():
        figures += told_change(name, family, channel, STAY, settings)
    print(*figures, sep="\n", flush=True)
    for name, moves in (("GARCH", garch_moves), ("crypto by weeks", crypto_moves)):
        with tempfile.TemporaryDirectory() as folder:
            figures += told_quiet(name, served(moves(TRAINED + QUIET, seed=3), Path(folder)), settings)
        print(*figures[-len(FAMILIES) :], sep="\n", flush=True)
    return figures


if __name__ == "__main__":
    for figure in main():
        print(figure)
