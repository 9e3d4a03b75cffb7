"""What a model was served, rebuilt from stored bars by the code that trains: the same to the bit."""

from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from modelkit import Fitted, model_settings
from tickcast.batch.replay import ReplayOrder, in_folder, replay
from tickcast.batch.train.dataset import Dataset, load_dataset
from tickcast.engine.core.windows import input_hash
from tickcast.io.jobs.folder import BARS
from tickcast.io.jobs.prepare import fit_order
from tickcast.settings import Settings

LEAST = 1000
FORECASTS = "SELECT symbol, as_of_ns, tie, rung, lower(hex(input_hash)) AS input_hash FROM forecasts"


def stored(settings: Settings) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Bars and forecasts as the store holds them."""
    with duckdb.connect(str(settings.store.path), read_only=True) as store:
        bars, forecasts = (pl.from_arrow(store.sql(sql).to_arrow_table()) for sql in ("SELECT * FROM bars", FORECASTS))
    bars = bars.with_columns(pl.col("mask", "gap").cast(pl.UInt8))
    return bars, forecasts.with_columns(pl.col("input_hash").str.zfill(16))


def as_files(out: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Bars and forecasts as the replay left them beside its report."""
    return pl.read_parquet(out / "bars.parquet"), pl.read_parquet(out / "forecasts.parquet")


def rebuilt(settings: Settings, kind: str, bars: pl.DataFrame, folder: Path) -> Dataset:
    folder.mkdir()
    bars.sort("symbol", "ordinal").write_parquet(folder / BARS)
    order = fit_order(settings, kind="nhits", name=kind, params={})
    order.write(folder)
    return load_dataset(folder, order)


def rows_of(dataset: Dataset, bars: pl.DataFrame, forecasts: pl.DataFrame) -> tuple[np.ndarray, pl.DataFrame]:
    """The dataset's row of each forecast whose target bars have all closed without a hole in time."""
    placed = bars.sort("symbol", "ordinal").with_row_index("row").select("symbol", "as_of_ns", "tie", "row")
    found = forecasts.join(placed, on=["symbol", "as_of_ns", "tie"], how="left", maintain_order="left")
    assert found["row"].null_count() == 0
    row, history = found["row"].to_numpy().astype(np.int64), dataset.history
    last = row + dataset.horizon
    closed = last < history.ends[history.symbol[row]]
    row, last, found = row[closed], last[closed], found.filter(pl.Series(closed))
    unbroken = np.array([not history.gap[a + 1 : b + 1].any() for a, b in zip(row, last, strict=True)])
    return row[unbroken], found.filter(pl.Series(unbroken))


@pytest.mark.parametrize("source", ["store", "files"])
@pytest.mark.parametrize("kind", ["time", "tick"])
async def test_rebuilt_inputs_equal_the_served_ones_bit_by_bit(
    fitted: Fitted, tmp_path: Path, kind: str, source: str
) -> None:
    settings = in_folder(model_settings(kind, tmp_path, model__default=fitted.models[kind]), tmp_path)
    await replay(settings, ReplayOrder(fitted.tape, tmp_path / "out", chunk=997))
    bars, forecasts = stored(settings) if source == "store" else as_files(tmp_path / "out")
    dataset = rebuilt(settings, kind, bars, tmp_path / "job")
    row, served = rows_of(dataset, bars, forecasts)
    inputs = dataset.batch(row).inputs
    assert [f"{h:016x}" for h in input_hash(inputs)] == served["input_hash"].to_list()
    model = (served["rung"] == "model").to_numpy() if source == "files" else served["rung"].to_numpy() != 0
    assert model.sum() >= LEAST
    if kind == "time":  # carried bars lie in some windows, and some begin after a gap too long to fill
        assert (inputs.mask[model] == 0).any(axis=1).sum() > 100
        assert dataset.history.gap.any()


async def test_another_bar_gives_another_hash(fitted: Fitted, tmp_path: Path) -> None:
    settings = in_folder(model_settings("time", tmp_path), tmp_path)
    await replay(settings, ReplayOrder(fitted.tape, tmp_path / "out"))
    bars, forecasts = as_files(tmp_path / "out")
    spoilt = bars.with_columns(close=pl.when(pl.col("ordinal") == 60).then(pl.col("close") * 1.001).otherwise("close"))
    dataset = rebuilt(settings, "time", spoilt, tmp_path / "job")
    row, served = rows_of(dataset, spoilt, forecasts)
    hashes = np.array([f"{h:016x}" for h in input_hash(dataset.batch(row).inputs)])
    apart = hashes != served["input_hash"].to_numpy()
    reach = np.abs(dataset.history.ordinal[row] - 60)
    assert apart[dataset.history.ordinal[row] == 60].all()
    assert not apart[dataset.history.ordinal[row] < 60].any()
    assert not apart[reach > 100].any()
