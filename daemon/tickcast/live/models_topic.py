"""The topic `models`: a store that never promoted anything learns from it what serves; slot 0 keeps it as its own.

It judges no model: what a record means is io/models/topic_records.py's, what may serve serving_models.py's.
"""

import asyncio
import shutil
from pathlib import Path

import structlog

from tickcast.errors import BadModel, BadRequest, Refusal, StoreStalled, Waiting
from tickcast.io.models.topic_records import Assembler, Routed, changes, hold
from tickcast.live.buses.bus import ModelTopic
from tickcast.live.serving_models import ServingModels

BY = "fleet"  # who gave a route, in the history of a store that learnt it
RETRY_S = 30.0


class ModelsTopic:
    def __init__(self, topic: ModelTopic, serving_models: ServingModels, folder: Path) -> None:
        """`folder` is its own, for what it learns."""
        self._topic, self._serving_models, self._folder = topic, serving_models, folder
        self._changed = asyncio.Event()
        self._held: dict[str, str] | None = None  # what the topic holds; None = to be read
        self._log = structlog.get_logger()

    def on_change(self) -> None:
        self._changed.set()

    async def learn(self) -> None:
        """At a start, before the first tick. A store with a history of its own keeps to that, and publishes it."""
        if await self._serving_models.models.history():
            self._changed.set()
            return
        try:
            assembler = await asyncio.to_thread(Assembler, self._folder)
            await self._read_into(assembler)
            for route, digest in sorted(assembler.routes.items()):
                await self._adopt(assembler, route, digest)
        except OSError as error:
            raise StoreStalled(f"{self._folder} takes no model: {error}", remedy="free space on its disk") from None
        finally:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def _read_into(self, assembler: Assembler) -> None:
        """A record that was replaced or taken back since, and is only not compacted away yet, is no problem."""
        problems: dict[str, BadModel | BadRequest] = {}

        def take(key: str, value: bytes | None) -> None:
            problems.pop(key, None)
            try:
                assembler.take(key, value)
            except (BadModel, BadRequest) as problem:
                if value is not None:
                    problems[key] = problem

        await self._topic.read(take)
        for key, problem in problems.items():
            self._serving_models.note_refused(problem, key=key[:160])

    async def _adopt(self, assembler: Assembler, route: str, digest: str) -> None:
        models = self._serving_models.models
        try:
            folder = await asyncio.to_thread(assembler.assemble, digest)
            card = await models.register(folder, origin="fleet")
            await self._serving_models.adopt(card, route, evidence={BY: digest}, by=BY)
        except (BadModel, BadRequest) as problem:
            self._serving_models.note_refused(problem, route=route, digest=digest[:12])
        else:
            self._log.info("model_learnt", route=route, name=card.name, version=card.version, digest=digest[:12])

    async def keep(self) -> None:
        """For ever: the topic holds what has a route here. What cannot be written now is tried again."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._publish()
            except (Refusal, Waiting, BadRequest, OSError) as problem:
                self._held = None
                self._log.warning("models_not_published", reason=str(problem), retry_s=RETRY_S)
                await asyncio.sleep(RETRY_S)
                self._changed.set()

    async def _publish(self) -> None:
        held = self._held = await self._read() if self._held is None else self._held
        models = self._serving_models.models
        last = {row.route: row for row in await models.history()}
        routed = [row for row in last.values() if row.digest is not None]
        routes = [Routed(route=row.route, digest=row.digest or "", at_ns=row.at_ns) for row in routed]
        folders = [await models.folder(digest) for digest in sorted({routed.digest for routed in routes})]
        records, written = changes(folders, routes, held), 0
        record = await asyncio.to_thread(next, records, None)
        if record is None:
            return
        async with self._topic.writing() as send:
            while record is not None:
                await send(*record)
                hold(held, *record)
                written += 1
                record = await asyncio.to_thread(next, records, None)
        self._log.info("models_published", models=len(folders), routes=len(routes), records=written)

    async def _read(self) -> dict[str, str]:
        held: dict[str, str] = {}
        await self._topic.read(lambda key, value: hold(held, key, value))
        return held
