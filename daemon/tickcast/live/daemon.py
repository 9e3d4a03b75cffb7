"""The live daemon: start-up is recovery, then the pump, then a drain. It wires and supervises; it computes nothing."""

import asyncio
import gc
import os
from contextlib import AsyncExitStack
from typing import Any, Literal

import msgspec
import structlog

from tickcast.beside import beside
from tickcast.clock import Clock, SystemClock, fresh_id
from tickcast.engine.core.ladder import NOBODY
from tickcast.errors import Reason, StoreStalled
from tickcast.io.query_socket import QueryServer
from tickcast.io.store.query_process import Queries
from tickcast.io.store.store import Store
from tickcast.io.systemd import Notifier
from tickcast.io.telemetry import LastMinute, Latency, LoopLag
from tickcast.live.buses.bus import Bus, OpenAgain
from tickcast.live.commands.service import CommandService, Session
from tickcast.live.compile_kernels import warm_up
from tickcast.live.liveness import Liveness
from tickcast.live.process import resident_bytes, share_the_interpreter
from tickcast.loop.build import Serving, build, unreachable_rungs
from tickcast.loop.commits import CommitQueue
from tickcast.loop.engine_thread import EngineThread
from tickcast.loop.lookout import Lookout
from tickcast.loop.pump import Pump
from tickcast.records import Accuracy, Command, Health, Reply
from tickcast.settings import Settings

ROLL_OFF_EVERY_S = 3600.0
PROGRESS_S, POLL_S = 1.0, 0.01
NEVER_NS = 1 << 62
JSON = msgspec.json.Encoder()


