"""A small NHITS for tests of the whole path: its settings, and the market it is fitted on and asked about."""

from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from tickcast.batch.by_hand.fit import fit
from tickcast.batch.synth import Market
from tickcast.io.jobs.prepare import fit_order
from tickcast.io.tape.tape import write_ticks
from tickcast.settings import Settings, load
from trainkit import without_children

SECOND = 10**9
SYMBOLS, RATE_HZ = 6, 25.0
HISTORY_S = 500  # what the model is fitted on; it is asked about the seconds after that
QUICK = {"epochs": 6, "windows_per_epoch": 1024, "batch_size": 64, "hidden": 8, "learning_rate": 0.005}
FEATURES = """[
    {kind = "log_return", period = 3}, {kind = "rolling_std", window = 6},
    {kind = "rsi", period = 2, normalization = "zscore"}, {kind = "volume_ratio", window = 5, normalization = "log"},
]""".replace("\n", " ")
COMMON = {"window.lookback": "16", "forecast.horizon": "4", "uncertainty.memory_bars": "60", "symbols.limit": "64"}
BARS = {
    "time": {"bars.every_ms": "1000", "features.set": FEATURES, "features.future": '["time_of_day"]'},
    "tick": {"bars.kind": "tick", "bars.every_ticks": "3", "score.adapt_every_bars": "32"},
}


class Fitted(NamedTuple):
    """`history` is what the models were fitted on, `ticks` what came after it."""

    models: dict[str, Path]
    history: pl.DataFrame
    ticks: pl.DataFrame
    tape: Path  # of `ticks`


def model_settings(kind: str, folder: Path, **overrides: object) -> Settings:
    """Settings of a deployment that leaves everything in `folder`; `section__key=value` overrides."""
    paths = {"store.path": folder / "store.duckdb", "runtime.folder": folder / "run"}
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    merged = {**COMMON, **BARS[kind], **paths, **dotted}
    return load(overrides={key: str(value) for key, value in merged.items()}, environ={})[0]


def market() -> tuple[pl.DataFrame, pl.DataFrame]:
    """(what the models are fitted on, the 300 s after it), the second with two symbols that fall silent for a while."""
    source = Market(seed=11, symbols=SYMBOLS, tick_rate_hz=RATE_HZ)
    history = source.ticks(source.start_ns + HISTORY_S * SECOND)
    later = source.ticks(source.start_ns + (HISTORY_S + 300) * SECOND)
    second = (later["ts"] - later["ts"].min()) // SECOND
    names = source.symbols
    silent = (pl.col("symbol") == names[1]) & second.is_between(100, 108)
    silent |= (pl.col("symbol") == names[2]) & second.is_between(150, 190)  # longer than a gap's fill
    return history, later.filter(~silent)


def fit_small(kind: str, folder: Path, history: pl.DataFrame, **params: Any) -> Path:
    """Fit on the history, in `folder`; returns the model's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    data, out = folder / "history.parquet", folder / "model"
    write_ticks(data, history)
    settings = model_settings(kind, folder)
    order = fit_order(settings, kind="nhits", name=f"small-{kind}", params=QUICK | params)
    with without_children():
        fit(settings, data, out, order=order)
    return out
