"""Jobs beside a body: whoever fails, the error comes out as itself."""

import asyncio

import pytest

from tickcast.beside import beside
from tickcast.errors import BadData, StoreStalled


async def for_ever() -> None:
    await asyncio.Event().wait()


async def stalled() -> None:
    await asyncio.sleep(0)
    raise StoreStalled("the disk is full")


async def test_the_body_ends_and_its_jobs_are_cancelled() -> None:
    async with beside(for_ever()):
        await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


async def test_a_failing_job_ends_the_body_with_its_own_error() -> None:
    with pytest.raises(StoreStalled, match="disk is full"):
        async with beside(for_ever(), stalled()):
            await asyncio.Event().wait()


async def test_a_failing_body_raises_its_own_error() -> None:
    with pytest.raises(BadData, match="torn"):
        async with beside(for_ever()):
            raise BadData("torn")
