"""What a run leaves behind for people: report.json, report.html and a table on the terminal. It changes nothing."""

from pathlib import Path

import msgspec
import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tickcast.batch.judge import report_figures as figures
from tickcast.batch.judge.report_causes import why
from tickcast.batch.judge.report_certainty import skills
from tickcast.batch.judge.report_figures import Figures
from tickcast.ui.pages import report_page, report_plots
from tickcast.ui.pages.page import Column, form, verdict
from tickcast.ui.pages.svg import legend

Frame = pl.DataFrame | pl.LazyFrame
# They fit 80 columns.
ON_TERMINAL = ("horizon", "n", "skill", "skill_low", "skill_high", "mae_pct", "coverage", "directional")


def write_report(
    folder: Path, *, summary: Figures, forecasts: Frame, scores: Frame, bars: Frame | None = None
) -> Figures:
    """Write report.json and report.html into `folder`; returns what report.json holds.

    Frames may be lazy: of the forecasts only what is drawn is read. `summary`, which is that of `replay.summary`, is
    carried over as it is; to its `to_ns`, the newest tick, comes `from_ns`, the first forecast.
    """
    made = forecasts.lazy()
    first = made.head(1).collect()
    levels = first["levels"][0].to_list() if first.height else []
    settled = scores.lazy().collect()
    log_return = not first.height or first["transform"][0] == "log_return"
    with_quantiles = figures.with_quantiles(settled, made) if first.height else settled
    labels = figures.labels(with_quantiles, log_return=log_return, levels=levels)
    report = {**summary, **_computed(labels, settled, levels)}
    report["forecasts"] = made.select(pl.len()).collect().item()
    report["from_ns"] = made.select(pl.col("as_of_ns").min()).collect().item() if report["forecasts"] else None
    report["reliability"] = figures.reliability(labels.settled, levels)
    lazy_bars = None if bars is None else bars.lazy()
    report["why"] = why(settled, made, lazy_bars, report["models"], log_return=log_return)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    plots = _plots(report, labels, made, lazy_bars)
    (folder / "report.html").write_text(report_page.page(report, plots), encoding="utf-8")
    return report


def _computed(labels: figures.Labels, scores: pl.DataFrame, levels: list[float]) -> Figures:
    return {
        "scored": scores.height,
        "void": labels.void,
        "levels": levels,
        "nominal_coverage": round(levels[-1] - levels[0], 9) if levels else None,
        **skills(labels.settled, levels),
        "over_time": figures.over_time(labels.settled),
        "in_sample": figures.spans(labels.in_sample),
    }


def _plots(report: Figures, labels: figures.Labels, forecasts: pl.LazyFrame, bars: pl.LazyFrame | None) -> Figures:
    plots: Figures = {"fans": [], "fan_legend": "", "fan_note": ""}
    if report["headline"]:
        plots["error"] = report_plots.error_by_horizon(report["by_horizon"])
        plots["over_time"] = report_plots.ratio_over_time(report["over_time"], report["in_sample"])
    if report["reliability"]:
        plots["reliability"] = report_plots.reliability(report["reliability"])
    if report["forecasts"]:
        plots["fans"] = report_plots.fans(forecasts, bars, _most_scored(labels, forecasts))
        plots["fan_legend"] = legend(_fan_keys(report["levels"]))
        plots["fan_note"] = "What happened, and what was forecast at every horizon's start."
    return plots


def _most_scored(labels: figures.Labels, forecasts: pl.LazyFrame) -> list[str]:
    rows = labels.settled.lazy() if labels.settled.height else forecasts
    counted = rows.group_by("symbol").len().sort(["len", "symbol"], descending=[True, False])
    return counted.head(report_plots.FAN_SYMBOLS).collect()["symbol"].to_list()


def _fan_keys(levels: list[float]) -> list[tuple[str, str]]:
    keys = [("actual", "actual"), ("model", "median"), ("outer", f"{levels[0]:.0%} to {levels[-1]:.0%}")]
    if len(levels) >= 5:
        keys.append(("inner", f"{levels[1]:.0%} to {levels[-2]:.0%}"))
    return keys


def print_summary(console: Console, summary: Figures) -> None:
    """The headline of a report, as returned by `write_report`, on the terminal."""
    lines = [" · ".join(f"{name} {summary[name]:,}" for name in report_page.OUTCOMES)]
    if summary["reasons"]:
        lines.append("reasons: " + ", ".join(f"{name} {count:,}" for name, count in sorted(summary["reasons"].items())))
    if summary["mixed"]:
        lines.append(summary["mixed"])
    if not summary["headline"]:
        lines.append(f"{summary['forecasts']:,} forecasts, none scored outside a training span")
    if summary["in_sample"]["labels"]:
        lines.append(f"{summary['in_sample']['labels']:,} scores lie in the training span and are left out")
    if summary["headline"]:
        console.print(report_page.verdict_of(summary), highlight=False, soft_wrap=True)
    console.print("\n".join(lines), highlight=False)
    if summary["headline"]:
        console.print(_horizons(summary))


def _horizons(summary: Figures) -> Table:
    nominal = summary["nominal_coverage"]
    title = f"{summary['forecasts']:,} forecasts, nominal coverage {nominal:.0%}"
    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    shown = report_page.columns_of(report_page.HORIZON_COLUMNS, summary)
    columns = [column for column in shown if column.key in ON_TERMINAL]
    for column in columns:
        table.add_column(column.heading, justify="right")
    for row in summary["by_horizon"]:
        table.add_row(*(_written(column, row) for column in columns))
    return table


def _written(column: Column, row: Figures) -> str:
    text = form(row[column.key], column.form)
    colour = {"good": "green", "bad": "red"}.get(verdict(column, row))
    return f"[{colour}]{text}[/]" if colour else text
