"""Old days leave the database for Parquet: whole, once, and not before their file is known to be sound."""

import duckdb
import msgspec
import pyarrow.parquet as pq
import pytest

from storekit import SECOND, SOURCE, T0, bars, bars_between, forecasts, open_store, store_settings, unit, value
from tickcast.alerts import ALERTS
from tickcast.errors import BadData
from tickcast.io.store import rolloff
from tickcast.io.store.store import Commit
from tickcast.records import Alert

DAY = 86_400 * SECOND
DAY0 = T0 // DAY * DAY  # 2023-11-14


@pytest.fixture
async def store(tmp_path):
    opened = open_store(store_settings(tmp_path, store__keep_days=2))
    yield opened
    await opened.close()


def moved_to(one: Commit, day: int) -> Commit:
    """The unit with all its times on another day."""
    shift = day * DAY
    for batch in (*one.forecasts, *one.scores, *one.bars):
        batch.as_of[:] += shift
    one.watermarks = {SOURCE: one.watermarks[SOURCE] + shift}
    return one


async def five_days(store) -> None:
    for day in range(5):
        await store.write(moved_to(unit(day * 100, 100, salt=day), day))


async def test_days_older_than_keep_days_move_to_parquet_and_newer_ones_stay(store, tmp_path):
    await five_days(store)
    done = await store.roll_off(T0 + 4 * DAY)
    assert (done.problem, len(done.files)) == ("", 10)  # two days each, one of accuracy and drift
    archive = tmp_path / "archive"
    assert sorted(p.name for p in (archive / "forecasts").iterdir()) == ["2023-11-14.parquet", "2023-11-15.parquet"]
    assert sum(pq.read_metadata(f).num_rows for f in done.files) == done.rows == 2 * 301 + 5 + 5
    assert await value(store, "SELECT count(*) FROM forecasts") == 300
    assert await value(store, f"SELECT min(as_of_ns) FROM bars WHERE as_of_ns < {DAY0 + 2 * DAY}") is None
    old = f"SELECT count(DISTINCT id) FROM read_parquet('{archive}/forecasts/*.parquet')"
    assert await value(store, old) == 200
    assert await value(store, "SELECT sum(row_count) FROM archive_files") == done.rows


def alert(subject: str, event: str, day: int) -> Alert:
    at_ns = DAY0 + day * DAY
    return Alert(
        name="disk_low", subject=subject, severity="warning", event=event, detail="d", meaning="m", remedy="r",
        runbook="b", first_ns=DAY0, last_ns=at_ns, ended_ns=at_ns if event == "ended" else None, at_ns=at_ns,
        raised_by="t/0",
    )  # fmt: skip


async def test_alerts_leave_by_the_clock_and_those_that_are_open_are_known_by_their_last_row(store, tmp_path):
    told = [(0, "a", "raised"), (0, "b", "raised"), (1, "b", "ended"), (1, "b", "raised"), (3, "a", "repeated")]
    await store.write(Commit(alerts=[alert(subject, event, day) for day, subject, event in told]))
    open_now = await store.ledger.open_alerts()
    assert [(found.subject, found.event) for found in open_now] == [("a", "repeated"), ("b", "raised")]
    assert open_now[0] == msgspec.structs.replace(
        alert("a", "repeated", 3), meaning=ALERTS["disk_low"].meaning, remedy=ALERTS["disk_low"].remedy,
        runbook="docs/alerts.md#disk_low",
    )  # fmt: skip
    done = await store.roll_off(T0 + 4 * DAY)
    assert (done.problem, done.rows) == ("", 4)
    assert sorted(file.name for file in (tmp_path / "archive" / "alerts").iterdir()) == [
        "2023-11-14.parquet", "2023-11-15.parquet",
    ]  # fmt: skip
    assert [found.subject for found in await store.ledger.open_alerts()] == ["a"]
    target = tmp_path / "alerts.parquet"
    assert await store.export("alerts", target, format="parquet", from_ns=None, to_ns=None, symbols=[]) == len(told)


async def test_nothing_is_due_twice(store):
    await five_days(store)
    await store.roll_off(T0 + 4 * DAY)
    assert await store.roll_off(T0 + 4 * DAY) == rolloff.RollOff()


