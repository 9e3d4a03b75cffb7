"""What a bus is to the daemon: where ticks come from, where results go, and when they count."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from tickcast.clock import Clock
from tickcast.columns import Source
from tickcast.errors import TickcastError
from tickcast.io.control_messages import Message
from tickcast.io.store.store import Store
from tickcast.loop import pump
from tickcast.loop.build import Serving
from tickcast.loop.commits import Committing
from tickcast.loop.last_turn import LastTurn

Commands = Callable[[], AbstractAsyncContextManager[AsyncIterator[Message]]]  # opens the topic that they come on


class Records(Protocol):
    async def produce(self, topic: str, messages: list[bytes]) -> bool:
        """Publish rare records, outside every commit unit; whether they are there now."""


class ModelTopic(Protocol):
    """A topic of keyed records of which the last of each key counts; without a value one takes its key back."""

    async def read(self, take: Callable[[str, bytes | None], None]) -> None:
        """All that it holds as of now."""

    def writing(self) -> AbstractAsyncContextManager[Callable[[str, bytes | None], Awaitable[None]]]:
        """What it yields sends one record, and returns when the topic holds it."""


class OpenAgain(Exception):
    """The session is over, and what ended it may pass: the bus is to be opened again, unless all is to end anyway."""

    def __init__(self, reason: TickcastError) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True, slots=True)
class OpenBus:
    """A bus that is connected, with the engine's windows filled and the source placed where they end."""

    source: pump.EventSource
    sink: pump.Sink
    records: Records
    committing: Committing | None = None
    control: Commands | None = None
    models: ModelTopic | None = None  # what a fleet shares its models by
    background: list[Coroutine[Any, Any, None]] = field(default_factory=list)  # to run beside the pump
    last_turn: LastTurn | None = None  # where what the engine works on outlives the process
    store_lacks: dict[str, int] = field(default_factory=dict)  # committed records whose rows are gone, by partition

    to_repeat: Callable[[], int] = int  # records that a restart reads once more before it is live
    lag: Callable[[], dict[Source, int]] = dict  # records that wait in each partition
    stopped: Callable[[], Collection[Source]] = tuple  # partitions that are read no more
    dropped: Callable[[], dict[str, int]] = dict  # messages that gave way to newer ones, by where
    lag_s: Callable[[], float] = int  # age of the newest record that was read, while others wait
    away_s: Callable[[], dict[str, float]] = dict  # since when each broker owes an answer; 0 = it does not
    rebuilt: Callable[[], int] = int  # clients that were replaced
    retain: Callable[[str, str, bytes], None] = lambda name, subject, record: None
    """Keep this as the last record of a name and subject, where the bus can; an empty one takes it away."""
    goes_on: Callable[[], Awaitable[bool]] | None = None
    """Asked when the source has ended and all of it is committed. True: it goes on as before; False: the bus has other
    partitions for us and is to be opened again. None: the source ends with the daemon."""


class Bus(Protocol):
    def open(self, serving: Serving, store: Store, clock: Clock) -> AbstractAsyncContextManager[OpenBus]: ...
