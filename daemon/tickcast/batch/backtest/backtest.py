"""A walk-forward replay, then what its forecasts would have earned.

The replay is the engine that serves; retraining happens inside it. Trading is a function of forecasts and prices, so
it cannot disturb either.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from pydantic import ValidationError

from tickcast.batch.backtest import trading
from tickcast.batch.backtest.figures import YEAR_NS, BacktestResult, Luck, judge, moments_per_year
from tickcast.batch.backtest.retraining import Walking
from tickcast.batch.backtest.series import read_series
from tickcast.batch.backtest.trading import Series, Terms
from tickcast.batch.judge import report_figures
from tickcast.batch.judge.report_certainty import skills
from tickcast.batch.replay import ReplayOrder, in_folder, replay, storing_nothing
from tickcast.batch.train.history import PRICES
from tickcast.engine.core.schedule import trading_time
from tickcast.errors import BadData, BadModel, BadRequest, BadSettings
from tickcast.io.jobs.folder import MODEL
from tickcast.io.jobs.orders import BacktestOrder
from tickcast.loop.build import RUNGS, Serving
from tickcast.plugin import Report
from tickcast.progress import Shown, unshown
from tickcast.remedies import say_refused
from tickcast.settings import Settings
from tickcast.settings.stream import CodecSettings

FITS = "fits"  # folder of the fits within the results
EQUITY = "equity.parquet"
FILES = ("backtest.json", EQUITY, "trades.parquet")
RETRAINING_CHUNK = 1000  # rows of a turn: a fit happens between two of them
MS = 10**6


def job_settings(order: BacktestOrder, folder: Path) -> Settings:
    """The deployment's, with all that it leaves in this folder. Stored bars have their splits behind them."""
    try:
        settings = Settings(**order.settings)
    except ValidationError as error:
        raise BadSettings(f"the order's settings are malformed: {error}") from None
    if settings.bars.kind != "time":
        raise BadRequest(
            f"stored {settings.bars.kind} bars cannot be replayed", remedy="tickcast backtest --data with the ticks"
        )
    has_model = (folder / MODEL).is_dir()
    default = str(folder / MODEL) if has_model else settings.model.default
    if default not in RUNGS and not has_model:
        raise BadRequest(f"'{default}' is no rung", remedy=f"give a model, or one of {', '.join(RUNGS)}")
    return settings.model_copy(update={
        "model": settings.model.model_copy(update={"default": default}),
        "bars": settings.bars.model_copy(update={"adjustments": None, "history": None}),
        "codec": CodecSettings(), "runtime": settings.runtime.model_copy(update={"folder": folder}),
    })  # fmt: skip


def write_tape(bars: Path, tape: Path, settings: Settings) -> None:
    """Closed bars as a bar file for the replay: `ts` is where the interval starts; carried bars were no bars."""
    frame = pl.read_parquet(bars).filter(pl.col("mask") == 1)
    if not frame.height:
        raise BadData(f"{bars} holds no bars")
    ts = pl.col("as_of_ns") - settings.bars.every_ms * MS
    frame.select("symbol", ts.alias("ts"), *PRICES, "volume").sort("ts", "symbol").write_parquet(tape)


async def backtest(
    settings: Settings, history: ReplayOrder, order: BacktestOrder, report: Report, *, shown: Shown = unshown,
    warn: Callable[[str], object] = say_refused,
) -> dict[str, Any]:  # fmt: skip
    """Replay, trade, and leave backtest.json and the tables in the folder of `history`."""
    terms = _terms(settings, order)
    data = history.data
    assert isinstance(data, Path)
    if order.retrain:
        history = replace(history, chunk=RETRAINING_CHUNK)
    walking = Walking(settings, order.retrain, history.out / FITS, report, shown=shown)
    summary = await replay(storing_nothing(in_folder(settings, history.out)), history, walk=walking, shown=shown)
    if summary["nearly_all_refused"]:
        raise BadData(f"{data}: {summary['refused']}")
    if summary["refused"]:
        warn(f"{data}: {summary['refused']}")
    models = _traded_models(walking, order)
    series = read_series(history.out, data, settings, horizon=terms.horizon, models=models)
    if not series:
        raise BadData(
            f"no forecast of {', '.join(models)} can be traded: of {summary['consumed']:,} ticks "
            f"{summary['accepted']:,} were accepted, and {summary['bars']:,} bars closed",
            remedy="give a longer history, or compare bars.* with the spacing of the data",
        )
    luck = Luck(order.trials, order.draws, order.tosses, order.confidence, order.seed)
    per_year = _bars_per_year(walking.serving, [*series.values()])
    done = judge([*series.values()], terms, luck, bars_per_year=per_year)
    served = summary.pop("model")  # by this name a job's result means a folder of its own
    found = {
        **summary, "served": served, "stopped": walking.stopped,
        "title": summary["title"].replace("Replay", "Backtest"), **terms._asdict(),
        "confidence": order.confidence, "seed": order.seed, "traded_models": models, "traded_symbols": len(series),
        "in_sample_bars": int(sum(np.count_nonzero(each.in_sample) for each in series.values())),
        "fits": [asdict(fit) for fit in walking.fits], "skill": _skill(history.out, models), **done.figures,
    }  # fmt: skip
    _write(history.out, found, done, [*series])
    return found


