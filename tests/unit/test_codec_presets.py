"""The known feeds: their documented messages, what is no tick of theirs, and the real Binance lines."""

import gzip

import msgspec
import numpy as np
import pytest
from codec_messages import decode, raw_of, reasons, rows

from tickcast.engine.codec.decode import Decoder
from tickcast.errors import Reason
from tickcast.settings.stream import CodecSettings, CodecTopic, Fields
from tickcast.symbols import SymbolTable

SPOT_TRADE = (
    b'{"e":"trade","E":1723161453860,"s":"BTCUSDT","t":3735686847,"p":"61733.14000000","q":"0.76118000",'
    b'"T":1723161453859,"m":true,"M":true}'
)
SPOT_BOOK = (
    b'{"u":50093239212,"s":"BTCUSDT","b":"61837.63000000","B":"3.78826000","a":"61837.64000000","A":"1.54698000"}'
)
FUTURES_BOOK = (
    b'{"e":"bookTicker","u":5123107839020,"s":"BTCUSDT","b":"61800.20","B":"2.507","a":"61800.30","A":"2.510",'
    b'"T":1723161256313,"E":1723161256314}'
)
DEPTH = b'{"e":"depthUpdate","E":1,"T":1,"s":"BTCUSDT","U":1,"u":2,"pu":0,"b":[["1","2"]],"a":[["3","4"]]}'
MATCH = (
    b'{"type":"match","trade_id":10,"sequence":50,"maker_order_id":"ac928c66","taker_order_id":"132fb6ae",'
    b'"time":"2014-11-07T08:19:27.028459Z","product_id":"BTC-USD","size":"5.23512","price":"400.23","side":"sell"}'
)
KRAKEN = (
    b'{"channel":"trade","type":"update","data":['
    b'{"symbol":"MATIC/USD","side":"sell","price":0.5117,"qty":40.0,"ord_type":"market","trade_id":4665906,'
    b'"timestamp":"2023-09-25T07:49:37.708706Z"},'
    b'{"symbol":"BTC/USD","side":"buy","price":26000.1,"qty":0.5,"ord_type":"limit","trade_id":4665907,'
    b'"timestamp":"2023-09-25T07:49:37.708707Z"}]}'
)


def wrapped(message, stream=b"btcusdt@any"):
    return b'{"stream":"%b","data":%b}' % (stream, message)


def careful(message):
    return b'{"\\u0061":0,' + message[1:]


@pytest.mark.parametrize(
    "form", [bytes, wrapped, careful, lambda m: careful(wrapped(m)), lambda m: wrapped(careful(m))]
)
def test_binance_trades_decode_bare_and_wrapped(form):
    ticks, _, symbols = decode([form(SPOT_TRADE)], CodecSettings(preset="binance-trade"))
    assert rows(ticks, symbols) == [("BTCUSDT", 1_723_161_453_859_000_000, 61733.14, 0.76118, None, None)]


