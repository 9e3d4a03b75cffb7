"""The scanner's building blocks, each called by itself."""

import math

import numpy as np
import pytest

from tickcast.engine.codec.parse import read_number, read_time, to_double, to_ns
from tickcast.engine.codec.scan import plan, scan_messages, scan_object
from tickcast.engine.codec.ticks import (
    BAD,
    BID,
    EVENT,
    EVENT_NEEDED,
    FIRST,
    GOOD,
    LAST,
    MISSING,
    NO_EVENT,
    PRICE,
    SYMBOL,
    TS,
    Judged,
    found,
    name_code,
    naming,
    number_rows,
    rows,
    settle,
)
from tickcast.errors import Reason
from tickcast.symbols import FULL, UNFIT, SymbolTable
from tickcast.words import part_at, plain_end, read_digits, word_at

NAMES = ("symbol", "ts", "price", "size", "bid", "ask", "", "event", "data")


def data_of(text):
    return np.frombuffer(bytearray(text), np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "read"),
    [
        (b"0", (1, 0, 0)),
        (b"-12.50,", (6, -1250, -2)),
        (b"1e5", (3, 1, 5)),
        (b"1.5E-3}", (6, 15, -4)),
        (b"9223372036854775807", (19, (1 << 63) - 1, 0)),
        (b"123456789012345678x", (18, 123456789012345678, 0)),
    ],
)
def test_a_number_is_read_as_mantissa_and_power_of_ten(text, read):
    assert read_number(data_of(text), 0, len(text)) == read


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"-",
        b"x",
        b"01",
        b"-00",
        b".5",
        b"5.",
        b"5.e1",
        b"1e",
        b"1e+",
        b"1e12345",
        b"9223372036854775808",
        b"1" * 20,
    ],
)
def test_no_number_or_one_too_long_is_left_to_others(text):
    assert read_number(data_of(text), 0, len(text))[0] == -1


def test_a_number_ends_where_the_message_does():
    assert read_number(data_of(b"12345678901234567"), 0, 3) == (3, 123, 0)


@pytest.mark.parametrize(
    ("mantissa", "exponent"), [(1, 23), (3, -23), (1 << 60, -1), ((1 << 53) + 1, 1), (90071992547409930, -1)]
)
def test_doubles_that_are_not_certain_say_so(mantissa, exponent):
    assert not to_double(mantissa, exponent)[1]


@pytest.mark.parametrize(
    ("mantissa", "exponent"), [(1, -1), (27123449999999997, -12), (10**18, -22), (7, 22), (1 << 62, 0)]
)
def test_certain_doubles_are_the_nearest_ones(mantissa, exponent):
    assert to_double(mantissa, exponent) == (float(f"{mantissa}e{exponent}"), True)


@pytest.mark.parametrize(
    ("mantissa", "exponent", "unit", "result"),
    [
        (5, 0, 9, (5 * 10**9, True)),
        (15, -10, 9, (1, True)),
        (-15, -10, 9, (-1, True)),
        (1, -30, 0, (0, False)),
        (1, 19, 0, (0, False)),
    ],
)
def test_times_are_scaled_to_ns_and_what_is_smaller_dropped(mantissa, exponent, unit, result):
    assert to_ns(mantissa, exponent, unit) == result


def test_a_time_that_leaves_64_bits_is_not_certain():
    assert to_ns(10**10, 0, 9)[1] is False
    assert to_ns(-(10**10), 0, 9)[1] is False


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        (b"1970-01-01T00:00:00Z", 0),
        (b"2000-02-29T12:00:00.000000001-01:00", 951_829_200_000_000_001),
        (b"1700-01-01T00:00:00Z", -8_520_336_000_000_000_000),
    ],
)
def test_rfc_3339_is_read(text, ns):
    assert read_time(data_of(text), 0, len(text)) == (ns, True)


def test_every_cut_of_rfc_3339_is_refused():
    text = b"2024-08-08T23:54:14.123456+02:00"
    assert not any(read_time(data_of(text), 0, end)[1] for end in range(len(text)))


def test_words_and_their_parts_hold_bytes_lowest_first():
    data = data_of(b"abcdefghij")
    assert int(word_at(data, 1)).to_bytes(8, "little") == b"bcdefghi"
    assert int(part_at(data, 1, 3, 10)).to_bytes(8, "little") == b"bcd\0\0\0\0\0"
    assert int(part_at(data, 7, 3, 10)).to_bytes(8, "little") == b"hij\0\0\0\0\0"
    assert int(part_at(data, 0, 8, 10)).to_bytes(8, "little") == b"abcdefgh"


@pytest.mark.parametrize("length", range(20))
def test_the_quote_that_ends_a_text_is_found_at_any_distance(length):
    text = b"x" * length + b'"' + b'y"\\\x00' * 5
    assert plain_end(data_of(text), 0, len(text)) == length
    assert plain_end(data_of(text), 0, length) == -1
    for odd in (b"\\", b"\x1f", b"\x80", b"\xff"):
        assert plain_end(data_of(odd + text), 0, len(text) + 1) == -1
        assert plain_end(data_of(b"x" * length + odd + text), 0, 2 * length + 2) == -1