def _terms(settings: Settings, order: BacktestOrder) -> Terms:
    horizon = order.horizon or settings.forecast.horizon
    if horizon > settings.forecast.horizon:
        raise BadRequest(
            f"horizon {horizon} is beyond forecast.horizon, which is {settings.forecast.horizon}",
            remedy="trade a nearer one",
        )
    side = order.fee_bps + order.slippage_bps
    band = 2 * side if order.dead_band_bps is None else order.dead_band_bps
    return Terms(horizon, side, band, settings.bars.lateness_ms * MS, settings.forecast.every_bars)


def _traded_models(walking: Walking, order: BacktestOrder) -> list[str]:
    """Those asked for; what stood in for them while a symbol had few bars is not traded."""
    default = walking.serving.settings.model.default
    if default in RUNGS and not order.retrain:
        return [default]
    models = list(dict.fromkeys(card.name for card in walking.serving.cards if card.kind not in RUNGS))
    if not models:
        why = walking.fits[-1].error if walking.fits else "the history ended before the first one was due"
        raise BadModel(f"no fit of the walk served: {why}", remedy="give a longer history, or retrain more often")
    return models


def _bars_per_year(serving: Serving, series: list[Series]) -> float:
    """By the calendar; of tick and volume bars what was seen."""
    moments = np.unique(np.concatenate([each.as_of for each in series]))
    bars = serving.settings.bars
    if bars.kind != "time":
        return moments_per_year(moments)
    closed, first = serving.engine.builder.closed_time, int(moments[0])
    return float(trading_time(closed, first + YEAR_NS) - trading_time(closed, first)) / (bars.every_ms * MS)


def _skill(out: Path, models: list[str]) -> dict[str, Any]:
    """What the forecasts themselves were worth, beside last value."""
    path = out / "scores.parquet"
    scores = pl.read_parquet(path).filter(pl.col("model").is_in(models)) if path.exists() else pl.DataFrame()
    first = pl.scan_parquet(out / "forecasts.parquet").select("transform").head(1).collect()
    labels = report_figures.labels(scores, log_return=first["transform"][0] == "log_return")
    return {**skills(labels.settled), "in_sample": report_figures.spans(labels.in_sample)}


def _write(out: Path, found: dict[str, Any], done: BacktestResult, symbols: list[str]) -> None:
    own, held = done.strategy, done.held
    equity = pl.DataFrame({
        "as_of_ns": own.as_of, "return": own.returns, "equity": np.cumprod(1 + own.returns),
        "drawdown": trading.drawdown(own.returns), "turnover": own.turnover, "exposure": own.exposure,
        "buy_and_hold": np.cumprod(1 + held.returns),
    })  # fmt: skip
    equity.write_parquet(out / EQUITY)
    tables = [
        pl.DataFrame(
            {"symbol": [symbol] * len(each.side), **each._asdict(), "net": each.net},
            schema_overrides={"symbol": pl.String},  # none traded = no rows to tell it by
        )
        for symbol, each in zip(symbols, done.trades, strict=True)
    ]
    pl.concat(tables).sort("entered_ns", "symbol").write_parquet(out / "trades.parquet")
    (out / "backtest.json").write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2))
