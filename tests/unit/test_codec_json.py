"""One JSON object per message: what it may look like, what becomes of bad ones, and that plain ones stay fast."""

import json
import math

import numpy as np
import pytest
from codec_messages import decode, raw_of, reasons, rows

import tickcast.engine.codec.json as codec_json
from tickcast.engine.codec.decode import Decoder
from tickcast.errors import BadSettings, Reason
from tickcast.settings.stream import CodecSettings, CodecTopic, Fields
from tickcast.symbols import NAME_BYTES, SymbolTable

TICK = b'{"symbol":"A","ts":1700000000000000000,"price":27123.45,"size":0.125}'
TS = 1_700_000_000_000_000_000
CAREFUL = b'{"\\u0061":0,'  # opens a message that the scanner leaves to the careful path


def both_paths(message):
    """The message as it is, and as the careful path is made to read it."""
    assert message.startswith(b"{")
    return [message, CAREFUL + message[1:]]


def test_a_trade_becomes_a_row_of_the_columns():
    ticks, rejects, symbols = decode([TICK])
    assert rows(ticks, symbols) == [("A", TS, 27123.45, 0.125, None, None)]
    assert (ticks.sequence[0], ticks.row[0], len(rejects)) == (-1, 0, 0)
    assert [column.dtype.name for column in (ticks.symbol, ticks.ts, ticks.price, ticks.row, rejects.reason)] == [
        "int32", "int64", "float64", "int32", "uint8",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "price", "size", "bid", "ask"),
    [
        (b'"price":2', 2.0, 0.0, None, None),
        (b'"bid":1,"ask":2', 1.5, 0.0, 1.0, 2.0),
        (b'"bid":1,"ask":2,"size":7', 1.5, 7.0, 1.0, 2.0),
        (b'"bid":1,"ask":2,"price":9', 9.0, 0.0, 1.0, 2.0),
        (b'"bid":1,"price":9', 9.0, 0.0, 1.0, None),
        (b'"price":null,"bid":1,"ask":2', 1.5, 0.0, 1.0, 2.0),
        (b'"price":9,"bid":null,"size":null', 9.0, 0.0, None, None),
        (b'"price":-3', -3.0, 0.0, None, None),
        (b'"price":0', 0.0, 0.0, None, None),
        (b'"price":"1.50","size":"2e3"', 1.5, 2000.0, None, None),
        (b'"price":123456789012345678901234567890', 123456789012345678901234567890.0, 0.0, None, None),
        (b'"price":"0.000000000000000000000000000001"', 1e-30, 0.0, None, None),
        (b'"price":1,"price":2', 2.0, 0.0, None, None),
        (b'"price":"junk","price":2', 2.0, 0.0, None, None),
        (b'"pr\\u0069ce":4', 4.0, 0.0, None, None),
        (b'"price":5,"x":[{"price":[6]},"]}",{}],"y":{"a":{"price":7}},"z":[[],[1,2]]', 5.0, 0.0, None, None),
        (b'"price":5,"x":"\\"\\\\,\\"price\\":6","t":true,"f":false,"n":null,"e":-1.5E+3', 5.0, 0.0, None, None),
        ('"price":5,"näme":"größe"'.encode(), 5.0, 0.0, None, None),
    ],
)
def test_trades_and_quotes_read_alike_on_both_paths(body, price, size, bid, ask):
    messages = both_paths(b'{"symbol":"A","ts":5,%b}' % body)
    ticks, _, symbols = decode(messages)
    assert rows(ticks, symbols) == [("A", 5, price, size, bid, ask)] * 2


