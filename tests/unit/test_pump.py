"""The pump and what a turn leaves for want of places: the next takes it, also where a drain comes between."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from tickcast.clock import SystemClock
from tickcast.engine.core.events import Outcome
from tickcast.loop.publications import Publications
from tickcast.loop.pump import BRIEF_MESSAGES, Pump
from tickcast.settings import Settings
from tickcast.settings.stream import BarSettings

MANY: Any = range(BRIEF_MESSAGES + 1)  # a batch of so many messages


class Engine:
    """Its first turn leaves all that came."""

    asks_shadows = False

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.passed = 0

    def turn(self, events: list[Any], now_ns: int) -> Outcome:
        self.seen.append(events)
        return Outcome(left=events if len(self.seen) == 1 else [])

    def pass_places(self) -> None:
        self.passed += 1


class Thread:
    """Remembers which turns the loop took upon itself."""

    def __init__(self) -> None:
        self.brief = 0

    async def call(self, work: Callable[[], Any]) -> Any:
        return work()

    async def call_briefly(self, work: Callable[[], Any]) -> Any:
        self.brief += 1
        return work()


class Source:
    def __init__(self) -> None:
        self.batches = [[MANY]]

    async def next_fetched(self, max_wait_s: float) -> list[Any] | None:
        return self.batches.pop() if self.batches else None

    def events(self, fetched: list[Any]) -> list[Any]:
        return [*fetched]


class Edge:
    """Of units and of the sink: never full, and nothing is due."""

    due = False

    def __init__(self, idle: Callable[[], None] = lambda: None) -> None:
        self._idle = idle

    async def room(self) -> None: ...

    async def idle(self) -> None:
        self._idle()

    def encode(self, publications: Publications) -> None: ...

    def publish(self, encoded: Any) -> None: ...

    def add(self, outcome: Outcome, letters: Any) -> None: ...

    def close(self, state: Any) -> None: ...

    def snapshot_due(self, *, last: bool) -> bool:
        return False

    def stop_waiting(self) -> None: ...


async def test_what_a_turn_left_is_taken_in_the_next_off_the_loop_and_before_a_drain_ends_it() -> None:
    engine, thread = Engine(), Thread()
    settings = Settings(bars=BarSettings(kind="tick"))
    serving = SimpleNamespace(engine=engine, symbols=[], cards=[], settings=settings)
    commits = Edge(idle=lambda: pump.stop())  # the drain comes while places pass
    pump = Pump(
        cast(Any, serving), Source(), Edge(), thread=cast(Any, thread), commits=cast(Any, commits), clock=SystemClock()
    )
    pump._was_brief = True
    async with asyncio.timeout(10):
        await pump.run()
    assert engine.seen == [[MANY], [MANY]]
    assert engine.passed == 1
    assert thread.brief == 0, "so many messages are no matter of moments"