async def test_archived_rows_equal_those_that_were_stored(store, tmp_path):
    await five_days(store)
    sql = f"SELECT * FROM {{}} WHERE as_of_ns < {DAY0 + DAY} ORDER BY as_of_ns"
    before = [await store.query(sql.format(name)) for name in ("forecasts", "scores", "bars")]
    await store.roll_off(T0 + 4 * DAY)
    files = (
        f"read_parquet('{tmp_path}/archive/{name}/2023-11-14.parquet')" for name in ("forecasts", "scores", "bars")
    )
    assert [await store.query(sql.format(file)) for file in files] == before


async def test_rows_that_come_late_for_a_day_that_has_left_make_a_second_file(store, tmp_path):
    await five_days(store)
    await store.roll_off(T0 + 4 * DAY)
    await store.write(Commit(bars=[bars(700, 8)], sources=[SOURCE]))
    done = await store.roll_off(T0 + 4 * DAY)
    assert done.files == (tmp_path / "archive" / "bars" / "2023-11-14.1.parquet",)
    assert (
        await value(store, f"SELECT count(*) FROM read_parquet('{tmp_path}/archive/bars/2023-11-14*.parquet')") == 108
    )


async def test_a_crash_between_file_and_deletion_leaves_every_row_once(store, tmp_path, monkeypatch):
    await five_days(store)
    with monkeypatch.context() as crash:
        crash.setattr(rolloff, "delete", lambda *_: (_ for _ in ()).throw(duckdb.IOException("cut off here")))
        assert "cut off here" in (await store.roll_off(T0 + 4 * DAY)).problem
    assert await value(store, "SELECT count(*) FROM bars") == 500
    assert (tmp_path / "archive" / "bars" / "2023-11-14.parquet").exists()
    await store.roll_off(T0 + 4 * DAY)
    archived = await value(store, f"SELECT count(*) FROM read_parquet('{tmp_path}/archive/bars/*.parquet')")
    assert (archived, await value(store, "SELECT count(*) FROM bars")) == (200, 300)


async def test_rows_that_came_while_a_file_was_written_are_not_deleted(store, monkeypatch):
    await five_days(store)
    real = rolloff.export

    def with_latecomer(cursor, archive, what):  # type: ignore[no-untyped-def]
        moved = real(cursor, archive, what)
        if what.table == "bars" and what.first_ns == DAY0:
            late.append(store._writer.write(Commit(bars=[bars(900, 1)]), store._names))
        return moved

    late: list[None] = []
    monkeypatch.setattr(rolloff, "export", with_latecomer)
    done = await store.roll_off(T0 + 4 * DAY)
    assert late
    assert "2023-11-14.parquet" not in {file.name for file in done.files if file.parent.name == "bars"}
    assert await value(store, f"SELECT count(*) FROM bars WHERE as_of_ns < {DAY0 + DAY}") == 101
    monkeypatch.undo()
    await store.roll_off(T0 + 4 * DAY)
    assert await value(store, f"SELECT count(*) FROM bars WHERE as_of_ns < {DAY0 + DAY}") == 0


async def test_a_file_that_reads_back_otherwise_stops_the_roll_off_and_keeps_the_rows(store, monkeypatch):
    await five_days(store)
    monkeypatch.setattr(rolloff, "_content", lambda cursor, rows_of: (100, 1 if "read_parquet" in rows_of else 2))
    done = await store.roll_off(T0 + 4 * DAY)
    assert "does not hold what was written" in done.problem
    assert await value(store, "SELECT count(*) FROM bars") == 500


def span_of(store, *given, **options):
    found = bars_between(store, *given, **options).to_pydict()
    return list(zip(found["symbol"], found["as_of_ns"], found["close"], strict=True))


async def test_bars_for_training_come_from_table_and_archive_each_once_without_a_gap(store, tmp_path):
    await five_days(store)
    before = span_of(store, 0, T0 + 9 * DAY)
    assert len(before) == 500
    await store.roll_off(T0 + 4 * DAY)
    assert await value(store, "SELECT count(*) FROM bars") == 300
    assert span_of(store, 0, T0 + 9 * DAY) == before
    await store.write(Commit(bars=[bars(0, 8), bars(700, 8)], sources=[SOURCE]))  # read again, and late
    late = [("SYM0", T0 + (700 + n) * SECOND) for n in (0, 4)]
    assert [bar[:2] for bar in span_of(store, 0, T0 + 9 * DAY) if bar not in before and bar[0] == "SYM0"] == late
    both = span_of(store, 0, T0 + 9 * DAY)
    assert len(both) == len(set(both)) == 508
    await store.roll_off(T0 + 4 * DAY)  # a second file for that day
    assert span_of(store, 0, T0 + 9 * DAY) == both
    seam = [bar for bar in before if DAY0 + DAY <= bar[1] < T0 + 2 * DAY + 250 * SECOND and bar[0] in ("SYM1", "SYM2")]
    assert span_of(store, DAY0 + DAY, T0 + 2 * DAY + 250 * SECOND, ["SYM2", "SYM1"]) == seam
    assert len(seam) == 75
    assert store.save_bars(tmp_path / "job.parquet", 0, T0 + 9 * DAY) == store.count_bars(0, T0 + 9 * DAY) == 508
    assert store.save_bars(tmp_path / "none.parquet", T0 + 8 * DAY, T0 + 9 * DAY) == 0