@pytest.mark.parametrize(
    ("unit", "ts", "ns"),
    [
        ("ns", b"1700000000000000001", 1_700_000_000_000_000_001),
        ("us", b"1700000000000001", 1_700_000_000_000_001_000),
        ("ms", b"1700000000001", 1_700_000_000_001_000_000),
        ("s", b"1700000001", 1_700_000_001_000_000_000),
        ("s", b"1700000000.030314667", 1_700_000_000_030_314_667),
        ("s", b"1.7000000000303146679e9", 1_700_000_000_030_314_667),
        ("ms", b'"1700000000001.5"', 1_700_000_000_001_500_000),
        ("ns", b"-5.9", -5),
        ("ns", b"17e17", 1_700_000_000_000_000_000),
        ("ns", b"1700000000000000000.0000000000000000001", 1_700_000_000_000_000_000),
        ("s", b'"2024-08-08T23:54:14.123456Z"', 1_723_161_254_123_456_000),
        ("ns", b'"2024-08-08t23:54:14z"', 1_723_161_254_000_000_000),
        ("ns", b'"2024-08-09 01:54:14.1234567891+02:00"', 1_723_161_254_123_456_789),
        ("ns", b'"1969-12-31T23:59:59.5-00:30"', 1_799_500_000_000),
        ("ns", b'"2016-12-31T23:59:60Z"', 1_483_228_800_000_000_000),
        ("ns", b'"2024-02-29T00:00:00Z"', 1_709_164_800_000_000_000),
    ],
)
def test_event_times_become_ns(unit, ts, ns):
    ticks, _, _ = decode(both_paths(b'{"symbol":"A","ts":%b,"price":1}' % ts), CodecSettings(time_unit=unit))
    assert ticks.ts.tolist() == [ns, ns]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", Reason.EMPTY),
        (b"   ", Reason.MALFORMED),
        (b"\xef\xbb\xbf" + TICK, Reason.MALFORMED),
        (TICK[:-1], Reason.MALFORMED),
        (TICK + b"}", Reason.MALFORMED),
        (TICK + TICK, Reason.MALFORMED),
        (TICK.replace(b"A", b"\xff\xfe"), Reason.MALFORMED),
        (TICK.replace(b"A", b"\xed\xa0\x80"), Reason.MALFORMED),
        (TICK.replace(b"A", b"a\nb"), Reason.MALFORMED),
        (TICK.replace(b"A", b"a\\ud800"), Reason.MALFORMED),
        (TICK.replace(b"27123.45", b"NaN"), Reason.MALFORMED),
        (TICK.replace(b"27123.45", b"-Infinity"), Reason.MALFORMED),
        (TICK.replace(b"27123.45", b"01"), Reason.MALFORMED),
        (TICK.replace(b"27123.45", b"+1"), Reason.MALFORMED),
        (TICK.replace(b"27123.45", b".5"), Reason.MALFORMED),
        (TICK.replace(b"27123.45", b"5."), Reason.MALFORMED),
        (TICK.replace(b"27123.45", b"1e"), Reason.MALFORMED),
        (TICK.replace(b"27123.45", b"-"), Reason.MALFORMED),
        (TICK.replace(b"27123.45", b"nul"), Reason.MALFORMED),
        (TICK.replace(b"}", b',"x":[1,,2]}'), Reason.MALFORMED),
        (TICK.replace(b"}", b',"x":{"a"}}'), Reason.MALFORMED),
        (TICK.replace(b"}", b',"x":[1}}'), Reason.MALFORMED),
        (TICK.replace(b"}", b',"x":tru}'), Reason.MALFORMED),
        (TICK.replace(b"}", b',"x":"\\q"}'), Reason.MALFORMED),
        (TICK.replace(b"}", b",}"), Reason.MALFORMED),
        (b"null", Reason.MALFORMED),
        (b"[" + TICK + b"]", Reason.MALFORMED),
        (b'"' + b"x" * 50 + b'"', Reason.MALFORMED),
        (b"{}", Reason.MISSING_FIELD),
        (TICK.replace(b"price", b"prize"), Reason.MISSING_FIELD),
        (TICK.replace(b"27123.45", b"null"), Reason.MISSING_FIELD),
        (TICK.replace(b'"price":27123.45', b'"bid":27123.45'), Reason.MISSING_FIELD),
        (TICK.replace(b"1700000000000000000", b"null"), Reason.MISSING_FIELD),
        (TICK.replace(b'"A"', b"null"), Reason.MISSING_FIELD),
        (TICK.replace(b"27123.45", b'"NaN"'), Reason.BAD_NUMBER),
        (TICK.replace(b"27123.45", b'"inf"'), Reason.BAD_NUMBER),
        (TICK.replace(b"27123.45", b'""'), Reason.BAD_NUMBER),
        (TICK.replace(b"27123.45", b'" 1"'), Reason.BAD_NUMBER),
        (TICK.replace(b"27123.45", b'"0x10"'), Reason.BAD_NUMBER),
        (TICK.replace(b"27123.45", b'"1_0"'), Reason.BAD_NUMBER),
        (TICK.replace(b"27123.45", '"٣"'.encode()), Reason.BAD_NUMBER),
        (TICK.replace(b"27123.45", b"true"), Reason.BAD_NUMBER),
        (TICK.replace(b"27123.45", b"[1]"), Reason.BAD_NUMBER),
        (TICK.replace(b"27123.45", b'{"a":1}'), Reason.BAD_NUMBER),
        (TICK.replace(b"27123.45", b"1e999"), Reason.BAD_NUMBER),
        (TICK.replace(b"27123.45", b'"-1e999"'), Reason.BAD_NUMBER),
        (TICK.replace(b"27123.45", b"9" * 400), Reason.BAD_NUMBER),
        (TICK.replace(b"27123.45", b"9" * 5000), Reason.BAD_NUMBER),
        (TICK.replace(b"0.125", b'"many"'), Reason.BAD_NUMBER),
        (TICK.replace(b"1700000000000000000", b'"yesterday"'), Reason.BAD_TIME),
        (TICK.replace(b"1700000000000000000", b'""'), Reason.BAD_TIME),
        (TICK.replace(b"1700000000000000000", b"true"), Reason.BAD_TIME),
        (TICK.replace(b"1700000000000000000", b"1" * 30), Reason.BAD_TIME),
        (TICK.replace(b"1700000000000000000", b"1e300"), Reason.BAD_TIME),
        (TICK.replace(b"1700000000000000000", b"1e999999999"), Reason.BAD_TIME),
        (TICK.replace(b"1700000000000000000", b"-9223372036854775808"), Reason.BAD_TIME),
        (TICK.replace(b"1700000000000000000", b'"2024-08-08T23:54:14"'), Reason.BAD_TIME),
        (TICK.replace(b"1700000000000000000", b'"2024-08-08"'), Reason.BAD_TIME),
        (TICK.replace(b"1700000000000000000", b'"2023-02-29T00:00:00Z"'), Reason.BAD_TIME),
        (TICK.replace(b"1700000000000000000", b'"2023-13-01T00:00:00Z"'), Reason.BAD_TIME),
        (TICK.replace(b"1700000000000000000", b'"2023-01-01T24:00:00Z"'), Reason.BAD_TIME),
        (TICK.replace(b"1700000000000000000", b'"2023-01-01T00:00:00.Z"'), Reason.BAD_TIME),
        (TICK.replace(b"1700000000000000000", b'"2023-01-01T00:00:00+25:00"'), Reason.BAD_TIME),
        (TICK.replace(b"1700000000000000000", b'"2500-01-01T00:00:00Z"'), Reason.BAD_TIME),
        (TICK.replace(b'"A"', b'""'), Reason.BAD_SYMBOL),
        (TICK.replace(b'"A"', b"7"), Reason.BAD_SYMBOL),
        (TICK.replace(b'"A"', b"1.5"), Reason.BAD_SYMBOL),
        (TICK.replace(b'"A"', b'["A"]'), Reason.BAD_SYMBOL),
        (TICK.replace(b"A", b"A" * (NAME_BYTES + 1)), Reason.BAD_SYMBOL),
        (TICK.replace(b"A", b"A" * 100_000), Reason.BAD_SYMBOL),
    ],
)
def test_bad_messages_are_rejected_with_the_exact_reason_and_add_no_symbol(message, reason):
    assert reasons([message]) == [reason]


