"""What is shown of a refused message is what its reason looks at, and any bytes may be given."""

import numpy as np
import pytest

from tickcast.columns import PACKED
from tickcast.engine.codec.seen import LONGEST, seen
from tickcast.errors import Reason
from tickcast.settings import load
from tickcast.settings.stream import CodecSettings

PLAIN = CodecSettings()


@pytest.mark.parametrize(
    ("message", "reason", "shown"),
    [
        (b'{"symbol":"A","ts":1795966269368,"price":1}', Reason.WRONG_UNIT, "1795966269368"),
        (b'{"symbol":"A","ts":1795966269368.0,"price":1}', Reason.WRONG_UNIT, "1795966269368"),
        (b'{"symbol":"A","ts":"yesterday","price":1}', Reason.BAD_TIME, "yesterday"),
        (b'{"symbol":"A","ts":[1],"price":1}', Reason.BAD_TIME, ""),
        (b'{"instrument":"A","time":1,"px":1}', Reason.MISSING_FIELD, "instrument, time, px"),
        (b'{"symbol":"","ts":1,"price":1}', Reason.BAD_SYMBOL, ""),
        (b'{"symbol":"A","ts":1,"price":1}', Reason.CROSSED, ""),
    ],
)
def test_the_place_is_shown_that_the_reason_looks_at(message: bytes, reason: Reason, shown: str) -> None:
    assert seen(message, reason, PLAIN) == shown


def test_a_preset_is_looked_at_where_its_ticks_are() -> None:
    wrapped = b'{"stream":"btc","data":{"e":"trade","s":"BTC","T":1795966269368000,"p":"1"}}'
    assert seen(wrapped, Reason.WRONG_UNIT, CodecSettings(preset="binance-trade")) == "1795966269368000"


def test_a_topic_of_its_own_shape_is_read_by_it() -> None:
    settings, _ = load(overrides={"codec.topics": '{mine = {fields = {ts = "time"}}}'}, environ={})
    assert seen(b'{"time":5,"ts":6}', Reason.WRONG_UNIT, settings.codec, "mine") == "5"
    assert seen(b'{"time":5,"ts":6}', Reason.WRONG_UNIT, settings.codec, "other") == "6"


def test_a_packed_record_shows_its_time() -> None:
    record = np.zeros(1, PACKED)
    record["ts"] = 1795966269368
    assert seen(record.tobytes(), Reason.WRONG_UNIT, CodecSettings(kind="packed")) == "1795966269368"


ANY = [
    b"", b"{", b"\xff\xfe", b"[" * LONGEST, b'"text"', b"[]", b"17", b'{"ts":1}' + b" " * LONGEST, b'{"ts":1e999}',
    b'{"data":[]}', b'{"ts":' + b"9" * 4000 + b"}", b'{"ts":' * 600,
]  # fmt: skip


@pytest.mark.parametrize(
    "codec", [PLAIN, CodecSettings(preset="kraken-trade"), CodecSettings(kind="packed"), CodecSettings(kind="arrow")]
)
def test_any_bytes_may_be_given(codec: CodecSettings) -> None:
    for message in ANY:
        for reason in (Reason.WRONG_UNIT, Reason.MISSING_FIELD, Reason.MALFORMED):
            assert isinstance(seen(message, reason, codec), str)
