"""A daemon between two openings of its bus: it owns all parts, wires them, and gives them back. It computes nothing."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import msgspec
import structlog

from tickcast.beside import beside
from tickcast.clock import Clock
from tickcast.engine.core.ladder import NOBODY
from tickcast.errors import Reason, StoreStalled
from tickcast.io.query_socket import QueryServer
from tickcast.io.store.query_process import Queries
from tickcast.io.store.store import Store
from tickcast.io.systemd import Notifier
from tickcast.io.telemetry import LastMinute
from tickcast.live.alerts import Alerts
from tickcast.live.buses.bus import Bus
from tickcast.live.commands.service import CommandService
from tickcast.live.compile_kernels import warm_up
from tickcast.live.looking_back import LookingBack
from tickcast.live.process import Liveness, Vitals, resident_bytes, share_the_interpreter
from tickcast.loop.build import Serving
from tickcast.loop.commits import CommitQueue
from tickcast.loop.engine_thread import EngineThread
from tickcast.loop.facts import EngineFacts, look_at
from tickcast.loop.lookout import Lookout
from tickcast.loop.pump import Pump
from tickcast.records import WINDOWS, Accuracy, Health, Record, Window
from tickcast.settings import Settings

ROLL_OFF_EVERY_S = 3600.0
PROGRESS_S, POLL_S = 1.0, 0.01
NEVER_NS = 1 << 62
JSON = msgspec.json.Encoder()


class Session:
    """`run` does all, once; its parts are there from `open` on, in the order in which it makes them."""

    def __init__(
        self, settings: Settings, bus: Bus, clock: Clock, serving: Serving, *, notifier: Notifier, vitals: Vitals,
        live: asyncio.Event,
    ) -> None:  # fmt: skip
        """`live` is set when ticks are answered."""
        self.state = "starting"
        self.settings, self.clock, self.serving = settings, clock, serving
        self.draining = self.given_up = False
        self.is_opening = True  # there is nothing yet that could be drained
        self.lookout: Lookout | None = None  # once it is live
        self.last_accuracy: list[Accuracy] = []  # as it was last published
        self._liveness: Liveness | None = None
        self._pumping = False
        self._sharing_out: asyncio.Future[bool] | None = None
        self._bus, self._notifier, self._vitals, self._live = bus, notifier, vitals, live
        self._log = structlog.get_logger()

    async def run(self) -> bool:
        """To the end of its source; whether the bus has other partitions for another session."""
        async with self.open():
            return await self._pump_on()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Start-up is recovery, in this order; what is made last ends first.

        1. The store: locked, migrated, with its threads.
        2. The engine's thread, which compiles every kernel before a tick could wait for one.
        3. The bus: reached, its topics found; on Kafka the slot is fenced, and then, as nobody else commits any more,
           the positions are read. The engine is brought to where it was at those positions (`restore.py`), and the
           source placed where what it holds ends.
        4. The pump, between source and sink, and behind it the queue of commits.
        5. Commands: what was promoted serves, jobs of the run before are taken over; and alerts that it left open.
        6. What runs beside the pump: commits, reports, queries, commands, alerts, and what the bus needs.
        7. Warm, then live: while `run` already pumps, what a restart repeats is read once more.
        """
        settings, serving = self.settings, self.serving
        async with AsyncExitStack() as stack:
            self.store = await asyncio.to_thread(
                Store.open, settings, symbols=serving.symbols, cards=serving.cards, at_ns=self.clock.now_ns()
            )
            stack.push_async_callback(self.store.close)
            self.state = "compiling"
            self.thread = EngineThread()
            stack.callback(lambda: self.thread.stop(0.0 if self.given_up else float(settings.runtime.drain_s)))
            await self.thread.call(lambda: warm_up(settings))
            self.state = "recovering"
            self.bus = await stack.enter_async_context(self._bus.open(serving, self.store, self.clock))
            self.commits = CommitQueue(self.store, serving.engine, settings, self.clock, bus=self.bus.committing)
            self.pump = Pump(
                serving, self.bus.source, self.bus.sink, thread=self.thread, commits=self.commits, clock=self.clock,
                last_turn=self.bus.last_turn,
            )  # fmt: skip
            self._recent_latency = LastMinute(self.pump.meter.latency, self.clock)
            self.pump.meter.live_since_ns = NEVER_NS
            self.looking_back = LookingBack(
                settings, serving.engine, store=self.store, thread=self.thread, clock=self.clock
            )
            self.alerts = Alerts(self, await self.store.ledger.open_alerts())
            self.commands = await stack.enter_async_context(CommandService.open(self))
            queries = QueryServer(Queries(self.store, settings), settings.runtime.folder / "query.sock")
            await stack.enter_async_context(beside(
                self.commits.write_all(), self._report_for_ever(), self._roll_off_for_ever(), self._serve(),
                self.looking_back.run(), queries.serve(), *self.bus.background, *self.commands.running(),
                *self.alerts.running(),
            ))  # fmt: skip
            self._liveness = Liveness(  # what it waits for has a name, and a limit of its own
                lambda: self.pump.passes, lambda: self.pump.waits or self.state != "live",
                lambda: self.thread.call(lambda: None), self.store.answer,
            )  # fmt: skip
            stack.callback(setattr, self, "_liveness", None)
            share_the_interpreter()
            stack.callback(gc.unfreeze)
            self.is_opening = False
            yield

    def drain(self) -> None:
        """Stop fetching, answer what came, store it, and end."""
        self.draining = True
        if self._pumping:
            self.pump.stop()
        if self._sharing_out is not None:  # the group may wait minutes for its other members
            self._sharing_out.cancel()

    async def alive(self) -> bool:
        """While it opens or ends there is nothing that could be stuck but the loop."""
        return await self._liveness.alive() if self._liveness else True

    async def _pump_on(self) -> bool:
        """Until a drain, or until the bus has other partitions for us: then True."""
        while not self.draining:
            self._pumping = True
            await self.pump.run()
            self._pumping = False
            if self.draining or self.bus.goes_on is None:
                break
            before, self.state = self.state, "rebalancing"
            await self._settle()
            self._sharing_out = asyncio.ensure_future(self.bus.goes_on())
            (goes_on,) = await asyncio.gather(self._sharing_out, return_exceptions=True)
            if isinstance(goes_on, Exception):
                raise goes_on
            if goes_on is False:
                return True
            self.state = before
        self.state = "draining"
        self._notifier.stopping(self._summary())
        await self._settle()
        return False

    async def _serve(self) -> None:
        """Warm, then live; from then on a word every so often."""
        await self._go_live()
        self.pump.meter.live_since_ns = self.clock.now_ns()
        builder, samples = self.serving.engine.builder, self.pump.meter.samples
        self.lookout = Lookout(self.settings, builder, samples, self.health, self.clock)
        self.alerts.on_live()
        while True:
            await asyncio.sleep(self.settings.runtime.heartbeat_s)
            self.lookout.look(self.last_accuracy)

    async def _go_live(self) -> None:
        """Live once the pump has read again what a restart repeats; until then it is warming, and says how far."""
        self.state, told = "warming", 0.0
        while left := self.bus.to_repeat():
            if (now := self.clock.monotonic_ns() / 1e9) - told >= PROGRESS_S:
                self._log.info("warming", records_left=left)
                self._notifier.status(f"warming: {left} records left")
                told = now
            await asyncio.sleep(POLL_S)
        self.state = "live"
        self._live.set()
        self._notifier.ready(self._summary())
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

    async def _report_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.settings.score.publish_every_s)
            await self._report()

    async def _report(self) -> None:
        accuracy = await self.accuracy(*WINDOWS)
        self.last_accuracy = [row for row in accuracy if row.window == "rolling"]
        alarms = [*self.pump.drift]
        self.pump.drift.clear()
        drift = await self.thread.call(self.serving.engine.drift.news)
        self._vitals.recent_lag.mark()
        self._recent_latency.mark()
        self.commits.add_figures(accuracy, drift)
        await self.publish("accuracy", accuracy)
        await self.publish("drift", alarms + drift)
        await self.publish("health", [self.health()])
        self._notifier.status(self._summary())

    async def accuracy(self, *windows: Window) -> list[Accuracy]:
        """Of these windows; of none: the rolling one. Ticks that came have their turn between them."""
        found: list[Accuracy] = []
        for window in windows or ("rolling",):
            found += await self.thread.call(partial(self._figures, window))
        return found

    def _figures(self, window: Window) -> list[Accuracy]:
        engine = self.serving.engine
        return engine.scorekeeper.accuracy(engine.newest_ns(), window=window)

    async def corrections(self, digest: str) -> dict[str, list[float]]:
        return await self.thread.call(partial(self.serving.engine.scorekeeper.corrections, digest))

    async def look(self) -> EngineFacts:
        """At what the upkeep goes by."""
        return await self.thread.call(lambda: look_at(self.serving))

    def health(self) -> Health:
        """A snapshot; counters are read while the engine works, each is right by itself."""
        settings, vitals, bus = self.settings, self._vitals, self.bus
        engine, ladder, meter = self.serving.engine, self.serving.ladder, self.pump.meter
        counts = engine.builder.counts()
        accepted, late, held = (int(counts[r]) for r in (Reason.ACCEPTED, Reason.LATE, Reason.HELD))
        consumed = int(counts.sum())
        spare = self.serving.symbols.spare  # they hold no bars
        cold = int((ladder.choose(engine.builder.bars_held()) == NOBODY).sum()) - spare if ladder else 0
        in_trouble = self._in_trouble()
        return Health(
            instance=f"{settings.topics.prefix}{os.getpid()}", state=self._state(in_trouble),
            uptime_s=vitals.uptime_s(), consumed=consumed, accepted=accepted, late=late,
            rejected=consumed - accepted - late - held, held=held,
            reasons={Reason(i).name.lower(): int(n) for i, n in enumerate(counts) if n},
            bars=meter.bars, unasked=meter.unasked, unanswered=meter.unanswered, forecasts=meter.forecasts,
            scored=meter.scores, symbols=len(self.serving.symbols) - spare, cold=max(cold, 0), turns=meter.turns,
            batch_mean=meter.questions / max(meter.turns, 1), loop_lag_ms=vitals.recent_lag.summary_ms(),
            latency_ms=self._recent_latency.summary_ms(), loop_lag_life_ms=vitals.lag.latency.summary_ms(),
            latency_life_ms=meter.latency.summary_ms(), feature_failures=dict(engine.questioner.feature_failures),
            store_units_behind=self.commits.behind, lag_records=self.unread(), lag_s=bus.lag_s(),
            dropped=bus.dropped(), partitions=in_trouble, commands=dict(self.commands.inbox.counts),
            models=self.commands.cache.counts(), fatal=bus.last_turn.set_aside() if bus.last_turn else {},
            store_lacks=bus.store_lacks, fallbacks=meter.fallbacks, alerts=self.alerts.severities(),
            regimes=engine.regimes.counts(), rss_bytes=resident_bytes(), produced_ns=self.clock.now_ns(),
        )  # fmt: skip

    def _summary(self) -> str:
        health = self.health()
        return (
            f"{health.state}: {health.consumed} ticks, {health.forecasts} forecasts, "
            f"{health.symbols} symbols of which {health.cold} are cold"
        )

    def unread(self) -> int:
        """Messages that the source holds and the engine has not seen."""
        return sum(self.bus.lag().values())

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

    async def publish(self, name: str, records: Sequence[Record]) -> bool:
        """Whether they are there now; health and accuracy come again anyway."""
        topic = self.settings.topics.prefix + name
        return not records or await self.bus.records.produce(topic, [JSON.encode(record) for record in records])

    async def _roll_off_for_ever(self) -> None:
        while True:
            await asyncio.sleep(ROLL_OFF_EVERY_S)
            rolled = await self.store.roll_off(self.serving.engine.newest_ns())
            if rolled.problem:
                self._log.warning("roll_off_failed", reason=rolled.problem)
            else:
                self._log.info("days_rolled_off", rows=rolled.rows, files=len(rolled.files))
            try:
                await self.commands.serving_models.retain()
            except (StoreStalled, OSError) as problem:
                self._log.warning("roll_off_failed", reason=str(problem))
