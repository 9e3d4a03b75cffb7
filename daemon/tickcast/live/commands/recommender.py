"""The command `recommend`: stored bars -> their signature -> which kinds are worth trying, from what the store knows.

It is answered beside serving, on a thread, and reads no more bars than a bound.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tickcast.errors import BadData, BadRequest
from tickcast.io.store.store import Store
from tickcast.live.commands import arguments
from tickcast.live.commands.inbox import Context
from tickcast.loop.build import RUNGS
from tickcast.loop.facts import EngineFacts
from tickcast.loop.recommend import measured, recommend
from tickcast.loop.signature import MOST_BARS, Closes, Signature, signature_of
from tickcast.plugin import names

MOST_READ = 1_000_000  # bars
EVER_NS = (1 << 63) - 1


class Recommender:
    def __init__(self, store: Store, folder: Path, look: Callable[[], Awaitable[EngineFacts]]) -> None:
        """`folder` is for what is read, as long as that takes."""
        self._store, self._folder, self._look = store, folder, look

    async def recommend(self, given: arguments.Recommend, context: Context) -> dict[str, Any]:
        told = await self._look()
        from_ns = max(told.newest_ns - MOST_BARS * told.bar_ns, 0) if told.bar_ns else 0
        signature = await asyncio.to_thread(self._signature, from_ns, [*given.symbols])
        trajectories = await self._store.ledger.trajectories()
        kinds = [name for name in names("models") if name not in RUNGS]
        found = recommend(signature, trajectories, measured(), kinds=kinds)
        return dict(msgspec.to_builtins(found))

    def _signature(self, from_ns: int, symbols: list[str]) -> Signature:
        rows = self._store.count_bars(from_ns, EVER_NS, symbols or None)
        if not rows:
            raise BadData("the store has no bars of these symbols", remedy="store.bars = all keeps them")
        if rows > MOST_READ:
            raise BadRequest(f"{rows:,} bars are more than are looked at here", remedy="name fewer symbols")
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            path = Path(folder) / "bars.parquet"
            self._store.save_bars(path, from_ns, EVER_NS, symbols or None)
            return signature_of(_closes(path))


def _closes(path: Path) -> Closes:
    """The file is sorted by symbol and time."""
    table = pq.read_table(path, columns=["symbol", "as_of_ns", "close", "mask", "gap"])
    symbol = pc.rank(table["symbol"], tiebreaker="dense").to_numpy().astype(np.int32)
    of = {name: table[name].to_numpy() for name in table.column_names if name != "symbol"}
    return Closes(symbol, of["as_of_ns"], of["close"], of["mask"] == 1, of["gap"] == 0)
