"""Packed records: what goes in comes out, and bad messages are rejected whole or record by record."""

import numpy as np
import pytest
from codec_messages import decode, raw_of, reasons, rows

from packing import pack, raw_of_packed
from tickcast.columns import NO_TIME, PACKED
from tickcast.engine.codec.decode import Decoder
from tickcast.errors import Reason
from tickcast.settings.stream import CodecSettings
from tickcast.symbols import SymbolTable

CODEC = CodecSettings(kind="packed")


def records(count, seed=0):
    rng = np.random.default_rng(seed)
    names = [b"S%d" % k for k in rng.integers(0, 50, count)]
    numbers = {name: rng.normal(100, 1, count) for name in ("price", "size", "bid", "ask")}
    return pack(names, rng.integers(0, 1 << 60, count), sequence=rng.integers(0, 99, count), **numbers)


def test_a_batch_of_packed_records_decodes_to_the_columns_they_were_made_of():
    packed, symbols = records(1000), SymbolTable(100)
    raw = raw_of_packed("t", 3, packed, 500, np.arange(1000))
    ticks, rejects = Decoder(CODEC, symbols).decode(raw)
    assert (raw.partition, raw.offsets[0], raw.offsets[-1], raw.stamps_ns[-1]) == (3, 500, 1499, 999)
    assert len(rejects) == 0
    assert [symbols.name(code).encode() for code in ticks.symbol] == packed["symbol"].tolist()
    for name in ("ts", "price", "size", "bid", "ask", "sequence"):
        assert np.array_equal(getattr(ticks, name), packed[name])
    assert ticks.row.tolist() == list(range(1000))


def test_several_records_of_one_message_follow_each_other():
    packed = records(10)
    messages = [packed[:3].tobytes(), b"", packed[3:4].tobytes(), packed[4:].tobytes()]
    ticks, rejects, _ = decode(messages, CODEC)
    assert ticks.row.tolist() == [0, 0, 0, 2, 3, 3, 3, 3, 3, 3]
    assert ticks.ts.tolist() == packed["ts"].tolist()
    assert list(zip(rejects.row, rejects.reason)) == [(1, Reason.EMPTY)]


def test_records_are_read_from_any_position():
    packed = records(5)
    shifted = raw_of([b"x", *(record.tobytes() for record in packed)])
    ticks, rejects = Decoder(CODEC, SymbolTable(10)).decode(shifted)
    assert ticks.price.tolist() == packed["price"].tolist()
    assert rejects.reason.tolist() == [Reason.MALFORMED]


def test_absent_fields_have_their_defaults_and_a_quote_gets_its_mid():
    packed = pack([b"A", b"A", b"A"], np.array([1, 2, 3]), price=np.array([5, np.nan, np.nan]))
    packed["bid"], packed["ask"] = [np.nan, 1, 1], [np.nan, 2, np.nan]
    ticks, _, symbols = decode([packed.tobytes()], CODEC)
    assert rows(ticks, symbols) == [
        ("A", 1, 5.0, 0.0, None, None), ("A", 2, 1.5, 0.0, 1.0, 2.0), ("A", 3, None, 0.0, 1.0, None),
    ]  # fmt: skip
    assert ticks.sequence.tolist() == [-1, -1, -1]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", Reason.EMPTY),
        (records(1).tobytes()[:-1], Reason.MALFORMED),
        (records(2).tobytes() + b"\0", Reason.MALFORMED),
        (b"{}", Reason.MALFORMED),
        (bytes(PACKED.itemsize), Reason.BAD_SYMBOL),
        (pack([b"A"], np.array([NO_TIME]), price=1.0).tobytes(), Reason.BAD_TIME),
    ],
)
def test_bad_messages_are_rejected_with_the_exact_reason(message, reason):
    assert reasons([message], codec=CODEC) == [reason]


def test_longer_messages_than_allowed_are_refused_unread():
    codec = CodecSettings(kind="packed", max_message_bytes=PACKED.itemsize)
    ticks, rejects, _ = decode([records(1).tobytes(), records(2).tobytes()], codec)
    assert (len(ticks), rejects.reason.tolist()) == (1, [Reason.TOO_LARGE])


def test_of_a_message_with_several_records_the_bad_one_alone_is_rejected():
    packed = records(3)
    packed["symbol"][1] = b""
    ticks, rejects, _ = decode([packed.tobytes()], CODEC)
    assert ticks.ts.tolist() == packed["ts"][[0, 2]].tolist()
    assert list(zip(rejects.row, rejects.reason)) == [(0, Reason.BAD_SYMBOL)]


def test_symbols_beyond_the_limit_are_rejected():
    packed = pack([b"A", b"B", b"A"], np.arange(3), price=1.0)
    ticks, rejects, _ = decode([packed.tobytes()], CODEC, symbols=SymbolTable(1))
    assert (ticks.ts.tolist(), rejects.reason.tolist()) == ([0, 2], [Reason.SYMBOL_LIMIT])


@pytest.mark.parametrize("name", [b"A" * 48, b"A" * 8, b"A" * 7, b"a\0b", "Ünïcode".encode(), b"\xff\xfe"])
def test_names_of_any_bytes_and_length_are_kept(name):
    ticks, _, symbols = decode([pack([name], np.array([1]), price=1.0).tobytes()] * 2, CODEC)
    assert ticks.symbol.tolist() == [0, 0]
    assert symbols.names() == [name.decode("utf-8", "replace")]


def test_the_prefix_counts_in_the_length_of_a_name():
    packed = pack([b"A" * 47, b"A" * 46], np.array([1, 2]), price=1.0)
    ticks, rejects, symbols = decode([packed.tobytes()], CodecSettings(kind="packed", symbol_prefix="b:"))
    assert symbols.names() == ["b:" + "A" * 46]
    assert (ticks.ts.tolist(), rejects.reason.tolist()) == ([2], [Reason.BAD_SYMBOL])