class Daemon:
    """`run` does all, and `drain` ends it. The bus is handed in, so that a test or the demo can be at its other end."""

    def __init__(self, settings: Settings, bus: Bus, *, clock: Clock | None = None) -> None:
        self.settings = settings
        self.state = "starting"
        self.live = asyncio.Event()
        self.serving: Serving = build(settings, by_clock=True)
        self._bus = bus
        self._clock = clock or SystemClock()
        self.notifier = Notifier(os.environ, self._clock)
        self._started_ns = self._clock.monotonic_ns()
        self._lag = LoopLag(self._clock)
        self._recent_lag = LastMinute(self._lag.latency, self._clock)
        self._accuracy: list[Accuracy] = []  # as it was last published
        self._draining = self._pumping = False
        self._starting: asyncio.Task[bool] | None = None  # the session that has no pump yet
        self.gave_up = False  # before there was anything to drain; threads of the start may still be at work
        self._liveness: Liveness | None = None
        self.lookout: Lookout | None = None
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Until drained, or until something fatal is raised."""
        if rungs := unreachable_rungs(self.settings):
            self._log.warning(
                "rungs_unreachable", rungs=rungs, reason="a rung before them needs no more bars",
                remedy="put the rung that needs most first: model.default, then model.ladder",
            )  # fmt: skip
        async with beside(self._lag.watch(), self.notifier.watch(self._alive)):
            while await self._is_followed():
                self.serving = build(self.settings, by_clock=True)
        self.state = "stopped"
        if not self.gave_up:
            self._log.info("daemon_drained", forecasts=self.pump.meter.forecasts)

    async def _is_followed(self) -> bool:
        """One session; whether there is to be another."""
        self._starting = session = asyncio.create_task(self._session())
        try:
            return await session
        except OpenAgain as again:
            if self._draining:
                raise again.reason from None
            return True
        except asyncio.CancelledError:
            if not (self.gave_up and session.cancelled()):
                raise
            return False
        finally:
            self._starting = None

    async def _session(self) -> bool:
        """From opening the bus to the end of its source; whether the bus has other partitions for another session."""
        async with AsyncExitStack() as stack:
            self.store = await asyncio.to_thread(
                Store.open, self.settings, symbols=self.serving.symbols, cards=self.serving.cards,
                at_ns=self._clock.now_ns(),
            )  # fmt: skip
            stack.push_async_callback(self.store.close)
            self.state = "compiling"
            self._thread = thread = EngineThread()
            stack.callback(lambda: thread.stop(0.0 if self.gave_up else float(self.settings.runtime.drain_s)))
            await thread.call(lambda: warm_up(self.settings))
            self.state = "recovering"
            self.bus = bus = await stack.enter_async_context(self._bus.open(self.serving, self.store, self._clock))
            self.commits = CommitQueue(self.store, self.serving.engine, self.settings, self._clock, bus=bus.committing)
            self.pump = Pump(
                self.serving, bus.source, bus.sink, thread=thread, commits=self.commits, clock=self._clock,
                last_turn=bus.last_turn,
            )  # fmt: skip
            self._recent_latency = LastMinute(self.pump.meter.latency, self._clock)
            self.pump.meter.live_since_ns, self.lookout = NEVER_NS, None
            self.control = await stack.enter_async_context(CommandService.open(self._control_session(thread)))
            queries = Queries(self.store, self.settings)
            await stack.enter_async_context(beside(
                self.commits.write_all(), self._report_for_ever(), self._roll_off_for_ever(), self._serve(),
                QueryServer(queries, self.settings.runtime.folder / "query.sock").serve(), *bus.jobs,
                *self.control.running(),
            ))  # fmt: skip
            self._liveness = Liveness(self._passes, self._waits, lambda: thread.call(lambda: None), self.store.answer)
            stack.callback(self._end_pulse)
            share_the_interpreter()
            stack.callback(gc.unfreeze)
            return await self._pump_on()

    def _control_session(self, thread: EngineThread) -> Session:
        return Session(
            self.settings, self._clock, self.serving, self.store, thread, self.commits, self.pump, self.bus,
            self.health, self.accuracy, self.drain,
        )  # fmt: skip

    def renew_keys(self) -> None:
        """Who may give commands is read again; BadSettings: nothing has changed."""
        if self.live.is_set():  # until then each session reads them itself
            self.control.renew_keys()

    async def command(self, command: str, by: str = "local", **args: Any) -> Reply:
        """The final reply to a command of this process itself, which may do anything."""
        order = Command(id=fresh_id(), command=command, args=args)
        return await self.control.inbox.call(order, by=by, role="admin")

    async def _pump_on(self) -> bool:
        """Until a drain, or until the bus has other partitions for us: then True."""
        self._starting = None
        while not self._draining:
            self._pumping = True
            await self.pump.run()
            self._pumping = False
            if self._draining or self.bus.goes_on is None:
                break
            before, self.state = self.state, "rebalancing"
            await self._settle()
            if not await self.bus.goes_on():
                return True
            self.state = before
        self.state = "draining"
        self.notifier.stopping(self._summary())
        await self._settle()
        return False

    async def _serve(self) -> None:
        """Warm, then live; from then on a word every so often."""
        await self._go_live()
        self.pump.meter.live_since_ns = self._clock.now_ns()
        engine, samples = self.serving.engine, self.pump.meter.samples
        self.lookout = Lookout(self.settings, engine.builder, samples, self.health, self._clock)
        while True:
            await asyncio.sleep(self.settings.runtime.heartbeat_s)
            self.lookout.look(self._accuracy)

    async def _go_live(self) -> None:
        """Live once the pump has read again what a restart repeats; until then it is warming, and says how far."""
        self.state, told = "warming", 0.0
        while left := self.bus.to_repeat():
            if (now := self._clock.monotonic_ns() / 1e9) - told >= PROGRESS_S:
                self._log.info("warming", records_left=left)
                self.notifier.status(f"warming: {left} records left")
                told = now
            await asyncio.sleep(POLL_S)
        self.state = "live"
        self.live.set()
        self.notifier.ready(self._summary())
        self._log.info("daemon_started", symbols=len(self.serving.symbols), model=self.settings.model.default)

    async def _settle(self) -> None:
        """All that was fetched is answered, published, stored and committed."""
        awaited = "the accuracy figures to be published"
        try:
            async with asyncio.timeout(self.settings.runtime.drain_s):
                await self._report()
                awaited = "the engine's last turn and snapshot"
                await self.pump.close_unit(last=True)
                awaited = f"{self.commits.behind} commit units to be published, stored and committed"
                await self.commits.idle()
        except TimeoutError:
            raise StoreStalled(
                f"the drain waited longer than runtime.drain_s for {awaited}",
                remedy="what they hold is still in the source: it is read again at the next start",
            ) from None

    async def _alive(self) -> bool:
        """Between two sessions there is nothing that could be stuck but the loop."""
        return await self._liveness.alive() if self._liveness else True

    def _end_pulse(self) -> None:
        self._liveness = None

    def _passes(self) -> int:
        return self.pump.passes

    def _waits(self) -> bool:
        """For something that has a name, and a limit of its own."""
        return self.pump.waits or self.state != "live"

    def _summary(self) -> str:
        health = self.health()
        return (
            f"{health.state}: {health.consumed} ticks, {health.forecasts} forecasts, "
            f"{health.symbols} symbols of which {health.cold} are cold"
        )

    @property
    def lag(self) -> Latency:
        """How late the event loop woke."""
        return self._lag.latency

    @property
    def unread(self) -> int:
        """Messages that the source holds and the engine has not seen."""
        return sum(self.bus.lag().values())

    def drain(self) -> None:
        """Stop fetching, answer what came, store it, and end; at once where the start is not over."""
        self._draining = True
        if self._pumping:
            self.pump.stop()
        elif self._starting is not None and not self.gave_up:
            self.gave_up = True
            self.notifier.stopping(f"{self.state}: given up")
            self._log.info("start_given_up", state=self.state)
            self._starting.cancel()

    async def accuracy(self, *, window: Literal["rolling", "all"] = "rolling") -> list[Accuracy]:
        engine = self.serving.engine
        return await self._thread.call(lambda: engine.scorekeeper.accuracy(engine.newest_ns(), window=window))

    def health(self) -> Health:
        """A snapshot; counters are read while the engine works, each is right by itself."""
        builder, meter = self.serving.engine.builder, self.pump.meter
        counts = builder.counts()
        accepted, late, held = (int(counts[r]) for r in (Reason.ACCEPTED, Reason.LATE, Reason.HELD))
        consumed = int(counts.sum())
        ladder = self.serving.ladder
        spare = self.serving.symbols.spare  # they hold no bars
        cold = int((ladder.choose(builder.bars_held()) == NOBODY).sum()) - spare if ladder else 0
        in_trouble = self._in_trouble()
        return Health(
            instance=f"{self.settings.topics.prefix}{os.getpid()}",
            state=self._state(in_trouble),
            uptime_s=(self._clock.monotonic_ns() - self._started_ns) / 1e9, consumed=consumed, accepted=accepted,
            late=late, rejected=consumed - accepted - late - held, held=held,
            reasons={Reason(i).name.lower(): int(n) for i, n in enumerate(counts) if n},
            bars=meter.bars, unasked=meter.unasked, unanswered=meter.unanswered, forecasts=meter.forecasts,
            scored=meter.scores,
            symbols=len(self.serving.symbols) - spare,
            cold=max(cold, 0), turns=meter.turns, batch_mean=meter.questions / max(meter.turns, 1),
            loop_lag_ms=self._recent_lag.summary_ms(), latency_ms=self._recent_latency.summary_ms(),
            loop_lag_life_ms=self.lag.summary_ms(), latency_life_ms=meter.latency.summary_ms(),
            feature_failures=dict(self.serving.engine.questioner.feature_failures),
            store_units_behind=self.commits.behind,
            lag_records=self.unread, lag_s=self.bus.lag_s(), dropped=self.bus.dropped(), partitions=in_trouble,
            commands=dict(self.control.inbox.counts), models=self.control.cache.counts(),
            fatal=self.bus.last_turn.set_aside() if self.bus.last_turn else {}, store_lacks=self.bus.store_lacks,
            rss_bytes=resident_bytes(), produced_ns=self._clock.now_ns(),
        )  # fmt: skip

    def _in_trouble(self) -> dict[str, str]:
        late = self.lookout.late if self.lookout else ()
        return {f"{topic}/{number}": "late" for topic, number in late} | {
            f"{topic}/{number}": "stopped" for topic, number in self.bus.stopped()
        }

    def _state(self, in_trouble: dict[str, str]) -> str:
        """What a person should know first."""
        if self.commits.stalled:
            return "store_stalled"
        if self.state != "live":
            return self.state
        if self.pump.paused:
            return "paused"
        return f"partition_{max(in_trouble.values())}" if in_trouble else "live"

    async def _report_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.settings.score.publish_every_s)
            await self._report()

    async def _report(self) -> None:
        self._accuracy = accuracy = await self.accuracy()
        self._recent_lag.mark()
        self._recent_latency.mark()
        self.commits.add_accuracy(accuracy)
        await self._publish("accuracy", accuracy)
        await self._publish("health", [self.health()])
        self.notifier.status(self._summary())

    async def _publish(self, name: str, records: "list[Accuracy] | list[Health]") -> None:
        if records:
            await self.bus.records.produce(
                self.settings.topics.prefix + name, [JSON.encode(record) for record in records]
            )

    async def _roll_off_for_ever(self) -> None:
        while True:
            await asyncio.sleep(ROLL_OFF_EVERY_S)
            rolled = await self.store.roll_off(self.serving.engine.newest_ns())
            if rolled.problem:
                self._log.warning("roll_off_failed", reason=rolled.problem)
            else:
                self._log.info("days_rolled_off", rows=rolled.rows, files=len(rolled.files))
            try:
                await self.control.serving_models.retain()
            except (StoreStalled, OSError) as problem:
                self._log.warning("roll_off_failed", reason=str(problem))
