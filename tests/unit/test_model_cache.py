"""Loaded models: once for all who ask, the least recently used go, those that serve stay."""

import asyncio
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from registrykit import HORIZON, LOOKBACK, model_folder
from tickcast.clock import SystemClock
from tickcast.columns import Inputs
from tickcast.engine.inference.model_folder import GRAPH, read_card
from tickcast.errors import BadModel
from tickcast.io.models.cache import ModelCache

BIG = 1 << 30


class Folders:
    """Finds folders as the artefacts do, counts, and may be held up."""

    def __init__(self, folder: Path, count: int) -> None:
        made = [model_folder(folder / str(n), created_ns=n) for n in range(count)]
        self.by_digest = {read_card(place).digest: place for place in made}
        self.digests = [*self.by_digest]
        self.asked: Counter[str] = Counter()
        self.threads: set[int] = set()
        self.go = threading.Event()
        self.go.set()

    def __call__(self, digest: str) -> Path:
        self.asked[digest] += 1
        self.threads.add(threading.get_ident())
        assert self.go.wait(30)
        return self.by_digest[digest]

    def cache(self, most: int = 2, most_bytes: int = BIG) -> ModelCache:
        return ModelCache(self, most=most, most_bytes=most_bytes, clock=SystemClock())


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path, 4)


async def test_a_model_is_loaded_once_however_many_ask_at_once_and_off_the_event_loop(folders: Folders) -> None:
    cache, digest = folders.cache(), folders.digests[0]
    folders.go.clear()
    asking = [asyncio.create_task(cache.get(digest)) for _ in range(20)]
    for _ in range(5):
        await asyncio.sleep(0)  # the loop runs on while it loads
    folders.go.set()
    runners = await asyncio.gather(*asking)
    assert len({id(runner) for runner in runners}) == 1
    assert folders.asked == {digest: 1}
    assert threading.get_ident() not in folders.threads
    past = np.ones((2, LOOKBACK, 1), np.float32)
    empty = np.empty((2, HORIZON, 0), np.float32)
    answer = runners[0].predict(Inputs(past, past[:, :, 0], empty, np.empty((2, 0), np.float32)))
    assert answer.shape == (2, HORIZON, 3)
    held = cache.held()[digest]
    assert held.bytes == sum((folders.by_digest[digest] / name).stat().st_size for name in held.runner.card.artefacts)
    assert 0 < held.load_ms < 60_000
    await cache.close()


async def test_who_gives_up_waiting_stops_nobody_elses_load(folders: Folders) -> None:
    cache, digest = folders.cache(), folders.digests[0]
    folders.go.clear()
    impatient, patient = asyncio.create_task(cache.get(digest)), asyncio.create_task(cache.get(digest))
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    folders.go.set()
    assert (await patient).card.digest == digest
    assert impatient.cancelled()
    await cache.close()


async def test_the_least_recently_used_goes_first(folders: Folders) -> None:
    cache, (a, b, c, d) = folders.cache(most=2), folders.digests
    for digest in [a, b]:
        await cache.get(digest)
    await cache.get(a)
    await cache.get(c)
    assert [*cache.held()] == [a, c]
    await cache.get(d)
    assert [*cache.held()] == [c, d]
    await cache.get(a)
    assert folders.asked[a] == 2
    assert (cache.loads, cache.evictions) == (5, 3)
    await cache.close()


async def test_pinned_models_stay_and_go_first_once_others_are_pinned(folders: Folders) -> None:
    cache, (a, b, c, d) = folders.cache(most=2), folders.digests
    cache.pin([a, b])
    for digest in [a, b, c]:
        await cache.get(digest)
    assert [*cache.held()] == [a, b]
    assert (await cache.get(c)).card.digest == c  # answered, though there is no room to keep it
    cache.pin([d])
    await cache.get(d)
    assert [*cache.held()] == [b, d]
    cache.pin([a, b, c, d])
    for digest in [a, c]:
        await cache.get(digest)
    assert {*cache.held()} == {a, b, c, d}
    cache.pin([])
    assert len(cache.held()) == 2
    await cache.close()


async def test_the_bytes_of_their_files_are_bounded_too(folders: Folders) -> None:
    (a, b, c, _) = folders.digests
    size = sum(file.stat().st_size for file in folders.by_digest[a].iterdir() if file.name != "card.json")
    cache = folders.cache(most=10, most_bytes=2 * size + size // 2)
    for digest in [a, b, c]:
        await cache.get(digest)
    assert [*cache.held()] == [b, c]
    await cache.close()


async def test_what_cannot_be_loaded_is_told_to_all_and_tried_anew(folders: Folders) -> None:
    cache, digest = folders.cache(), folders.digests[0]
    graph = folders.by_digest[digest] / GRAPH
    sound = graph.read_bytes()
    graph.write_bytes(sound[:-1])
    answers = await asyncio.gather(*(cache.get(digest) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [BadModel] * 3
    assert not cache.held()
    graph.write_bytes(sound)
    assert (await cache.get(digest)).card.digest == digest
    await cache.close()


async def test_closing_waits_for_the_load_under_way_and_drops_the_rest(folders: Folders) -> None:
    cache = folders.cache()
    folders.go.clear()
    asking = [asyncio.create_task(cache.get(digest)) for digest in folders.digests]
    await asyncio.sleep(0)
    closing = asyncio.create_task(cache.close())
    await asyncio.sleep(0)
    folders.go.set()
    await asyncio.wait_for(closing, 30)
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(answer, asyncio.CancelledError) for answer in answers)
    assert folders.asked.total() <= 1
    assert not cache.held()
