"""Number and name writers: whatever they write, any JSON parser reads back, as near to the value as was asked."""

import json
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tickcast.engine.codec.digits import (
    ROOM,
    eight_digits,
    put_bytes,
    put_decimals,
    put_exponent,
    put_hex,
    put_name,
    put_null,
    put_padded,
    put_significant,
    put_whole,
)
from tickcast.engine.codec.pieces import put_piece, texts_of

FINITE = st.floats(allow_nan=False, allow_infinity=False)
MARK = 0xAB


def written(put, *arguments, room=ROOM):
    out = np.full(room + 8, MARK, np.uint8)
    end = put(out, 0, *arguments)
    assert end <= room
    return out[:end].tobytes()


@settings(max_examples=500, deadline=None)
@given(FINITE | st.floats(-1e6, 1e6), st.integers(0, 40))
@example(9.9999999999, 2)
@example(0.99999999999999994, 15)
@example(-0.0, 3)
@example(999999999999999.9, 15)
def test_decimals_are_within_one_of_the_last_place_or_the_doubles_own_precision(value, decimals):
    text = written(put_decimals, value, decimals)
    assert abs(json.loads(text) - value) <= 10.0**-decimals + 4 * math.ulp(value)
    if abs(value) < 1e15 and decimals <= 15:
        assert b"e" not in text
        assert len(text.partition(b".")[2]) == decimals


@settings(max_examples=300, deadline=None)
@given(st.integers(-(10**6), 10**6), st.integers(0, 9))
def test_decimals_of_short_numbers_are_exact(mantissa, decimals):
    value = float(f"{mantissa}e-{decimals}")
    assert written(put_decimals, value, decimals).decode() == f"{value:.{decimals}f}"


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(FINITE | st.floats(-1e6, 1e6), st.integers(1, 15))
@example(5e-324, 10)
@example(1.7976931348623157e308, 15)
@example(0.0, 5)
def test_significant_digits_are_kept_and_no_more_than_asked_decimals_are_written(value, digits):
    text = written(put_significant, value, digits)
    assert math.isclose(json.loads(text), value, rel_tol=10.0 ** (1 - digits) + 1e-15, abs_tol=0.0)
    assert not (b"." in text and b"e" not in text and text.endswith((b"0", b".")))


@settings(max_examples=300, deadline=None)
@given(FINITE)
def test_seventeen_digits_with_an_exponent_read_back_within_some_last_places(value):
    assert abs(json.loads(written(put_exponent, value, 17)) - value) <= 8 * math.ulp(value)


@settings(max_examples=300, deadline=None)
@given(st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-(10**9), 10**9))
def test_whole_numbers_are_written_as_python_writes_them(value):
    assert written(put_whole, value).decode() == str(value)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, (1 << 64) - 1), st.integers(1, 24))
def test_padded_digits_are_the_lowest_ones(value, width):
    assert written(put_padded, np.uint64(value % 10**width), width).decode() == f"{value % 10**width:0{width}d}"


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**8 - 1))
def test_eight_digits_lie_in_order_in_the_bytes_of_a_word(value):
    assert int(eight_digits(np.uint64(value))).to_bytes(8, "little") == bytes(map(int, f"{value:08d}"))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, (1 << 64) - 1))
def test_hex_has_sixteen_digits(value):
    assert written(put_hex, np.uint64(value)).decode() == f"{value:016x}"


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=48) | st.text(max_size=12).map(str.encode))
@example(b'a"\\\x00\x1f\x7f')
@example(b"\xf0\x9f\x98")
@example(b"\xe2\x82\xff\xed\xa0\x80\xf4\x90\x80\x80\xc0\x80")
def test_names_are_escaped_and_what_is_no_utf_8_replaced_as_python_does(name):
    padded = np.frombuffer(bytearray(name.ljust(48, b"\0")), np.uint8)
    text = written(put_name, padded, len(name), room=6 * 48 + 2)
    assert json.loads(text) == name.decode("utf-8", "replace")


def test_what_is_not_finite_becomes_null():
    for value in (math.nan, math.inf, -math.inf):
        assert written(put_decimals, value, 3) == written(put_significant, value, 3) == written(put_null) == b"null"


def test_bytes_are_copied():
    assert written(put_bytes, np.frombuffer(bytearray(b"abcdef"), np.uint8), 1, 4) == b"bcd"


def test_constant_pieces_are_found_by_their_number():
    texts = texts_of([b"one", b"", b"three"])
    assert [written(put_piece, texts, k) for k in range(3)] == [b"one", b"", b"three"]
