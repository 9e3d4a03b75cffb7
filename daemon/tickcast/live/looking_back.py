"""Looks back on stored forecasts: keeps post-mortems of the worst every so often, and says on demand why. It is in
nobody's way: a look is of a bounded number of rows, on the store's reader, and takes a hundredth of the time at most.
"""

import asyncio
from typing import Any

import structlog

from tickcast.clock import Clock
from tickcast.engine.core.engine import Engine
from tickcast.errors import BadRequest, StoreStalled
from tickcast.io.store.postmortems import Looked
from tickcast.io.store.store import Store
from tickcast.loop.engine_thread import EngineThread
from tickcast.settings import Settings

EVERY_S, MOST_SHARE = 300.0, 0.01
SPAN_NS, SPAN_BARS = 86_400 * 10**9, 1440  # a look's, whichever is longer
HOUR_NS = 3600 * 10**9


class LookingBack:
    def __init__(self, settings: Settings, engine: Engine, *, store: Store, thread: EngineThread, clock: Clock) -> None:
        self._settings, self._engine = settings, engine
        self._store, self._thread, self._clock = store, thread, clock

    async def run(self) -> None:
        score, pause_s = self._settings.score, EVERY_S
        while score.postmortems_a_day and self._settings.store.forecasts != "none":
            await asyncio.sleep(pause_s)
            began_ns = self._clock.monotonic_ns()
            await self.look()
            pause_s = max(EVERY_S, (self._clock.monotonic_ns() - began_ns) / 1e9 / MOST_SHARE)

    async def look(self) -> None:
        try:
            kept = await self._store.look_back(await self._at(), self._settings.score.postmortems_a_day)
        except (StoreStalled, BadRequest) as problem:  # the next look finds them
            structlog.get_logger().warning("look_back_failed", reason=str(problem))
        else:
            structlog.get_logger().info("post_mortems_kept", rows=kept)

    async def why(self, symbols: list[str], hours: int = 0) -> dict[str, Any]:
        """Of these symbols, or all, in the last hours, or in a look's span."""
        return await self._store.why(await self._at(symbols, hours))

    async def _at(self, symbols: list[str] | None = None, hours: int = 0) -> Looked:
        newest_ns, (_, bar_ns) = await self._thread.call(lambda: (self._engine.newest_ns(), self._engine.pace()))
        span_ns = hours * HOUR_NS if hours else max(SPAN_NS, SPAN_BARS * bar_ns)
        log_return = self._settings.forecast.transform == "log_return"
        return Looked(max(newest_ns - span_ns, 0), newest_ns + 1, symbols or [], log_return)
