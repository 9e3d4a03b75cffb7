"""How well a fit forecasts: NHITS on ETTm2 by the literature's protocol, beside repeating the last value.

    python benchmarks/run.py accuracy

15-minute bars of 7 series, horizon 96, context 480, cut as in the papers (12, 4 and 4 months of 30 days), each series
standardised by its training part; one model with shared weights, every test window (stride 1), point = median. It is
an ordinary job folder in an ordinary training process; only the split is the literature's.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from stats import Figure
from tickcast.columns import F64
from tickcast_trainer.order import BARS, FitOrder, write_order
from tickcast_trainer.worker import RESULT, Result

DATA = Path(__file__).parents[1].parent / "shared" / "data" / "academic" / "ETTm2.csv.gz"
LOOKBACK, HORIZON = 480, 96
TRAIN, TEST_FROM, TEST_TO = 34_560, 46_080, 57_600
ORDER = FitOrder(
    transform="level", lookback=LOOKBACK, horizon=HORIZON, split="paper", loss="quantile", batch_size=512, epochs=10,
    windows_per_epoch=40_000, learning_rate=1e-3, model_params={"hidden": 256}, time_budget_s=600, threads=2, seed=1,
)  # fmt: skip
BAR_MSE = 0.20
TIMEOUT_S = 1200


def main() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        write_bars(Path(folder))
        write_order(Path(folder), ORDER)
        result = fit(Path(folder))
    metrics = result.metrics
    mse, mae = repeat_last()
    if abs(mse - metrics["mse_naive"]) > 1e-6 or abs(mae - metrics["mae_naive"]) > 1e-6:
        raise AssertionError(f"the fit's test windows are not the literature's: repeat-last {mse} is not {metrics}")
    fitted = metrics["fit"]
    how = f"{fitted['epochs']} epochs, {fitted['windows']:,} windows, {ORDER.threads} threads, seed {ORDER.seed}"
    return [
        Figure("ETTm2 96, nhits: MSE", metrics["mse"], "standardised", bar=BAR_MSE, note="NHITS paper: 0.176"),
        Figure("ETTm2 96, repeat-last: MSE", mse, "standardised"),
        Figure("ETTm2 96, nhits: MAE", metrics["mae"], "standardised"),
        Figure("ETTm2 96, repeat-last: MAE", mae, "standardised"),
        Figure("ETTm2 96, nhits: pinball against last value", metrics["skill"], "skill", better="higher"),
        Figure("ETTm2 96, nhits: coverage of 90 %", metrics["coverage"]["0.9"], "share", note="not conformalised"),
        Figure("ETTm2 96, nhits: training", fitted["seconds"], "s", bar=600, note=how),
    ]


def write_bars(folder: Path) -> None:
    """A wide table of values as bars whose open, high, low and close are one."""
    wide = read()
    as_of = wide["date"].to_physical().to_numpy()
    n = len(wide)
    frames = [
        pl.DataFrame(
            {
                "symbol": [name] * n, "as_of_ns": as_of, "tie": np.zeros(n, np.int32),
                **dict.fromkeys(("open", "high", "low", "close"), wide[name]), "volume": np.zeros(n),
                "mask": np.ones(n, np.uint8), "gap": np.zeros(n, np.uint8),
            }
        )
        for name in sorted(names(wide))
    ]  # fmt: skip
    pl.concat(frames).write_parquet(folder / BARS)


def fit(folder: Path) -> Result:
    command = [sys.executable, "-m", "tickcast_trainer.worker", str(folder)]
    subprocess.run(command, check=False, timeout=TIMEOUT_S)
    result = msgspec.json.decode((folder / RESULT).read_bytes(), type=Result)
    if not result.ok:
        raise RuntimeError(f"the fit failed ({result.error_code}): {result.error}")
    return result


def repeat_last() -> tuple[float, float]:
    """MSE and MAE of the last value over every test window, counted apart from the code under test."""
    wide = read()
    squared, absolute = [], []
    for name in names(wide):
        values: F64 = wide[name].to_numpy()
        values = (values - values[:TRAIN].mean()) / values[:TRAIN].std()
        targets = np.lib.stride_tricks.sliding_window_view(values[TEST_FROM:TEST_TO], HORIZON)
        error = targets - values[TEST_FROM - 1 : TEST_TO - HORIZON, None]
        squared.append((error**2).mean())
        absolute.append(np.abs(error).mean())
    return float(np.mean(squared)), float(np.mean(absolute))


def read() -> pl.DataFrame:
    frame = pl.read_csv(DATA, schema_overrides={"date": pl.String})
    return frame.with_columns(pl.col("date").str.to_datetime(time_unit="ns"))


def names(wide: pl.DataFrame) -> list[str]:
    return [name for name in wide.columns if name != "date"]


if __name__ == "__main__":
    for figure in main():
        print(f"{figure.name:<48} {figure.value:10.4f} {figure.unit}  {figure.note}")
