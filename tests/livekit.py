"""A live daemon for tests, on any bus: a start that is waited for and a clean end; on the memory bus, messages in and
records out.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from tickcast.clock import Clock, SystemClock
from tickcast.io.memory_bus import MemoryBus, Subscription
from tickcast.live.buses.memory import EmbeddedBus
from tickcast.live.daemon import Daemon
from tickcast.settings import Settings, load

WAIT_S = 90.0  # a group of Kafka takes its time to share out


def live_settings(folder: Path, **overrides: object) -> Settings:
    """Settings of a daemon that leaves everything in `folder`."""
    dotted = {key.replace("__", "."): str(value) for key, value in overrides.items()}
    paths = {"store.path": str(folder / "store.duckdb"), "runtime.folder": str(folder / "run")}
    return load(overrides={"quality.future_ms": "0", **paths, **dotted}, environ={})[0]


class Live:
    """One running daemon and what it published."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        self.bus = MemoryBus(clock)
        self.daemon = Daemon(settings, EmbeddedBus(self.bus), clock=clock)
        self.topic = settings.topics.ticks[0]
        self._forecasts = self.bus.subscribe(settings.topics.prefix + "forecasts")
        self._consumed = 0

    async def send(self, messages: Sequence[bytes], *, chunk: int = 500) -> None:
        """Produce, and wait until all of it has been consumed and what came of it published."""
        for first in range(0, len(messages), chunk):
            await self.bus.produce(self.topic, list(messages[first : first + chunk]))
        self._consumed += len(messages)
        await until(lambda: self.daemon.health().consumed >= self._consumed, "all messages to be consumed")
        async with asyncio.timeout(WAIT_S):  # answered by the engine thread after the last turn: its results are out
            await self.daemon.session.accuracy()

    async def stored(self) -> None:
        """Returns once the store has all that was sent."""
        store = self.daemon.session.store
        async with asyncio.timeout(WAIT_S):
            while (await store.query("SELECT sum(next_offset) FROM offsets")).rows != [(self._consumed,)]:
                await asyncio.sleep(0.02)

    async def forecasts(self) -> list[dict[str, Any]]:
        return await records(self._forecasts)


async def records(subscription: Subscription) -> list[dict[str, Any]]:
    return [msgspec.json.decode(b.message(i)) for b in await subscription.next_batches(0.2) for i in range(len(b))]


@asynccontextmanager
async def running(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Live]:
    """A daemon on a memory bus of its own, live inside the block."""
    live = Live(settings, clock=clock)
    async with alive(live.daemon):
        yield live


@asynccontextmanager
async def alive(daemon: Daemon) -> AsyncIterator[Daemon]:
    """It is live inside the block and has drained after it; what ends it earlier is raised."""
    task = asyncio.create_task(daemon.run())
    try:
        await until(lambda: task.done() or daemon.live.is_set(), "the daemon to be live")
        if task.done():
            await task
        yield daemon
    finally:
        daemon.drain()
        async with asyncio.timeout(WAIT_S):
            await task


async def until(is_so: Callable[[], bool | Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            while not (await answer if isinstance(answer := is_so(), Awaitable) else answer):
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise TimeoutError(f"waited {WAIT_S:.0f} s for {what}") from None
