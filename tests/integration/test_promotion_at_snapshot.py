"""A promotion while a snapshot is being written: it is listed only when a later snapshot holds it, whatever dies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from test_models_topic import Place, routes

from brokerkit import KafkaBroker
from livekit import until
from netkit import wait_until
from tickcast.engine.inference.model_folder import read_card
from tickcast.io.store import snapshot
from tickcast.live.buses.kafka import KafkaBus
from tickcast.live.daemon import Daemon
from tickcast.records import Reply
from tickcast.settings import Settings


class Disk:
    """One that takes its time for a snapshot, from `holds` until it is told to go on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.is_writing = self.is_held = False
        self._write = snapshot.write
        patch.setattr(snapshot, "write", self._slowly)

    def _slowly(self, *given: Any, **named: Any) -> Path:
        self.is_writing = True
        wait_until(lambda: not self.is_held, "the disk")
        path = self._write(*given, **named)
        self.is_writing = False
        return path

    async def goes_on(self) -> None:
        self.is_held = False
        await until(lambda: not self.is_writing, "what was under way")


@asynccontextmanager
async def cut_short(settings: Settings) -> AsyncIterator[Daemon]:
    """It is live inside the block, and stopped hard by leaving."""
    daemon = Daemon(settings, KafkaBus(settings))
    task = asyncio.create_task(daemon.run())
    try:
        await until(lambda: task.done() or daemon.live.is_set(), "the daemon to be live")
        yield daemon
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.slow
async def test_a_promotion_while_a_snapshot_is_written_waits_for_one_that_holds_it(
    kafka: KafkaBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, disk = Place(kafka, tmp_path), Disk(monkeypatch)
    settings = place.of("alone", kafka__models="none")
    model = place.model("one")
    digest = read_card(model).digest
    async with cut_short(settings) as daemon:
        naive = await routes(daemon)
        await daemon.session.commands.serving_models.models.register(model, origin="fit")
        waiting = await promoted_meanwhile(place, daemon, disk, digest=digest)
    await disk.goes_on()  # what was being written is from before the promotion
    waiting.cancel()
    async with cut_short(settings) as daemon:
        assert await routes(daemon) == naive
        assert await daemon.session.commands.serving_models.models.routes() == []
        waiting = await promoted_meanwhile(place, daemon, disk, digest=digest)
        await disk.goes_on()
        reply = await waiting
        assert reply.ok, reply.error
    async with cut_short(settings) as daemon:
        assert await routes(daemon) == {"default": digest}


async def promoted_meanwhile(place: Place, daemon: Daemon, disk: Disk, *, digest: str) -> asyncio.Task[Reply]:
    """The promotion has come while a snapshot was under way, and waits although the model answers."""
    await place.trade(2)
    disk.is_held = True
    await until(lambda: disk.is_writing, "a snapshot")
    before = await daemon.session.commands.serving_models.models.routes()
    task = asyncio.create_task(daemon.command("promote", model="one", force=True))
    serving = daemon.session.commands.serving_models
    await until(lambda: serving.serving_now() == {"default": digest}, "the switch")
    await asyncio.sleep(0.3)
    assert not task.done()
    assert await serving.models.routes() == before
    return task