def test_a_symbol_of_the_longest_length_is_taken():
    ticks, _, symbols = decode(both_paths(TICK.replace(b"A", b"A" * NAME_BYTES)))
    assert symbols.names() == ["A" * NAME_BYTES]
    assert ticks.symbol.tolist() == [0, 0]


def test_symbols_beyond_the_limit_are_rejected_and_known_ones_still_decode():
    messages = [TICK.replace(b"A", name) for name in (b"A", b"B", b"C", b"B", "Ü".encode())]
    ticks, rejects, symbols = decode(messages, symbols=SymbolTable(2))
    assert symbols.names() == ["A", "B"]
    assert ticks.row.tolist() == [0, 1, 3]
    assert rejects.row.tolist() == [2, 4]
    assert set(rejects.reason) == {Reason.SYMBOL_LIMIT}


def test_any_utf_8_symbol_is_the_same_symbol_on_both_paths():
    name = 'Ü "\\é 😀'
    plain = json.dumps(name, ensure_ascii=False).encode()
    escaped = json.dumps(name, ensure_ascii=True).encode()
    ticks, _, symbols = decode([TICK.replace(b'"A"', plain), TICK.replace(b'"A"', escaped)])
    assert ticks.symbol.tolist() == [0, 0]
    assert symbols.names() == [name]


