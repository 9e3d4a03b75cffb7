"""Bar files on which coverage is measured, real ones and walks whose law is known. It measures nothing."""

from pathlib import Path

import numpy as np
import polars as pl

from accuracy_data import CRYPTO_FILE, DATA, HOUR_NS
from tickcast.columns import F64

MINUTE_NS = 60 * 10**9
PRICES = ("open", "high", "low", "close")
T0 = 1_700_000_000 * 10**9 // HOUR_NS * HOUR_NS
GARCH = (0.05, 0.08, 0.87)  # of the variance, which is 1 in the mean: constant, weight of the last move, of itself
ONE_MOVE = 1e-3


def crypto() -> pl.DataFrame:
    frame = pl.read_parquet(CRYPTO_FILE)
    return frame.select("symbol", _ns(pl.col("timestamp").dt.replace_time_zone(None)), *PRICES)


def fx() -> pl.DataFrame:
    frame = pl.read_parquet(DATA / "bars" / "fx_ejtrader_h1_to_202108.parquet")
    return frame.select("symbol", _ns(pl.col("Date")), *PRICES).filter(pl.col("low") > 0)


def btc() -> pl.DataFrame:
    frame = pl.read_parquet(DATA / "bars" / "btc_perp_1m_202201.parquet")
    return frame.select(pl.lit("BTC").alias("symbol"), _ns(pl.col("timestamp").str.to_datetime()), *PRICES)


def eurusd() -> pl.DataFrame:
    """Mid prices of quotes, by the minute."""
    quotes = pl.read_parquet(DATA / "ticks" / "fxcm_eurusd_quotes_20140501_20140513.parquet")
    mid, at = (pl.col("bid") + pl.col("ask")) / 2, pl.col("ts_utc").dt.replace_time_zone(None).dt.truncate("1m")
    first_to_last = (
        mid.first().alias("open"),
        mid.max().alias("high"),
        mid.min().alias("low"),
        mid.last().alias("close"),
    )
    bars = quotes.group_by(_ns(at), maintain_order=True).agg(*first_to_last)
    return bars.select(pl.lit("EURUSD").alias("symbol"), "ts", *PRICES)


def garch(symbols: int = 10, bars: int = 30_000, seed: int = 7) -> pl.DataFrame:
    rng, variance, moves = np.random.default_rng(seed), np.ones(symbols), np.empty((bars, symbols))
    constant, of_move, of_itself = GARCH
    for t in range(bars):
        moves[t] = np.sqrt(variance) * rng.standard_normal(symbols)
        variance = constant + of_move * moves[t] ** 2 + of_itself * variance
    return _walk(moves)


def doubling(symbols: int, bars: int, at: int, seed: int) -> pl.DataFrame:
    """Moves are twice as wide from bar `at` on."""
    moves = np.random.default_rng(seed).standard_normal((bars, symbols))
    moves[at:] *= 2
    return _walk(moves)


def _walk(moves: F64) -> pl.DataFrame:
    bars, symbols = moves.shape
    price = 100 * np.exp(ONE_MOVE * np.cumsum(moves, axis=0)).ravel()
    return pl.DataFrame({
        "symbol": np.tile([f"W{s:03d}" for s in range(symbols)], bars),
        "ts": T0 + np.repeat(np.arange(bars), symbols) * HOUR_NS, **dict.fromkeys(PRICES, price),
    })  # fmt: skip


def _ns(at: pl.Expr) -> pl.Expr:
    return at.dt.cast_time_unit("ns").to_physical().alias("ts")


CASES = {  # name -> its bars and the length of one
    "crypto by the hour": (crypto, HOUR_NS), "EURUSD by the minute": (eurusd, MINUTE_NS),
    "BTC by the minute": (btc, MINUTE_NS), "FX by the hour": (fx, HOUR_NS), "GARCH walk": (garch, HOUR_NS),
}  # fmt: skip


def written(frame: pl.DataFrame, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.sort("ts", "symbol").write_parquet(path)
    return path
