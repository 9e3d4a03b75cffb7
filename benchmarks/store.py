"""What storing costs: a commit of 1,000 and of 100,000 forecasts of 12 steps and 5 levels, CPU per row, bytes per row.

    python benchmarks/run.py store

Everything goes through Store.write into a file on this machine's disk, offsets and all, log folded in as it grows.
"""

import asyncio
import re
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from stats import Figure
from tickcast.columns import BarBatch, Forecasts, Scores
from tickcast.io.store import schema
from tickcast.io.store.rows import Names, Origin, forecast_rows
from tickcast.io.store.store import Commit, Store
from tickcast.records import ModelCard
from tickcast.settings import Settings, load
from tickcast.symbols import SymbolTable
from tickcast.ui.store_size import BAR_BYTES, estimate_bytes_per_day

T0 = 1_700_000_000 * 10**9
SECOND = 10**9
SYMBOLS, HORIZON, LEVELS = 1000, 12, [0.05, 0.25, 0.5, 0.75, 0.95]
SOURCE = ("tickcast.ticks", 0)
UNIT_ROWS = 2000  # one unit of 200 ms at 10,000 forecasts a second
RATE = 10_000


def deployment(folder: Path) -> Settings:
    return load(overrides={"store.path": str(folder / "bench.duckdb"), "forecast.horizon": str(HORIZON)}, environ={})[0]


def symbols() -> SymbolTable:
    table = SymbolTable(SYMBOLS)
    for code in range(SYMBOLS):
        table.code(f"SYM{code:05d}")
    return table


def opened(settings: Settings) -> Store:
    card = ModelCard(
        name="bench", kind="bench", version="1", digest="bench", framework="numpy", bars={}, transform="log_return",
        lookback=96, horizon=HORIZON, levels=LEVELS, features=[],
    )  # fmt: skip
    return Store.open(settings, symbols=symbols(), cards=[card], at_ns=T0)


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
        as_of[:, None] + SECOND * np.arange(1, HORIZON + 1), anchor[:, None, None] + moves, np.ptp(moves, axis=2),
        rng.random(count).astype(np.float32), np.full((count, 3), np.nan, np.float32), as_of,
    )  # fmt: skip


def scores(of: Forecasts, steps: int) -> Scores:
    rng, shape = np.random.default_rng(1), (len(of), steps)
    near = of.anchor[:, None] + rng.normal(0, 5, (2, *shape))
    return Scores(
        of.symbol, of.as_of, of.model, of.partition, of.id_high, of.id_low, of.target_ns[:, -1], of.anchor, of.scale,
        near[0], near[1], *rng.random((3, *shape)), np.ones(shape, np.uint8), np.zeros(len(of), np.uint8),
        np.ones(len(of), np.uint8), np.full(len(of), 255, np.uint8),
    )  # fmt: skip


def bars(of: Forecasts) -> BarBatch:
    rng, n = np.random.default_rng(2), len(of)
    low, high = of.anchor - rng.random(n).round(2), of.anchor + rng.random(n).round(2)
    return BarBatch(
        of.symbol, of.ordinal, of.as_of, of.tie, low, high, low, of.anchor, rng.random(n).round(3),
        rng.integers(1, 50, n), np.ones(n, np.uint8), np.zeros(n, np.uint8), of.partition, of.offset, of.ordinal,
    )  # fmt: skip


class Bare:
    """The least that DuckDB itself takes: Arrow rows into a table of the same columns, one transaction each."""

    def __init__(self, folder: Path) -> None:
        self._connection = duckdb.connect(
            str(folder / "bare.duckdb"), config={"threads": 1, "checkpoint_threshold": "64MB"}
        )
        migrations = "".join(path.read_text() for path in sorted(schema.folder().glob("*.sql")))
        for statement in re.findall(r"(?:CREATE|ALTER) TABLE forecasts .*?;$", migrations, re.DOTALL | re.MULTILINE):
            self._connection.execute(statement).fetchall()

    def write(self, rows: pa.Table) -> None:
        self._connection.register("rows", rows)
        self._connection.execute("INSERT INTO forecasts BY NAME SELECT * FROM rows").fetchall()
        self._connection.unregister("rows")


class Insert(NamedTuple):
    ms: float
    worst_ms: float
    bare_ms: float


async def insert(rows: int, repeats: int) -> Insert:
    """Wall time of one unit of so many forecasts, in turn with the bare insert of the same rows."""
    with tempfile.TemporaryDirectory() as folder:
        store, bare = opened(deployment(Path(folder))), Bare(Path(folder))
        names, origin, model = Names(symbols()), Origin([SOURCE]), np.array([1], np.int32)
        ours, theirs = [], []
        for k in range(repeats + 2):
            batch = forecasts(k * rows, rows)
            table = forecast_rows(batch, names, origin, model)
            unit = Commit(forecasts=[batch], offsets={SOURCE: (k + 1) * rows}, sources=[SOURCE])
            began = time.perf_counter()
            await store.write(unit)
            stored = time.perf_counter()
            bare.write(table)
            ours.append((stored - began) * 1e3)
            theirs.append((time.perf_counter() - stored) * 1e3)
        await store.close()
    return Insert(median(ours[2:]), max(ours[2:]), median(theirs[2:]))


async def sustained(units: int) -> tuple[float, float]:
    """CPU microseconds per forecast with its bar and its scores, checkpoints included; and the slowest unit in ms."""
    with tempfile.TemporaryDirectory() as folder:
        settings = deployment(Path(folder))
        steps = len(settings.scored_horizons())
        store = opened(settings)
        cpu, slowest = 0.0, 0.0
        for k in range(units):
            batch = forecasts(k * UNIT_ROWS, UNIT_ROWS)
            whole = Commit(
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
            await store.write(Commit(**{which: [part]}, offsets={SOURCE: (k + 1) * rows}, sources=[SOURCE]))  # type: ignore[arg-type]
        await store.close()
        return settings.store.path.stat().st_size / (units * rows)


def main() -> list[Figure]:
    small, large = asyncio.run(insert(1000, 100)), asyncio.run(insert(100_000, 5))
    cpu_us, slowest = asyncio.run(sustained(150))
    sizes = {which: asyncio.run(bytes_per_row(which)) for which in ("bars", "forecasts", "scores")}
    day = estimate_bytes_per_day(load(overrides={"forecast.horizon": str(HORIZON)}, environ={})[0], 1)
    told = {"bars": BAR_BYTES, "forecasts": day.forecasts / 86_400, "scores": day.scores / 86_400}
    shape = f"{HORIZON} steps x {len(LEVELS)} levels"
    return [
        Figure("unit of 1,000 forecasts, median", small.ms, "ms", note=f"{shape}; worst {small.worst_ms:.0f} ms"),
        Figure("of that, a bare DuckDB insert of the same rows", small.bare_ms, "ms", note="measured in turn"),
        Figure("unit of 100,000 forecasts, median", large.ms, "ms", note=shape),
        Figure("of that, a bare DuckDB insert of the same rows", large.bare_ms, "ms", note="measured in turn"),
        Figure("CPU per forecast with its bar and scores", cpu_us, "us", note="units of 2,000, checkpoints included"),
        Figure("share of a core at 10,000 forecasts/s", cpu_us * RATE / 1e6, "cores", bar=0.5, better="lower"),
        Figure("slowest unit of 2,000, checkpoint included", slowest, "ms", note="8 units of 200 ms may be open"),
        *(
            Figure(f"bytes per row of {which}", size, "bytes", note=f"tickcast check reckons with {told[which]:.0f}")
            for which, size in sizes.items()
        ),
    ]
