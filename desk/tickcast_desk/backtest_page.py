"""The figures and the equity of a backtest -> one self-contained page with plots, and a table for the terminal."""

from html import escape
from typing import Any

import numpy as np
import polars as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tickcast_desk import report_page, svg
from tickcast_desk.report_page import Column, cards_of, document, form, moment, section_of, table_of

Figures = dict[str, Any]
WIDE = 1300
CONTESTANTS = (
    ("strategy", "this model"),
    ("before_costs", "before costs"),
    ("buy_and_hold", "buy and hold"),
    ("random_walk", "random walk"),
    ("random_signs", "coins, in the mean"),
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
SKILL_KEYS = ("horizon", "n", "mae", "mae_naive", "skill", "skill_by_scale", "directional", "directional_base")
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
        parts.append(section_of("Equity", "Costs paid; the capital at the start is 1.", _equity(found, equity)))
        parts.append(section_of("Drawdown", "How far below its highest so far.", _drawdown(equity)))
    if found["skill"]["headline"]:
        rows = found["skill"]["by_horizon"]
        below = "1 - MAE / MAE of the last value: above 0 the forecasts are better."
        parts.append(section_of("Skill by horizon", below, _skill(rows) + table_of(SKILL, rows)))
    if found["fits"]:
        parts.append(section_of("Fits on the way", "Each on the bars closed so far.", table_of(FITS, _fits(found))))
    footer = f"tickcast &middot; seed {found['seed']} &middot; digest {escape(found['digest'])}"
    return document(found["title"], _subtitle(found), "".join(parts), footer)


def contestants(found: Figures) -> list[Figures]:
    """A row for each; what a run does not have is None."""
    keys = [column.key for column in COLUMNS[1:]]
    return [{"name": name, **{k: found[key].get(k) for k in keys}} for key, name in CONTESTANTS]


def _subtitle(found: Figures) -> str:
    parts = [", ".join(found["traded_models"]), f"{found['traded_symbols']:,} symbols"]
    if found["from_ns"] is not None:
        parts.append(f"{moment(found['from_ns'])} to {moment(found['to_ns'])} UTC")
    parts.append(f"{found['horizon']} bars ahead, {found['side_bps']:g} bps a side")
    parts.append(f"moves up to {found['dead_band_bps']:g} bps are not traded")
    return " &middot; ".join(escape(part) for part in parts)


def _notes(found: Figures) -> str:
    notes = []
    if not found["moments"]:
        notes.append("No bar came after a forecast outside a training span, so there is no headline.")
    elif not found["strategy"]["trades"]:
        notes.append("Nothing was traded: no forecast was larger than what trading it costs.")
    if found["in_sample_bars"]:
        notes.append(
            f"{found['in_sample_bars']:,} bars lie in the span that the model was trained on: their forecasts are not "
            "traded, and no figure counts them."
        )
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def _cards(found: Figures) -> str:
    own = found["strategy"]
    interval = f"{form(own['sharpe_low'], '+.2f')} to {form(own['sharpe_high'], '+.2f')}"
    return cards_of([
        ("return after costs", form(own["return"], "+.2%"), f"{form(found['before_costs']['return'], '+.2%')} before"),
        ("Sharpe ratio", form(own["sharpe"], "+.2f"), f"{interval} at {found['confidence']:.0%}"),
        ("chance of an edge", form(own["deflated_sharpe"], ".1%"), f"deflated for {own['trials']:,} trials"),
        ("deepest fall", form(own["max_drawdown"], ".2%"), "of the highest so far"),
        ("trades", form(own["trades"], ",d"), f"{form(own['win_rate'], '.1%')} won"),
        ("profit factor", form(own["profit_factor"], ".2f"), f"turned over {own['turnover_per_year']:,.0f} x a year"),
    ])  # fmt: skip


def _equity(found: Figures, equity: pl.DataFrame) -> str:
    x = equity["as_of_ns"].to_numpy().astype(np.float64)
    own, held = (equity[name].to_numpy() for name in ("equity", "buy_and_hold"))
    plot = svg.Plot(
        svg.time_axis(x[0], max(x[-1], x[0] + 1e9)),
        svg.number_axis(np.concatenate([own, held]), "equity", include=[1.0]),
        title="Equity beside buy and hold", width=WIDE,
    )  # fmt: skip
    plot.line(x[[0, -1]], np.ones(2), "ideal")
    plot.line(x, held, "actual")
    plot.line(x, own, "model")
    keys = [("model", "this model"), ("actual", "buy and hold"), ("ideal", "random walk: never trades")]
    return svg.legend(keys) + plot.svg()


def _drawdown(equity: pl.DataFrame) -> str:
    x, below = svg.decimate(equity["as_of_ns"].to_numpy().astype(np.float64), -100 * equity["drawdown"].to_numpy())
    plot = svg.Plot(
        svg.time_axis(x[0], max(x[-1], x[0] + 1e9)), svg.number_axis(below, "drawdown, %", include=[0.0]),
        title="Drawdown", width=WIDE, height=180,
    )  # fmt: skip
    plot.band(x, below, np.zeros(len(x)), "outer")
    plot.line(x, below, "model")
    return plot.svg()


def _skill(rows: list[Figures]) -> str:
    skill = np.array([row["skill"] for row in rows], np.float64)
    x = svg.named_axis([str(row["horizon"]) for row in rows], "bars ahead")
    plot = svg.Plot(x, svg.number_axis(skill, "skill", include=[0.0]), title="Skill by horizon", width=WIDE, height=220)
    plot.columns(np.arange(len(rows), dtype=np.float64), skill, "model", width=0.5)
    return plot.svg()


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
    console.print(shown)
    console.print(
        f"chance of a true edge, {own['trials']:,} trials counted: {form(own['deflated_sharpe'], '.1%')}; "
        f"coins did as well in {form(found['random_signs']['as_good'], '.0%')} of {found['random_signs']['runs']} runs",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
