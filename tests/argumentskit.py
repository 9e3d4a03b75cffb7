"""What tests of arguments share: a deployment that serves a model folder of momentum, and somebody who orders there."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from livekit import Live, live_settings, until
from registrykit import HORIZON, LOOKBACK, model_folder
from storekit import LEVELS
from tickcast.batch.bar_history import gather
from tickcast.engine.core.questions import bar_identity
from tickcast.io.jobs.folder import BARS, SOURCE
from tickcast.records import Reply
from tickcast.settings import Settings

SECOND, T0 = 10**9, 1_767_600_000 * 10**9
SYMBOLS, COUNT, LATER_S = ("A", "B", "C"), 150, 3 * 3600  # bars of each symbol then, and once more so much later
WIDTH = 2e-3  # from level 0 to level 1; half of it back, and the median is the last move
NEED_BARS = 20  # until then last value answers
QUICK = {"draws": 100}


class Ordered(NamedTuple):
    order: dict[str, Any]
    folder: Path

    def bars(self) -> pl.DataFrame:
        """A file is read by the job's own process, in this way."""
        if (self.folder / SOURCE).exists():
            gather(self.folder)
        return pl.DataFrame(pq.read_table(self.folder / BARS))


class World(NamedTuple):
    live: Live
    digest: str
    folder: Path  # of the model that serves
    data: Path

    async def ok(self, command: str, **args: Any) -> dict[str, Any]:
        reply: Reply = await self.live.daemon.command(command, **args)
        assert reply.ok, f"{reply.error_code}: {reply.error}"
        return reply.result

    async def refused(self, command: str, **args: Any) -> str:
        reply: Reply = await self.live.daemon.command(command, **args)
        assert not reply.ok
        return f"{reply.error_code}: {reply.error}"

    async def rows(self, sql: str) -> list[dict[str, Any]]:
        answer = await self.live.daemon.session.store.query(sql)
        return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]

    async def ordered(self, command: str, **args: Any) -> Ordered:
        """What a job is told to do and on which bars; it is cancelled before it does it."""
        jobs = self.live.daemon.session.commands.jobs
        before = {row.id for row in jobs.rows()}
        asking = asyncio.create_task(self.live.daemon.command(command, **args))
        await until(lambda: asking.done() or bool({row.id for row in jobs.rows()} - before), "the job to be listed")
        assert not asking.done(), asking.result().error
        (row,) = (row for row in jobs.rows() if row.id not in before)
        assert (await self.ok("cancel", job=row.id))["job"]["id"] == row.id
        assert not (await asking).ok
        return Ordered(json.loads(row.order_json), jobs.folder_of(row.id))


def messages(first_ns: int, seed: int) -> list[bytes]:
    moves = np.random.default_rng(seed).standard_t(4, (COUNT, len(SYMBOLS))) * 1e-3
    prices = 100 * np.exp(np.cumsum(moves, axis=0))
    return [
        json.dumps({"symbol": name, "ts": first_ns + i * SECOND, "price": float(prices[i, n]), "size": 2}).encode()
        for i in range(COUNT)
        for n, name in enumerate(SYMBOLS)
    ]  # fmt: skip


def settings_of(folder: Path, **more: object) -> Settings:
    plain = {
        "window__lookback": LOOKBACK, "forecast__horizon": HORIZON, "forecast__quantiles": LEVELS, "symbols__limit": 8,
        "score__horizons": [1, 2, 3], "registry__loaded_models": 1,
    }  # fmt: skip
    return live_settings(folder, **plain | more)


def model_in(folder: Path, name: str, **card: Any) -> Path:
    bars = bar_identity(settings_of(folder.parent))
    return model_folder(folder, name, width=WIDTH, shift=-WIDTH / 2, bars=bars, need_bars=NEED_BARS, **card)


def time_of(ns: int) -> str:
    return datetime.fromtimestamp(ns // SECOND, UTC).isoformat()
