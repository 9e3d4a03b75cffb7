"""The loop: fetch, let the engine take a turn, publish; then again. It waits for ticks and for nothing else.

Storing follows behind in commit units. While a turn runs on the engine thread the source gathers the next batch, so
batches grow with load and no timer is needed.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Protocol

from tickcast.app.engine_thread import EngineThread
from tickcast.app.units import CommitUnits
from tickcast.app.wiring import Serving
from tickcast.clock import Clock
from tickcast.core.engine import Event, Outcome
from tickcast.edges.telemetry import Latency

MAX_WAIT_S = 0.2  # an empty turn at least so often: it closes commit units and lets the watchdog see life


class Source(Protocol):
    async def next_events(self, max_wait_s: float) -> list[Event] | None:
        """What has arrived, in order; an empty list after `max_wait_s`; None at the end."""


class Sink(Protocol):
    def encode(self, outcome: Outcome, produced_ns: int) -> Any:
        """Called on the engine thread: turn the outcome into what is published."""

    def publish(self, encoded: Any) -> None:
        """Called on the loop: hand it over without waiting."""


@dataclass(slots=True)
class Meter:
    """What the pump saw, for `health`."""

    turns: int = 0
    questions: int = 0
    unasked: int = 0
    bars: int = 0
    forecasts: int = 0
    scores: int = 0
    latency: Latency = field(default_factory=Latency)  # broker stamp of the closing tick -> published

    def note(self, outcome: Outcome, now_ns: int) -> None:
        self.turns += 1
        self.questions += outcome.questions
        self.unasked += outcome.unasked
        self.bars += sum(map(len, outcome.bars))
        self.scores += sum(map(len, outcome.scores))
        for forecasts in outcome.forecasts:
            self.forecasts += len(forecasts)
            stamped = forecasts.stamp_ns[forecasts.stamp_ns >= 0]
            self.latency.record_many(now_ns - stamped)


class Pump:
    def __init__(
        self, serving: Serving, source: Source, sink: Sink, *, thread: EngineThread, units: CommitUnits, clock: Clock
    ) -> None:
        self.meter = Meter()
        self.turn_time = Latency()
        self._engine = serving.engine
        self._source = source
        self._sink = sink
        self._thread = thread
        self._units = units
        self._clock = clock
        self._stopping = False

    def stop(self) -> None:
        """After the turn that is under way."""
        self._stopping = True
        self._units.stop_waiting()

    async def run(self) -> None:
        while not self._stopping:
            await self._units.room()
            if self._stopping:
                return
            events = await self._source.next_events(MAX_WAIT_S)
            if events is None:
                return
            if events:
                outcome, encoded = await self._thread.call(lambda events=events: self._turn(events))  # type: ignore[misc]
                self._sink.publish(encoded)
                self.meter.note(outcome, self._clock.now_ns())
                self._units.add(outcome)
            self._units.close_when_due()
            await asyncio.sleep(0)

    def _turn(self, events: list[Event]) -> tuple[Outcome, Any]:
        began = self._clock.monotonic_ns()
        outcome = self._engine.turn(events, self._clock.now_ns())
        encoded = self._sink.encode(outcome, self._clock.now_ns())
        self.turn_time.record(self._clock.monotonic_ns() - began)
        return outcome, encoded
