"""The store against a real DuckDB file: what goes in comes out once, whatever is given twice."""

import asyncio

import numpy as np
import pytest

from storekit import (
    HORIZON,
    LEVELS,
    SECOND,
    SOURCE,
    T0,
    accuracy,
    bars,
    bars_between,
    card,
    drift,
    forecasts,
    open_store,
    scores,
    store_settings,
    table,
    unit,
    value,
)  # fmt: skip
from tickcast.engine.core.ladder import RUNGS
from tickcast.errors import BadStore
from tickcast.io.store.store import Commit


@pytest.fixture
async def store(tmp_path):
    opened = open_store(store_settings(tmp_path))
    yield opened
    await opened.close()


async def counts(store) -> dict[str, int]:
    tables = ("forecasts", "scores", "bars", "accuracy", "dead_letters")
    return {name: await value(store, f"SELECT count(*) FROM {name}") for name in tables}


async def test_a_forecast_comes_back_with_every_field_of_its_record(store):
    asked = forecasts(40, 8)
    await store.write(Commit(forecasts=[asked], offsets={SOURCE: 48}, sources=[SOURCE]))
    columns, rows = await store.query("SELECT * FROM forecasts ORDER BY as_of_ns")
    row = dict(zip(columns, rows[3], strict=True))
    assert row["id"] == f"{7:016x}{43:016x}"
    assert (row["symbol"], row["as_of_ns"], row["source_offset"]) == ("SYM3", T0 + 43 * SECOND, 43)
    assert (row["source_topic"], row["source_partition"], row["input_hash"]) == ("ticks", 0, 2**63 + 5)
    assert (row["anchor"], row["confidence"], row["rung"], row["tie"]) == (60_043.25, 0.5, 0, 0)
    assert (row["step_ns"], row["target_ns"]) == (SECOND, None)
    assert len(row["quantiles_from_anchor"]) == HORIZON * len(LEVELS)
    assert [dict(zip(columns, row, strict=True))["probs"] for row in rows] == [[0.5, 0.25, 0.25], None, None, None] * 2


async def test_a_stored_quantile_is_within_1e7_of_its_distance_from_the_anchor(store):
    asked = forecasts(0, 100)
    await store.write(Commit(forecasts=[asked], sources=[SOURCE]))
    _, rows = await store.query("SELECT quantiles, point, target_ns FROM forecast_steps ORDER BY as_of_ns, step")
    got = np.array([row[0] for row in rows]).reshape(asked.quantiles.shape)
    move = np.abs(asked.quantiles - asked.anchor[:, None, None])
    assert (np.abs(got - asked.quantiles) <= 1e-7 * move + 1e-11).all()
    assert [row[1] for row in rows] == got[:, :, LEVELS.index(0.5)].ravel().tolist()
    assert [row[2] for row in rows] == asked.target_ns.ravel().tolist()


async def test_targets_that_jump_over_closed_time_are_kept_one_by_one_and_those_of_tick_bars_are_null(store):
    asked = forecasts(0, 3)
    asked.target_ns[1] += np.array([0, 3600 * SECOND, 3600 * SECOND])
    asked.target_ns[2] = -1
    await store.write(Commit(forecasts=[asked], sources=[SOURCE]))
    _, rows = await store.query(
        "SELECT list(target_ns ORDER BY step) FROM forecast_steps GROUP BY as_of_ns ORDER BY as_of_ns"
    )
    assert [row[0] for row in rows] == [*asked.target_ns[:2].tolist(), [None] * HORIZON]


async def test_a_score_comes_back_with_null_where_the_target_was_void(store):
    asked = forecasts(0, 6)
    await store.write(Commit(forecasts=[asked], scores=[scores(asked)], sources=[SOURCE]))
    columns, rows = await store.query(
        "SELECT * FROM score_steps WHERE as_of_ns = (SELECT min(as_of_ns) FROM scores) ORDER BY step"
    )
    first, second, third = (dict(zip(columns, row, strict=True)) for row in rows)
    assert [r["step"] for r in (first, second, third)] == [1, 2, 3]
    assert (first["void"], first["actual"], first["pinball"], first["covered"]) == (True, None, None, None)
    assert (second["void"], second["actual"], second["point"]) == (False, 60_002.25, 60_000.75)
    assert (second["pinball"], second["covered"], second["model"]) == (1.5, True, "naive")