def test_the_symbol_prefix_goes_before_every_name_and_counts_in_its_length():
    codec = CodecSettings(symbol_prefix="binance:")
    ticks, rejects, symbols = decode(
        [*both_paths(TICK), TICK.replace(b"A", b"A" * 41), TICK.replace(b'"A"', b'""')], codec
    )
    assert symbols.names() == ["binance:A"]
    assert ticks.symbol.tolist() == [0, 0]
    assert rejects.reason.tolist() == [Reason.BAD_SYMBOL] * 2


def test_a_topic_may_have_a_longest_message_of_its_own():
    message = b'{"symbol":"A","ts":1,"price":2}'
    codec = CodecSettings(topics={"short": CodecTopic(max_message_bytes=len(message) - 1)})
    assert reasons([message], codec=codec, topic="short") == [Reason.TOO_LARGE]
    assert len(decode([message], codec, topic="other")[0]) == 1


def test_one_name_under_two_prefixes_is_two_symbols():
    symbols = SymbolTable(10)
    codec = CodecSettings(topics={"a": CodecTopic(symbol_prefix="a:"), "b": CodecTopic(symbol_prefix="b:")})
    decoder = Decoder(codec, symbols)
    codes = [decoder.decode(raw_of([TICK], topic))[0].symbol[0] for topic in ("a", "b", "a", "c")]
    assert codes == [0, 1, 0, 2]
    assert symbols.names() == ["a:A", "b:A", "A"]


def test_more_names_than_the_shortcut_holds_keep_their_codes():
    names = [b"S%05d" % k for k in range(50_000)]
    symbols = SymbolTable(60_000)
    for _ in range(2):
        ticks, _, _ = decode([TICK.replace(b"A", name) for name in names], symbols=symbols)
        assert (ticks.symbol == np.arange(50_000)).all()


