"""Loading history into the store, and filling windows from it before the first live tick."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import structlog

from tickcast.app.units import dead_letters
from tickcast.app.wiring import Serving
from tickcast.clock import Clock
from tickcast.columns import BarBatch
from tickcast.errors import BadSettings
from tickcast.registry.history import Part
from tickcast.registry.rows import Source
from tickcast.registry.store import Store, Unit
from tickcast.settings import Settings


async def load(settings: Settings, path: Path, store: Store) -> int:
    """Every bar that a data file closes goes to the store; returns how many."""
    if settings.store.bars != "all":
        raise BadSettings("history is loaded into the store, but store.bars is 'none'", remedy="set store.bars = all")
    from tickcast.app.history import closed_bars  # polars: a daemon without history to load does without it

    loaded = 0
    for serving, outcome in closed_bars(settings, path):
        letters = [letter for refused in outcome.letters for letter in dead_letters(refused)]
        unit = Unit(bars=outcome.bars, dead_letters=letters)
        await store.write(unit, symbols=serving.symbols)
        loaded += sum(map(len, outcome.bars))
    return loaded


async def restore(serving: Serving, store: Store, clock: Clock, parts: Mapping[Source, Part] | None = None) -> BarBatch:
    """Windows from stored bars, of `parts` only; `bars.history` is loaded first where the store has none."""
    history, needed = serving.settings.bars.history, serving.engine.bars_needed()
    tail = await asyncio.to_thread(store.bars_tail, serving.symbols, needed, parts)
    if history is not None and not len(tail):
        loaded = await load(serving.settings, history, store)
        structlog.get_logger().info("history_loaded", path=str(history), bars=loaded)
        tail = await asyncio.to_thread(store.bars_tail, serving.symbols, needed, parts)
    if len(tail):
        serving.engine.restore(tail)
    structlog.get_logger().info("windows_filled", symbols=len(serving.symbols), bars=len(tail))
    return tail


async def load_into_store(settings: Settings, path: Path) -> int:
    """The command: open the store, load, close it."""
    from tickcast.clock import SystemClock
    from tickcast.symbols import SymbolTable

    store = Store.open(settings, symbols=SymbolTable(1), cards=[], at_ns=SystemClock().now_ns())
    try:
        return await load(settings, path, store)
    finally:
        await store.close()
