"""Figures of a report -> its plots. It draws only; numbers come from report_figures."""

from typing import Any

import numpy as np
import polars as pl

from tickcast.batch.judge.report_figures import Figures, stacked
from tickcast.columns import F64
from tickcast.ui.pages import svg

FAN_SYMBOLS = 4
FAN_COLUMNS = ("as_of_ns", "tie", "anchor", "levels", "target_ns", "quantiles")
MOST_ROWS = 20_000  # newest forecasts of a symbol among which its last stretch lies
DAY_NS = 86_400 * 10**9
WIDE = 1300  # of a plot over the whole page
LEAST_FANS, MOST_FANS = 4, 10  # lengths of the horizon that the stretch of a fan plot shows


def error_by_horizon(rows: list[Figures]) -> str:
    """Pinball loss of the forecasts and of the last value, side by side."""
    own, naive = (np.array([row[name] for row in rows], np.float64) for name in ("pinball", "pinball_naive"))
    x = svg.named_axis([str(row["horizon"]) for row in rows], "bars ahead")
    y = svg.number_axis(np.concatenate([own, naive]), "pinball loss, one-bar moves", include=[0.0])
    places = np.arange(len(rows), dtype=np.float64)

    def draw(width: int) -> svg.Plot:
        plot = svg.Plot(x, y, title="Error by horizon against the last value", width=width)
        plot.columns(places, naive, "naive", width=0.36, shift=-0.19)
        plot.columns(places, own, "model", width=0.36, shift=0.19)
        return plot

    return svg.legend([("naive", "last value"), ("model", "forecast")]) + svg.fitted(draw)


def reliability(rows: list[Figures]) -> str:
    """Observed share below each quantile against its level; the diagonal is perfect."""
    level, share = (np.array([row[name] for row in rows], np.float64) for name in ("level", "share"))
    ends = np.array([0.0, 1.0])
    x = svg.number_axis(ends, "level of the quantile", include=[0.0, 1.0])
    y = svg.number_axis(ends, "share of actuals at or below", include=[0.0, 1.0])

    def draw(width: int) -> svg.Plot:
        plot = svg.Plot(x, y, title="Coverage by level", width=width)
        plot.line(ends, ends, "ideal")
        plot.line(level, share, "model")
        plot.dots(level, share, "model")
        return plot

    return svg.legend([("ideal", "nominal"), ("model", "observed")]) + svg.fitted(draw)


def ratio_over_time(rows: list[Figures], trained: Figures) -> str:
    """Pinball loss relative to the last value's along the tape; below 1 the forecasts are better. Where nothing was
    scored, the trained span for one, the line breaks."""
    x, y = _broken(*(np.array([row[name] for row in rows], np.float64) for name in ("as_of_ns", "ratio")))
    low, high = x.min(), max(x.max(), x.min() + 1e9)
    if trained["labels"]:
        low = min(low, trained["from_ns"])

    def draw(width: int) -> svg.Plot:
        plot = svg.Plot(
            svg.time_axis(low, high, most=svg.ticks_for(width)),
            svg.number_axis(y, "loss / last value's loss", include=[1.0], margin=0.1),
            title="Error relative to the last value over time", width=width,
        )  # fmt: skip
        if trained["labels"]:
            plot.span(trained["from_ns"], trained["to_ns"], "trained")
        plot.line(np.array([low, high]), np.ones(2), "ideal")
        plot.line(x, y, "model")
        return plot

    keys = [("model", "forecast"), ("ideal", "last value")]
    if trained["labels"]:
        keys.append(("trained", "trained on: not in the headline"))
    return svg.legend(keys) + svg.fitted(draw, WIDE)


def _broken(x: F64, y: F64) -> tuple[F64, F64]:
    """With a gap in between where a stretch of time has no value: points stand one stretch apart elsewhere."""
    steps = np.diff(x)
    gaps = np.flatnonzero(steps > 1.5 * steps.min()) + 1 if len(steps) else np.array([], np.int64)
    return np.insert(x, gaps, x[gaps] - 1.0), np.insert(y, gaps, np.nan)


