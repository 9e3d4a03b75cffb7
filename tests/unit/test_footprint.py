"""The memory estimate: arrays are found wherever they hang, counted once, and scaled to the number of symbols."""

from dataclasses import dataclass

import numpy as np

from tickcast.settings import load
from tickcast.symbols import SymbolTable
from tickcast.ui.footprint import array_bytes, state_bytes


@dataclass(slots=True)
class State:
    per_symbol: np.ndarray
    fixed: dict[str, list[np.ndarray]]


State.__module__ = "tickcast.somewhere"


def make(settings):
    return State(np.zeros((settings.symbols.limit, 10)), {"x": [np.zeros(1000)]})


def test_an_array_that_hangs_at_two_places_or_is_a_view_counts_once():
    whole = np.zeros(100)
    assert array_bytes([whole, (whole, {"part": whole[10:20]})]) == 800
    assert array_bytes(whole[:1]) == 800


def test_objects_of_other_packages_are_not_searched():
    class Foreign:
        held = np.zeros(10)

    assert array_bytes(Foreign()) == 0


def test_state_grows_with_the_symbols_and_keeps_what_is_fixed():
    for limit in (1, 1000, 20_000):
        settings, _ = load(None, {"symbols.limit": str(limit)}, {})
        assert state_bytes(settings, make) == limit * 80 + 8000


def test_the_estimate_of_a_real_table_is_what_the_table_takes():
    settings, _ = load(None, {"symbols.limit": "16384"}, {})
    estimate = state_bytes(settings, lambda few: SymbolTable(few.symbols.limit))
    assert estimate == array_bytes(SymbolTable(16_384))
