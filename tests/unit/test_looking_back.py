"""When the daemon looks back: every so often, more seldom where a look takes long, and never where nothing is kept."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from storekit import store_settings
from tickcast.clock import SetClock
from tickcast.errors import StoreStalled
from tickcast.io.store.postmortems import Looked
from tickcast.live import looking_back
from tickcast.live.looking_back import LookingBack

DAY = 86_400 * 10**9


class Slow:
    """A store whose looks take so many seconds each; the last one ends the daemon."""

    def __init__(self, clock: SetClock, seconds: list[float]) -> None:
        self._clock, self._seconds, self.looks = clock, seconds, list[tuple[Looked, int]]()

    async def look_back(self, at: Looked, a_day: int) -> int:
        self.looks.append((at, a_day))
        if len(self.looks) > len(self._seconds):
            raise asyncio.CancelledError
        self._clock.passed_s += self._seconds[len(self.looks) - 1]
        if len(self.looks) == 2:
            raise StoreStalled("its disk is full")
        return 1


class PassedClock(SetClock):
    passed_s = 0.0

    def monotonic_ns(self) -> int:
        return round(self.passed_s * 1e9)


class Standing:
    """An engine whose newest tick is of the tenth day; bars of an hour."""

    def newest_ns(self) -> int:
        return 10 * DAY

    def pace(self) -> tuple[int, int]:
        return 240, DAY // 24


class Here:
    async def call(self, work: Any) -> Any:
        return work()


def made(settings: Any, store: Slow, clock: SetClock) -> LookingBack:
    return LookingBack(settings, Standing(), store=store, thread=Here(), clock=clock)  # type: ignore[arg-type]


async def test_a_look_takes_a_hundredth_of_the_time_and_one_that_fails_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses, clock = list[float](), PassedClock()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(looking_back.asyncio, "sleep", sleep)
    store = Slow(clock, [0.5, 8.0, 2.0])
    with pytest.raises(asyncio.CancelledError):
        await made(store_settings(tmp_path, score__postmortems_a_day=7), store, clock).run()
    assert pauses == pytest.approx([300, 300, 800, 300])
    at, a_day = store.looks[0]
    assert a_day == 7
    assert (at.from_ns, at.to_ns, at.symbols, at.log_return) == (0, 10 * DAY + 1, [], True)  # 1,440 hours are longer


@pytest.mark.parametrize("off", [{"score__postmortems_a_day": 0}, {"store__forecasts": "none"}])
async def test_where_nothing_is_kept_nothing_is_looked_at(tmp_path: Path, off: dict[str, Any]) -> None:
    clock = PassedClock()
    store = Slow(clock, [])
    await made(store_settings(tmp_path, **off), store, clock).run()
    assert not store.looks