@pytest.mark.parametrize("length", range(1, 20))
def test_digits_are_read_up_to_the_first_other_byte(length):
    digits = b"1234567890123456789"[:length]
    for other in (b"", b"/", b":", b".", b" ", b"\xff23456789"):
        end, value = read_digits(data_of(digits + other), 0, length + len(other), np.uint64(0))
        assert (end, int(value)) == (length, int(digits))


def scan(text):
    state, number, whole = found()
    looked_for = plan(NAMES, "trade", 0)
    data = data_of(text)
    end = scan_object(data, 0, len(data), *looked_for, state, number, whole)
    return end, state, number, whole


@pytest.mark.slow
def test_an_object_is_scanned_into_the_fields_it_holds():
    text = b'{"x":[1],"symbol":"AB","event":"trade","ts":5,"bid":null,"price":"1.5","ask":[]} '
    end, state, number, whole = scan(text)
    assert end == len(text) - 1
    assert state[[SYMBOL, EVENT, TS, PRICE, BID]].tolist() == [GOOD, GOOD, GOOD, GOOD, MISSING]
    assert state[5] == BAD
    assert (number[PRICE], whole[TS]) == (1.5, 5)
    assert text[whole[FIRST] : whole[LAST]] == b"AB"


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"{}", b'{"a"', b'{"a":', b'{"a":1', b'{"a":1,', b'{"a":1,}', b'{"a" 1}', b'{"ts":1,"ts":1}',
     b'{"a":\x01}', b'{"a":nul}', b'{"a":"\\u0041"}', b'{"data":{"ts":1},"data":{"ts":2}}',
     b'{"ts":1,"data":{"ts":2}}'],
)  # fmt: skip
def test_what_the_scanner_is_unsure_of_it_leaves(text):
    assert scan(text)[0] == -1


def test_scanning_stops_at_the_first_message_it_is_unsure_of():
    texts = [b'{"symbol":"A","ts":1,"price":1}', b'{"\\u0041":1}', b""]
    ends = np.cumsum([len(text) for text in texts])
    starts = ends - [len(text) for text in texts]
    filled, table = rows(3), SymbolTable(4)
    arguments = 100, plan(NAMES, "", 0), Judged(NO_EVENT, False), naming(""), found(), table.arrays, filled
    data, stamps = data_of(b"".join(texts)), np.full(3, -1)
    assert scan_messages(data, starts, ends, stamps, 0, *arguments) == 1
    assert scan_messages(data, starts, ends, stamps, 2, *arguments) == 3
    assert filled.reason[[0, 2]].tolist() == [0, Reason.EMPTY]


def test_a_judgement_needs_the_event_first_and_then_every_field():
    state, number, whole = found()
    filled, table = rows(1), SymbolTable(4)
    data = data_of(b"A")
    whole[LAST] = 1

    def judge(*states, event=EVENT_NEEDED):
        state[:] = MISSING
        for field, value in states:
            state[field] = value
        settle(state, number, whole, Judged(event, False), naming(""), data, -1, table.arrays, filled, 0)
        return Reason(int(filled.reason[0]))

    fields = [(SYMBOL, GOOD), (TS, GOOD), (PRICE, GOOD)]
    assert judge() is Reason.OTHER_EVENT
    assert judge(*fields, (EVENT, BAD)) is Reason.OTHER_EVENT
    assert judge((EVENT, GOOD)) is Reason.MISSING_FIELD
    assert judge(*fields[:2], event=NO_EVENT) is Reason.MISSING_FIELD
    assert judge(*fields, (BID, BAD), event=NO_EVENT) is Reason.BAD_NUMBER
    assert len(table) == 0
    assert judge(*fields, (EVENT, GOOD)) is Reason.ACCEPTED
    assert math.isnan(filled.bid[0])
    assert table.names() == ["A"]


@pytest.mark.slow
def test_a_name_keeps_its_code_and_unfit_ones_have_none():
    table, names = SymbolTable(2), naming("p:")
    data = data_of(b"ABC" + b"x" * 60)

    def code(first, last):
        return int(name_code(names, data, first, last, table.arrays))

    assert [code(0, 1), code(1, 2), code(0, 1), code(1, 2)] == [0, 1, 0, 1]
    assert [code(2, 3), code(2, 3), code(0, 0), code(3, 50), code(3, 60)] == [FULL, FULL, UNFIT, UNFIT, UNFIT]
    assert table.names() == ["p:A", "p:B"]


@pytest.mark.parametrize("message", [[0], [0, 1, 2], [0, 0, 0], [0, 1, 1, 1, 4, 4, 9]])
def test_rows_are_numbered_within_their_message(message):
    numbers = np.full(len(message), -1, np.int32)
    number_rows(np.array(message, np.int32), numbers)
    assert numbers.tolist() == [message[:i].count(one) for i, one in enumerate(message)]
