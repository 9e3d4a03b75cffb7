"""What a replay left behind -> the series that trading reads: real bars, first prices, and the forecasts at them."""

from pathlib import Path

import numpy as np
import polars as pl

from tickcast.batch.backtest.quotes import Quotes, read_quotes, spread_at
from tickcast.batch.backtest.trading import Series
from tickcast.errors import BadData
from tickcast.settings import Settings

LEAST_BARS = 2


def read_series(folder: Path, data: Path, settings: Settings, *, horizon: int, models: list[str]) -> dict[str, Series]:
    """By symbol, where one of the models gave a forecast. `folder` holds the replay's tables, `data` its ticks."""
    if not (folder / "forecasts.parquet").exists():
        return {}
    bars = pl.read_parquet(folder / "bars.parquet").filter(pl.col("mask") == 1).sort("symbol", "ordinal")
    if bars.height and bars.select(pl.min_horizontal("open", "close").min()).item() <= 0:
        raise BadData("a share of a price that is not positive cannot be traded", remedy="evaluate the model instead")
    keys = ["symbol", "as_of_ns", "tie"]
    said = pl.scan_parquet(folder / "forecasts.parquet").filter(pl.col("model").is_in(models))
    move = pl.col("point").list.get(horizon - 1) / pl.col("anchor") - 1
    forecasts = said.select(*keys, move.alias("move"), "in_sample").collect()
    wanted = bars.filter(pl.col("symbol").is_in(forecasts["symbol"].unique().implode()))
    joined = wanted.join(forecasts, on=keys, how="left", maintain_order="left")
    spreads = read_quotes(settings, data)
    return {
        str(symbol): _series(frame, str(symbol), settings, spreads)
        for (symbol,), frame in joined.group_by("symbol", maintain_order=True)
        if frame.height >= LEAST_BARS
    }


def _series(frame: pl.DataFrame, symbol: str, settings: Settings, spreads: Quotes) -> Series:
    as_of, timed = frame["as_of_ns"].to_numpy(), settings.bars.kind == "time"
    begin = as_of - settings.bars.every_ms * 10**6 if timed else np.concatenate([as_of[:1], as_of[:-1]])
    return Series(
        begin=begin, as_of=as_of, open=frame["open"].to_numpy(), close=frame["close"].to_numpy(),
        half_spread=spread_at(spreads, symbol, begin, after=not timed),
        move=frame["move"].fill_null(float("nan")).to_numpy(), in_sample=frame["in_sample"].fill_null(False).to_numpy(),
    )  # fmt: skip
