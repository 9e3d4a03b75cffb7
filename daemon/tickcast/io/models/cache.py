"""The loaded models: the least recently used go when there are too many or they are too large. It decides nothing else.

A model is loaded once however many ask for it, on a thread of its own, so that neither the event loop nor the engine
waits. Those that serve are pinned: they stay, also beyond the bounds.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tickcast.clock import Clock
from tickcast.engine.inference.load import open_model
from tickcast.engine.inference.onnx import TILE
from tickcast.plugin import Runner


class Loaded(NamedTuple):
    runner: Runner
    bytes: int  # of its files
    load_ms: float  # verification, graph and first answer


class ModelCache:
    """All but the loading happens on the event loop. `folder_of` finds and verifies a digest's folder; it blocks."""

    def __init__(
        self, folder_of: Callable[[str], Path], *, most: int, most_bytes: int, clock: Clock, tile: int = TILE
    ) -> None:
        self._folder_of, self._most, self._most_bytes = folder_of, most, most_bytes
        self._clock, self._tile = clock, tile
        self._kept: OrderedDict[str, Loaded] = OrderedDict()  # the most recently used last
        self._loading: dict[str, asyncio.Task[Loaded]] = {}
        self._pinned: frozenset[str] = frozenset()
        self._thread = ThreadPoolExecutor(1, "model-loader")
        self.loads = self.evictions = 0

    async def get(self, digest: str) -> Runner:
        """The model, loaded where it is not yet. What goes wrong is raised to all who asked, and tried anew later."""
        return (await self.loaded(digest)).runner

    async def loaded(self, digest: str) -> Loaded:
        if digest in self._kept:
            self._kept.move_to_end(digest)
            return self._kept[digest]
        if digest not in self._loading:
            self._loading[digest] = asyncio.create_task(self._load(digest))
            self._loading[digest].add_done_callback(_note_failure)
        return await asyncio.shield(self._loading[digest])  # who gives up waiting stops nobody else's load

    def pin(self, digests: Collection[str]) -> None:
        """These serve, and no others do any more."""
        self._pinned = frozenset(digests)
        self._evict()

    def counts(self) -> dict[str, int]:
        """For `Health.models`."""
        return {"held": len(self._kept), "loads": self.loads, "evictions": self.evictions}

    def held(self) -> dict[str, Loaded]:
        """By digest, the least recently used first."""
        return dict(self._kept)

    async def close(self) -> None:
        """Waits for the load that is under way; those who asked for others are cancelled."""
        for task in self._loading.values():
            task.cancel()
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
        self._kept.clear()

    async def _load(self, digest: str) -> Loaded:
        try:
            loaded = await asyncio.get_running_loop().run_in_executor(self._thread, self._open, digest)
        finally:
            del self._loading[digest]
        self._kept[digest] = loaded
        self.loads += 1
        self._evict()
        return loaded

    def _open(self, digest: str) -> Loaded:
        began_ns = self._clock.monotonic_ns()
        folder = self._folder_of(digest)
        runner = open_model(folder, tile=self._tile)
        size = sum((folder / name).stat().st_size for name in runner.card.artefacts)
        return Loaded(runner, size, (self._clock.monotonic_ns() - began_ns) / 1e6)

    def _evict(self) -> None:
        for digest in [digest for digest in self._kept if digest not in self._pinned]:
            if len(self._kept) <= self._most and sum(one.bytes for one in self._kept.values()) <= self._most_bytes:
                return
            del self._kept[digest]
            self.evictions += 1


def _note_failure(task: "asyncio.Task[Loaded]") -> None:
    """All who asked may have given up waiting; then nobody else takes the error from the task."""
    if not task.cancelled():
        task.exception()
