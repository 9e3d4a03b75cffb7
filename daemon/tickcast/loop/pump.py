"""The loop: fetch, let the engine take a turn, publish; then again. It waits for ticks and for nothing else.

Storing follows behind in commit units. While a turn runs on the engine thread the source gathers the next batch, so
batches grow with load and no timer is needed.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence, Sized
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tickcast.clock import Clock
from tickcast.engine.core.events import Ask, AskAnswer, Event, Outcome
from tickcast.engine.core.ladder import RUNGS
from tickcast.engine.records.as_json import JsonWriter
from tickcast.errors import Quality
from tickcast.io.telemetry import Latency
from tickcast.loop.build import Serving
from tickcast.loop.commits import CommitQueue
from tickcast.loop.engine_thread import EngineThread
from tickcast.loop.last_turn import LastTurn
from tickcast.loop.lookout import Samples
from tickcast.loop.publications import Publications
from tickcast.records import Drift

FALLBACK = np.uint8(Quality.FALLBACK)
MOST_DRIFT = 1024  # of a replay nobody takes them
MAX_WAIT_S = 0.2  # an empty turn at least so often: it closes commit units and lets the watchdog see life
BRIEF_MESSAGES = 64  # of a turn that the loop takes itself,
BRIEF_CPU_NS = 3_000_000  # if the one before took no more; by the clock, one that waits for the loop would seem long
BRIEF_SYMBOLS = 64  # with time bars, of which one tick may close those of all symbols


class EventSource(Protocol):
    async def next_fetched(self, max_wait_s: float) -> list[Any] | None:
        """What has arrived, in order; an empty list after `max_wait_s`; None at the end."""

    def events(self, fetched: list[Any]) -> Sequence[Event]:
        """Called on the engine thread: unpack what was fetched."""


class Sink(Protocol):
    def encode(self, publications: Publications) -> Any:
        """Called on the engine thread: what of them this sink sends, ready to be sent."""

    def publish(self, encoded: Any) -> None:
        """Called on the loop: hand it over without waiting."""

    async def room(self) -> None:
        """Returns once more may be published."""


@dataclass(slots=True)
class Meter:
    """What the pump saw, for `health`."""

    turns: int = 0
    questions: int = 0
    unasked: int = 0
    unanswered: int = 0
    bars: int = 0
    forecasts: int = 0
    fallbacks: int = 0
    scores: int = 0
    latency: Latency = field(default_factory=Latency)  # broker stamp of the closing tick -> published
    live_since_ns: int = 0  # what was stamped before waited for us, and says nothing of how fast we are
    samples: Samples = field(default_factory=Samples)

    def note(self, outcome: Outcome, now_ns: int) -> None:
        self.turns += 1
        self.questions += outcome.questions
        self.unasked += outcome.unasked
        self.unanswered += outcome.unanswered
        self.bars += sum(map(len, outcome.bars))
        self.scores += sum(map(len, outcome.scores))
        self.samples.note(outcome.letters)
        for forecasts in outcome.forecasts:
            self.forecasts += len(forecasts)
            self.fallbacks += int(np.count_nonzero(forecasts.flags & FALLBACK))
            stamped = forecasts.stamp_ns[forecasts.stamp_ns >= self.live_since_ns]
            self.latency.record_many(now_ns - stamped)


class Pump:
    def __init__(
        self, serving: Serving, source: EventSource, sink: Sink, *, thread: EngineThread, commits: CommitQueue,
        clock: Clock, last_turn: LastTurn | None = None,
    ) -> None:  # fmt: skip
        self.meter = Meter()
        self.turn_time = Latency()
        self.drift: deque[Drift] = deque(maxlen=MOST_DRIFT)  # alarms that began or ended, for who publishes them
        self.passes = 0  # turns of the loop, empty ones too
        self.waits = False  # for room in the store or the bus
        self.paused = False  # nothing is fetched; what was is published, stored and committed
        self._serving, self._engine = serving, serving.engine
        self._writer = JsonWriter(serving.settings, serving.cards, list(RUNGS))
        self._close_together = serving.symbols if serving.settings.bars.kind == "time" else ()
        self._source, self._sink, self._thread, self._commits = source, sink, thread, commits
        self._clock, self._last_turn = clock, last_turn
        self._stopping = False
        self._was_brief = False  # the last turn
        self._left: list[Event] = []  # of the last turn, for want of places
        self._asks: list[Ask] = []  # that no turn has taken yet
        self._asking: dict[int, asyncio.Future[AskAnswer]] = {}  # by the ask's id()

    def stop(self) -> None:
        """After the turn that is under way."""
        self._stopping = True
        self._commits.stop_waiting()

    async def run(self) -> None:
        while self._left or not self._stopping:
            self.passes += 1
            self.waits = True
            await self._commits.room()
            await self._sink.room()
            self.waits = False
            if self._stopping and not self._left:
                return
            fetched = self._left or await self._next_fetched()
            if fetched is None:
                return
            if fetched:
                outcome = await self._take_turn(fetched)
                if self._engine.asks_shadows:  # what serves is on its way
                    await self._take_turn([])
                if outcome.left:
                    await self._pass_places()
            if self._commits.due:
                await self.close_unit()
            await asyncio.sleep(0)

    async def _take_turn(self, fetched: list[Any]) -> Outcome:
        call = self._thread.call_briefly if self._is_brief(fetched) else self._thread.call
        publications, encoded = await call(lambda: self._turn(fetched))
        outcome = publications.outcome
        self._sink.publish(encoded)
        self._hand_out(outcome.answers)
        self.meter.note(outcome, self._clock.now_ns())
        self.drift += outcome.drift
        self._commits.add(outcome, publications.dead_letters)
        return outcome

    async def _next_fetched(self) -> list[Any] | None:
        if self.paused:
            await asyncio.sleep(MAX_WAIT_S)
            return []
        return await self._source.next_fetched(MAX_WAIT_S)

    async def ask(self, ask: Ask) -> AskAnswer:
        """Its answer, out of the same call of the model as that of the ticks of its moment."""
        future: asyncio.Future[AskAnswer] = asyncio.get_running_loop().create_future()
        self._asking[id(ask)] = future
        self._asks.append(ask)
        try:
            self._hand_out(await self._thread.call_briefly(self._answer_asks))
            return await future
        finally:
            del self._asking[id(ask)]

    def _answer_asks(self) -> list[AskAnswer]:
        """Unless a turn has taken them meanwhile."""
        asks, self._asks = self._asks, []
        return self._engine.turn(asks, self._clock.now_ns()).answers if asks else []

    def _hand_out(self, answers: list[AskAnswer]) -> None:
        for answer in answers:
            future = self._asking.get(id(answer.ask))
            if future is not None and not future.done():
                future.set_result(answer)

    async def close_unit(self, *, last: bool = False) -> None:
        """Between turns; where a snapshot is due, or at the end, the state as it is now goes with the unit."""
        wanted = self._commits.snapshot_due(last=last)
        self._commits.close(await self._thread.call(self._engine.snapshot) if wanted else None)

    async def _pass_places(self) -> None:
        """Symbols that were silent too long are forgotten once all that names them by a code is through."""
        self.waits = True
        await self.close_unit()
        await self._commits.idle()
        await self._thread.call(self._engine.pass_places)

    def _is_brief(self, fetched: list[Any]) -> bool:
        """Whether a turn over it is a matter of moments: there is little of it, and such a turn was brief before."""
        messages = sum(len(item) for item in fetched if isinstance(item, Sized))
        return self._was_brief and messages <= BRIEF_MESSAGES and len(self._close_together) <= BRIEF_SYMBOLS

    def _turn(self, fetched: list[Any]) -> tuple[Publications, Any]:
        began, began_cpu = self._clock.monotonic_ns(), time.thread_time_ns()
        asks, self._asks = self._asks, []
        if self._last_turn:
            self._last_turn.begin(fetched, mixed=bool(asks))
        events = self._left or self._source.events(fetched)  # what was left are events already
        outcome = self._engine.turn([*events, *asks], self._clock.now_ns())
        publications = Publications(outcome, self._serving, self._writer, self._clock.now_ns())
        encoded = self._sink.encode(publications)
        self._left = outcome.left
        if self._last_turn:
            self._last_turn.end(is_over=not outcome.left)
        self.turn_time.record(self._clock.monotonic_ns() - began)
        self._was_brief = time.thread_time_ns() - began_cpu < BRIEF_CPU_NS
        return publications, encoded