@pytest.mark.parametrize("levels", [10, 63, 64, 500, 10_000])
def test_deep_nesting_never_crashes(levels):
    nested = b'{"a":' * (levels // 2) + b"[" * (levels - levels // 2)
    closed = nested + b"]" * (levels - levels // 2) + b"}" * (levels // 2)
    good = TICK[:-1] + b',"x":' + closed + b"}"
    ticks, rejects, _ = decode([good, TICK[:-1] + b',"x":' + nested, nested])
    assert rejects.reason.tolist()[-2:] == [Reason.MALFORMED] * 2
    assert len(ticks) == (1 if levels <= 500 else 0)


def test_messages_of_a_megabyte_are_read_and_longer_ones_refused_unread():
    limit = 1 << 20
    filler = limit - len(TICK) - len(b',"x":""')
    at_limit = TICK[:-1] + b',"x":"' + b"y" * filler + b'"}'
    ticks, rejects, _ = decode([at_limit, at_limit[:-2] + b'y"}', TICK + b" " * 10, b"\x00" * (limit + 1)])
    assert ticks.row.tolist() == [0, 2]
    assert rejects.reason.tolist() == [Reason.TOO_LARGE] * 2


def test_no_byte_after_the_end_of_a_message_is_read():
    data = np.frombuffer(bytearray(TICK * 2), np.uint8)
    for end in range(len(TICK)):
        raw = raw_of([TICK * 2])
        raw = type(raw)("t", 0, data, raw.starts, np.array([end]), raw.offsets, raw.stamps_ns)
        ticks, rejects = Decoder(CodecSettings(), SymbolTable(4)).decode(raw)
        assert len(ticks) == 0
        assert rejects.reason[0] == (Reason.MALFORMED if end else Reason.EMPTY)


def test_memory_that_cannot_be_written_is_read_all_the_same():
    raw = raw_of([TICK])
    raw.data.flags.writeable = False
    ticks, _ = Decoder(CodecSettings(), SymbolTable(4)).decode(raw)
    assert len(ticks) == 1


def test_an_empty_batch_gives_no_rows():
    ticks, rejects, _ = decode([])
    assert (len(ticks), len(rejects)) == (0, 0)


def test_rows_follow_the_messages_with_rejects_left_out():
    messages = [TICK, b"junk", *both_paths(TICK), b"", TICK]
    ticks, rejects, _ = decode(messages)
    assert ticks.row.tolist() == [0, 2, 3, 5]
    assert list(zip(rejects.row, rejects.reason)) == [(1, Reason.MALFORMED), (4, Reason.EMPTY)]


@pytest.mark.parametrize(
    ("sequence", "value"),
    [(b"7", 7), (b'"7"', 7), (b"-7", -7), (b"1.0e1", 10), (b"9223372036854775807", (1 << 63) - 1), (b"null", -1)],
)
def test_a_mapped_sequence_is_an_integer_quoted_or_not(sequence, value):
    codec = CodecSettings(fields=Fields(sequence="seq"))
    ticks, _, _ = decode([*both_paths(TICK[:-1] + b',"seq":%b}' % sequence), TICK], codec)
    assert ticks.sequence.tolist() == [value, value, -1]


@pytest.mark.parametrize("sequence", [b"1.5", b"9223372036854775808", b'"x"', b"true", b"1e30"])
def test_a_mapped_sequence_that_is_no_64_bit_integer_is_a_bad_number(sequence):
    messages = both_paths(TICK[:-1] + b',"seq":%b}' % sequence)
    assert reasons(messages, codec=CodecSettings(fields=Fields(sequence="seq"))) == [Reason.BAD_NUMBER] * 2


def test_fields_are_read_by_their_configured_names_of_any_length():
    names = Fields(symbol="instrument_identifier", ts="t", price="last_traded_price", size="last_traded_amount", bid="")
    message = b'{"t":5,"last_traded_pricf":1,"last_traded_price":2,"last_traded_amount":3,"instrument_identifier":"A"}'
    ticks, _, symbols = decode(both_paths(message), CodecSettings(fields=names))
    assert rows(ticks, symbols) == [("A", 5, 2.0, 3.0, None, None)] * 2


def test_without_a_time_field_the_broker_stamp_is_the_event_time():
    codec = CodecSettings(fields=Fields(ts=""))
    messages = [b'{"symbol":"A","price":1,"ts":99}'] * 2
    ticks, rejects, _ = decode(messages, codec, stamps=[5, -1])
    assert ticks.ts.tolist() == [5]
    assert rejects.reason.tolist() == [Reason.BAD_TIME]


def test_two_fields_of_one_name_are_refused_before_the_first_message():
    for codec in (
        CodecSettings(fields=Fields(bid="price")),
        CodecSettings(topics={"t": CodecTopic(fields=Fields(bid="price"))}),
    ):
        with pytest.raises(BadSettings, match="same name"):
            Decoder(codec, SymbolTable(4))


def test_numbers_read_to_the_last_bit():
    texts = ["0.1", "27123.449999999997", "5e-324", "1.7976931348623157e308", "9007199254740993", "0.30000000000000004",
             "123456.789012345678", "1e22", "1e23", "-0.0"]  # fmt: skip
    ticks, _, _ = decode([b'{"symbol":"A","ts":1,"price":%b}' % text.encode() for text in texts])
    assert ticks.price.tolist() == [float(text) for text in texts]


def test_plain_messages_never_reach_the_careful_path(monkeypatch):
    def unwanted(message):
        raise AssertionError(message)

    monkeypatch.setattr(codec_json, "load", unwanted)
    messages = [
        TICK,
        b' { "price" : "27123.449999999997" , "x" : [ { "a\\n" : null } ] , "symbol" : "A" , "ts" : 1e3 } ',
        b'{"ts":"2024-08-08T23:54:14.123456Z","bid":1.5,"ask":"2","symbol":"B","e":{}}',
        b'{"ts":1,"symbol":"C"}',
        b'{"ts":1,"symbol":5,"price":true}',
        b"",
        TICK.replace(b"A", b""),
    ]
    ticks, rejects, _ = decode(messages)
    assert ticks.row.tolist() == [0, 1, 2]
    assert rejects.row.tolist() == [3, 4, 5, 6]


def test_huge_quoted_numbers_cost_no_more_than_their_length():
    message = b'{"symbol":"A","ts":"%b","price":"%b"}' % (b"9" * 500_000, b"9" * 500_000)
    assert reasons([message]) == [Reason.BAD_TIME]
    price = decode([b'{"symbol":"A","ts":1,"price":"0.%b"}' % (b"1" * 500_000)])[0].price[0]
    assert math.isclose(price, 1 / 9)