async def test_bars_come_back_bit_equal_and_in_order(store):
    closed = bars(0, 400)
    await store.write(Commit(bars=[closed], sources=[SOURCE]))
    symbols = table(0)
    tail = store.bars_tail(symbols, 50)
    assert symbols.names() == ["SYM0", "SYM1", "SYM2", "SYM3"]
    assert np.bincount(tail.symbol).tolist() == [50] * 4
    for code in range(4):
        theirs, ours = closed.take(closed.symbol == code).take(slice(-50, None)), tail.take(tail.symbol == code)
        for name in (
            "ordinal",
            "as_of",
            "tie",
            "open",
            "high",
            "low",
            "close",
            "volume",
            "ticks",
            "mask",
            "gap",
            "offset",
        ):
            assert getattr(theirs, name).tobytes() == getattr(ours, name).tobytes(), name


async def test_the_tail_ends_at_a_hole_and_reaches_back_to_symbols_that_have_been_silent(store):
    silent, holed = bars(0, 40), bars(1_000_000, 40)
    kept = holed.take(~((holed.symbol == 1) & (holed.ordinal == holed.ordinal[1] + 4)))
    await store.write(Commit(bars=[silent.take(silent.symbol == 0), kept.take(kept.symbol != 0)], sources=[SOURCE]))
    tail = store.bars_tail(table(4), 8)
    assert np.bincount(tail.symbol).tolist() == [8, 5, 8, 8]
    assert (np.diff(tail.ordinal[tail.symbol == 1]) == 1).all()


async def test_symbols_that_find_no_room_in_the_table_are_left_out_of_the_tail(store):
    await store.write(Commit(bars=[bars(0, 40)], sources=[SOURCE]))
    from tickcast.symbols import SymbolTable

    assert set(store.bars_tail(SymbolTable(2), 4).symbol.tolist()) == {0, 1}


async def test_bars_of_a_span_are_read_for_training(store):
    await store.write(Commit(bars=[bars(0, 40)], sources=[SOURCE]))
    span = bars_between(store, T0 + 4 * SECOND, T0 + 12 * SECOND, ["SYM1", "SYM2"])
    assert span["symbol"].to_pylist() == ["SYM1", "SYM1", "SYM2", "SYM2"]
    assert span["as_of_ns"].to_pylist() == [T0 + n * SECOND for n in (5, 9, 6, 10)]


async def test_an_empty_store_has_no_tail(store):
    assert len(store.bars_tail(table(), 10)) == 0


async def test_a_unit_that_comes_again_after_a_restart_is_stored_once(tmp_path):
    settings = store_settings(tmp_path)
    store = open_store(settings)
    await store.write(unit(0, 90))
    before = await counts(store)
    await store.close()
    store = open_store(settings)
    assert store.positions() == {SOURCE: 90}
    for first in (0, 30, 60):  # cut otherwise than before
        await store.write(unit(first, 30) if first else Commit(**_fields(unit(0, 90)) | {"offsets": {SOURCE: 30}}))
    assert await counts(store) == before | {"accuracy": 3, "dead_letters": 3}
    await store.write(unit(60, 60))  # half of it is new
    assert (await counts(store))["forecasts"] == (await counts(store))["scores"] == (await counts(store))["bars"] == 120
    assert await value(store, "SELECT next_offset FROM offsets") == 120
    await store.close()


def _fields(one: Commit) -> dict[str, object]:
    return {name: getattr(one, name) for name in one.__slots__}


async def test_offsets_never_go_back(store):
    await store.write(unit(0, 50))
    await store.write(Commit(offsets={SOURCE: 20, ("ticks", 1): 5}, watermarks={SOURCE: 1}, sources=[SOURCE]))
    _, rows = await store.query("SELECT source_partition, next_offset, watermark_ns FROM offsets ORDER BY 1")
    assert rows == [(0, 50, T0 + 50 * SECOND), (1, 5, None)]


