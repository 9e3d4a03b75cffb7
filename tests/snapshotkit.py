"""What tests of snapshots share: a hostile tape as turns of events, engines that take them, and what differs."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from kit import T0
from tickcast.engine.core.engine import Engine
from tickcast.engine.core.events import Event, Heartbeat, Outcome, Reached
from tickcast.io.memory_bus import raw_batch
from tickcast.loop.build import Serving, build
from tickcast.records import Command
from tickcast.settings import Settings, load

SECOND = 10**9
SYMBOLS, PARTITIONS = 9, 3
Turn = list[Event]
KINDS: list[dict[str, object]] = [
    {"bars__every_ms": 500},
    {"bars__every_ms": 500, "bars__lateness_ms": 700, "bars__on_gap": "cold"},
    {"bars__every_ms": 500, "bars__on_gap": "join", "forecast__transform": "level", "forecast__every_bars": 2},
    {"bars__kind": "tick", "bars__lateness_ms": 500, "forecast__overload": "conflate"},
    {"bars__kind": "tick", "bars__every_ticks": 3, "score__adapt_every_bars": 16},
    {"bars__kind": "volume", "bars__every_size": 12.0, "score__adapt_every_bars": 16},
    {"bars__every_ms": 500, "model__default": "none"},
    {"bars__every_ms": 500, "inference__bias_correction": True},
]
NOT_STATE = {  # attributes that decide nothing later, each with its reason
    "Engine._outcome": "what the last turn gave away",
    **dict.fromkeys((f"Questioner.{part}" for part in ("_builder", "_symbols", "_ladder", "_routes")), "the engine's"),
    "Questioner.values": "compared bar by bar as far as later bars look back",
    "BarBuilder.bars": "the same",
    "BarBuilder._room": "where bars lie until they are worked off, within a turn",
    "BarBuilder._waiting": "who has bars there",
    "Decoder._by_topic": "made on demand from the settings",
    "Scorekeeper._group": "made on demand from the names",
    "Scorekeeper._known": "the same",
    **dict.fromkeys(
        (f"DriftWatch._{part}" for part in ("builder", "symbols", "scorekeeper", "ladder")), "the engine's"
    ),
    "DriftWatch._told": "what was published of it",
    "DriftWatch._expected": "the same, and from references",
    "DriftWatch._known": "the same",
    "Routes._model": "made on demand from the names",
    **dict.fromkeys(("Routes._known", "Routes._narrow", "Routes._group"), "the same"),
    "SymbolTable._names": "made on demand from the bytes",
    "SymbolTable._codes": "the same",
}


def small_settings(**overrides: object) -> Settings:
    """A deployment with everything that remembers: sequences, outliers, groups, a ladder of three, features."""
    together = {
        "window__lookback": 6, "forecast__horizon": 3, "symbols__limit": 32, "uncertainty__memory_bars": 20,
        "codec__fields__sequence": "sequence", "quality__outlier_sigmas": 12.0, "score__window_bars": 40,
        "symbols__groups": '{"few" = ["S1", "S2"]}', "model__default": "holt", "model__season_bars": 4,
        "model__ladder": '["seasonal", "naive"]', "features__publish": True,
        "features__set": '[{kind = "rolling_mean", window = 3}, {kind = "rsi", period = 2}]',
    } | overrides  # fmt: skip
    given = {k.replace("__", "."): str(v).lower() if isinstance(v, bool) else str(v) for k, v in together.items()}
    return load(overrides=given, environ={})[0]


class Message(NamedTuple):
    partition: int
    ts: int
    text: bytes


def tape(seed: int, count: int = 1500) -> list[Message]:
    """Walks with late and repeated ticks, gaps, jumps true and false, outliers, and rubbish.

    Symbols appear one by one, so some come only after any cut.
    """
    rng = np.random.default_rng(seed)
    price, sequence, ts = np.full(SYMBOLS, 100.0), np.zeros(SYMBOLS, int), np.full(PARTITIONS, T0)
    messages = []
    for i in range(count):
        symbol = int(rng.integers(0, min(SYMBOLS, 4 + 8 * i // count)))
        p = symbol % PARTITIONS
        ts[p] += int(rng.exponential(120e6)) + (int(rng.choice([2, 6, 15])) * SECOND if rng.random() < 0.01 else 0)
        price[symbol] *= np.exp(rng.normal(0, 1e-3))
        sequence[symbol] += rng.random() > 0.02
        if rng.random() < 0.003:
            ts[p] += 7200 * SECOND
        at, shown, fate = int(ts[p]), float(price[symbol]), rng.random()
        if fate < 0.03:
            at -= int(rng.choice([1, 3])) * SECOND
        elif fate < 0.035:
            at += 7200 * SECOND
        elif fate < 0.04:
            shown *= 1.5
        elif fate < 0.045:
            shown = -shown
        elif fate < 0.05:
            messages.append(Message(p, at, b'{"symbol": "S1", "ts"'))
            continue
        elif fate < 0.055:
            p = (p + 1) % PARTITIONS
        fields = {"symbol": f"S{symbol}", "ts": at, "price": shown, "size": int(rng.integers(1, 9))}
        messages.append(Message(p, at, json.dumps(fields | {"sequence": int(sequence[symbol])}).encode()))
    return messages


def turns(messages: Sequence[Message], seed: int) -> list[Turn]:
    """The tape in chunks of any size, some in one turn, with heartbeats, commands and records without ticks between."""
    rng = np.random.default_rng(seed + 1)
    offsets, ready = dict.fromkeys(range(PARTITIONS), 0), []
    at = 0
    while at < len(messages):
        turn: Turn = []
        for _ in range(int(rng.integers(1, 4))):
            chunk = messages[at : at + int(rng.choice([1, 2, 7, 40, 150]))]
            at += len(chunk)
            for p in range(PARTITIONS):
                own = [message.text for message in chunk if message.partition == p]
                if own:
                    turn.append(raw_batch("t", p, own, first_offset=offsets[p], stamp_ns=-1))
                    offsets[p] += len(own)
        if rng.random() < 0.05:
            turn.append(Heartbeat("t", 0, ts=messages[min(at, len(messages)) - 1].ts, offset=offsets[0] - 1))
        if rng.random() < 0.05:
            offsets[1] += 2  # records that carry no tick
            turn.append(Reached("t", 1, offsets[1]))
        if rng.random() < 0.05:
            route = str(rng.choice(["default", "group:few", "symbol:S3"]))
            model = str(rng.choice(["holt", "seasonal", *([] if route == "default" else [""])]))
            turn.append(Command(id="1", command="use_model", args={"model": model, "route": route}))
        ready.append(turn)
    return ready


class Running:
    """An engine built from settings, and all that it said."""

    def __init__(self, settings: Settings) -> None:
        self.serving: Serving = build(settings)
        self.engine: Engine = self.serving.engine
        self.outcomes: list[Outcome] = []

    def take(self, some: Sequence[Turn]) -> "Running":
        self.outcomes += [self.engine.turn(turn, T0) for turn in some]
        return self

    def accuracy(self) -> list[Any]:
        keeper, now = self.engine.scorekeeper, self.engine.newest_ns()
        return keeper.accuracy(now, window="rolling") + keeper.accuracy(now, window="all")


def differences(one: object, other: object, path: str = "") -> Iterator[str]:
    """Where two things, and all that can be reached from them, are not the same bit by bit."""
    if type(one) is not type(other):
        yield f"{path}: {type(one).__name__} and {type(other).__name__}"
    elif isinstance(one, np.ndarray):
        if not same_bits(one, other):
            yield path
    elif isinstance(one, dict):
        if [*one] != [*other]:
            yield f"{path}: keys {[*one]} and {[*other]}"
        else:
            for key in one:
                yield from differences(one[key], other[key], f"{path}[{key!r}]")
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            yield f"{path}: length {len(one)} and {len(other)}"
        for i, (a, b) in enumerate(zip(one, other, strict=False)):
            yield from differences(a, b, f"{path}[{i}]")
    elif type(one).__module__.startswith("tickcast") and not callable(one):
        for name in attributes(one):
            yield from differences(getattr(one, name), getattr(other, name), f"{path}.{name}")
    elif one != other and not (one != one and other != other):
        yield f"{path}: {one!r} and {other!r}"


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    """NaN equals NaN; of records each field counts, and not what lies between them."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.names:
        return all(same_bits(one[name], other[name]) for name in one.dtype.names)
    return one.tobytes() == other.tobytes()


def attributes(thing: object) -> list[str]:
    """What an object holds, but for NOT_STATE."""
    held = list(getattr(thing, "__dict__", {}))
    held += [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ()) if hasattr(thing, name)]
    if dataclasses.is_dataclass(thing):
        held = [field.name for field in dataclasses.fields(thing)]
    return [name for name in held if f"{type(thing).__name__}.{name}" not in NOT_STATE]
