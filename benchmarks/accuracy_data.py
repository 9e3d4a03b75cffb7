"""The public series on which accuracy is measured, as bars of a job folder; and what last value is worth on them,
counted apart from the code under test. It fits nothing.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from tickcast.columns import F64
from tickcast.io.jobs.folder import BARS

DATA = Path(__file__).parents[1].parent / "shared" / "data"
CRYPTO_FILE = DATA / "bars" / "crypto_binance_1h_27sym_2023_202509.parquet"
HOUR_NS = 3600 * 10**9
CRYPTO_HOURS, CRYPTO_TESTED, FOLDS = 19_200, 1_920, 3  # of a fold; its last tenth is its hold-out


class Table(NamedTuple):
    """A set of the literature: series of equal length, and where its windows' targets lie."""

    file: str
    step_ns: int
    train: int  # bars of a series
    test_from: int
    test_to: int


TABLES = {
    "ettm2": Table("ETTm2.csv.gz", HOUR_NS // 4, 34_560, 46_080, 57_600),
    "exchange": Table("exchange_rate_ltsf.csv.gz", 24 * HOUR_NS, 5_311, 6_071, 7_588),
}


def write_bars(folder: Path, data: str, fold: int) -> None:
    frame = _table_bars(TABLES[data]) if data in TABLES else _crypto_bars(fold)
    frame.write_parquet(folder / BARS)


@cache
def repeat_last(data: str, horizon: int) -> tuple[float, float]:
    """MSE and MAE of the last value over every test window, in deviations of the training part."""
    table = TABLES[data]
    squared, absolute = [], []
    for values in _series(table).values():
        values = (values - values[: table.train].mean()) / values[: table.train].std()
        targets = np.lib.stride_tricks.sliding_window_view(values[table.test_from : table.test_to], horizon)
        error = targets - values[table.test_from - 1 : table.test_to - horizon, None]
        squared.append((error**2).mean())
        absolute.append(np.abs(error).mean())
    return float(np.mean(squared)), float(np.mean(absolute))


def _series(table: Table) -> dict[str, F64]:
    frame = pl.read_csv(DATA / "academic" / table.file).drop("date")
    return {name: frame[name].cast(pl.Float64).to_numpy() for name in frame.columns}


def _table_bars(table: Table) -> pl.DataFrame:
    """Bars whose open, high, low and close are one; the files' own times are even steps, or invented."""
    series = _series(table)
    return pl.concat(
        _bars(name, (np.arange(len(close)) + 1) * table.step_ns, dict.fromkeys(("open", "high", "low", "close"), close))
        for name, close in sorted(series.items())
    )


def _crypto_bars(fold: int) -> pl.DataFrame:
    """Fold 1 to FOLDS: as many hours each, one hold-out later than the one before; the last ends with the file."""
    frame = crypto_frame()
    end = int(frame["as_of_ns"].max()) - (FOLDS - fold) * CRYPTO_TESTED * HOUR_NS
    inside = (pl.col("as_of_ns") > end - CRYPTO_HOURS * HOUR_NS) & (pl.col("as_of_ns") <= end)
    return crypto_bars(frame.filter(inside))


def crypto_frame() -> pl.DataFrame:
    """The whole file, with the ends of its bars."""
    frame = pl.read_parquet(CRYPTO_FILE)
    opened = frame["timestamp"].dt.replace_time_zone(None).dt.cast_time_unit("ns").to_physical()
    return frame.with_columns((opened + HOUR_NS).alias("as_of_ns"))


def crypto_bars(frame: pl.DataFrame) -> pl.DataFrame:
    """As bars of a job folder."""
    parts = frame.sort("symbol", "as_of_ns").partition_by("symbol", maintain_order=True)
    return pl.concat(
        _bars(
            part["symbol"][0], part["as_of_ns"].to_numpy(),
            {name: part[name].cast(pl.Float64).to_numpy() for name in ("open", "high", "low", "close")},
            volume=part["volume"].cast(pl.Float64).to_numpy(), step_ns=HOUR_NS,
        )
        for part in parts
    )  # fmt: skip


def _bars(
    symbol: str, as_of: "np.ndarray", prices: dict[str, F64], *, volume: F64 | None = None, step_ns: int = 0
) -> pl.DataFrame:
    """With `step_ns`, a bar that comes later than that after the one before stands behind a gap."""
    n = len(as_of)
    gap = np.diff(as_of, prepend=as_of[0]) > step_ns if step_ns else np.zeros(n)
    return pl.DataFrame(
        {
            "symbol": [symbol] * n, "as_of_ns": as_of.astype(np.int64), "tie": np.zeros(n, np.int32), **prices,
            "volume": np.zeros(n) if volume is None else volume, "mask": np.ones(n, np.uint8),
            "gap": gap.astype(np.uint8),
        }
    )  # fmt: skip
