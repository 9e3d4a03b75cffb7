"""Where commands come in and replies go out: registry, jobs and inbox of one session, wired to its bus."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from tickcast.io.jobs.host import ACTIVE, JobHost
from tickcast.io.models.artefacts import Artefacts, artefact_folder
from tickcast.io.models.cache import ModelCache
from tickcast.io.models.models import Models
from tickcast.live.buses.bus import Commands
from tickcast.live.commands import at_once as commands
from tickcast.live.commands import job_commands as work
from tickcast.live.commands.arguments import ACCEPTED
from tickcast.live.commands.envelope import own_audience
from tickcast.live.commands.inbox import Gate, Handler, Inbox
from tickcast.live.commands.keys import read_keys
from tickcast.live.commands.recommender import Recommender
from tickcast.live.models_topic import ModelsTopic
from tickcast.live.serving_models import ServingModels
from tickcast.live.upkeep import Upkeep
from tickcast.records import JobEvent, Reply
from tickcast.topics import JOBS, REPLIES

if TYPE_CHECKING:
    from tickcast.live.session import Session

COMING = ".fleet"  # folder below the registry's
LOCAL = "local"  # our audience where nobody else can address us
JSON = msgspec.json.Encoder()


def handlers_of(*owners: object) -> dict[str, Handler]:
    """The methods that carry commands out, by the commands' names."""
    return {name: getattr(owner, name) for name in ACCEPTED for owner in owners if hasattr(owner, name)}


class CommandService:
    """Made by `open`."""

    def __init__(self, session: "Session", models: Models, cache: ModelCache) -> None:
        settings, clock = session.settings, session.clock
        self._session = session
        self.cache = cache
        self._events: asyncio.Queue[JobEvent] = asyncio.Queue()
        self._began_ns = clock.monotonic_ns()
        self.serving_models = ServingModels(
            session.serving, models, cache, thread=session.thread, commits=session.commits, clock=clock,
            questions_per_s=self._questions_per_s, on_change=self._on_change,
        )  # fmt: skip
        topic, coming = session.bus.models, artefact_folder(settings) / COMING
        self.fleet = None if topic is None else ModelsTopic(topic, self.serving_models, coming)
        self.jobs = JobHost(
            settings.jobs, settings.runtime.folder / "jobs", clock=clock, ledger=session.store.ledger,
            on_event=self._events.put_nowait, keep=lambda *made: self._at_length.keep(*made),
        )  # fmt: skip
        at_once = commands.Commands(commands.CommandParts(
            serving=session.serving, pump=session.pump, serving_models=self.serving_models, store=session.store,
            jobs=self.jobs, health=session.health, accuracy=session.accuracy,
            corrections=session.corrections, drain=session.drain,
            upkeep=lambda: self.upkeep.told(), alerts=session.alerts, looking_back=session.looking_back,
        ))  # fmt: skip
        self._at_length = work.JobCommands(
            work.JobCommandParts(settings, session.store, self.serving_models, self.jobs, clock)
        )
        self.upkeep = Upkeep(
            settings, session.store.ledger, self.serving_models, clock=clock, refit=self._at_length.refit,
            look=session.look,
        )  # fmt: skip
        recommender = Recommender(session.store, settings.runtime.folder, session.look)
        keys_file, kafka = settings.control.keys_file, settings.kafka
        keys = read_keys(keys_file, secrets=settings.control.secrets_folder) if keys_file else {}
        audience = own_audience(kafka.group, kafka.slot) if keys_file else LOCAL
        self.inbox = Inbox(
            session.store.ledger, handlers_of(at_once, self._at_length, self.upkeep, recommender), self._reply,
            clock=clock,
            gate=Gate(keys, audience, settings.control), note=structlog.get_logger().info, left=self._left,
        )  # fmt: skip

    @classmethod
    @asynccontextmanager
    async def open(cls, session: "Session") -> AsyncIterator["CommandService"]:
        """What was promoted serves, and jobs of the run before are taken over, when this is entered."""
        settings, clock = session.settings, session.clock
        artefacts = await asyncio.to_thread(Artefacts, artefact_folder(settings))
        models = Models(session.store.ledger, artefacts, clock=clock, keep_versions=settings.registry.keep_versions)
        cache = ModelCache(
            artefacts.open, most=settings.registry.loaded_models, most_bytes=settings.registry.loaded_bytes,
            clock=clock, tile=settings.inference.tile,
        )  # fmt: skip
        desk = cls(session, models, cache)
        try:
            await desk.serving_models.register_base()
            if desk.fleet is not None:
                await desk.fleet.learn()
            await desk.serving_models.take_up()
            await desk.jobs.recover(await session.store.ledger.jobs())
            if desk.keeps_models:
                await desk.upkeep.go_on()
            yield desk
        finally:
            await cache.close()

    def running(self) -> list[Coroutine[Any, Any, None]]:
        """To run beside the pump."""
        coming, listens = self._session.bus.control, self._session.settings.control.keys_file is not None
        listening = [self._listen(coming)] if listens and coming is not None else []
        kafka = self._session.settings.kafka
        leads = self.fleet is not None and kafka.models == "lead" and kafka.slot == 0
        keeping = [self.fleet.keep()] if self.fleet is not None and leads else []
        upkeep = [self.upkeep.run()] if self.keeps_models else []
        return [self._work(), self.jobs.run(), self._tell_of_jobs(), *upkeep, *listening, *keeping]

    @property
    def keeps_models(self) -> bool:
        """One of several daemons does; of a group nobody, for none of its members is the first."""
        settings = self._session.settings
        in_group = settings.bus.kind == "kafka" and settings.kafka.assignment == "group"
        return settings.kafka.slot == 0 and not in_group

    def renew_keys(self) -> None:
        """Read again who may give commands; BadSettings: the keys of before stay."""
        control = self._session.settings.control
        if control.keys_file is not None:
            self.inbox.renew(read_keys(control.keys_file, secrets=control.secrets_folder))

    def _left(self, command_id: str) -> str:
        """What goes on of a command that a run before this one left without an end."""
        for row in self.jobs.rows():
            if row.command_id == command_id:
                goes_on = {"queued": "waits and will run", "running": "has ended and is being kept", "done": "is done"}
                return f"its job {row.id} {goes_on.get(row.state, 'can be resumed')}: see `jobs job={row.id}`"
        return ""

    def _on_change(self) -> None:
        if self.fleet is not None:
            self.fleet.on_change()

    async def _work(self) -> None:
        await self.inbox.start()
        await self.inbox.run()

    async def _listen(self, commands: Commands) -> None:
        async with commands() as coming:
            async for message in coming:
                await self.inbox.receive(message.raw, message.at)

    async def _reply(self, reply: Reply) -> None:
        await self._produce(REPLIES, JSON.encode(reply))

    async def _tell_of_jobs(self) -> None:
        active: dict[str, str] = {}
        while True:
            event = await self._events.get()
            if active.pop(event.job, "") != event.state:
                structlog.get_logger().info(
                    "job_changed", job=event.job, kind=event.kind, state=event.state, why=event.detail
                )
            if event.state in ACTIVE:
                active[event.job] = event.state
            await self._produce(JOBS, JSON.encode(event))

    async def _produce(self, topic: str, record: bytes) -> None:
        await self._session.bus.records.produce(self._session.settings.topics.prefix + topic, [record])

    def _questions_per_s(self) -> float:
        """In the mean of this session."""
        passed_s = (self._session.clock.monotonic_ns() - self._began_ns) / 1e9
        return self._session.pump.meter.questions / max(passed_s, 1.0)
