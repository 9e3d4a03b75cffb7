"""A search of 100 trials beside the live daemon on the memory bus: how long it takes, and what serving notices of it.

    python benchmarks/run.py optimize

Each trial fits a micro network on 50,000 windows for at most five epochs; the median pruner gives up early. The child
runs as a job does: one torch thread, nice 19. The daemon takes 2,000 ticks a second meanwhile, every tick a bar and a
question to an NHITS.
"""

import asyncio
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import uvloop

from live import SECOND, Feed, all_stored, fitted, settings_for
from stats import Figure
from tickcast.clock import SystemClock
from tickcast.io.jobs.folder import BARS, TRIALS, Result, read_result
from tickcast.io.jobs.orders import FitOrder, TuneOrder
from tickcast.io.memory_bus import MemoryBus
from tickcast.live.buses.memory import EmbeddedBus
from tickcast.live.daemon import Daemon
from tickcast.records import TrialRow
from tickcast.settings import Settings

TRIALS_WANTED, WINDOWS, EPOCHS = 100, 50_000, 5
SYMBOLS, BARS_EACH = 20, 4_000
RATE_HZ, LOAD_SYMBOLS, SLICE_S, ALONE_S = 2_000, 200, 0.002, 20.0
WARM_BARS = 110  # per symbol, so that the net answers


def write_job(folder: Path) -> None:
    """Returns that turn back a little, so that there is something to find."""
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1e-3, (SYMBOLS, BARS_EACH))
    moves = noise.copy()
    for t in range(1, BARS_EACH):
        moves[:, t] -= 0.3 * moves[:, t - 1]
    close = 100 * np.exp(moves.cumsum(axis=1)).ravel()
    rows = len(close)
    columns = {
        "symbol": np.repeat([f"S{i:02d}" for i in range(SYMBOLS)], BARS_EACH),
        "as_of_ns": np.tile((np.arange(BARS_EACH) + 1) * 60 * SECOND, SYMBOLS), "tie": np.zeros(rows, np.int32),
        **dict.fromkeys(("open", "high", "low", "close"), close), "volume": np.ones(rows),
        "mask": np.ones(rows, np.uint8), "gap": np.zeros(rows, np.uint8),
    }  # fmt: skip
    folder.mkdir()
    pq.write_table(pa.table(columns), folder / BARS)
    fit = FitOrder(kind="micro", windows_per_epoch=WINDOWS, epochs=EPOCHS, bars={"kind": "time", "every_ms": 60_000})
    TuneOrder(fit=fit, trials=TRIALS_WANTED, pruner="median").write(folder)


class Load:
    """Ticks at an even rate until told to stop."""

    def __init__(self, bus: MemoryBus, settings: Settings) -> None:
        self.bus, self.topic, self.clock = bus, settings.topics.ticks[0], SystemClock()
        self.feed = Feed(LOAD_SYMBOLS)

    async def warm(self) -> None:
        for _ in range(WARM_BARS):
            await self.bus.produce(self.topic, self.feed.slice(LOAD_SYMBOLS, self.clock.now_ns()))
            await asyncio.sleep(0.02)

    async def run(self) -> None:
        began, sent = self.clock.monotonic_ns(), 0
        while True:
            due = int((self.clock.monotonic_ns() - began) / SECOND * RATE_HZ) - sent
            if due:
                await self.bus.produce(self.topic, self.feed.slice(due, self.clock.now_ns()))
                sent += due
            await asyncio.sleep(SLICE_S)


async def beside_a_daemon(settings: Settings, job: Path) -> tuple[float, float, float, float]:
    """(seconds of the job, forecasts/s meanwhile, tick-to-forecast p99 without it, and with it)"""
    clock = SystemClock()
    bus = MemoryBus(clock)
    daemon = Daemon(settings, EmbeddedBus(bus), clock=clock)
    running = asyncio.create_task(daemon.run())
    await daemon.live.wait()
    load = Load(bus, settings)
    await load.warm()
    await all_stored(daemon)
    feeding = asyncio.create_task(load.run())
    daemon.session.pump.meter.latency.clear()
    await asyncio.sleep(ALONE_S)
    alone = daemon.session.pump.meter.latency.summary_ms()["p99"]
    daemon.session.pump.meter.latency.clear()
    before, began = daemon.session.pump.meter.forecasts, clock.monotonic_ns()
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", "tickcast.io.jobs.worker", str(job))
    await child.wait()
    seconds = (clock.monotonic_ns() - began) / SECOND
    rate = (daemon.session.pump.meter.forecasts - before) / seconds
    beside = daemon.session.pump.meter.latency.summary_ms()["p99"]
    feeding.cancel()
    daemon.drain()
    await running
    return seconds, rate, alone, beside


def result_of(job: Path) -> Result:
    result = read_result(job)
    if result is None or not result.ok:
        raise subprocess.SubprocessError(f"the search failed: {result}")
    return result


def main() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = folder / "job"
        write_job(job)
        settings = settings_for(
            folder / "live", bars__kind="tick", model__default=str(fitted(folder, bars__kind="tick"))
        )
        seconds, rate, alone, beside = uvloop.run(beside_a_daemon(settings, job))
        result = result_of(job)
        rows = [msgspec.json.decode(line, type=TrialRow) for line in (job / TRIALS).read_bytes().splitlines()]
    states = Counter(row.state for row in rows)
    fits, search = sum(row.seconds for row in rows), result.content["seconds"]
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    note = f"{WINDOWS:,} windows, <= {EPOCHS} epochs, one worker; {told}; {fits:.0f} s of {search:.0f} in fits"
    load = f"{RATE_HZ:,} ticks/s, {rate:,.0f} forecasts/s"
    best, first = result.content["best"]["value"], result.content["first"]["value"]
    return [
        Figure(f"{TRIALS_WANTED} trials of a micro network and the fit of the best", seconds, "s", 300, note=note),
        Figure("tick to forecast, p99, meanwhile", beside, "ms", note=load),
        Figure("tick to forecast, p99, without the search", alone, "ms", note=f"the {ALONE_S:.0f} s before it"),
        Figure("pinball of the best over that of the defaults", best / first, "x", note="validation part, TPE"),
    ]


if __name__ == "__main__":
    for figure in main():
        print(figure)