async def test_another_model_over_the_same_records_is_stored_beside_the_first(tmp_path):
    settings = store_settings(tmp_path)
    for salt in (0, 1, 0):
        store = open_store(settings)
        await store.write(unit(0, 20, salt=salt))
        last = await counts(store)
        await store.close()
    assert (last["forecasts"], last["scores"], last["bars"]) == (40, 40, 20)


async def test_history_without_a_source_is_loaded_once_however_often_it_is_given(store):
    history = bars(0, 30)
    history.offset[:] = -1
    for _ in range(2):
        await store.write(Commit(bars=[history]), symbols=table(4))
    assert await value(store, "SELECT count(*) FROM bars WHERE source_topic IS NULL") == 30


async def test_symbols_of_a_loaded_unit_are_named_by_their_own_table(store):
    other = table(0)
    other.code("OTHER")
    await store.write(Commit(bars=[bars(0, 3, symbols=1)]), symbols=other)
    await store.write(Commit(bars=[bars(3, 3, symbols=1)], sources=[SOURCE]))
    assert (await store.query("SELECT DISTINCT symbol FROM bars ORDER BY 1")).rows == [("OTHER",), ("SYM0",)]


async def test_symbols_that_appear_later_are_named_rightly(tmp_path):
    symbols = table(2)
    store = open_store(store_settings(tmp_path), symbols=symbols)
    await store.write(Commit(bars=[bars(0, 2, symbols=2)], sources=[SOURCE]))
    symbols.code("ÜBER")
    late = bars(2, 1)
    await store.write(Commit(bars=[late], sources=[SOURCE]))
    assert late.symbol.tolist() == [2]
    assert await value(store, "SELECT symbol FROM bars ORDER BY as_of_ns DESC LIMIT 1") == "ÜBER"
    await store.close()


async def test_models_keep_their_number_over_restarts_and_new_ones_are_added(tmp_path):
    settings, cards = store_settings(tmp_path), [card("naive")]
    store = open_store(settings, cards=cards)
    await store.write(unit(0, 4))
    cards.append(card("holt", digest=""))
    second = forecasts(4, 4)
    second.model[:] = 1
    await store.write(Commit(forecasts=[second], sources=[SOURCE]))
    await store.close()
    store = open_store(settings, cards=[cards[1], cards[0]])
    await store.write(unit(8, 4))
    _, rows = await store.query(
        "SELECT m.name, count(*) FROM forecasts JOIN models m USING (model) GROUP BY 1 ORDER BY 1"
    )
    assert rows == [("holt", 8), ("naive", 4)]
    assert await value(store, "SELECT card->>'transform' FROM models WHERE name = 'holt'") == "log_return"
    await store.close()


async def test_rungs_are_named_as_the_ladder_names_them(store):
    asked = forecasts(0, len(RUNGS))
    asked.rung[:] = np.arange(len(RUNGS))
    await store.write(Commit(forecasts=[asked], sources=[SOURCE]))
    _, rows = await store.query("SELECT DISTINCT ON (as_of_ns) rung FROM forecast_steps ORDER BY as_of_ns")
    assert [row[0] for row in rows] == list(RUNGS)


async def test_accuracy_is_stored_once_per_event_time_with_null_for_what_is_no_number(store):
    await store.write(Commit(accuracy=[accuracy()]))
    await store.write(Commit(accuracy=[accuracy(), accuracy(T0 + 1)]))
    columns, rows = await store.query("SELECT * FROM accuracy ORDER BY as_of_ns")
    first = dict(zip(columns, rows[0], strict=True))
    assert len(rows) == 2
    assert (first["r2"], first["mae"], first["symbol_group"], first["span"]) == (None, 0.5, "all", "rolling")
    assert await value(store, "SELECT (coverage->>'$.\"0.95\"')::DOUBLE FROM accuracy LIMIT 1") == 0.94


