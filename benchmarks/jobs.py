"""What a training job costs the serving beside it: the live daemon with and without one, in interleaved pairs.

    python benchmarks/run.py jobs

The daemon runs on the memory bus at 10,000 ticks/s, every tick a bar and every bar a question to an NHITS, as in
live.py. The job fits another NHITS in a child process, one torch thread, and outlasts the measurement.
"""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import uvloop

from live import fitted, settings_for, under_load
from stats import Figure, ratio_of
from tickcast.batch.bar_history import write_bars
from tickcast.batch.synth import write
from tickcast.clock import SystemClock
from tickcast.io.jobs.folder import BARS
from tickcast.io.jobs.host import JobHost
from tickcast.io.jobs.prepare import JobInputs, fit_order
from tickcast.records import JobRow
from tickcast.settings import Settings

PAIRS = 5
FIT = {"epochs": 10_000, "patience": 10_000, "windows_per_epoch": 8_192, "time_budget_s": 36_000.0, "hidden": 64}
WAIT_S = 120
Run = tuple[float, float, float]  # tick-to-forecast p99, loop-lag p99, forecasts/s


class NoRows:
    async def put_job(self, row: JobRow) -> None: ...


@asynccontextmanager
async def training(settings: Settings, bars: Path) -> AsyncIterator[None]:
    """A job that trains inside the block."""
    host = JobHost(
        settings.jobs, settings.runtime.folder / "jobs", clock=SystemClock(), ledger=NoRows(), on_event=lambda _: None
    )
    running = asyncio.create_task(host.run())
    order = fit_order(settings, kind="nhits", name="busy", params=FIT)
    row = await host.submit(order, JobInputs(lambda folder: shutil.copy(bars, folder / BARS)))
    async with asyncio.timeout(WAIT_S):
        while not host.rows()[0].step:
            await asyncio.sleep(0.1)
    yield
    (row,) = host.rows()
    if row.state != "running":
        raise RuntimeError(f"the job ended while it was measured: {row.why} {row.result_json}")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def beside_a_job(settings: Settings, bars: Path) -> Run:
    async with training(settings, bars):
        return await under_load(settings)


def main() -> list[Figure]:
    idle: list[Run] = []
    busy: list[Run] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = str(fitted(folder, bars__kind="tick"))
        data, bars = folder / "history.parquet", folder / BARS
        write(data, symbols=20, seconds=3600, seed=2)
        write_bars(settings_for(folder), data, bars, symbols=None)
        for pair in range(PAIRS):
            sides = ("idle", "busy") if pair % 2 == 0 else ("busy", "idle")
            for side in sides:
                settings = settings_for(folder / f"{side}{pair}", bars__kind="tick", model__default=model)
                if side == "idle":
                    idle.append(uvloop.run(under_load(settings)))
                else:
                    busy.append(uvloop.run(beside_a_job(settings, bars)))
    slower = ratio_of([b[0] / i[0] for i, b in zip(idle, busy, strict=True)])
    note = f"idle {median(i[0] for i in idle):.2f} ms, beside the job {median(b[0] for b in busy):.2f} ms"
    rates = f"{median(i[2] for i in idle):,.0f} and {median(b[2] for b in busy):,.0f} forecasts/s"
    lag = median(b[1] for b in busy)
    return [
        Figure("tick to forecast p99 beside a training job, times idle", slower.median, "x", 2.0, "lower", slower.low,
               slower.high, note),
        Figure("event-loop lag beside a training job, p99", lag, "ms", 3, note=rates),
    ]  # fmt: skip


if __name__ == "__main__":
    for figure in main():
        print(figure)
