"""Whether the daemon gets on, for systemd's watchdog. It measures nothing else and heals nothing."""

import asyncio
from collections.abc import Awaitable, Callable


class Liveness:
    """The loop is asked by being asked at all; `passes` counts the turns of the pump; each of `tokens` goes through one
    thread and comes back. A daemon that `waits` by a name of its own, such as for a full disk, is not stuck."""

    def __init__(
        self, passes: Callable[[], int], waits: Callable[[], bool], *tokens: Callable[[], Awaitable[object]]
    ) -> None:
        self._passes = passes
        self._waits = waits
        self._tokens = tokens
        self._seen = -1

    async def alive(self) -> bool:
        """Does not come back while a thread is stuck."""
        await asyncio.gather(*(token() for token in self._tokens))
        seen, self._seen = self._seen, self._passes()
        return self._seen != seen or self._waits()
