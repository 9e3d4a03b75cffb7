"""Bringing the engine to where it was before the first live tick: by a snapshot, else by bars that the store holds.

Where a partition goes on is decided in `recovery.py`; here is what is done about it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import structlog

from tickcast.clock import SystemClock
from tickcast.columns import BarBatch, Source
from tickcast.engine.core.events import Outcome
from tickcast.errors import BadSettings, BadStore
from tickcast.io.store import snapshot
from tickcast.io.store.history import BarsOfPartition
from tickcast.io.store.store import Commit, Store
from tickcast.live import recovery
from tickcast.live.recovery import Placement
from tickcast.loop.build import Serving, build, install_models
from tickcast.loop.publications import dead_letters
from tickcast.settings import Settings
from tickcast.state import State
from tickcast.symbols import SymbolTable

Warn = Callable[[str], object]


async def load_history(settings: Settings, path: Path, store: Store, *, symbols: list[str] | None, warn: Warn) -> int:
    """Every bar that a data file closes goes to the store; returns how many.

    It is read twice, so that of what is refused in the end nothing was stored. `warn` is told where most of it was.
    """
    if settings.store.bars != "all":
        raise BadSettings("history is loaded into the store, but store.bars is 'none'", remedy="set store.bars = all")
    from tickcast.loop.closed_bars import closed_bars  # polars: a daemon without history to load does without it

    async for _ in _turns(closed_bars(settings, path, symbols=symbols)):
        pass  # judged as a whole: BadData before anything is stored
    loaded = 0
    async for serving, outcome in _turns(closed_bars(settings, path, symbols=symbols, warn=warn)):
        most = settings.kafka.batch_bytes
        letters = [letter for refused in outcome.letters for letter in dead_letters(refused, most)]
        await store.write(Commit(bars=outcome.bars, dead_letters=letters), symbols=serving.symbols)
        loaded += sum(map(len, outcome.bars))
    return loaded


async def _turns(closing: Iterator[tuple[Serving, Outcome]]) -> AsyncIterator[tuple[Serving, Outcome]]:
    """In a thread each: a signal is heard meanwhile."""
    while (closed := await asyncio.to_thread(next, closing, None)) is not None:
        yield closed


async def fill_windows(
    serving: Serving, store: Store, parts: Mapping[Source, BarsOfPartition] | None = None
) -> BarBatch:
    """Windows from stored bars, of `parts` only; `bars.history` is loaded first where the store has none."""
    history, needed = serving.settings.bars.history, serving.engine.bars_needed()
    tail = await asyncio.to_thread(store.bars_tail, serving.symbols, needed, parts)
    if history is not None and not len(tail):
        log = structlog.get_logger()
        loaded = await load_history(
            serving.settings, history, store, symbols=None, warn=lambda why: log.warning("history_refused", reason=why)
        )
        log.info("history_loaded", path=str(history), bars=loaded)
        tail = await asyncio.to_thread(store.bars_tail, serving.symbols, needed, parts)
    if len(tail):
        serving.engine.restore(tail)
    structlog.get_logger().info("windows_filled", symbols=len(serving.symbols), bars=len(tail))
    return tail


async def recover(serving: Serving, store: Store, place: Placement) -> dict[Source, int]:
    """The engine as it was, by the shortest way; returns where each partition is read from.

    1. The newest snapshot that fits the commits is resumed, and all since then is read again (`resume`).
    2. Without one the windows are filled from stored bars, and each partition is read again from where these leave off
       (`refill`); where the store is empty, too, `bars.history` is loaded into it first.
    """
    resumed = await resume(serving, store, place)
    return await refill(serving, store, place) if resumed is None else place.committed | resumed


async def resume(serving: Serving, store: Store, place: Placement) -> dict[Source, int] | None:
    """The engine as the newest usable snapshot has it, and where its ticks end; None = there is none."""
    log, settings = structlog.get_logger(), serving.settings
    state, refused = await asyncio.to_thread(
        snapshot.newest_valid, snapshot_folder(settings), settings, not_beyond=place.committed, beside=store.mark()
    )
    for problem in refused:
        log.warning("snapshot_refused", reason=problem)
    if state is None:
        return None
    if problem := recovery.usable(state.positions, place):
        log.warning("snapshot_refused", reason=problem)
        return None
    try:
        await asyncio.to_thread(_resume_state, build(settings), state)
    except BadStore as problem:  # half filled, that engine could not begin without a snapshot either
        log.warning("snapshot_refused", reason=str(problem))
        return None
    await asyncio.to_thread(_resume_state, serving, state)
    log.info("snapshot_resumed", symbols=len(serving.symbols), positions=state.positions)
    return state.positions


def _resume_state(serving: Serving, state: State) -> None:
    """With the models that the engine knew by then."""
    if "ladder" in state.facts:
        install_models(serving, state.part("ladder").facts["models"])
    serving.engine.resume(state)


def snapshot_folder(settings: Settings) -> Path:
    return settings.snapshot.folder or settings.store.path.parent / "snapshots"


async def refill(serving: Serving, store: Store, place: Placement, *, reread: int = 0) -> dict[Source, int]:
    """Without a snapshot: fill the windows from the store, and say where each partition is read from.

    With `reread` so many records fill the windows where the store has no bars, or is further behind.
    """
    settings, engine = serving.settings, serving.engine
    kept = await asyncio.to_thread(store.kept, place.committed)
    starts = {}
    for at, offset in place.committed.items():
        low = max(place.low[at], place.since[at])  # below it, symbols lay in other partitions
        known = kept[at]._replace(next_offset=None) if at in place.decided else kept[at]
        start = recovery.start(settings, known, bars_needed=engine.bars_needed(), committed=offset, low=low)
        starts[at] = recovery.reread(settings, start, committed=offset, low=low, most=reread) if reread else start
    bars = await fill_windows(serving, store, {at: BarsOfPartition(s.below, s.upto_ns) for at, s in starts.items()})
    _take_up(serving, starts, bars, place.since)
    engine.positions = {at: start.offset for at, start in starts.items()}
    unseen = {at: offset for at, offset in engine.positions.items() if at not in store.positions()}
    if unseen:
        await store.write(Commit(offsets=unseen))  # a later restart can begin where this one did
    _tell(starts, place.committed)
    return dict(engine.positions)


def _take_up(
    serving: Serving, starts: Mapping[Source, recovery.PartitionStart], bars: BarBatch, since: Mapping[Source, int]
) -> None:
    """Event time and the home of each symbol are what they were when the restored bars had closed."""
    builder = serving.engine.builder
    number = np.array([builder.partition(*source) for source in starts], np.int32)
    earliest = np.array([since[source] for source in starts] or [0], np.int64)
    known = (bars.partition >= 0) & (bars.offset >= earliest[bars.partition])
    builder.settle_in(bars.symbol[known], number[bars.partition[known]])
    for source, start in starts.items():
        if start.newest_ns is not None:
            builder.begin(source, newest_ns=start.newest_ns, closed_to_ns=start.upto_ns)


def _tell(starts: Mapping[Source, recovery.PartitionStart], committed: Mapping[Source, int]) -> None:
    log = structlog.get_logger()
    if again := sum(committed[source] - start.offset for source, start in starts.items()):
        log.info("reading_again", records=again)
    if cut := [source for source, start in starts.items() if start.lacks == "open bars"]:
        log.warning("open_bars_cut", partitions=cut, reason="the first ticks of bars that were open are not read again")
    if cold := [source for source, start in starts.items() if start.lacks == "windows"]:
        log.warning("windows_cold", partitions=cold, reason="neither bars nor old enough watermarks are stored")


async def load_into_store(
    settings: Settings, path: Path, *, symbols: list[str] | None = None, warn: Warn = lambda why: None
) -> int:
    """The command: open the store, load, close it."""
    store = Store.open(settings, symbols=SymbolTable(1), cards=[], at_ns=SystemClock().now_ns())
    try:
        return await load_history(settings, path, store, symbols=symbols, warn=warn)
    finally:
        await store.close()
