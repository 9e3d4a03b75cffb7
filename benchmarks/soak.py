"""Ten minutes of the live daemon under load, the store writing everything: memory must stay flat.

    make soak                                            SOAK_S=120 python benchmarks/run.py soak for a short one

Resident memory is read each second; a slope is that of the least squares line through the last half. DuckDB keeps
what it wrote in memory, up to store.memory_bytes and with a sawtooth below it: the bound is set low enough here to be
reached within the first half, and the slope without DuckDB's own memory is printed beside the whole.
"""

import asyncio
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import uvloop

from live import SECOND, WARM_BARS, Feed, fitted, settings_for
from stats import Figure
from tickcast.clock import SystemClock
from tickcast.io.memory_bus import MemoryBus, Subscription
from tickcast.live.buses.memory import EmbeddedBus
from tickcast.live.daemon import Daemon
from tickcast.live.process import resident_bytes
from tickcast.settings import Settings

SOAK_S = float(os.environ.get("SOAK_S", "600"))
RATE_HZ, SYMBOLS, SLICE_S = 3_000, 1_000, 0.005
MB = 2**20
STORE_MB = 192
BAR_MB_PER_MIN = 1.0
OF_DUCKDB = "SELECT CAST(sum(memory_usage_bytes) AS BIGINT) FROM duckdb_memory()"


class Sample(NamedTuple):
    resident: int
    duckdb: int


async def soak(settings: Settings) -> tuple[list[Sample], dict[str, float], int]:
    """(memory at each second, tick-to-forecast latency in ms, forecasts published)"""
    clock = SystemClock()
    bus = MemoryBus(clock)
    daemon = Daemon(settings, EmbeddedBus(bus), clock=clock)
    published = bus.subscribe(settings.topics.prefix + "forecasts", settings.topics.prefix + "accuracy")
    running = asyncio.create_task(daemon.run())
    await daemon.live.wait()
    feed, topic = Feed(SYMBOLS), settings.topics.ticks[0]
    for _ in range(WARM_BARS):
        await bus.produce(topic, feed.slice(SYMBOLS, clock.now_ns()))
        await asyncio.sleep(0.05)
    while daemon.session.unread():
        await asyncio.sleep(0.05)
    daemon.session.pump.meter.latency.clear()
    samples: list[Sample] = []
    beside = [asyncio.create_task(read_for_ever(published)), asyncio.create_task(sample_for_ever(daemon, samples))]
    sent, began = 0, clock.monotonic_ns()
    while (passed := (clock.monotonic_ns() - began) / SECOND) < SOAK_S:
        due = int(passed * RATE_HZ) - sent
        await bus.produce(topic, feed.slice(due, clock.now_ns()))
        sent += due
        await asyncio.sleep(SLICE_S)
    for task in beside:
        task.cancel()
    latency, forecasts = daemon.session.pump.meter.latency.summary_ms(), daemon.session.pump.meter.forecasts
    daemon.drain()
    await running
    return samples, latency, forecasts


async def read_for_ever(published: Subscription) -> None:
    """What consumers of the forecasts do: a topic that nobody reads would grow."""
    while True:
        await published.next_batches(1.0)


async def sample_for_ever(daemon: Daemon, samples: list[Sample]) -> None:
    while True:
        _, ((of_duckdb,),) = await daemon.session.store.query(OF_DUCKDB)
        samples.append(Sample(resident_bytes(), int(str(of_duckdb))))
        await asyncio.sleep(1)


def slope_mb_per_min(series: list[int]) -> float:
    """Of the last half, by least squares."""
    last = np.array(series[len(series) // 2 :]) / MB
    return float(np.polyfit(np.arange(len(last)) / 60, last, 1)[0])


def main() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        model = fitted(Path(name), bars__kind="tick")
        bound = str(STORE_MB * MB)
        settings = settings_for(Path(name), bars__kind="tick", model__default=str(model), store__memory_bytes=bound)
        samples, latency, forecasts = uvloop.run(soak(settings))
    load = f"{SOAK_S:.0f} s, {RATE_HZ:,} ticks/s of {SYMBOLS:,} symbols, every tick a bar, NHITS"
    resident = [sample.resident for sample in samples]
    ours = [sample.resident - sample.duckdb for sample in samples]
    quarters = " / ".join(f"{resident[int(q * (len(resident) - 1))] / MB:.0f}" for q in (0, 0.25, 0.5, 0.75, 1))
    return [
        Figure("resident memory, slope", slope_mb_per_min(resident), "MB/min", BAR_MB_PER_MIN, note=load),
        Figure("the same without DuckDB's own", slope_mb_per_min(ours), "MB/min"),
        Figure("resident memory, peak", max(resident) / MB, "MB", note=f"at each quarter: {quarters}"),
        Figure("tick to forecast meanwhile, p99", latency["p99"], "ms", note=f"{forecasts:,} forecasts"),
    ]


if __name__ == "__main__":
    for figure in main():
        print(figure)
