"""report.json and plots -> one self-contained page: no script, no outside file. It computes nothing."""

from html import escape
from typing import Any, NamedTuple

import numpy as np

from tickcast_desk.report_figures import Figures

STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--text:#1a2230;--quiet:#667085;--rule:#e4e7ec;--grid:#eef0f3;
--model:#2563eb;--naive:#b3bac5;--actual:#1a2230;--good:#067647;--bad:#b42318;--trained:#f5c451}
@media (prefers-color-scheme:dark){:root{--page:#0e131b;--card:#161d28;--text:#e6eaf0;--quiet:#93a0b4;--rule:#283243;
--grid:#212a38;--model:#6ea8ff;--naive:#56627a;--actual:#e6eaf0;--good:#4fd18b;--bad:#ff8f84;--trained:#8a6d1f}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;-webkit-font-smoothing:antialiased}
main{max-width:1160px;margin:0 auto;padding:40px 24px 64px}
h1{font-size:26px;line-height:1.25;letter-spacing:-.02em;margin:0 0 4px;font-weight:650}
h2{font-size:16px;letter-spacing:-.005em;margin:0 0 2px;font-weight:620}
p{margin:0}.quiet{color:var(--quiet)}.small{font-size:13px}
header{margin-bottom:26px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:14px;margin-bottom:14px}
.card,section{background:var(--card);border:1px solid var(--rule);border-radius:12px}
.card{padding:16px 18px}.card .value{font-size:25px;font-weight:620;letter-spacing:-.02em;line-height:1.25;
font-variant-numeric:tabular-nums}
section{padding:20px 22px;margin-bottom:14px;overflow:hidden}
section>.small{margin-bottom:12px}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(440px,100%),1fr));gap:14px}
.head{margin:26px 2px 10px}
.pair section{margin-bottom:0}.pair{margin-bottom:14px}
.scroll+.scroll{margin-top:14px!important}.scroll{overflow-x:auto;margin:0 -22px;padding:0 22px}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:7px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule)}
th:first-child,td:first-child{text-align:left;padding-left:0}
th{color:var(--quiet);font-weight:520;font-size:12.5px}tr:last-child td{border-bottom:0}
.good{color:var(--good)}.bad{color:var(--bad)}
.note{border-left:3px solid var(--trained);padding:10px 14px;margin-bottom:14px;background:var(--card);
border-radius:6px}
svg{display:block;width:100%;height:auto;font:11px system-ui,sans-serif;fill:var(--quiet)}
svg .label{fill:var(--quiet)}
svg .grid{stroke:var(--grid)}svg .frame,svg .tick{stroke:var(--rule)}
svg .line{fill:none;stroke-width:1.7;stroke-linejoin:round;stroke-linecap:round}
svg .line.model{stroke:var(--model)}svg .line.actual{stroke:var(--actual);stroke-width:1.3}
svg .line.ideal{stroke:var(--naive);stroke-dasharray:4 4}
svg .dot.model{fill:var(--model);stroke:var(--card);stroke-width:1.5}
svg .column.model{fill:var(--model)}svg .column.naive{fill:var(--naive)}
svg .band{fill:var(--model);stroke:none}svg .band.outer{opacity:.16}svg .band.inner{opacity:.24}
svg .span.trained{fill:var(--trained);opacity:.18}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:12.5px;color:var(--quiet);margin:2px 0 6px}
.legend span{display:inline-flex;align-items:center}
.key{width:12px;height:12px;border-radius:3px;margin-right:7px;background:var(--model)}
.key.naive{background:var(--naive)}.key.actual{background:var(--actual);height:2px}
.key.ideal{height:0;border-radius:0;background:none;border-top:2px dashed var(--naive)}
.key.trained{background:var(--trained);opacity:.5}.key.outer{opacity:.25}.key.inner{opacity:.55}
footer{color:var(--quiet);font-size:12.5px;margin-top:22px}
@media (max-width:600px){main{padding:24px 14px 40px}section{padding:16px;overflow-x:auto}
section>svg{min-width:520px}section>svg.wide{min-width:1000px}.scroll{margin:0 -16px;padding:0 16px}}
@media print{body{background:#fff}section,.card{break-inside:avoid}}
"""


class Column(NamedTuple):
    """One column of a table: which figure, its heading, and how it is written."""

    key: str
    heading: str
    form: str
    signed: bool = False  # coloured by its sign


HORIZON_COLUMNS = (
    Column("horizon", "bars ahead", "d"),
    Column("n", "scored", ",d"),
    Column("mae", "MAE", ".5g"),
    Column("mae_naive", "MAE, last value", ".5g"),
    Column("skill", "skill", "+.1%", signed=True),
    Column("skill_by_scale", "skill, symbols alike", "+.1%", signed=True),
    Column("mae_pct", "MAE, % of price", ".4f"),
    Column("pinball", "pinball", ".5g"),
    Column("coverage", "coverage", ".1%"),
    Column("directional", "direction right", ".1%"),
    Column("directional_base", "always one way", ".1%"),
)
TURNS = "One turn of the loop: a chunk of ticks in, all its forecasts out."
OUTCOMES = ("consumed", "accepted", "late", "rejected", "held")
MODEL_COLUMNS = (Column("model", "model", "s"), *HORIZON_COLUMNS[1:])


def page(report: Figures, plots: dict[str, Any]) -> str:
    """The whole page. `plots` holds SVG by name, and under `fans` pairs of symbol and SVG."""
    body = f"{_notes(report)}{_cards(report)}{_accuracy(report, plots)}{_fans(plots)}{_traffic(report)}"
    return document(report["title"], _subtitle(report), body, _footer(report))


def document(title: str, below: str, body: str, footer: str) -> str:
    """The frame of every page; all but the title is HTML."""
    title = escape(title)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{STYLE}</style></head><body><main>"
        f'<header><h1>{title}</h1><p class="quiet">{below}</p></header>'
        f"{body}<footer>{footer}</footer></main></body></html>"
    )


def _subtitle(report: Figures) -> str:
    parts = [report["data"], *(f"{model['name']} {model['version']}" for model in report["models"])]
    if report["from_ns"] is not None:
        parts.append(f"{moment(report['from_ns'])} to {moment(report['to_ns'])} UTC")
    return " &middot; ".join(escape(part) for part in parts)


def moment(at_ns: int) -> str:
    return str(np.datetime64(int(at_ns), "ns").astype("datetime64[s]")).replace("T", " ")


def _notes(report: Figures) -> str:
    notes = []
    if not report["headline"]:
        notes.append(
            "No forecast was scored outside a training span, so there is no headline. "
            "A tape shorter than look-back and horizon ends like this, and so does one that the model was trained on."
        )
    trained = report["in_sample"]
    if trained["labels"]:
        notes.append(
            f"{trained['labels']:,} scores from {moment(trained['from_ns'])} to {moment(trained['to_ns'])} lie in the "
            "span that the model was trained on. They are marked in_sample and left out of all accuracy figures."
        )
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def milliseconds(value: float) -> str:
    """Three digits, and none of them as a power of ten."""
    return f"{float(f'{value:.3g}'):,g} ms"


def _cards(report: Figures) -> str:
    headline, nominal = report["headline"], report["nominal_coverage"]
    cards = [("forecasts", form(report["forecasts"], ",d"), f"{headline.get('n', 0):,} outcomes scored")]
    if headline:
        cards.append(("skill against the last value", form(headline["skill_by_scale"], "+.1%"), "symbols weigh alike"))
        wanted = f"nominal {nominal:.0%}" if nominal is not None else ""
        cards.append(("coverage", form(headline["coverage"], ".1%"), wanted))
    turn = report["turn_ms"]
    cards.append(("turn of the loop p99", milliseconds(turn["p99"]), f"p50 {milliseconds(turn['p50'])}"))
    cards.append(("speed", form(report["ticks_per_s"], ",d"), "ticks per second"))
    return cards_of(cards)


def cards_of(cards: list[tuple[str, str, str]]) -> str:
    """(name, value, remark) of each."""
    return '<div class="cards">' + "".join(_card(*card) for card in cards) + "</div>"


def _card(name: str, value: str, remark: str) -> str:
    return (
        f'<div class="card"><p class="small quiet">{escape(name)}</p><p class="value">{escape(value)}</p>'
        f'<p class="small quiet">{escape(remark)}</p></div>'
    )


def _accuracy(report: Figures, plots: dict[str, Any]) -> str:
    if not report["headline"]:
        return ""
    table = table_of(HORIZON_COLUMNS, report["by_horizon"])
    parts = [
        section_of(
            "Accuracy by horizon", "MAE in the series' own unit; skill is 1 - MAE / MAE of the last value.", table
        )
    ]
    pair = section_of("Error by horizon", "Lower is better.", plots["error"])
    if plots.get("reliability"):
        pair += section_of("Coverage by level", "On the diagonal, quantiles keep their word.", plots["reliability"])
    parts.append(f'<div class="pair">{pair}</div>')
    parts.append(section_of("Over time", "Error relative to the last value's; below 1 is better.", plots["over_time"]))
    if len(report["by_model"]) > 1:
        parts.append(
            section_of("By model", "Who answered, all horizons together.", table_of(MODEL_COLUMNS, report["by_model"]))
        )
    return "".join(parts)


def _fans(plots: dict[str, Any]) -> str:
    if not plots["fans"]:
        return ""
    drawn = "".join(section_of(symbol, "", plot) for symbol, plot in plots["fans"])
    head = f'<h2>The last stretch</h2><p class="small quiet">{escape(plots["fan_note"])}</p>{plots["fan_legend"]}'
    return f'<div class="head">{head}</div><div class="pair">{drawn}</div>'


def _traffic(report: Figures) -> str:
    counts = [{"name": name, "count": report[name]} for name in OUTCOMES]
    reasons = [{"name": name, "count": count} for name, count in sorted(report["reasons"].items())]
    tables = table_of((Column("name", "outcome", "s"), Column("count", "ticks", ",d")), counts)
    if reasons:
        tables += table_of((Column("name", "reason", "s"), Column("count", "ticks", ",d")), reasons)
    body = section_of("Ticks", "accepted + late + rejected + held = consumed", tables)
    turns = [{"name": name, "took": milliseconds(value)} for name, value in report["turn_ms"].items()]
    body += section_of("Turns", TURNS, table_of((Column("name", "turn", "s"), Column("took", "took", "s")), turns))
    return f'<div class="pair">{body}</div>'


def section_of(heading: str, remark: str, body: str) -> str:
    small = f'<p class="small quiet">{escape(remark)}</p>' if remark else ""
    return f"<section><h2>{escape(heading)}</h2>{small}{body}</section>"


def table_of(columns: tuple[Column, ...], rows: list[Figures]) -> str:
    head = "".join(f"<th>{escape(column.heading)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(_cell(column, row[column.key]) for column in columns)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(column: Column, value: Any) -> str:
    css = ""
    if column.signed and isinstance(value, float):
        css = ' class="good"' if value > 0 else ' class="bad"' if value < 0 else ""
    return f"<td{css}>{escape(form(value, column.form))}</td>"


def form(value: Any, form: str) -> str:
    """The value as written; a dash where there is none."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "-"
    return format(value, form)


def _footer(report: Figures) -> str:
    parts = ("tickcast", f"replayed in {report['wall_s']:,.1f} s", f"digest {report['digest']}")
    return " &middot; ".join(escape(part) for part in parts)
