"""Running jobs beside a body: when the body ends they are cancelled, and when one fails the body is."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from tickcast.errors import TickcastError


@asynccontextmanager
async def beside(*jobs: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """What goes wrong is raised as itself, so that its message and exit code reach the person who started it."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job) for job in jobs]
            yield
            for task in tasks:
                task.cancel()
    except BaseExceptionGroup as failed:
        raise cause_of(failed) from None


def cause_of(error: BaseException) -> BaseException:
    """Of several that failed together the one that says most: a person reads one."""
    causes = _leaves(error)
    return next((cause for cause in causes if isinstance(cause, TickcastError)), causes[0])


def _leaves(error: BaseException) -> "list[BaseException]":
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
