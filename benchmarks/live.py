"""The live daemon on the memory bus, the store writing everything: latency under load, and a burst of all symbols.

    python benchmarks/run.py live

The model is an NHITS (hidden 64, L 96, H 12) fitted for a few steps: its speed is measured here, not its skill.
"""

import asyncio
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import uvloop

from stats import Figure
from tickcast.batch.by_hand.fit import fit
from tickcast.batch.synth import write
from tickcast.clock import SystemClock
from tickcast.io.jobs.prepare import fit_order
from tickcast.io.memory_bus import MemoryBus
from tickcast.live.buses.memory import EmbeddedBus
from tickcast.live.daemon import Daemon
from tickcast.settings import Settings, load

RUNS = 5
RATE_HZ, LOAD_S, LOAD_SYMBOLS, SLICE_S = 10_000, 10.0, 1_000, 0.002
WARM_BARS = 110  # per symbol, so that the net answers
BURST_SYMBOLS, BURST_BARS = 20_000, 100
SECOND = 10**9
BLOCK_NS = SECOND
FIT = {"epochs": 1, "windows_per_epoch": 512, "batch_size": 256, "hidden": 64}


def settings_for(folder: Path, **extra: str) -> Settings:
    dotted = {key.replace("__", "."): value for key, value in extra.items()}
    paths = {"store.path": str(folder / "t.duckdb"), "runtime.folder": str(folder / "run")}
    return load(overrides={"quality.future_ms": "0", "log.level": "error", **paths, **dotted}, environ={})[0]


def fitted(folder: Path, *, seed: int = 0, **bars: str) -> Path:
    data, out = folder / f"ticks{seed}.parquet", folder / f"model{seed}"
    write(data, symbols=4, seconds=600, seed=1)
    settings = settings_for(folder, **bars)
    fit(settings, data, out, order=fit_order(settings, kind="nhits", name="bench", params={**FIT, "seed": seed}))
    return out


class Feed:
    """Random walks as JSON messages."""

    def __init__(self, symbols: int) -> None:
        self._rng = np.random.default_rng(1)
        self._price = np.full(symbols, 100.0)
        self._next = 0

    def slice(self, count: int, ts: int) -> list[bytes]:
        """The next `count` symbols in turn."""
        code = (self._next + np.arange(count)) % len(self._price)
        self._next += count
        self._price[code] *= np.exp(self._rng.normal(0, 1e-4, count))
        return [
            b'{"symbol":"S%05d","ts":%d,"price":%.4f,"size":1.0}' % (c, ts, p)
            for c, p in zip(code, self._price[code], strict=True)
        ]


async def under_load(settings: Settings, *, shadow: Path | None = None) -> tuple[float, float, float]:
    """(tick-to-forecast p99, loop-lag p99, forecasts/s) at RATE_HZ, each tick a bar and each bar a question; with a
    `shadow`, which answers them all, too."""
    clock = SystemClock()
    bus = MemoryBus(clock)
    daemon = Daemon(settings, EmbeddedBus(bus), clock=clock)
    running = asyncio.create_task(daemon.run())
    await daemon.live.wait()
    if shadow is not None:
        models = daemon.session.commands.serving_models
        card = await models.models.register(shadow, origin="folder")
        await models.shadow(card.digest, "default", contest="bench", block_ns=BLOCK_NS)
    feed, topic, per_slice = Feed(LOAD_SYMBOLS), settings.topics.ticks[0], int(RATE_HZ * SLICE_S)
    for _ in range(WARM_BARS):
        await bus.produce(topic, feed.slice(LOAD_SYMBOLS, clock.now_ns()))
        await asyncio.sleep(0.02)
    while daemon.session.unread() or daemon.session.pump.meter.bars < WARM_BARS * LOAD_SYMBOLS:
        await asyncio.sleep(0.05)
    await all_stored(daemon)
    daemon.session.pump.meter.latency.clear()
    daemon.vitals.lag.latency.clear()
    before, began = daemon.session.pump.meter.forecasts, clock.monotonic_ns()
    sent = 0
    while (passed := (clock.monotonic_ns() - began) / SECOND) < LOAD_S:
        due = int(passed * RATE_HZ) - sent
        if due >= per_slice:
            await bus.produce(topic, feed.slice(due, clock.now_ns()))
            sent += due
        await asyncio.sleep(SLICE_S)
    if shadow is not None and not await daemon.session.store.ledger.blocks("bench", 0):
        raise RuntimeError("the shadow has answered nothing")
    latency, lag = daemon.session.pump.meter.latency.summary_ms(), daemon.vitals.lag.latency.summary_ms()
    rate = (daemon.session.pump.meter.forecasts - before) / LOAD_S
    daemon.drain()
    await running
    return latency["p99"], lag["p99"], rate


