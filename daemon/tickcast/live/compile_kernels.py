"""Compiles (or loads from the cache) every kernel that serving needs, before the first real tick waits for one."""

import numpy as np

from tickcast.columns import PACKED, Encoded, RawBatch
from tickcast.engine.core.channels import Sketches, measured
from tickcast.engine.core.engine import Engine
from tickcast.engine.core.ladder import RUNGS
from tickcast.engine.records.as_json import JsonWriter
from tickcast.loop.build import Serving, build
from tickcast.reference import EDGES
from tickcast.settings import Settings, load
from tickcast.settings.stream import CodecTopic, Fields

T0 = 1_700_000_000 * 10**9
TOPIC, ARROW_TOPIC, SYMBOLS = "warm", "warm-arrow", 4
PACKED_TICKS, ARROW_TICKS = CodecTopic(kind="packed"), CodecTopic(kind="arrow", fields=Fields())
KINDS = ("time", "tick", "volume")


def warm() -> None:
    """The command: every kind of bar and message, so that whatever runs next finds the cache filled."""
    for kind in KINDS:
        settings = load(overrides={"bars.kind": kind, "features.publish": "true"}, environ={})[0]
        warm_up(settings)
    warm_up(load(overrides={"codec.kind": "arrow", "bus.kind": "kafka"}, environ={})[0])


def warm_up(settings: Settings) -> None:
    """A few made-up bars through a small engine of the same deployment, to the published text; all is thrown away."""
    small = settings.model_copy(
        update={
            "symbols": settings.symbols.model_copy(update={"limit": SYMBOLS}),
            "codec": settings.codec.model_copy(update={"topics": {TOPIC: PACKED_TICKS, ARROW_TOPIC: ARROW_TICKS}}),
            "bars": settings.bars.model_copy(update={"calendar": "24x7", "history": None, "every_ticks": 1}),
        }
    )
    serving = build(small, models_made_for=settings)
    writer = JsonWriter(small, serving.cards, list(RUNGS))
    engine = serving.engine
    engine.turn([_messages(settings.topics.ticks[0], np.frombuffer(bytearray(b"{}"), np.uint8), 1)], T0)
    if "arrow" in {settings.codec.kind, *(topic.kind for topic in settings.codec.topics.values())}:
        engine.turn([_arrow()], T0)
    bars = small.window.lookback + small.forecast.horizon + 4
    outcome = engine.turn([_packed(bars, small)], T0)
    sources = engine.builder.sources()
    for forecasts in outcome.forecasts:
        encoded = writer.encode(forecasts, serving.symbols, produced_ns=T0, sources=sources)
        if settings.bus.kind == "kafka":
            _warm_kafka(encoded, serving)
    for vectors in outcome.vectors:
        writer.encode_features(vectors, serving.symbols, names=serving.features.names, sources=sources)
    engine.scorekeeper.accuracy(T0, window="rolling")
    engine.drift.news()
    _warm_channels(engine, len(serving.features.names))


def _warm_channels(engine: Engine, channels: int) -> None:
    """A model that comes later may bring a reference."""
    flat = np.zeros(channels)
    sketches = Sketches(
        edges=np.zeros((channels, EDGES)), low=flat, high=flat, repeats=np.zeros(channels, np.uint8), center=flat,
        whiten=np.eye(channels), distance=1.0,
    )  # fmt: skip
    symbol, ordinal, first = np.zeros(1, np.int32), np.ones(1, np.int64), np.zeros(1, np.int64)
    measured(sketches, engine.builder.bars, engine.questioner.values, symbol, ordinal, first)


def _warm_kafka(encoded: Encoded, serving: Serving) -> None:
    from tickcast.io.kafka import (
        fetch,
        framing,  # other buses do without the client
    )

    fetch.warm_up()
    kafka = serving.settings.kafka
    framer = framing.Framer(1, max_batch_bytes=kafka.batch_bytes, compression=kafka.compression)
    framer.frame(encoded, serving.symbols, T0 // 10**6)
    framing.partitions_of(encoded.symbol, serving.symbols, partitions=1)


def _packed(bars: int, settings: Settings) -> RawBatch:
    """One tick per bar, walking up and down."""
    records = np.zeros(bars, PACKED)
    records["ts"] = T0 + np.arange(bars) * settings.bars.every_ms * 10**6
    records["price"] = 100 + np.sin(np.arange(bars))
    records["size"] = settings.bars.every_size
    records["bid"] = records["ask"] = np.nan
    records["sequence"] = -1
    records["symbol"] = b"WARM"
    return _messages(TOPIC, records.view(np.uint8), bars)


def _arrow() -> RawBatch:
    import pyarrow as pa  # a quarter of a second that only a deployment with Arrow messages spends

    ticks = pa.table({"symbol": ["WARM"] * 2, "ts": [T0] * 2, "price": [100.0] * 2})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, ticks.schema) as stream:
        stream.write_table(ticks)
    return _messages(ARROW_TOPIC, np.frombuffer(bytearray(sink.getvalue()), np.uint8), 1)


def _messages(topic: str, data: "np.ndarray[tuple[int], np.dtype[np.uint8]]", count: int) -> RawBatch:
    size = len(data) // count
    starts = np.arange(count, dtype=np.int64) * size
    return RawBatch(topic, 0, data, starts, starts + size, np.arange(count), stamps_ns=np.full(count, -1))
