"""A symbol is one level of a topic, whatever its bytes: it can neither leave its place nor take another's."""

from urllib.parse import unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st

from tickcast.io.mqtt.client import topic_level

symbols = st.one_of(st.binary(min_size=1, max_size=48), st.text("+#/%\0$.Aé", min_size=1).map(str.encode))


@given(symbols)
def test_no_byte_of_a_symbol_can_leave_its_level_and_the_symbol_can_be_read_back(name: bytes) -> None:
    level = topic_level(name)
    assert level
    assert not set("+#/\0") & set(level)
    assert level.isascii()
    assert level.isprintable()
    assert unquote_to_bytes(level) == name


@given(symbols, symbols)
def test_two_symbols_never_share_a_topic(one: bytes, other: bytes) -> None:
    assert (topic_level(one) == topic_level(other)) == (one == other)
