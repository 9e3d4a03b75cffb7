"""What a model in the registry costs: to be loaded until it may serve, and to be asked one question once it is.

    python benchmarks/run.py models

An NHITS (L 96, H 12, hidden 64) through the cache that the daemon has: hashes of all files verified, graph opened in
ONNX Runtime, the noted answer repeated.
"""

import asyncio
import tempfile
from pathlib import Path
from statistics import median

from inference import LOOKBACK, fitted
from stats import Figure
from tickcast.clock import SystemClock
from tickcast.io.models.artefacts import Artefacts
from tickcast.io.models.cache import ModelCache
from tickcast.testing import walks

RUNS, CALLS = 9, 500
LOAD_BAR_MS, PREDICT_BAR_MS = 100, 5
CLOCK = SystemClock()


def main() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        artefacts = Artefacts(Path(folder) / "artefacts")
        card = artefacts.add(fitted(Path(folder)))
        load_ms, predict_ms = asyncio.run(loaded_and_asked(artefacts, card.digest))
    return [
        Figure("load a registered model until it may serve", load_ms, "ms", bar=LOAD_BAR_MS),
        Figure("cached predict of one row", predict_ms, "ms", bar=PREDICT_BAR_MS),
    ]


async def loaded_and_asked(artefacts: Artefacts, digest: str) -> tuple[float, float]:
    """Each in the median, in ms; every load is in a cache of its own, after one that pays for the runtime's start."""
    loads = [await load_ms(artefacts, digest) for _ in range(RUNS + 1)][1:]
    cache = cache_of(artefacts)
    try:
        row = walks(await cache.get(digest), rows=1, lookback=LOOKBACK)
        asked = []
        for _ in range(CALLS):
            began = CLOCK.monotonic_ns()
            runner = await cache.get(digest)
            runner.predict(row)
            asked.append((CLOCK.monotonic_ns() - began) / 1e6)
    finally:
        await cache.close()
    return median(loads), median(asked)


async def load_ms(artefacts: Artefacts, digest: str) -> float:
    cache = cache_of(artefacts)
    try:
        began = CLOCK.monotonic_ns()
        await cache.get(digest)
        return (CLOCK.monotonic_ns() - began) / 1e6
    finally:
        await cache.close()


def cache_of(artefacts: Artefacts) -> ModelCache:
    return ModelCache(artefacts.open, most=8, most_bytes=2 << 30, clock=CLOCK)


if __name__ == "__main__":
    for figure in main():
        print(f"{figure.name:<45} {figure.value:10.3f} {figure.unit}")
