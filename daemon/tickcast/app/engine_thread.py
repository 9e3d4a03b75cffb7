"""The one thread that the engine lives in: work goes in by a queue, results come back to the event loop.

Nothing else ever touches the engine, so it needs no locks.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from tickcast.errors import EngineFailed, TickcastError

T = TypeVar("T")
_Job = tuple[Callable[[], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class EngineThread:
    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    async def call(self, function: Callable[[], T]) -> T:
        """Run on the engine thread, after all that was asked before."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put((function, loop, future))
        return await future

    def stop(self, timeout_s: float) -> None:
        self._jobs.put(None)
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, loop, future = job
            try:
                result, error = function(), None
            except TickcastError as raised:
                result, error = None, raised
            except Exception as raised:  # whatever broke mid-turn, the state cannot be trusted: die and recover
                result, error = None, EngineFailed(f"the engine failed: {raised!r}")
                error.__cause__ = raised
            loop.call_soon_threadsafe(_finish, future, result, error)


def _finish(future: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
