"""The figures and the equity of a backtest -> one self-contained page with plots, and a table for the terminal."""

from html import escape
from typing import Any

import numpy as np
import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tickcast.ui.pages import report_page, svg
from tickcast.ui.pages.page import Column, cards_of, document, form, moment, note_of, section_of, table_of

Figures = dict[str, Any]
WIDE = 1300
LEAST_FOR_A_YEAR_NS = 30 * 86_400 * 10**9
CONTESTANTS = (
    ("strategy", "this model"),
    ("before_costs", "before costs"),
    ("buy_and_hold", "buy and hold"),
    ("random_walk", "random walk"),
    ("random_signs", "tossed coins, mean of all"),
)
COLUMNS = (
    Column("name", "", "s"),
    Column("return", "return", "+.2%", signed=True),
    Column("return_per_year", "per year", "+.1%", signed=True),
    Column("volatility", "volatility", ".1%"),
    Column("sharpe", "Sharpe", "+.2f", signed=True),
    Column("sharpe_low", "from", "+.2f"),
    Column("sharpe_high", "to", "+.2f"),
    Column("max_drawdown", "deepest fall", ".2%"),
)
ON_TERMINAL = ("name", "return", "sharpe", "sharpe_low", "sharpe_high", "max_drawdown")  # fits 80 columns
SKILL_KEYS = (
    "horizon",
    "n",
    "skill",
    "skill_low",
    "skill_high",
    "skill_mae",
    "mae_pct",
    "directional",
    "directional_base",
)
SKILL = tuple(column for column in report_page.HORIZON_COLUMNS if column.key in SKILL_KEYS)
FITS = (
    Column("moment", "on bars up to", "s"), Column("bars", "bars", ",d"), Column("serves", "serves from", "s"),
    Column("version", "version", "s"), Column("error", "why not", "s"),
)  # fmt: skip


def page(found: Figures, equity: pl.DataFrame) -> str:
    parts = [_notes(found), _cards(found)]
    remark = (
        f"Sharpe per year with its {found['confidence']:.0%} interval, by a block bootstrap over {found['moments']:,} "
        f"moments in blocks of {found['block']} on average; {found['bars_per_year']:,.0f} bars in a year."
    )
    parts.append(section_of("Beside what it must beat", remark, table_of(COLUMNS, contestants(found))))
    if equity.height:
        parts.append(section_of("Equity", "Costs paid; the capital at the start is 1.", _equity(equity)))
        parts.append(section_of("Drawdown", "How far below its highest so far.", _drawdown(equity)))
    if found["skill"]["headline"]:
        rows = found["skill"]["by_horizon"]
        parts.append(section_of("Skill by horizon", report_page.OF_SKILL, _skill(rows) + table_of(SKILL, rows)))
    if found["fits"]:
        parts.append(section_of("Fits on the way", "Each on the bars closed so far.", table_of(FITS, _fits(found))))
    footer = f"tickcast &middot; seed {found['seed']} &middot; digest {escape(found['digest'])}"
    return document(found["title"], _subtitle(found), "".join(parts), footer)


def contestants(found: Figures) -> list[Figures]:
    """A row for each; what a run does not have is None, and so is a sum per year of a short one."""
    keys = [column.key for column in COLUMNS[1:]]
    rows = [{"name": name, **{key: found[run].get(key) for key in keys}} for run, name in CONTESTANTS]
    return rows if _is_long(found) else [{**row, "return_per_year": None} for row in rows]


def _is_long(found: Figures) -> bool:
    """Long enough for a sum per year: minutes multiplied by 500,000 read as ruin."""
    return found["from_ns"] is not None and found["to_ns"] - found["from_ns"] >= LEAST_FOR_A_YEAR_NS


def _subtitle(found: Figures) -> str:
    parts = [", ".join(found["traded_models"]), f"{found['traded_symbols']:,} symbols"]
    if found["from_ns"] is not None:
        parts.append(f"{moment(found['from_ns'])} to {moment(found['to_ns'])} UTC")
    parts.append(f"{found['horizon']} bars ahead, {found['side_bps']:g} bps a side")
    parts.append(f"moves up to {found['dead_band_bps']:g} bps are not traded")
    return " &middot; ".join(escape(part) for part in parts)


def verdict_of(found: Figures) -> str:
    """Whether it earns after costs, as far as the interval of its Sharpe ratio allows to say."""
    own = found["strategy"]
    if not found["moments"]:
        return "No bar came after a forecast outside a training span, so there is no headline."
    if not own["trades"]:
        return "Nothing was traded: no forecast was larger than what trading it costs."
    low, high = own["sharpe_low"], own["sharpe_high"]
    earned = f"{form(own['return'], '+.2%')} after costs, Sharpe ratio {form(own['sharpe'], '+.2f')}"
    if low is None or high is None or not np.isfinite([low, high]).all():
        return f"Too few moments ({found['moments']:,}) to say whether it earns: {earned}."
    span = f"{earned}, {low:+.2f} to {high:+.2f} at {found['confidence']:.0%}"
    if low > 0:
        return f"It earns: {span}."
    return f"It loses: {span}." if high < 0 else f"Not told apart from earning nothing: {span}."


