"""The live daemon: one session after the other, until it is told to end. It keeps what outlives them."""

import asyncio
import os
from typing import Any

import structlog

from tickcast.beside import beside
from tickcast.clock import Clock, SystemClock, fresh_id
from tickcast.io.systemd import Notifier
from tickcast.live.buses.bus import Bus, OpenAgain
from tickcast.live.process import Vitals
from tickcast.live.session import Session
from tickcast.loop.build import build, unreachable_rungs
from tickcast.records import Command, Health, Reply
from tickcast.settings import Settings


class Daemon:
    """`run` does all, and `drain` ends it. The bus is handed in, so that a test or the demo can be at its other end."""

    def __init__(self, settings: Settings, bus: Bus, *, clock: Clock | None = None) -> None:
        self.settings = settings
        self.live = asyncio.Event()
        self.gave_up = False  # before there was anything to drain; threads of the start may still be at work
        self._bus = bus
        self._clock = clock or SystemClock()
        self.notifier = Notifier(os.environ, self._clock)
        self.vitals = Vitals(self._clock)
        self._running: asyncio.Task[bool] | None = None  # the session
        self.session = self._new_session()  # the one that opens or is open, or was the last
        self._log = structlog.get_logger()

    @property
    def state(self) -> str:
        return self.session.state

    async def run(self) -> None:
        """Until drained, or until something fatal is raised."""
        if rungs := unreachable_rungs(self.settings):
            self._log.warning(
                "rungs_unreachable", rungs=rungs, reason="a rung before them needs no more bars",
                remedy="put the rung that needs most first: model.default, then model.ladder",
            )  # fmt: skip
        async with beside(self.vitals.lag.watch(), self.notifier.watch(lambda: self.session.alive())):
            while await self._is_followed():
                before, self.session = self.session, self._new_session()
                self.session.draining = before.draining
        self.session.state = "stopped"
        if not self.gave_up:
            self._log.info("daemon_drained", forecasts=self.session.pump.meter.forecasts)

    def drain(self) -> None:
        """Stop fetching, answer what came, store it, and end; at once where the start is not over."""
        self.session.drain()
        if self._running is not None and self.session.is_opening and not self.gave_up:
            self.gave_up = self.session.given_up = True
            self.notifier.stopping(f"{self.state}: given up")
            self._log.info("start_given_up", state=self.state)
            self._running.cancel()

    def renew_keys(self) -> None:
        """Who may give commands is read again; BadSettings: nothing has changed."""
        if self.live.is_set():  # until then each session reads them itself
            self.session.commands.renew_keys()

    async def command(self, command: str, by: str = "local", **args: Any) -> Reply:
        """The final reply to a command of this process itself, which may do anything."""
        order = Command(id=fresh_id(), command=command, args=args)
        return await self.session.commands.inbox.call(order, by=by, role="admin")

    def health(self) -> Health:
        return self.session.health()

    def _new_session(self) -> Session:
        return Session(
            self.settings, self._bus, self._clock, build(self.settings, by_clock=True), notifier=self.notifier,
            vitals=self.vitals, live=self.live,
        )  # fmt: skip

    async def _is_followed(self) -> bool:
        """One session; whether there is to be another."""
        self._running = session = asyncio.create_task(self.session.run())
        try:
            return await session
        except OpenAgain as again:
            if self.session.draining:
                raise again.reason from None
            return True
        except asyncio.CancelledError:
            if not (self.gave_up and session.cancelled()):
                raise
            return False
        finally:
            self._running = None