async def all_stored(daemon: Daemon) -> None:
    """Warming up closes far more bars at once than any market: what the store still has to write is waited for."""
    await asyncio.sleep(1)
    while daemon.session.commits.behind or daemon.session.unread():
        await asyncio.sleep(0.1)


async def burst(settings: Settings) -> tuple[float, float]:
    """(ms until the last forecast of all symbols is published, loop-lag p99) when all close in the same instant."""
    clock = SystemClock()
    bus = MemoryBus(clock)
    daemon = Daemon(settings, EmbeddedBus(bus), clock=clock)
    forecasts = bus.subscribe(settings.topics.prefix + "forecasts")
    running = asyncio.create_task(daemon.run())
    await daemon.live.wait()
    feed, topic = Feed(BURST_SYMBOLS), settings.topics.ticks[0]
    t0 = 1_700_000_000 * SECOND
    for bar in range(BURST_BARS):
        await bus.produce(topic, feed.slice(BURST_SYMBOLS, t0 + bar * SECOND))
        while daemon.session.pump.meter.bars < bar * BURST_SYMBOLS or daemon.session.unread():
            await asyncio.sleep(0.01)
    took = []
    for bar in range(BURST_BARS, BURST_BARS + RUNS):
        await all_stored(daemon)
        await forecasts.next_batches(0.1)
        daemon.vitals.lag.latency.clear()
        began, seen = clock.monotonic_ns(), 0
        await bus.produce(topic, feed.slice(1, t0 + bar * SECOND))
        while seen < BURST_SYMBOLS:
            seen += sum(map(len, await forecasts.next_batches(5.0)))
        took.append((clock.monotonic_ns() - began) / 1e6)
        await bus.produce(topic, feed.slice(BURST_SYMBOLS - 1, t0 + bar * SECOND))
    lag = daemon.vitals.lag.latency.summary_ms()["p99"]
    daemon.drain()
    await running
    return median(took), lag


def main() -> list[Figure]:
    figures = []
    with tempfile.TemporaryDirectory() as name:
        model = fitted(Path(name), bars__kind="tick")
        runs = []
        for k in range(RUNS):
            folder = Path(name) / f"load{k}"
            settings = settings_for(folder, bars__kind="tick", model__default=str(model))
            runs.append(uvloop.run(under_load(settings)))
        latency, lag, rate = (median(column) for column in zip(*runs, strict=True))
        note = f"{RATE_HZ:,} ticks/s, {rate:,.0f} forecasts/s, every tick a bar, NHITS"
        figures.append(Figure("tick to forecast, p99", latency, "ms", 10, note=note))
        figures.append(Figure("event-loop lag meanwhile, p99", lag, "ms", 3))
    for rung, bar in (("nhits", 400), ("naive", 150)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            model = str(fitted(folder)) if rung == "nhits" else "naive"
            took, lag = uvloop.run(burst(settings_for(folder, model__default=model)))
        figures.append(Figure(f"{BURST_SYMBOLS:,} symbols close at once, last forecast, {rung}", took, "ms", bar))
        figures.append(Figure(f"event-loop lag meanwhile, p99, {rung}", lag, "ms", 10))
    return figures


if __name__ == "__main__":
    for figure in main():
        print(figure)
