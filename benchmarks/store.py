"""What storing costs: a commit of 1,000 and of 100,000 forecasts of 12 steps and 5 levels, CPU per row, bytes per row.

    python benchmarks/run.py store

Everything goes through Store.write into a file on this machine's disk, offsets and all, log folded in as it grows.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from stats import Figure
from tickcast.columns import BarBatch, Forecasts, Scores
from tickcast.records import ModelCard
from tickcast.registry.size import BAR_BYTES, estimate_bytes_per_day
from tickcast.registry.store import Store, Unit
from tickcast.settings import Settings, load
from tickcast.symbols import SymbolTable

T0 = 1_700_000_000 * 10**9
SECOND = 10**9
SYMBOLS, HORIZON, LEVELS = 1000, 12, [0.05, 0.25, 0.5, 0.75, 0.95]
SOURCE = ("tickcast.ticks", 0)
UNIT_ROWS = 2000  # one unit of 200 ms at 10,000 forecasts a second
RATE = 10_000


def deployment(folder: Path) -> Settings:
    return load(overrides={"store.path": str(folder / "bench.duckdb"), "forecast.horizon": str(HORIZON)}, environ={})[0]


def opened(settings: Settings) -> Store:
    symbols = SymbolTable(SYMBOLS)
    for code in range(SYMBOLS):
        symbols.code(f"SYM{code:05d}")
    card = ModelCard(
        name="bench", kind="bench", version="1", digest="bench", framework="numpy", bars={}, transform="log_return",
        lookback=96, horizon=HORIZON, levels=LEVELS, features=[],
    )  # fmt: skip
    return Store.open(settings, symbols=symbols, cards=[card], at_ns=T0)


def forecasts(first: int, count: int) -> Forecasts:
    """Prices around 60,000 that never repeat: the worst case for compression."""
    rng, n = np.random.default_rng(first), np.arange(first, first + count)
    as_of = T0 + n // SYMBOLS * SECOND
    anchor = np.round(60_000 + rng.normal(0, 500, count), 2)
    words = rng.integers(0, 2**64, (3, count), dtype=np.uint64)
    moves = np.sort(rng.normal(0, 5, (count, HORIZON, len(LEVELS))), axis=2)
    zeros = np.zeros(count, np.int32)
    return Forecasts(
        (n % SYMBOLS).astype(np.int32), n // SYMBOLS, as_of, zeros, zeros, n, anchor, rng.random(count),
        zeros.astype(np.uint8), zeros, zeros.astype(np.uint8), words[0], words[1], words[2],
        as_of[:, None] + SECOND * np.arange(1, HORIZON + 1), anchor[:, None, None] + moves,
        rng.random(count).astype(np.float32), as_of,
    )  # fmt: skip


def scores(of: Forecasts, steps: int) -> Scores:
    rng, shape = np.random.default_rng(1), (len(of), steps)
    near = of.anchor[:, None] + rng.normal(0, 5, (2, *shape))
    return Scores(
        of.symbol, of.as_of, of.model, of.partition, of.id_high, of.id_low, of.target_ns[:, -1], of.anchor, of.scale,
        near[0], near[1], rng.random(shape), np.ones(shape, np.uint8), np.zeros(len(of), np.uint8),
    )  # fmt: skip


def bars(of: Forecasts) -> BarBatch:
    rng, n = np.random.default_rng(2), len(of)
    low, high = of.anchor - rng.random(n).round(2), of.anchor + rng.random(n).round(2)
    return BarBatch(
        of.symbol, of.ordinal, of.as_of, of.tie, low, high, low, of.anchor, rng.random(n).round(3),
        rng.integers(1, 50, n), np.ones(n, np.uint8), np.zeros(n, np.uint8), of.partition, of.offset, of.ordinal,
    )  # fmt: skip


async def insert_ms(rows: int, repeats: int) -> tuple[float, float]:
    """Median and worst wall time of one unit of so many forecasts."""
    with tempfile.TemporaryDirectory() as folder:
        store = opened(deployment(Path(folder)))
        batches = [forecasts(k * rows, rows) for k in range(repeats + 2)]
        taken = []
        for k, batch in enumerate(batches):
            unit = Unit(forecasts=[batch], offsets={SOURCE: (k + 1) * rows}, sources=[SOURCE])
            began = time.perf_counter()
            await store.write(unit)
            taken.append((time.perf_counter() - began) * 1e3)
        await store.close()
    return median(taken[2:]), max(taken[2:])


async def sustained(units: int) -> tuple[float, float]:
    """CPU microseconds per forecast with its bar and its scores, checkpoints included; and the slowest unit in ms."""
    with tempfile.TemporaryDirectory() as folder:
        settings = deployment(Path(folder))
        steps = len(settings.scored_horizons())
        store = opened(settings)
        cpu, slowest = 0.0, 0.0
        for k in range(units):
            batch = forecasts(k * UNIT_ROWS, UNIT_ROWS)
            whole = Unit(
                forecasts=[batch], scores=[scores(batch, steps)], bars=[bars(batch)],
                offsets={SOURCE: (k + 1) * UNIT_ROWS}, sources=[SOURCE],
            )  # fmt: skip
            used, began = time.process_time(), time.perf_counter()
            await store.write(whole)
            if k:  # the first unit prepares the statements' code paths
                cpu += time.process_time() - used
                slowest = max(slowest, (time.perf_counter() - began) * 1e3)
        await store.close()
    return cpu / ((units - 1) * UNIT_ROWS) * 1e6, slowest


async def bytes_per_row(which: str, units: int = 20, rows: int = 10_000) -> float:
    """Of one table, in the closed file."""
    with tempfile.TemporaryDirectory() as folder:
        settings = deployment(Path(folder))
        steps = len(settings.scored_horizons())
        store = opened(settings)
        for k in range(units):
            batch = forecasts(k * rows, rows)
            part = {"forecasts": batch, "scores": scores(batch, steps), "bars": bars(batch)}[which]
            await store.write(Unit(**{which: [part]}, offsets={SOURCE: (k + 1) * rows}, sources=[SOURCE]))  # type: ignore[arg-type]
        await store.close()
        return settings.store.path.stat().st_size / (units * rows)


def main() -> list[Figure]:
    small, small_worst = asyncio.run(insert_ms(1000, 100))
    large, _ = asyncio.run(insert_ms(100_000, 5))
    cpu_us, slowest = asyncio.run(sustained(150))
    sizes = {which: asyncio.run(bytes_per_row(which)) for which in ("bars", "forecasts", "scores")}
    day = estimate_bytes_per_day(load(overrides={"forecast.horizon": str(HORIZON)}, environ={})[0], 1)
    told = {"bars": BAR_BYTES, "forecasts": day.forecasts / 86_400, "scores": day.scores / 86_400}
    shape = f"{HORIZON} steps x {len(LEVELS)} levels"
    return [
        Figure("unit of 1,000 forecasts, median", small, "ms", note=f"{shape}; worst {small_worst:.0f} ms"),
        Figure("unit of 100,000 forecasts, median", large, "ms", note=shape),
        Figure("CPU per forecast with its bar and scores", cpu_us, "us", note="units of 2,000, checkpoints included"),
        Figure("share of a core at 10,000 forecasts/s", cpu_us * RATE / 1e6, "cores", bar=0.5, better="lower"),
        Figure("slowest unit of 2,000, checkpoint included", slowest, "ms", note="8 units of 200 ms may be open"),
        *(
            Figure(f"bytes per row of {which}", size, "bytes", note=f"tickcast check reckons with {told[which]:.0f}")
            for which, size in sizes.items()
        ),
    ]
