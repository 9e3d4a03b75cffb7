"""`replay --speed`: history comes no faster than event time at that speed allows, and waits no longer than it must."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from tickcast.batch.replay import HistorySource
from tickcast.clock import SetClock
from tickcast.progress import unshown

SECOND = 10**9


class Told(SetClock):
    """Its monotonic time is told, too."""

    monotonic = 5 * SECOND

    def monotonic_ns(self) -> int:
        return self.monotonic


class ThreeTurns:
    async def turns(self) -> AsyncIterator[tuple[list[Any], int]]:
        for name in ("first", "second", "third"):
            yield [name], 1

    def events(self, fetched: list[Any]) -> list[Any]:
        return fetched


async def test_what_is_ahead_of_the_pace_waits_and_what_is_not_does_not() -> None:
    newest, clock = SimpleNamespace(ns=0), Told()
    serving: Any = SimpleNamespace(engine=SimpleNamespace(newest_ns=lambda: newest.ns))
    history: Any = ThreeTurns()
    with unshown(None, "") as progress:
        source = HistorySource(history, serving, clock, speed=10.0, progress=progress, walk=None)
        assert await source.next_fetched(0.01) == ["first"]
        newest.ns = 1000 * SECOND  # the pace is counted from here
        assert await source.next_fetched(0.01) == ["second"]
        newest.ns += 20 * SECOND  # two seconds of it
        assert await source.next_fetched(0.01) == []
        clock.monotonic += 2 * SECOND - 1
        assert await source.next_fetched(0.01) == []
        clock.monotonic += 1
        assert await source.next_fetched(0.01) == ["third"]
        assert clock.now_ns() == newest.ns
        assert await source.next_fetched(0.01) is None


async def test_without_a_speed_nothing_waits() -> None:
    serving: Any = SimpleNamespace(engine=SimpleNamespace(newest_ns=lambda: 10**18))
    history: Any = ThreeTurns()
    with unshown(None, "") as progress:
        source = HistorySource(history, serving, Told(), speed=0.0, progress=progress, walk=None)
        assert [await source.next_fetched(0.0) for _ in range(4)] == [["first"], ["second"], ["third"], None]
