"""Frame, style and pieces of every page: cards, sections, tables. A page stands alone: no script, no outside file.

A figure is coloured only where its interval leaves zero out: without one nobody knows that it is good or bad.
"""

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

Row = dict[str, Any]

STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--text:#1a2230;--quiet:#667085;--rule:#e4e7ec;--grid:#eef0f3;
--model:#2563eb;--naive:#b3bac5;--actual:#1a2230;--good:#067647;--bad:#b42318;--trained:#f5c451;
--second:#b54708}
@media (prefers-color-scheme:dark){:root{--page:#0e131b;--card:#161d28;--text:#e6eaf0;--quiet:#93a0b4;--rule:#283243;
--grid:#212a38;--model:#6ea8ff;--naive:#56627a;--actual:#e6eaf0;--good:#4fd18b;--bad:#ff8f84;--trained:#8a6d1f;--second:#f0a04b}}
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
th,td{padding:7px 8px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--rule)}
th:first-child,td:first-child{text-align:left;padding-left:0}
th{color:var(--quiet);font-weight:520;font-size:12.5px}tr:last-child td{border-bottom:0}
td.long{white-space:normal;text-align:left;min-width:230px}.good{color:var(--good)}.bad{color:var(--bad)}
.note{border-left:3px solid var(--trained);padding:10px 14px;margin-bottom:14px;background:var(--card);
border-radius:6px}
svg{display:block;width:100%;height:auto;font:11px system-ui,sans-serif;fill:var(--quiet)}
svg .label{fill:var(--quiet)}
svg .grid{stroke:var(--grid)}svg .frame,svg .tick{stroke:var(--rule)}
svg .line{fill:none;stroke-width:1.7;stroke-linejoin:round;stroke-linecap:round}
svg .line.model{stroke:var(--model)}svg .line.actual{stroke:var(--actual);stroke-width:1.3}
svg .line.ideal{stroke:var(--naive);stroke-dasharray:4 4}
svg .dot{stroke:var(--card);stroke-width:1.5}
svg .dot.model{fill:var(--model)}svg .dot.naive{fill:var(--naive)}svg .dot.actual{fill:var(--actual)}
svg .column.model{fill:var(--model)}svg .column.naive{fill:var(--naive)}
svg .band{fill:var(--model);stroke:none}svg .band.outer{opacity:.16}svg .band.inner{opacity:.24}
svg .line.static{stroke:var(--quiet)}svg .line.scheduled{stroke:var(--second)}svg .line.triggered{stroke:var(--model)}
svg .line.last_value{stroke:var(--bad)}svg .line.former{stroke:var(--naive)}svg .line.candidate{stroke:var(--good)}
svg .line.fixed{stroke-dasharray:5 4}svg .dot.good{fill:var(--good)}svg .dot.bad{fill:var(--bad)}
svg .box{stroke:none}svg .inside{fill:#fff;font-weight:560}svg .box.m0{fill:#98a2b3}svg .box.m1{fill:#2563eb}
svg .box.m2{fill:#0e9384}svg .box.m3{fill:#9333ea}svg .box.m4{fill:#c2410c}svg .box.m5{fill:#4d7c0f}
svg .box.m6{fill:#be185d}svg .box.first,svg .box.candidate{fill:var(--good)}svg .box.refused{fill:var(--naive)}
svg .box.failed{fill:var(--bad)}svg .box.alarm{fill:var(--bad);opacity:.75}
svg .span.trained{fill:var(--trained);opacity:.18}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:12.5px;color:var(--quiet);margin:2px 0 6px}
.legend span{display:inline-flex;align-items:center}
.key{width:12px;height:12px;border-radius:3px;margin-right:7px;background:var(--model)}
.key.naive{background:var(--naive)}.key.actual{background:var(--actual);height:2px}
.key.ideal{height:0;border-radius:0;background:none;border-top:2px dashed var(--naive)}
.key.former,.key.refused{background:var(--naive)}.key.static{background:var(--quiet)}.key.scheduled{background:var(--second)}
.key.candidate,.key.first{background:var(--good)}.key.last_value,.key.failed,.key.alarm{background:var(--bad)}
.key.triggered{background:var(--model)}
.key.trained{background:var(--trained);opacity:.5}.key.outer{opacity:.25}.key.inner{opacity:.55}
footer{color:var(--quiet);font-size:12.5px;margin-top:22px}
.slim{display:none}
@media (max-width:600px){main{padding:24px 14px 40px}section{padding:16px}h1,header p{overflow-wrap:anywhere}
.broad{display:none}.slim{display:block}.scroll{margin:0;padding:0}
table,tbody,tr,td{display:block}thead{display:none}tr{padding:8px 0;border-bottom:1px solid var(--rule)}
tr:last-child{border-bottom:0}td,td:first-child{display:flex;justify-content:space-between;gap:16px;border:0;
padding:2px 0;white-space:normal;text-align:right}td::before{content:attr(data-of);color:var(--quiet);text-align:left}
td:first-child{font-weight:620}}
@media print{body{background:#fff}section,.card{break-inside:avoid}}
"""


class Column(NamedTuple):
    """One column of a table: which figure, its heading, and how it is written."""

    key: str
    heading: str
    form: str
    signed: bool = False  # coloured by its sign where the row has an interval, `KEY_low` to `KEY_high`, without zero
    long: bool = False  # a sentence, which may take several lines


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


def moment(at_ns: int) -> str:
    return str(np.datetime64(int(at_ns), "ns").astype("datetime64[s]")).replace("T", " ")


def milliseconds(value: float) -> str:
    """Three digits, and none of them as a power of ten."""
    return f"{float(f'{value:.3g}'):,g} ms"


def note_of(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def cards_of(cards: list[tuple[str, str, str]]) -> str:
    """(name, value, remark) of each."""
    return '<div class="cards">' + "".join(_card(*card) for card in cards) + "</div>"


def _card(name: str, value: str, remark: str) -> str:
    return (
        f'<div class="card"><p class="small quiet">{escape(name)}</p><p class="value">{escape(value)}</p>'
        f'<p class="small quiet">{escape(remark)}</p></div>'
    )


def section_of(heading: str, remark: str, body: str) -> str:
    small = f'<p class="small quiet">{escape(remark)}</p>' if remark else ""
    return f"<section><h2>{escape(heading)}</h2>{small}{body}</section>"


def table_of(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """On a phone each row becomes a block of its own, in which every figure stands beside its heading."""
    head = "".join(f"<th>{escape(column.heading)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(_cell(column, row) for column in columns)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(column: Column, row: Row) -> str:
    css = f' class="{css}"' if (css := verdict(column, row) or "long" * column.long) else ""
    return f'<td data-of="{escape(column.heading)}"{css}>{escape(form(row[column.key], column.form))}</td>'


def verdict(column: Column, row: Row) -> str:
    """`good` or `bad` where the interval of the figure lies on one side of zero, else nothing."""
    low, high = row.get(f"{column.key}_low"), row.get(f"{column.key}_high")
    if not column.signed or low is None or high is None:
        return ""
    return "good" if low > 0 else "bad" if high < 0 else ""


def form(value: Any, form: str) -> str:
    """The value as written; a dash where there is none."""
    if value is None or (isinstance(value, float) and not np.isfinite(value)):
        return "-"
    return format(value, form)
