"""Arrow IPC messages: types that columns may have, nulls, and messages that were damaged or made to do harm."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from codec_messages import decode, reasons, rows

from tickcast.columns import NO_TIME
from tickcast.engine.codec.arrow import UNMET, settle_columns
from tickcast.engine.codec.arrow_size import unpacked_bytes
from tickcast.engine.codec.ticks import TickRows, naming
from tickcast.errors import Reason
from tickcast.settings.stream import CodecSettings, Fields
from tickcast.symbols import SymbolTable

CODEC = CodecSettings(kind="arrow", fields=Fields(sequence="seq"))
NS = 1_700_000_000_123_456_789


def message(*batches, options=None):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_table(batch) if isinstance(batch, pa.Table) else writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def table(**columns):
    given = {"symbol": ["A", "B"], "ts": [1, 2], "price": [1.5, 2.5]} | columns
    return pa.table({name: column for name, column in given.items() if column is not None})


def test_columns_become_ticks_in_order():
    full = table(size=[1, 2], bid=[1.0, None], ask=[2.0, None], seq=[7, None])
    ticks, rejects, symbols = decode([message(full), message(table())], CODEC)
    assert rows(ticks, symbols) == [
        ("A", 1, 1.5, 1.0, 1.0, 2.0), ("B", 2, 2.5, 2.0, None, None),
        ("A", 1, 1.5, 0.0, None, None), ("B", 2, 2.5, 0.0, None, None),
    ]  # fmt: skip
    assert ticks.sequence.tolist() == [7, -1, -1, -1]
    assert ticks.row.tolist() == [0, 0, 1, 1]
    assert len(rejects) == 0


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(),
        pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.uint32(), pa.large_string()),
    ],
)  # fmt: skip
def test_a_symbol_column_may_be_text_of_any_kind(kind):
    names = pa.array(["B", None, "", "A", "B"]).cast(kind)
    ticks, rejects, symbols = decode([message(table(symbol=names, ts=range(5), price=[1.0] * 5))], CODEC)
    assert [symbols.name(code) for code in ticks.symbol] == ["B", "A", "B"]
    assert rejects.reason.tolist() == [Reason.MISSING_FIELD, Reason.BAD_SYMBOL]


def test_a_dictionary_with_a_null_entry_names_no_symbol():
    names = pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array([None, "A"]))
    ticks, rejects, _ = decode([message(table(symbol=names, ts=[1, 2, 3], price=[1.0] * 3))], CODEC)
    assert (ticks.ts.tolist(), rejects.reason.tolist()) == ([2], [Reason.MISSING_FIELD] * 2)


def test_batches_of_one_stream_with_dictionaries_of_their_own_are_joined():
    schema = pa.schema(
        [("symbol", pa.dictionary(pa.int32(), pa.string())), ("ts", pa.int64()), ("price", pa.float64())]
    )
    batches = [
        pa.record_batch([pa.array(names).dictionary_encode(), pa.array([k, k]), pa.array([1.0, 2.0])], schema=schema)
        for k, names in enumerate((["A", "B"], ["B", "C"]))
    ]
    ticks, _, symbols = decode([message(*batches)], CODEC)
    assert [symbols.name(code) for code in ticks.symbol] == ["A", "B", "B", "C"]


@pytest.mark.parametrize(
    ("column", "unit", "ns"),
    [
        (pa.array([NS]), "ns", NS),
        (pa.array([1_700_000_000], pa.uint32()), "s", 1_700_000_000 * 10**9),
        (pa.array([1_700_000_000_123], pa.uint64()), "ms", 1_700_000_000_123 * 10**6),
        (pa.array([1.5]), "s", 1_500_000_000),
        (pa.array([NS], pa.timestamp("ns", "UTC")), "s", NS),
        (pa.array([dt.datetime(1970, 1, 1, 0, 0, 1)], pa.timestamp("us")), "ns", 10**9),
        (pa.array([-3], pa.timestamp("s")), "ns", -3 * 10**9),
        (pa.array(["1970-01-01T00:00:02.5Z"]), "ns", 2_500_000_000),
        (pa.array(["2.5"]), "s", 2_500_000_000),
    ],
)
def test_a_time_column_may_be_timestamps_numbers_or_text(column, unit, ns):
    codec = CodecSettings(kind="arrow", time_unit=unit)
    ticks, _, _ = decode([message(table(symbol=["A"], ts=column, price=[1.0]))], codec)
    assert ticks.ts.tolist() == [ns]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 1 << 62, -(1 << 62)]),
        pa.array([1, 1 << 62, (1 << 64) - 1], pa.uint64()),
        pa.array([1, np.nan, 1e300]),
        pa.array([1, 1 << 62, -(1 << 62)], pa.timestamp("s")),
        pa.array(["1", "yesterday", "9" * 40]),
    ],
)
def test_times_beyond_64_bit_nanoseconds_reject_their_row_alone(column):
    codec = CodecSettings(kind="arrow", time_unit="s")
    ticks, rejects, _ = decode([message(table(symbol=["A"] * 3, ts=column, price=[1.0] * 3))], codec)
    assert ticks.ts.tolist() == [10**9]
    assert rejects.reason.tolist() == [Reason.BAD_TIME] * 2


def test_prices_may_be_text_integers_or_decimals_and_bad_text_rejects_its_row_alone():
    texts = pa.array(["1.5", "NaN", None, "2e1", ""])
    ticks, rejects, _ = decode([message(table(symbol=["A"] * 5, ts=range(5), price=texts))], CODEC)
    assert ticks.price.tolist() == [1.5, 20.0]
    assert rejects.reason.tolist() == [Reason.BAD_NUMBER, Reason.MISSING_FIELD, Reason.BAD_NUMBER]
    for column in (pa.array([3, 4]), pa.array([3, 4], pa.decimal128(10, 2)), pa.array([3.0, 4.0], pa.float32())):
        assert decode([message(table(price=column))], CODEC)[0].price.tolist() == [3.0, 4.0]


def test_a_quote_gets_its_mid_and_a_row_without_any_price_is_rejected():
    quotes = table(price=pa.array([None, None], pa.float64()), bid=[1.0, 1.0], ask=[2.0, None])
    ticks, rejects, symbols = decode([message(quotes)], CODEC)
    assert rows(ticks, symbols) == [("A", 1, 1.5, 0.0, 1.0, 2.0)]
    assert rejects.reason.tolist() == [Reason.MISSING_FIELD]
    assert symbols.names() == ["A"]


def test_the_broker_stamp_is_the_time_where_no_column_is_mapped():
    codec = CodecSettings(kind="arrow", fields=Fields(ts=""))
    ticks, rejects, _ = decode([message(table()), message(table())], codec, stamps=[9, -1])
    assert ticks.ts.tolist() == [9, 9]
    assert rejects.reason.tolist() == [Reason.BAD_TIME] * 2


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"symbol": None}, Reason.MISSING_FIELD),
        ({"symbol": [1, 2]}, Reason.BAD_SYMBOL),
        ({"symbol": [[1], [2]]}, Reason.BAD_SYMBOL),
        ({"price": [True, False]}, Reason.BAD_NUMBER),
        ({"price": [[1], [2]]}, Reason.BAD_NUMBER),
        ({"price": [{"a": 1}, {"a": 2}]}, Reason.BAD_NUMBER),
        ({"seq": [1.5, 2.5]}, Reason.BAD_NUMBER),
        ({"ts": [True, False]}, Reason.BAD_TIME),
        ({"ts": [[1], [2]]}, Reason.BAD_TIME),
        ({"symbol": [], "ts": [], "price": []}, Reason.OTHER_EVENT),
    ],
)
def test_a_column_that_cannot_hold_its_field_rejects_the_message_once(columns, reason):
    assert reasons([message(table(**columns))], codec=CODEC) == [reason]


@pytest.mark.parametrize("columns", [{"ts": None}, {"price": None}])
def test_without_a_needed_column_every_row_lacks_the_field(columns):
    ticks, rejects, symbols = decode([message(table(**columns))], CODEC)
    assert (len(ticks), rejects.reason.tolist(), len(symbols)) == (0, [Reason.MISSING_FIELD] * 2, 0)


@pytest.mark.slow
def test_damaged_messages_are_malformed_or_decode_but_never_crash():
    plain = message(table(size=[1.0, 2.0]))
    packed = message(table(size=[1.0, 2.0]), options=pa.ipc.IpcWriteOptions(compression="lz4"))
    rng = np.random.default_rng(0)
    assert reasons([b"", b"junk", plain[:40], b"\xff" * 64], codec=CODEC)[0] is Reason.EMPTY
    for k in range(6000):
        good = packed if k % 2 else plain
        bad = bytearray(good)
        for at in rng.integers(0, len(good), 3):
            bad[at] = rng.integers(0, 256)
        ticks, rejects, _ = decode([bytes(bad)], CODEC)
        assert len(ticks) + len(rejects) >= 1


def test_cut_messages_are_rejected():
    good = message(table())
    for end in range(1, len(good) - 16):
        ticks, rejects, _ = decode([good[:end]], CODEC)
        assert (len(ticks), len(rejects)) == (0, 1)


def test_longer_messages_than_allowed_are_refused_unread():
    codec = CodecSettings(kind="arrow", max_message_bytes=100)
    assert reasons([message(table())], codec=codec) == [Reason.TOO_LARGE]


def test_a_message_that_claims_far_more_rows_than_bytes_is_refused():
    count = 1_000_000
    claim = pa.table({"symbol": pa.nulls(count), "ts": pa.nulls(count), "price": pa.nulls(count)})
    assert reasons([message(claim)], codec=CODEC) == [Reason.TOO_LARGE]


def test_compressed_messages_are_read():
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    ticks, _, _ = decode([message(table(), options=options)], CODEC)
    assert len(ticks) == 2


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("names", ["A", None], ids=["plain", "dictionary"])
def test_how_large_a_compressed_message_becomes_is_known_before_it_is_unpacked(compression, names):
    options = pa.ipc.IpcWriteOptions(compression=compression)
    symbol = pa.array([names or f"S{k % 50}" for k in range(4000)])
    full = table(symbol=symbol if names else symbol.dictionary_encode(), ts=[1] * 4000, price=[1.5] * 4000)
    packed, plain = message(full, options=options), message(full)
    known = unpacked_bytes(pa.py_buffer(packed))
    assert len(packed) < known < len(plain) < 1.05 * known
    assert unpacked_bytes(pa.py_buffer(plain)) == 0
    fits = CodecSettings(kind="arrow", max_message_bytes=known)
    assert len(decode([packed], fits)[0]) == 4000
    assert reasons([packed], codec=fits.model_copy(update={"max_message_bytes": known - 1})) == [Reason.TOO_LARGE]


def test_what_would_become_too_large_is_refused_without_unpacking_it():
    prices = np.random.default_rng(0).normal(size=100_000)
    full = table(symbol=["A"] * 100_000, ts=[1] * 100_000, price=prices)
    broken = bytearray(message(full, options=pa.ipc.IpcWriteOptions(compression="zstd")))
    broken[-200_000:-100_000] = bytes(100_000)  # unpacking it fails
    codec = CodecSettings(kind="arrow", max_message_bytes=unpacked_bytes(pa.py_buffer(broken)))
    assert reasons([bytes(broken)], codec=codec) == [Reason.MALFORMED]
    assert reasons([bytes(broken)], codec=CODEC) == [Reason.TOO_LARGE]


def test_rows_with_a_reason_name_no_symbol():
    symbols = SymbolTable(4)
    one = np.ones(3)
    columns = TickRows(
        np.zeros(3, np.int32), np.array([1, 2, NO_TIME]), one, one, one, one, np.zeros(3, np.int64),
        np.array([0, Reason.BAD_NUMBER, 0], np.uint8),
    )  # fmt: skip
    text, span = np.frombuffer(bytearray(b"ABC"), np.uint8), np.arange(4)
    settle_columns(np.arange(3), np.full(3, UNMET), span, text, naming(""), symbols.arrays, columns)
    assert symbols.names() == ["A"]
    assert columns.reason.tolist() == [0, Reason.BAD_NUMBER, Reason.BAD_TIME]


def test_names_that_share_the_same_bytes_are_refused_before_each_gets_its_own():
    rows, long = 20_000, 100_000
    view = np.array([[long, int.from_bytes(b"xxxx", "little"), 0, 0]], np.int32)  # length, beginning, buffer, offset
    buffers = [None, pa.py_buffer(np.repeat(view, rows, axis=0)), pa.py_buffer(b"x" * long)]
    names = pa.Array.from_buffers(pa.string_view(), rows, buffers)
    assert reasons([message(table(symbol=names, ts=[1] * rows, price=[1.0] * rows))], codec=CODEC) == [Reason.TOO_LARGE]


def test_where_a_name_is_null_its_view_may_be_anything():
    views = np.zeros((3, 4), np.int32)
    views[:, 0], views[0, 1], views[2, 1] = 1, ord("A"), ord("B")
    views[1] = -(1 << 24), 7, 1 << 30, 1 << 30  # a length, a beginning, a buffer and an offset that are not there
    buffers = [pa.py_buffer(b"\x05"), pa.py_buffer(views), pa.py_buffer(b"x" * 25)]
    names = pa.Array.from_buffers(pa.string_view(), 3, buffers)
    raw = message(table(symbol=names, ts=[1, 2, 3], price=[1.0] * 3))
    ticks, rejects, symbols = decode([raw], CODEC)
    assert symbols.names() == ["A", "B"]
    assert (len(ticks), rejects.reason.tolist()) == (2, [Reason.MISSING_FIELD])


def test_a_dictionary_of_prices_is_not_unpacked():
    prices = pa.DictionaryArray.from_arrays(pa.array([0, 0]), pa.array(["1" * 1000]))
    assert reasons([message(table(price=prices))], codec=CODEC) == [Reason.BAD_NUMBER]


def test_a_message_with_more_rows_than_its_bytes_can_hold_is_refused():
    rows = 4000
    narrow = {"symbol": pa.nulls(rows), "ts": pa.nulls(rows), "price": pa.array([1] * rows, pa.int8())}
    assert reasons([message(table(**narrow))], codec=CODEC) == [Reason.TOO_LARGE]
    honest = {"symbol": pa.array(["A"] * rows).dictionary_encode(), "price": pa.array([1] * rows, pa.float32())}
    fields = CodecSettings(kind="arrow", fields=Fields(ts=""))
    ticks, _, _ = decode([message(table(ts=None, **honest))], fields, stamps=[7])
    assert len(ticks) == rows