async def test_drift_is_stored_once_per_evaluation_and_once_per_alarm(store):
    await store.write(Commit(drift=[drift(event="raised"), drift(), drift()]))
    await store.write(Commit(drift=[drift(), drift(T0 + 1), drift(event="raised")]))
    columns, rows = await store.query("SELECT * FROM drift ORDER BY as_of_ns, event DESC")
    first = dict(zip(columns, rows[0], strict=True))
    assert [(row[columns.index("as_of_ns")] - T0, row[columns.index("event")]) for row in rows] == [
        (0, "raised"), (0, ""), (1, "")]  # fmt: skip
    assert {name: first[name] for name in ("family", "source_topic", "state", "watched")} == {
        "family": "range", "source_topic": SOURCE[0], "state": "alarm", "watched": 1}  # fmt: skip
    assert await value(store, "SELECT (streams->>'$[0].psi')::DOUBLE FROM drift LIMIT 1") == 0.2


async def test_a_dead_letter_keeps_the_original_bytes(store):
    await store.write(unit(5, 1))
    assert await value(store, "SELECT hex(value) FROM dead_letters") == b'{"price": \xff'.hex().upper()


async def test_a_sample_keeps_forecasts_and_scores_of_the_same_ids(tmp_path):
    store = open_store(store_settings(tmp_path, store__forecasts="sample", store__sample_every=16))
    await store.write(unit(0, 160))
    assert (await counts(store))["forecasts"] == (await counts(store))["scores"] == 10
    assert await value(store, "SELECT count(*) FROM forecasts JOIN scores USING (id)") == 10
    await store.close()


@pytest.mark.parametrize(
    ("setting", "left"), [("store__forecasts", {"bars"}), ("store__bars", {"forecasts", "scores"})]
)
async def test_none_stores_none_of_them(tmp_path, setting, left):
    store = open_store(store_settings(tmp_path, **{setting: "none"}))
    await store.write(unit(0, 8))
    assert {name for name, n in (await counts(store)).items() if n == 8} == left
    await store.close()


async def test_an_empty_unit_is_no_trouble(store):
    await store.write(Commit())
    await store.write(Commit(forecasts=[forecasts(0, 0)], scores=[scores(forecasts(0, 0))], bars=[bars(0, 0)]))
    assert set((await counts(store)).values()) == {0}


async def test_a_store_of_other_bars_is_refused_and_an_empty_one_is_not(tmp_path):
    settings, others = store_settings(tmp_path), store_settings(tmp_path, bars__every_ms=5000)
    await open_store(settings).close()
    store = open_store(others)
    await store.write(unit(0, 4))
    await store.close()
    with pytest.raises(BadStore, match=r"holds bars of .*5000.*1000.*another store\.path"):
        open_store(settings)
    await open_store(others).close()


async def test_queries_are_answered_while_units_are_written(store):
    async def ask() -> list[int]:
        return [await value(store, "SELECT count(*) FROM forecasts") for _ in range(20)]

    async def write() -> None:
        for first in range(0, 1000, 100):
            await store.write(unit(first, 100))

    seen, _ = await asyncio.gather(ask(), write())
    assert seen == sorted(seen)
    assert {n % 100 for n in seen} == {0}
    assert await value(store, "SELECT count(*) FROM forecasts") == 1000


async def test_a_closed_store_can_be_opened_again_and_closing_twice_is_no_trouble(tmp_path):
    settings = store_settings(tmp_path)
    store = open_store(settings)
    await store.write(unit(0, 10))
    await store.close()
    await store.close()
    store = open_store(settings)
    assert await value(store, "SELECT count(*) FROM bars") == 10
    await store.close()


@pytest.mark.slow
async def test_the_log_is_folded_in_when_it_has_grown(tmp_path, monkeypatch):
    monkeypatch.setattr("tickcast.io.store.writer.CHECKPOINT_BYTES", 1 << 18)
    store = open_store(store_settings(tmp_path))
    log, sizes = tmp_path / "s.duckdb.wal", []
    for first in range(0, 20_000, 1000):
        await store.write(unit(first, 1000))
        sizes.append(log.stat().st_size if log.exists() else 0)
    assert max(sizes) < 1 << 19
    assert await value(store, "SELECT count(*) FROM forecasts") == 20_000
    await store.close()
