"""An export is written batch by batch, and ends where it grows too large or takes too long; no part of it is left."""

from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from storekit import open_store, store_settings, unit
from tickcast.errors import CommandRefused
from tickcast.io.store import export as exports
from tickcast.io.store.store import Store


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    opened = open_store(store_settings(tmp_path, control__timeout_s=1))
    await opened.write(unit(0, 100))
    yield opened
    await opened.close()


async def exported(store: Store, target: Path, table: str = "bars", format: Any = "parquet") -> int:
    return await store.export(table, target, format=format, from_ns=None, to_ns=None, symbols=[])


async def test_it_is_written_in_batches_that_do_not_grow_with_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole.parquet", tmp_path / "parts.parquet"
    rows = await exported(store, whole)
    monkeypatch.setattr(exports, "BATCH_ROWS", 7)
    assert await exported(store, parts) == rows > 21
    assert pq.ParquetFile(parts).num_row_groups == -(-rows // 7)
    assert pq.read_table(parts) == pq.read_table(whole)
    assert await exported(store, tmp_path / "rows.csv", format="csv") == rows
    assert pyarrow.csv.read_csv(tmp_path / "rows.csv").num_rows == rows


@pytest.mark.parametrize("bound", ["MOST_ROWS", "MOST_BYTES"])
async def test_more_than_a_file_may_hold_is_refused_and_no_part_of_it_is_left(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(exports, bound, 10)
    with pytest.raises(CommandRefused, match="more than") as caught:
        await exported(store, tmp_path / "out.parquet")
    assert caught.value.code == "answer_too_large"
    assert not [*tmp_path.glob("*out*")]


async def test_one_that_takes_too_long_is_broken_off(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = "SELECT count(*) FROM range(1000000) a, range(1000000) b"
    monkeypatch.setitem(exports.TABLES, "bars", exports.TABLES["bars"]._replace(time=f"({endless})"))
    with pytest.raises(CommandRefused, match="longer than 1 s") as caught:
        await exported(store, tmp_path / "out.parquet")
    assert caught.value.code == "timed_out"
    assert not [*tmp_path.glob("*out*")]
    monkeypatch.undo()
    assert await exported(store, tmp_path / "out.parquet") > 0