def fans(forecasts: pl.LazyFrame, bars: pl.LazyFrame | None, symbols: list[str]) -> list[tuple[str, str]]:
    """For each symbol its last stretch: what happened, and what was forecast at every H-th bar."""
    found = []
    for symbol in symbols[:FAN_SYMBOLS]:
        asked = forecasts.filter((pl.col("symbol") == symbol) & pl.col("quantiles").is_not_null())
        rows = asked.select(FAN_COLUMNS).sort("as_of_ns", "tie").tail(MOST_ROWS).collect()
        if rows.height:
            closes = None if bars is None else _closes(bars, symbol, rows)
            found.append((symbol, _fan(rows, closes, symbol)))
    return found


def _closes(bars: pl.LazyFrame, symbol: str, rows: pl.DataFrame) -> pl.DataFrame:
    shown = (pl.col("symbol") == symbol) & pl.col("as_of_ns").is_between(rows["as_of_ns"][0], rows["as_of_ns"][-1])
    return bars.filter(shown).select("as_of_ns", "close").sort("as_of_ns").collect()


def _fan(rows: pl.DataFrame, closes: pl.DataFrame | None, symbol: str) -> str:
    timed = bool((rows["target_ns"].explode().drop_nulls() > 0).any())  # tick and volume bars have no known time
    levels = list(rows["levels"][0])
    horizon = len(rows["quantiles"][0])
    rows = rows.tail(_stretch(rows, horizon))
    chosen = rows[_fan_rows(rows.height, horizon)]
    x, seen = _actual(rows, closes, timed=timed)
    starts = chosen["as_of_ns"].to_numpy().astype(np.float64) if timed else _fan_rows(rows.height, horizon) * 1.0
    targets = _targets(chosen, starts, horizon, timed=timed)
    bands = stacked(chosen["quantiles"], len(levels))
    everything = np.concatenate([seen, bands.ravel()])

    def draw(width: int) -> svg.Plot:
        bar, most = svg.number_axis(np.append(x, targets), "bar", margin=0.0), svg.ticks_for(width)
        across = svg.time_axis(x[0], targets.max(), most=most) if timed else bar
        plot = svg.Plot(
            across, svg.number_axis(everything, "price"), title=f"Forecasts of {symbol}", width=width, height=300
        )
        for start, target, band, anchor in zip(starts, targets, bands, chosen["anchor"], strict=True):
            _draw_fan(plot, np.append(start, target), np.vstack([np.full(len(levels), anchor), band]), levels)
        plot.line(x, seen, "actual")
        return plot

    return svg.fitted(draw)


def _stretch(rows: pl.DataFrame, horizon: int) -> int:
    """Bars of the last day, but at least and at most so many horizons of them."""
    last_day = int((rows["as_of_ns"] > rows["as_of_ns"][-1] - DAY_NS).sum())
    return min(max(last_day, LEAST_FANS * horizon), MOST_FANS * horizon)


def _fan_rows(height: int, horizon: int) -> Any:
    """Every H-th row, the newest among them: fans follow each other without overlap."""
    return np.arange(height - 1, -1, -horizon)[::-1]


def _actual(rows: pl.DataFrame, closes: pl.DataFrame | None, *, timed: bool) -> tuple[F64, F64]:
    """Closes over the stretch: from the stored bars where there are some, else the anchors of the forecasts."""
    if closes is not None and timed:
        shown = closes.filter(pl.col("as_of_ns").is_between(rows["as_of_ns"][0], rows["as_of_ns"][-1]))
        if shown.height:
            return shown["as_of_ns"].to_numpy().astype(np.float64), shown["close"].to_numpy()
    at = rows["as_of_ns"].to_numpy() if timed else np.arange(rows.height)
    return at.astype(np.float64), rows["anchor"].to_numpy()


def _targets(chosen: pl.DataFrame, starts: F64, horizon: int, *, timed: bool) -> F64:
    if timed:
        return np.array(chosen["target_ns"].to_list(), np.float64)
    return starts[:, None] + np.arange(1, horizon + 1)[None, :]


def _draw_fan(plot: svg.Plot, x: F64, fan: F64, levels: list[float]) -> None:
    plot.band(x, fan[:, 0], fan[:, -1], "outer")
    if len(levels) >= 5:
        plot.band(x, fan[:, 1], fan[:, -2], "inner")
    plot.line(x, fan[:, levels.index(0.5)], "model")
