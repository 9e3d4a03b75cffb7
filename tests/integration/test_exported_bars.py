"""Bars that were exported are data: read under the same settings they are the same bars, none known too early."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from modelkit import market, model_settings
from tickcast.batch.bar_history import read_closed
from tickcast.io.store.export import may_be_data
from tickcast.io.store.store import Commit, Store
from tickcast.io.tape.tape import write_ticks
from tickcast.loop.closed_bars import closed_bars
from tickcast.settings import Settings
from tickcast.symbols import SymbolTable

COLUMNS = ["symbol", "as_of_ns", "open", "high", "low", "close", "volume", "mask"]


@pytest.fixture(scope="module")
def ticks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With two symbols that fall silent for a while: some of their bars are carried."""
    path = tmp_path_factory.mktemp("ticks") / "ticks.parquet"
    write_ticks(path, market()[1])
    return path


def settings_of(folder: Path, **overrides: Any) -> Settings:
    return model_settings("time", folder, features__set="[]", features__future="[]", **overrides)


async def exported(settings: Settings, ticks: Path, target: Path, **given: Any) -> pl.DataFrame:
    """Stored, exported, and closed again from the file."""
    store = Store.open(settings, symbols=SymbolTable(64), cards=[], at_ns=0)
    try:
        for serving, outcome in closed_bars(settings.model_copy(update={"codec": type(settings.codec)()}), ticks):
            await store.write(Commit(bars=outcome.bars, sources=[("tape", 0)]), symbols=serving.symbols)
        span = {"from_ns": None, "to_ns": None, "symbols": []} | given
        await store.export("bars", target, format=target.suffix[1:], **span)
    finally:
        await store.close()
    return pl.DataFrame(read_closed(settings, target).table)


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@pytest.mark.parametrize(
    "named", [{}, {"codec__fields__ts": "T", "codec__fields__close": "last", "codec__time_unit": "ms"}]
)
async def test_exported_bars_read_as_data_are_the_stored_ones(
    tmp_path: Path, ticks: Path, ending: str, named: dict[str, Any]
) -> None:
    settings = settings_of(tmp_path, **named)
    again = await exported(settings, ticks, tmp_path / f"bars.{ending}")
    stored = pl.DataFrame(read_closed(settings_of(tmp_path), ticks).table)
    until = again["as_of_ns"].max()  # of its last moments the file does not know who fell silent
    stored, again = (
        frame.filter(pl.col("as_of_ns") < until).select(COLUMNS).sort("as_of_ns", "symbol") for frame in (stored, again)
    )
    assert not stored["mask"].cast(bool).all()
    assert again.equals(stored)


async def test_nobody_who_reads_the_file_in_time_knows_a_bar_before_it_has_ended(tmp_path: Path, ticks: Path) -> None:
    settings, target = settings_of(tmp_path), tmp_path / "bars.parquet"
    await exported(settings, ticks, target)
    frame = pl.read_parquet(target)
    assert frame["ts"].dtype == pl.Datetime("ns")
    assert (frame["as_of_ns"] - frame["ts"].to_physical() == settings.bars.every_ms * 10**6).all()


@pytest.mark.parametrize(
    "overrides",
    [{"codec__fields__price": "close"}, {"codec__layout": "wide"}, {"bars__adjustments": "splits.csv"}],
    ids=["close is a price of ticks", "wide files", "splits would be applied twice"],
)
def test_where_it_would_be_read_as_something_else_there_is_no_time_to_read_it_by(
    tmp_path: Path, overrides: dict[str, Any]
) -> None:
    assert may_be_data(settings_of(tmp_path))
    assert not may_be_data(settings_of(tmp_path, **overrides))
