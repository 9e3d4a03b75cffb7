"""The SymbolTable: one code per name, by the bytes and not only the hash, up to its limit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tickcast.symbols import FULL, NAME_BYTES, UNFIT, SymbolTable, find_or_add, hash_bytes

NAMES = st.lists(st.text(min_size=1, max_size=12).filter(lambda name: len(name.encode()) <= NAME_BYTES), max_size=60)


def as_bytes(text):
    return np.frombuffer(text, np.uint8)


def fnv_1a(data):
    h = 14695981039346656037
    for byte in data:
        h = ((h ^ byte) * 1099511628211) % (1 << 64)
    return h ^ (h >> 32)


def test_codes_count_up_in_order_of_appearance_and_stay():
    table = SymbolTable(10)
    assert [table.code(name) for name in ("BTC", "ETH", "BTC", "SOL", "ETH")] == [0, 1, 0, 2, 1]
    assert table.names() == ["BTC", "ETH", "SOL"]
    assert (table.name(1), len(table)) == ("ETH", 3)


def test_names_seen_later_are_listed_too():
    table = SymbolTable(4)
    table.code("A")
    assert table.names() == ["A"]
    table.code("B")
    assert table.names() == ["A", "B"]


@settings(deadline=None)
@given(NAMES)
def test_the_table_equals_a_dictionary_whatever_the_names(names):
    table, oracle = SymbolTable(64), {}
    for name in names:
        assert table.code(name) == oracle.setdefault(name, len(oracle))
    assert table.names() == list(oracle)


@pytest.mark.parametrize("name", ["", "x" * (NAME_BYTES + 1), "é" * (NAME_BYTES // 2 + 1)])
def test_a_name_that_is_empty_or_too_long_gets_no_code(name):
    table = SymbolTable(4)
    assert table.code(name) == UNFIT
    assert len(table) == 0


def test_a_name_of_the_largest_length_fits():
    table = SymbolTable(4)
    assert table.code("y" * NAME_BYTES) == 0
    assert table.name(0) == "y" * NAME_BYTES


def test_a_full_table_refuses_new_names_and_still_finds_the_old():
    table = SymbolTable(2)
    assert [table.code(name) for name in ("A", "B", "C", "A", "B")] == [0, 1, FULL, 0, 1]
    assert len(table) == 2


def test_a_table_of_one_symbol_works():
    table = SymbolTable(1)
    assert [table.code("A"), table.code("A"), table.code("B")] == [0, 0, FULL]


def test_two_names_with_the_same_hash_get_two_codes():
    table = SymbolTable(8)
    table.code("AA")
    slot = int(np.flatnonzero(table.arrays.codes >= 0)[0])
    table.arrays.hashes[slot] = fnv_1a(b"BB")  # now the stored hash of AA is that of BB
    home = fnv_1a(b"BB") & (len(table.arrays.hashes) - 1)
    for column in (table.arrays.hashes, table.arrays.codes):
        column[[slot, home]] = column[[home, slot]]
    assert table.code("BB") == 1


def test_the_kernel_reads_only_its_own_part_of_the_buffer():
    table = SymbolTable(8)
    data = as_bytes(b"..BTC,ETH..")
    assert find_or_add(table.arrays, data, 2, 5) == 0
    assert find_or_add(table.arrays, data, 6, 9) == 1
    assert table.names() == ["BTC", "ETH"]


@given(st.binary(max_size=40))
@settings(deadline=None)
def test_the_hash_is_fnv_1a_with_a_final_mix(data):
    assert int(hash_bytes(as_bytes(data), 0, len(data))) == fnv_1a(data)


def test_bytes_that_are_no_utf8_get_a_printable_name():
    table = SymbolTable(4)
    find_or_add(table.arrays, as_bytes(b"\xff\xfeX"), 0, 3)
    assert table.name(0).endswith("X")


def test_twenty_thousand_symbols_keep_their_codes():
    table = SymbolTable(20_000)
    names = [f"SYM{i:05d}" for i in range(20_000)]
    assert [table.code(name) for name in names] == list(range(20_000))
    assert [table.code(name) for name in reversed(names)] == list(reversed(range(20_000)))
    assert table.names() == names