@pytest.mark.parametrize("form", [bytes, wrapped, careful, lambda m: careful(wrapped(m))])
def test_binance_quotes_decode_with_the_broker_stamp_where_the_feed_gives_no_time(form):
    messages = [form(SPOT_BOOK), form(FUTURES_BOOK), form(SPOT_BOOK)]
    ticks, rejects, symbols = decode(messages, CodecSettings(preset="binance-bookticker"), stamps=[7, 8, -1])
    mid = 0.5 * (61837.63 + 61837.64)
    assert rows(ticks, symbols) == [
        ("BTCUSDT", 7, mid, 0.0, 61837.63, 61837.64),
        ("BTCUSDT", 1_723_161_256_313_000_000, 0.5 * (61800.2 + 61800.3), 0.0, 61800.2, 61800.3),
    ]
    assert rejects.reason.tolist() == [Reason.BAD_TIME]


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("binance-trade", DEPTH),
        ("binance-trade", FUTURES_BOOK),
        ("binance-trade", SPOT_BOOK),
        ("binance-trade", b'{"result":null,"id":1}'),
        ("binance-trade", b"{}"),
        ("binance-trade", wrapped(b"[]")),
        ("binance-trade", wrapped(b"{}")),
        ("binance-bookticker", DEPTH),
        ("binance-bookticker", SPOT_TRADE),
        ("binance-bookticker", b'{"result":null,"id":1}'),
        ("binance-bookticker", SPOT_BOOK.replace(b'"u"', b'"e":5,"u"')),
        ("coinbase-match", MATCH.replace(b'"match"', b'"last_match"')),
        ("coinbase-match", b'{"type":"subscriptions","channels":[{"name":"matches","product_ids":["BTC-USD"]}]}'),
        ("coinbase-match", b'{"type":"heartbeat","sequence":90,"product_id":"BTC-USD","time":"2014-11-07T08:19:28Z"}'),
        ("kraken-trade", b'{"channel":"heartbeat"}'),
        ("kraken-trade", b'{"method":"subscribe","result":{"channel":"trade"},"success":true}'),
        ("kraken-trade", KRAKEN.replace(b'"update"', b'"snapshot"')),
        ("kraken-trade", KRAKEN.replace(b'"trade"', b'"ticker"')),
        ("kraken-trade", b'{"channel":"trade","type":"update","data":[]}'),
    ],
)
def test_messages_that_are_no_ticks_of_the_feed_are_other_events(preset, message):
    forms = [message] if preset == "kraken-trade" or message == b"{}" else [message, wrapped(message), careful(message)]
    forms = forms if preset.startswith("binance") else forms[:1]
    assert reasons(forms, codec=CodecSettings(preset=preset), stamps=[5] * len(forms)) == [Reason.OTHER_EVENT] * len(
        forms
    )


@pytest.mark.parametrize(
    ("preset", "message", "reason"),
    [
        ("binance-trade", SPOT_TRADE.replace(b'"p"', b'"P"'), Reason.MISSING_FIELD),
        ("binance-trade", SPOT_TRADE.replace(b'"T"', b'"t_"'), Reason.MISSING_FIELD),
        ("binance-trade", SPOT_TRADE.replace(b'"0.76118000"', b'"much"'), Reason.BAD_NUMBER),
        ("binance-trade", wrapped(SPOT_TRADE)[:-1], Reason.MALFORMED),
        ("binance-bookticker", SPOT_BOOK.replace(b'"b"', b'"bb"'), Reason.MISSING_FIELD),
        ("coinbase-match", MATCH.replace(b"2014-11-07T", b"2014-11-07"), Reason.BAD_TIME),
        ("kraken-trade", b"[1,2]", Reason.MALFORMED),
        ("kraken-trade", KRAKEN[:-1], Reason.MALFORMED),
        ("kraken-trade", b"", Reason.EMPTY),
        ("kraken-trade", b'{"channel":"trade","type":"update"}', Reason.MISSING_FIELD),
        ("kraken-trade", b'{"channel":"trade","type":"update","data":[5]}', Reason.MALFORMED),
    ],
)
def test_broken_messages_of_a_feed_are_rejected_with_their_reason(preset, message, reason):
    assert reasons([message], codec=CodecSettings(preset=preset), stamps=[5]) == [reason]


def test_coinbase_matches_decode():
    ticks, _, symbols = decode([MATCH, careful(MATCH)], CodecSettings(preset="coinbase-match"))
    assert rows(ticks, symbols) == [("BTC-USD", 1_415_348_367_028_459_000, 400.23, 5.23512, None, None)] * 2


def test_kraken_messages_hold_several_ticks():
    ticks, rejects, symbols = decode([KRAKEN, b'{"channel":"heartbeat"}', KRAKEN], CodecSettings(preset="kraken-trade"))
    both = [
        ("MATIC/USD", 1_695_628_177_708_706_000, 0.5117, 40.0, None, None),
        ("BTC/USD", 1_695_628_177_708_707_000, 26000.1, 0.5, None, None),
    ]
    assert rows(ticks, symbols) == both * 2
    assert ticks.row.tolist() == [0, 0, 2, 2]
    assert rejects.row.tolist() == [1]


def test_of_a_message_with_several_ticks_the_bad_one_alone_is_rejected():
    ticks, rejects, symbols = decode([KRAKEN.replace(b"0.5117", b'"x"')], CodecSettings(preset="kraken-trade"))
    assert [row[0] for row in rows(ticks, symbols)] == ["BTC/USD"]
    assert list(zip(rejects.row, rejects.reason)) == [(0, Reason.BAD_NUMBER)]
    assert symbols.names() == ["BTC/USD"]