def _notes(found: Figures) -> str:
    notes = [verdict_of(found)]
    if found["in_sample_bars"]:
        notes.append(
            f"{found['in_sample_bars']:,} bars lie in the span that the model was trained on: their forecasts are not "
            "traded, and no figure counts them."
        )
    return "".join(map(note_of, notes))


def _cards(found: Figures) -> str:
    own = found["strategy"]
    interval = f"{form(own['sharpe_low'], '+.2f')} to {form(own['sharpe_high'], '+.2f')}"
    return cards_of([
        ("return after costs", form(own["return"], "+.2%"), f"{form(found['before_costs']['return'], '+.2%')} before"),
        ("Sharpe ratio", form(own["sharpe"], "+.2f"), f"{interval} at {found['confidence']:.0%}"),
        ("evidence of an edge", form(own["deflated_sharpe"], ".1%"), f"from 95% it counts; {_tried(own['trials'])}"),
        ("deepest fall", form(own["max_drawdown"], ".2%"), "of the highest so far"),
        ("trades", form(own["trades"], ",d"), f"{form(own['win_rate'], '.1%')} won"),
        ("profit factor", form(own["profit_factor"], ".2f"), _turned_over(found)),
    ])  # fmt: skip


def _tried(trials: int) -> str:
    return "1 strategy tried" if trials == 1 else f"the best of {trials:,} tried"


def _turned_over(found: Figures) -> str:
    per_year = found["strategy"]["turnover_per_year"]
    return (
        f"turned over {per_year:,.0f} x a year" if _is_long(found) else f"turned over {per_year / 365.25:,.3g} x a day"
    )


def _equity(equity: pl.DataFrame) -> str:
    """As logarithms: a fall by half looks the same wherever it begins, and no line flattens another."""
    x = equity["as_of_ns"].to_numpy().astype(np.float64)
    own, held = (svg.logarithms(equity[name].to_numpy()) for name in ("equity", "buy_and_hold"))

    def draw(width: int) -> svg.Plot:
        plot = svg.Plot(
            svg.time_axis(x[0], max(x[-1], x[0] + 1e9), most=svg.ticks_for(width)),
            svg.factor_axis(np.concatenate([own, held]), "equity, in times of the start"),
            title="Equity beside buy and hold", width=width,
        )  # fmt: skip
        plot.line(x[[0, -1]], np.zeros(2), "ideal")
        plot.line(x, held, "actual")
        plot.line(x, own, "model")
        return plot

    keys = [("model", "this model"), ("actual", "buy and hold"), ("ideal", "random walk: never trades")]
    return svg.legend(keys) + svg.fitted(draw, WIDE)


def _drawdown(equity: pl.DataFrame) -> str:
    x, below = svg.decimate(equity["as_of_ns"].to_numpy().astype(np.float64), -100 * equity["drawdown"].to_numpy())

    def draw(width: int) -> svg.Plot:
        plot = svg.Plot(
            svg.time_axis(x[0], max(x[-1], x[0] + 1e9), most=svg.ticks_for(width)),
            svg.number_axis(below, "drawdown, %", include=[0.0]), title="Drawdown", width=width, height=180,
        )  # fmt: skip
        plot.band(x, below, np.zeros(len(x)), "outer")
        plot.line(x, below, "model")
        return plot

    return svg.fitted(draw, WIDE)


def _skill(rows: list[Figures]) -> str:
    skill = np.array([row["skill"] for row in rows], np.float64)
    x = svg.named_axis([str(row["horizon"]) for row in rows], "bars ahead")
    y = svg.number_axis(100 * skill, "skill, %", include=[0.0])

    def draw(width: int) -> svg.Plot:
        plot = svg.Plot(x, y, title="Skill by horizon", width=width, height=220)
        plot.columns(np.arange(len(rows), dtype=np.float64), 100 * skill, "model", width=0.5)
        return plot

    return svg.fitted(draw, WIDE)


def _fits(found: Figures) -> list[Figures]:
    return [
        {**fit, "moment": moment(fit["at_ns"]), "serves": moment(fit["serves_from_ns"]) if not fit["error"] else "-"}
        for fit in found["fits"]
    ]


def print_backtest(console: Console, found: Figures) -> None:
    own = found["strategy"]
    title = (
        f"{own['trades']:,} trades of {found['traded_symbols']:,} symbols, {found['decisions']:,} decisions, "
        f"{found['side_bps']:g} bps a side"
    )
    shown = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    columns = [column for column in COLUMNS if column.key in ON_TERMINAL]
    for column in columns:
        shown.add_column(column.heading, justify="left" if column.key == "name" else "right")
    for row in contestants(found):
        shown.add_row(*(form(row[column.key], column.form) for column in columns))
    console.print(verdict_of(found), highlight=False, soft_wrap=True)
    console.print(shown)
    coins = found["random_signs"]
    console.print(
        f"evidence of an edge {form(own['deflated_sharpe'], '.1%')} (from 95% it counts; {_tried(own['trials'])}); "
        f"tossed coins did as well in {form(coins['as_good'], '.0%')} of {coins['runs']} runs",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
