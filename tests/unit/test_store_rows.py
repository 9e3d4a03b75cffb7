"""Columns as Arrow tables: names, ids, targets and what may have been stored before."""

import numpy as np
import pytest

from storekit import SECOND, T0, forecasts, scores, table
from tickcast.io.store import rows
from tickcast.io.store.rows import Names, Origin, Position, advanced


def test_an_id_reads_as_the_hex_digits_of_its_two_words():
    high, low = np.array([1, 2**64 - 1], np.uint64), np.array([2**63, 5], np.uint64)
    assert [value.as_py().hex for value in rows.ids(high, low)] == [
        f"{int(h):016x}{int(w):016x}" for h, w in zip(high, low, strict=True)
    ]


def test_names_follow_a_table_that_grows():
    symbols = table(1)
    names = Names(symbols)
    assert names.of(np.array([0, 0], np.int32)).to_pylist() == ["SYM0", "SYM0"]
    symbols.code("Ω")
    assert names.of(np.array([1, 0], np.int32)).to_pylist() == ["Ω", "SYM0"]
    assert names.of(np.array([], np.int32)).to_pylist() == []


def test_a_number_beyond_the_sources_has_no_source():
    columns = Origin([("a", 3), ("b", 5)]).columns(np.array([1, 0, 2], np.int32), np.array([7, 8, 9]))
    assert columns["source_topic"].to_pylist() == ["b", "a", None]
    assert columns["source_partition"].to_pylist() == [5, 3, None]


def test_rows_below_the_position_or_without_a_source_may_have_been_stored_before():
    number, place = np.array([0, 0, 1, 2], np.int32), np.array([9, 10, 0, 10**9])
    assert rows.seen_before(number, place, np.array([10, 0])).tolist() == [True, False, False, True]
    assert rows.seen_before(number, place, np.array([], np.int64)).all()


def test_even_targets_are_one_number_and_uneven_ones_a_list():
    asked = forecasts(0, 2)
    step, targets = rows._targets(asked.as_of, asked.target_ns)
    assert (step.to_pylist(), targets.to_pylist()) == ([SECOND, SECOND], [None, None])
    asked.target_ns[1, 2] += 1
    step, targets = rows._targets(asked.as_of, asked.target_ns)
    assert (step.to_pylist(), targets.to_pylist()) == ([SECOND, None], [None, asked.target_ns[1].tolist()])


def test_a_sample_of_ids_is_the_same_whoever_asks():
    low = np.arange(64, dtype=np.uint64)
    assert np.flatnonzero(rows.keeps(low, 16)).tolist() == [0, 16, 32, 48]


def test_positions_only_advance():
    a, b = ("t", 0), ("t", 1)
    first = advanced({}, {a: 10}, {a: T0})
    second = advanced(first, {a: 5, b: 1}, {a: T0 - 1, b: T0})
    assert second[a] == Position(source_topic="t", source_partition=0, next_offset=10, watermark_ns=T0)
    assert second[b] == Position(source_topic="t", source_partition=1, next_offset=1, watermark_ns=T0)
    assert advanced(first, {a: 11}, {})[a].watermark_ns == T0
    assert set(first) == {a}


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_forecast_rows_are_as_many_as_forecasts(count):
    asked = forecasts(0, count)
    out = rows.forecast_rows(asked, Names(table()), Origin([("t", 0)]), np.array([4], np.int32))
    assert len(out) == count
    assert set(out["model"].to_pylist()) <= {4}


def test_a_distance_beyond_a_float_is_stored_as_infinite():
    far = forecasts(0, 2)
    far.quantiles[0, 0, 2] = 1e39
    settled = scores(far)
    settled.actual[1, 2], settled.pinball[1, 2] = -1e39, 1e39
    one = np.zeros(1, np.int32)
    stored = rows.forecast_rows(far, Names(table()), Origin([("a", 0)]), one)
    assert stored["quantiles_from_anchor"].to_pylist()[0][2] == np.inf
    stored = rows.score_rows(settled, Names(table()), one, [1, 2, 3])
    assert (stored["actual_from_anchor"].to_pylist()[1][2], stored["pinball"].to_pylist()[1][2]) == (-np.inf, np.inf)
