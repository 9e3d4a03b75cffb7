"""Which closed bars open a question, who answers it, and what the forecast is called. It never predicts."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from numba import njit

from tickcast.columns import I32, I64, U8, U64
from tickcast.engine.core.bars import KINDS
from tickcast.engine.core.windows import mix
from tickcast.errors import BadStore
from tickcast.records import ModelCard
from tickcast.settings import Settings
from tickcast.symbols import SymbolArrays

NOBODY = 255  # as a rung: the symbol is cold


def bar_identity(settings: Settings) -> dict[str, object]:
    """The settings that decide which bars exist: part of every forecast id and model card."""
    every = {"time": "every_ms", "tick": "every_ticks", "volume": "every_size"}[settings.bars.kind]
    return {
        "kind": settings.bars.kind, every: getattr(settings.bars, every), "on_gap": settings.bars.on_gap,
        "calendar": settings.bars.calendar,
    }  # fmt: skip


def numbers_of(digests: Sequence[str], cards: Sequence[ModelCard]) -> I64:
    """The number that each of these models has here; BadStore where one is not loaded."""
    here = {card.digest: number for number, card in enumerate(cards)}
    if missing := [digest for digest in digests if digest not in here]:
        raise BadStore(
            f"the state was made with the model {missing[0][:12]}, which is not loaded", remedy="it starts anew"
        )
    return np.array([here[digest] for digest in digests], np.int64)


def id_seeds(cards: Sequence[ModelCard], settings: Settings) -> U64:
    """[models, 2]: 128 bits of (model digest, bar settings, H), which every id of that model starts from."""
    seeds = np.empty((len(cards), 2), np.uint64)
    for i, card in enumerate(cards):
        text = json.dumps([card.digest, bar_identity(settings), settings.forecast.horizon], sort_keys=True)
        seeds[i] = np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), np.uint64)
    return seeds


@njit(cache=True, nogil=True)
def ids(seeds, model, table, symbol, as_of, tie, high, low):  # type: ignore[no-untyped-def]
    """128-bit forecast ids from (seed of the model, symbol name, as_of, tie): the same on every run and machine."""
    for i in range(len(symbol)):
        a, b = seeds[model[i], 0], seeds[model[i], 1]
        for k in range(table.lengths[symbol[i]]):
            byte = np.uint64(table.names[symbol[i], k])
            a = (a ^ byte) * np.uint64(0x100000001B3)
            b = (b + byte) * np.uint64(0x9E3779B97F4A7C15)
        t, n = np.uint64(as_of[i]), np.uint64(tie[i])
        a = mix(mix(a ^ t) + n)
        b = mix(mix(b + t) ^ (n * np.uint64(0xD1B54A32D192ED03)))
        high[i], low[i] = mix(a + b * np.uint64(3)), mix(b ^ (a >> np.uint64(1)))


@njit(cache=True, nogil=True)
def _due(kind, every_ns, every_bars, as_of, ordinal, mask, out):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        step = as_of[i] // every_ns if kind == 0 else ordinal[i] + 1
        out[i] = mask[i] == 1 and step % every_bars == 0


def due(settings: Settings, as_of: I64, ordinal: I64, mask: U8) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Rows whose turn it is. Time bars go by as_of, so every symbol is asked at the same instants."""
    out = np.empty(len(as_of), np.bool_)
    _due(
        KINDS[settings.bars.kind],
        settings.bars.every_ms * 10**6,
        settings.forecast.every_bars,
        as_of,
        ordinal,
        mask,
        out,
    )
    return out


def choose_rungs(needs: Sequence[tuple[int, int]], bars_held: I64) -> U8:
    """The first of (model, bars it needs) whose need each symbol meets; NOBODY where it is cold."""
    model = np.full(len(bars_held), NOBODY, np.uint8)
    for number, need in reversed(needs):
        model[bars_held >= need] = number
    return model


def make_ids(seeds: U64, model: I32, table: SymbolArrays, *, symbol: I32, as_of: I64, tie: I32) -> tuple[U64, U64]:
    high, low = np.empty(len(symbol), np.uint64), np.empty(len(symbol), np.uint64)
    ids(seeds, model, table, symbol, as_of, tie, high, low)
    return high, low
