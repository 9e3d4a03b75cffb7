"""A message that a codec raises over costs itself alone; a tombstone costs nothing."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from codec_messages import decode, raw_of
from test_codec_arrow import CODEC as ARROW
from test_codec_arrow import message, table
from test_codec_packed import records

from tickcast.columns import RawBatch
from tickcast.engine.codec import decode as decoding
from tickcast.engine.codec.decode import Decoder
from tickcast.engine.codec.json import JsonDecoder
from tickcast.errors import Reason
from tickcast.settings.stream import CodecSettings
from tickcast.symbols import SymbolTable

BROKEN = {
    "a name that is no text": message(table(), table()).replace(b"price", b"\xffrice"),
    "dictionaries that cannot be joined": message(
        *[table(symbol=pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array([[1], [2]])))] * 2
    ),
}
KRAKEN = b'{"channel":"trade","type":"update","data":[%s]}'
TRADE = b'{"symbol":"B","price":2.5,"qty":1,"timestamp":"2023-09-25T07:49:37.7Z"}'


@pytest.mark.parametrize("what", BROKEN)
def test_an_arrow_message_that_pyarrow_cannot_take_is_one_reject(what):
    good = message(table())
    ticks, rejects, _ = decode([good, BROKEN[what], good, BROKEN[what], good], ARROW)
    assert ticks.row.tolist() == [0, 0, 2, 2, 4, 4]
    assert ticks.number.tolist() == [0, 1] * 3
    assert set(rejects.row) == {1, 3}


class Raising:
    """The decoder of a topic, which raises over any message that holds some bytes."""

    def __init__(self, inner, error):
        self.inner, self.error = inner, error

    def decode(self, raw):
        if any(b"boom" in raw.message(i) for i in range(len(raw))):
            raise self.error("boom")
        return self.inner.decode(raw)


@pytest.mark.parametrize("error", [RuntimeError, RecursionError, MemoryError, UnicodeError, ZeroDivisionError])
@pytest.mark.parametrize(
    ("codec", "good"),
    [
        (CodecSettings(), b'{"symbol":"A","ts":1,"price":1.5}'),
        (CodecSettings(preset="kraken-trade"), KRAKEN % b",".join([TRADE] * 3)),
        (CodecSettings(kind="packed"), records(3).tobytes()),
        (ARROW, message(table())),
    ],
)
def test_whatever_a_codec_raises_the_others_of_the_batch_are_decoded_as_before(monkeypatch, codec, good, error):
    alone = [good] * 5
    expected, _, _ = decode(alone, codec)
    real = decoding.topic_decoder
    monkeypatch.setattr(decoding, "topic_decoder", lambda *args: Raising(real(*args), error))
    ticks, rejects, symbols = decode([b"boom", *alone[:2], b"boom!", *alone[2:], b"boom"], codec)
    assert (rejects.row.tolist(), set(rejects.reason)) == ([0, 3, 7], {Reason.MALFORMED})
    again, _, _ = decode(alone, codec, symbols)
    for name in (name for name in ticks.__slots__ if name != "row"):
        assert np.array_equal(getattr(ticks, name), getattr(expected, name), equal_nan=name in ("price", "bid", "ask"))
    assert np.array_equal(again.symbol, ticks.symbol)


def test_no_message_at_all_is_no_reject(monkeypatch):
    monkeypatch.setattr(JsonDecoder, "decode", lambda self, raw: 1 / 0)
    ticks, rejects = Decoder(CodecSettings(), SymbolTable(9)).decode(raw_of([]))
    assert (len(ticks), len(rejects)) == (0, 0)


@pytest.mark.parametrize(
    "codec",
    [CodecSettings(), CodecSettings(preset="kraken-trade"), CodecSettings(kind="packed"), CodecSettings(kind="arrow")],
)
def test_null_is_a_tombstone_and_no_bytes_are_empty(codec):
    raw: RawBatch = raw_of([b"", b"", b""])
    null = np.array([0, -1, 0])
    _, rejects = Decoder(codec, SymbolTable(9)).decode(replace(raw, starts=null, ends=null))
    assert rejects.reason.tolist() == [Reason.EMPTY, Reason.TOMBSTONE, Reason.EMPTY]


@pytest.mark.parametrize(
    ("codec", "bad"),
    [
        (CodecSettings(preset="kraken-trade"), KRAKEN % b",".join([TRADE, b"1", TRADE, b"[]"])),
        (CodecSettings(kind="packed"), b"".join([records(2).tobytes()[:96], bytes(96)] * 2)),
        (ARROW, message(table(symbol=["A", "", "A", None], ts=[1, 2, 3, 4], price=[1.0] * 4))),
    ],
)
def test_every_tick_knows_its_number_within_its_message(codec, bad):
    ticks, rejects, _ = decode([bad, b"", bad], codec)
    assert ticks.number.tolist() == [0, 2, 0, 2]
    assert rejects.number.tolist() == [1, 3, 0, 1, 3]
    assert rejects.row.tolist() == [0, 0, 1, 2, 2]
