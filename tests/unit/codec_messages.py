"""Batches of messages for the codec's unit tests."""

import numpy as np

from tickcast.columns import RawBatch
from tickcast.engine.codec.decode import Decoder
from tickcast.errors import Reason
from tickcast.settings.stream import CodecSettings
from tickcast.symbols import SymbolTable


def raw_of(messages, topic="t", stamps=None):
    ends = np.cumsum([len(message) for message in messages], dtype=np.int64)
    starts = ends - np.array([len(message) for message in messages], np.int64)
    stamped = np.full(len(messages), -1, np.int64) if stamps is None else np.array(stamps, np.int64)
    data = np.frombuffer(bytearray(b"".join(messages)), np.uint8)
    return RawBatch(topic, 0, data, starts, ends, np.arange(len(messages), dtype=np.int64), stamped)


def decode(messages, codec=None, symbols=None, stamps=None, topic="t"):
    """(ticks, rejects, symbols)"""
    symbols = SymbolTable(100) if symbols is None else symbols
    ticks, rejects = Decoder(codec or CodecSettings(), symbols).decode(raw_of(messages, topic, stamps))
    return ticks, rejects, symbols


def reasons(messages, **options):
    """Why each message was rejected; none may have become a tick."""
    ticks, rejects, symbols = decode(messages, **options)
    assert len(ticks) == 0
    assert list(rejects.row) == list(range(len(messages)))
    assert len(symbols) == 0 or options.get("symbols") is not None
    return [Reason(int(reason)) for reason in rejects.reason]


def rows(ticks, symbols):
    """Ticks as tuples (symbol, ts, price, size, bid, ask); NaN as None."""
    numbers = [[None if value != value else value for value in column.tolist()]
               for column in (ticks.price, ticks.size, ticks.bid, ticks.ask)]  # fmt: skip
    return list(zip([symbols.name(code) for code in ticks.symbol], ticks.ts.tolist(), *numbers))