@pytest.mark.parametrize("table", ["bars", "forecasts", "scores", "accuracy"])
async def test_an_export_holds_the_days_that_left_for_the_archive_and_each_row_once(store, tmp_path, table):
    await five_days(store)
    spans = {"all": (None, None), "early": (DAY0 + DAY, DAY0 + 3 * DAY)}
    before = {name: await exported(store, tmp_path, table, *span) for name, span in spans.items()}
    assert (await store.roll_off(T0 + 4 * DAY)).rows
    if table == "bars":
        await store.write(Commit(bars=[bars(0, 8)], sources=[SOURCE]))  # read again, so they are in both
    for name, span in spans.items():
        assert await exported(store, tmp_path, table, *span) == before[name]
    assert len(before["all"])


async def exported(store, tmp_path, table, from_ns, to_ns):
    target = tmp_path / "exported.parquet"
    rows = await store.export(table, target, format="parquet", from_ns=from_ns, to_ns=to_ns, symbols=[])
    found = pq.read_table(target)
    assert rows == len(found)
    return found.sort_by(
        [(name, "ascending") for name in ("as_of_ns", "horizon", "span") if name in found.schema.names]
    )


async def test_a_file_that_is_gone_from_the_archive_is_named_and_a_crash_leaves_none_that_counts(
    store, tmp_path, monkeypatch
):
    await five_days(store)
    before = span_of(store, 0, T0 + 9 * DAY)
    with monkeypatch.context() as crash:
        crash.setattr(rolloff, "delete", lambda *_: (_ for _ in ()).throw(duckdb.IOException("cut off here")))
        await store.roll_off(T0 + 4 * DAY)
    assert span_of(store, 0, T0 + 9 * DAY) == before  # the file is there, its rows are still in the table
    await store.roll_off(T0 + 4 * DAY)
    (tmp_path / "archive" / "bars" / "2023-11-15.parquet").unlink()
    with pytest.raises(BadData, match=r"2023-11-15\.parquet"):
        bars_between(store, 0, T0 + 9 * DAY)
    assert len(bars_between(store, T0 + 2 * DAY, T0 + 9 * DAY)) == 300
    assert await value(store, "SELECT count(*) FROM bars") == 300  # and the store goes on


async def test_an_archive_that_cannot_be_written_is_a_problem_and_no_crash(tmp_path):
    (tmp_path / "archive").write_text("in the way")
    store = open_store(store_settings(tmp_path, store__keep_days=2))
    await five_days(store)
    done = await store.roll_off(T0 + 4 * DAY)
    assert done.rows == 0
    assert done.problem
    assert await value(store, "SELECT count(*) FROM bars") == 500
    await store.close()


async def test_a_very_large_day_leaves_hour_by_hour(store, tmp_path, monkeypatch):
    monkeypatch.setattr(rolloff, "HOURS_ABOVE_ROWS", 100)
    hours = forecasts(0, 120)
    hours.as_of[:] = DAY0 + SECOND * 60 * hours.offset  # two hours
    await store.write(Commit(forecasts=[hours], sources=[SOURCE]))
    done = await store.roll_off(T0 + 4 * DAY)
    assert [file.name for file in done.files] == ["2023-11-14T00.parquet", "2023-11-14T01.parquet"]
    assert await value(store, "SELECT count(*) FROM forecasts") == 0


async def test_the_archive_may_stand_elsewhere_and_its_name_may_hold_a_quote(tmp_path):
    place = tmp_path / "it's old"
    store = open_store(store_settings(tmp_path, store__keep_days=2, store__archive=place))
    await five_days(store)
    assert not (await store.roll_off(T0 + 4 * DAY)).problem
    assert len(list((place / "bars").iterdir())) == 2
    await store.close()