@pytest.mark.parametrize(
    ("preset", "message", "field", "value"),
    [
        ("binance-trade", wrapped(SPOT_TRADE), "t", 3735686847),
        ("binance-bookticker", FUTURES_BOOK, "u", 5123107839020),
        ("coinbase-match", MATCH, "sequence", 50),
        ("kraken-trade", KRAKEN, "trade_id", 4665906),
    ],
)
def test_a_sequence_is_read_from_a_preset_feed_when_it_is_mapped(preset, message, field, value):
    ticks, _, _ = decode([message], CodecSettings(preset=preset, fields=Fields(sequence=field)))
    assert ticks.sequence[0] == value


def test_each_topic_may_override_each_key():
    topics = {
        "trades": CodecTopic(preset="binance-trade", symbol_prefix="b:"),
        "odd": CodecTopic(fields=Fields(symbol="name"), time_unit="s"),
    }
    symbols = SymbolTable(10)
    decoder = Decoder(CodecSettings(topics=topics, symbol_prefix="x:"), symbols)
    assert len(decoder.decode(raw_of([SPOT_TRADE], "trades"))[0]) == 1
    assert decoder.decode(raw_of([b'{"name":"A","ts":3,"price":1}'], "odd"))[0].ts[0] == 3_000_000_000
    assert decoder.decode(raw_of([b'{"symbol":"A","ts":3,"price":1}'], "plain"))[0].ts[0] == 3
    assert symbols.names() == ["b:BTCUSDT", "x:A"]


FEEDS = ["spot_btcusdt", "spot_ethusdt", "usdm_btcusdt", "usdm_ethusdt", "cm_btcusd_perp", "cm_ethusd_perp"]


def lines_of(shared_data, feed, most=15_000):
    with gzip.open(shared_data / "raw_feed" / "binance" / f"{feed}_20240808.jsonl.gz") as file:
        cut = [line.rstrip(b"\n").split(b" ", 1) for line, _ in zip(file, range(most))]
    return [int(stamp) for stamp, _ in cut], [line for _, line in cut]


@pytest.mark.parametrize("feed", FEEDS)
def test_real_binance_trades_decode_as_msgspec_reads_them(shared_data, feed):
    stamps, lines = lines_of(shared_data, feed)
    ticks, rejects, symbols = decode(lines, CodecSettings(preset="binance-trade"), stamps=stamps)
    records = [msgspec.json.decode(line).get("data", {"e": "snapshot"}) for line in lines]
    trades = [(row, r) for row, r in enumerate(records) if r.get("e") == "trade"]
    assert ticks.row.tolist() == [row for row, _ in trades]
    assert [symbols.name(code) for code in ticks.symbol] == [r["s"] for _, r in trades]
    assert ticks.ts.tolist() == [r["T"] * 10**6 for _, r in trades]
    assert ticks.price.tolist() == [float(r["p"]) for _, r in trades]
    assert ticks.size.tolist() == [float(r["q"]) for _, r in trades]
    assert set(rejects.reason) == {Reason.OTHER_EVENT}
    assert len(ticks) + len(rejects) == len(lines)


@pytest.mark.slow
@pytest.mark.parametrize("feed", FEEDS)
def test_real_binance_quotes_decode_as_msgspec_reads_them(shared_data, feed):
    stamps, lines = lines_of(shared_data, feed)
    ticks, rejects, _ = decode(lines, CodecSettings(preset="binance-bookticker"), stamps=stamps)
    records = [msgspec.json.decode(line).get("data", {"e": "snapshot"}) for line in lines]
    quotes = [(row, r) for row, r in enumerate(records) if r.get("e", "bookTicker") == "bookTicker"]
    assert len(quotes) > 1000
    assert ticks.row.tolist() == [row for row, _ in quotes]
    assert ticks.ts.tolist() == [r["T"] * 10**6 if "T" in r else stamps[row] for row, r in quotes]
    assert ticks.bid.tolist() == [float(r["b"]) for _, r in quotes]
    assert ticks.ask.tolist() == [float(r["a"]) for _, r in quotes]
    assert np.array_equal(ticks.price, 0.5 * (ticks.bid + ticks.ask))
    assert set(rejects.reason) == {Reason.OTHER_EVENT}
