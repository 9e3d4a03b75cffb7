"""A live daemon on the memory bus for tests: messages in, records out, and a clean end."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from tickcast.app.bus_edges import EmbeddedBus
from tickcast.app.daemon import Daemon
from tickcast.clock import SystemClock
from tickcast.edges.memory_bus import MemoryBus, Subscription
from tickcast.settings import Settings, load

WAIT_S = 60.0


def live_settings(folder: Path, **overrides: object) -> Settings:
    """Settings of a daemon that leaves everything in `folder`."""
    dotted = {key.replace("__", "."): str(value) for key, value in overrides.items()}
    paths = {"store.path": str(folder / "store.duckdb"), "runtime.folder": str(folder / "run")}
    return load(overrides={"quality.future_ms": "0", **paths, **dotted}, environ={})[0]


class Live:
    """One running daemon and what it published."""

    def __init__(self, settings: Settings) -> None:
        self.bus = MemoryBus(SystemClock())
        self.daemon = Daemon(settings, EmbeddedBus(self.bus), clock=SystemClock())
        self.topic = settings.topics.ticks[0]
        self._forecasts = self.bus.subscribe(settings.topics.prefix + "forecasts")
        self._consumed = 0

    async def send(self, messages: Sequence[bytes], *, chunk: int = 500) -> None:
        """Produce, and wait until all of it has been consumed and what came of it published."""
        for first in range(0, len(messages), chunk):
            await self.bus.produce(self.topic, list(messages[first : first + chunk]))
        self._consumed += len(messages)
        async with asyncio.timeout(WAIT_S):
            while self.daemon.health().consumed < self._consumed:
                await asyncio.sleep(0.01)
            await (
                self.daemon.accuracy()
            )  # answered by the engine thread after the last turn, whose results are out then

    async def forecasts(self) -> list[dict[str, Any]]:
        return await records(self._forecasts)


async def records(subscription: Subscription) -> list[dict[str, Any]]:
    return [msgspec.json.decode(b.message(i)) for b in await subscription.next_batches(0.2) for i in range(len(b))]


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Live]:
    """The daemon is live inside the block and has drained after it."""
    live = Live(settings)
    task = asyncio.create_task(live.daemon.run())
    started = asyncio.create_task(live.daemon.live.wait())
    async with asyncio.timeout(WAIT_S):
        await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    if task.done():
        await task
    try:
        yield live
    finally:
        live.daemon.drain()
        async with asyncio.timeout(WAIT_S):
            await task
