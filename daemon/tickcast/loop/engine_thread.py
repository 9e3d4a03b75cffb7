"""The one thread that the engine lives in: work goes in by a queue, results come back to the event loop.

Nothing else touches the engine meanwhile, so it needs no locks.
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
        self._unfinished = 0  # jobs, as the event loop sees it
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    async def call(self, function: Callable[[], T]) -> T:
        """Run on the engine thread, after all that was asked before."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._unfinished += 1
        self._jobs.put((function, loop, future))
        return await future

    async def call_briefly(self, function: Callable[[], T]) -> T:
        """As `call`, but where the thread has nothing to do the event loop does it at once: for work that takes less
        than handing it over, to a thread that the loop then competes with for the interpreter."""
        if self._unfinished:
            return await self.call(function)
        result: T
        result, error = _done(function)
        if error is not None:
            raise error
        return result

    def stop(self, timeout_s: float) -> None:
        self._jobs.put(None)
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, loop, future = job
            loop.call_soon_threadsafe(self._finish, future, *_done(function))

    def _finish(self, future: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
        self._unfinished -= 1
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)


def _done(function: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """What it returned, or what it raised in our words: a plugin's `sys.exit` too, which would end the thread alone."""
    try:
        return function(), None
    except TickcastError as raised:
        return None, raised
    except (Exception, SystemExit) as raised:  # whatever broke mid-turn, the state cannot be trusted: die and recover
        error = EngineFailed(f"the engine failed: {raised!r}")
        error.__cause__ = raised
        return None, error
