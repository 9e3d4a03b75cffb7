"""report.json and plots -> one self-contained page: no script, no outside file. It computes nothing."""

from html import escape
from typing import Any

from tickcast.batch.judge.report_figures import Figures
from tickcast.causes import CAUSES, sentences
from tickcast.ui.pages.page import Column, cards_of, document, form, milliseconds, moment, note_of, section_of, table_of
from tickcast.ui.pages.verdict import beside_last_value

IN_PRICES = (Column("mae", "MAE", ".5g"), Column("mae_naive", "MAE, last value", ".5g"))
HORIZON_COLUMNS = (
    Column("horizon", "bars ahead", "d"),
    Column("n", "scored", ",d"),
    Column("skill", "skill", "+.1%", signed=True),
    Column("skill_low", "from", "+.1%"),
    Column("skill_high", "to", "+.1%"),
    Column("pinball", "pinball", ".4g"),
    Column("pinball_naive", "pinball, last value", ".4g"),
    Column("skill_mae", "skill of the point", "+.1%", signed=True),
    Column("mase", "MASE", ".3f"),
    Column("r2_returns", "R2 of moves", "+.4f"),
    Column("mae_pct", "MAE, % of price", ".4f"),
    *IN_PRICES,
    Column("coverage", "coverage", ".1%"),
    Column("winkler", "Winkler", ".4g"),
    Column("calibration", "calibration", ".3f"),
    Column("directional", "direction right", ".1%"),
    Column("directional_base", "always one way", ".1%"),
)
TURNS = "One turn of the loop: a chunk of ticks in, all its forecasts out."
OUTCOMES = ("consumed", "accepted", "late", "rejected", "held")
MODEL_COLUMNS = (Column("model", "model", "s"), *HORIZON_COLUMNS[1:])
SYMBOL_COLUMNS = (Column("symbol", "symbol", "s"), *HORIZON_COLUMNS[1:])
MOST_SYMBOLS = 20  # in their table: those with most scores
CAUSE_COLUMNS = (
    Column("words", "forecasts that", "s"),
    Column("step", "bars ahead", "d"),
    Column("share", "of the worst tenth", ".1%"),
    Column("base", "of all", ".1%"),
    Column("lift", "times as often", ".1f"),
    Column("lift_low", "from", ".1f"),
    Column("lift_high", "to", ".1f"),
    Column("blocks", "blocks", ",d"),
)
REGIME_COLUMNS = (
    Column("model", "model", "s"),
    Column("step", "bars ahead", "d"),
    Column("regime", "regime", "s"),
    Column("n", "scored", ",d"),
    Column("skill", "skill", "+.1%"),
    Column("coverage", "coverage", ".1%"),
    Column("coverage_low", "from", ".1%"),
    Column("coverage_high", "to", ".1%"),
    Column("width", "width", ".2f"),
)
MOST_CAUSES = 12  # rows of their table, of most lift
NOTHING_BEYOND_CHANCE = "Nothing that is known of them was so more often than by chance."
OF_REGIME = (
    "The symbol's when the forecast was made. Width is in one-bar moves; of too few blocks there are no figures."
)
OVER_TIME = "Pinball loss relative to the last value's; below 1 is better."
OF_SKILL = (
    "Skill is 1 - pinball loss / that of the last value, whose quantiles are calibrated too: above 0 the forecasts are "
    "better. Pinball is in one-bar moves."
)


def page(report: Figures, plots: dict[str, Any]) -> str:
    """The whole page. `plots` holds SVG by name, and under `fans` pairs of symbol and SVG."""
    figures = f"{_cards(report)}{_accuracy(report, plots)}{_why(report['why'])}"
    body = f"{_notes(report)}{figures}{_fans(plots)}{_traffic(report)}"
    return document(report["title"], _subtitle(report), body, _footer(report))


def columns_of(columns: tuple[Column, ...], report: Figures) -> tuple[Column, ...]:
    """Without those in prices where there are several symbols: the dearest alone would decide them."""
    return columns if len(report["by_symbol"]) == 1 else tuple(each for each in columns if each not in IN_PRICES)


def _subtitle(report: Figures) -> str:
    parts = [report["data"], *(f"{model['name']} {model['version']}" for model in report["models"])]
    if report["from_ns"] is not None:
        parts.append(f"{moment(report['from_ns'])} to {moment(report['to_ns'])} UTC")
    return " &middot; ".join(escape(part) for part in parts)


def verdict_of(report: Figures) -> str:
    """Whether the forecasts beat last value, as far as the interval allows to say."""
    if not (head := report["headline"]):
        return (
            "No forecast was scored outside a training span, so there is no headline. "
            "A tape shorter than look-back and horizon ends like this, and so does one that the model was trained on."
        )
    low, high = head["skill_low"], head["skill_high"]
    return beside_last_value(head["skill"], low, high, moments=head["moments"], confidence=head["confidence"])


def _notes(report: Figures) -> str:
    notes = [verdict_of(report)]
    notes += [report[name] for name in ("refused", "mixed") if report[name]]
    trained = report["in_sample"]
    if trained["labels"]:
        notes.append(
            f"{trained['labels']:,} scores from {moment(trained['from_ns'])} to {moment(trained['to_ns'])} lie in the "
            "span that the model was trained on. They are marked in_sample and left out of all accuracy figures."
        )
    return "".join(map(note_of, notes))


def _cards(report: Figures) -> str:
    headline, nominal = report["headline"], report["nominal_coverage"]
    cards = [("forecasts", form(report["forecasts"], ",d"), f"{headline.get('n', 0):,} outcomes scored")]
    if headline:
        cards.insert(0, ("skill against the last value", form(headline["skill"], "+.1%"), _between(headline, "skill")))
        wanted = f"nominal {nominal:.0%}" if nominal is not None else ""
        cards.append(("coverage", form(headline["coverage"], ".1%"), wanted))
        point = form(headline["skill_mae"], "+.1%")
        cards.append(("skill of the point", point, _between(headline, "skill_mae")))
    return cards_of(cards)


def _between(headline: Figures, name: str) -> str:
    low, high = headline[f"{name}_low"], headline[f"{name}_high"]
    if low is None:
        return "too few moments for an interval"
    return f"{form(low, '+.1%')} to {form(high, '+.1%')} at {headline['confidence']:.0%}"


def _accuracy(report: Figures, plots: dict[str, Any]) -> str:
    if not report["headline"]:
        return ""
    table = table_of(columns_of(HORIZON_COLUMNS, report), report["by_horizon"])
    parts = [section_of("Accuracy by horizon", OF_SKILL, table)]
    pair = section_of("Error by horizon", "Lower is better.", plots["error"])
    if plots.get("reliability"):
        pair += section_of("Coverage by level", "On the diagonal, quantiles keep their word.", plots["reliability"])
    parts.append(f'<div class="pair">{pair}</div>')
    parts.append(section_of("Over time", OVER_TIME, plots["over_time"]))
    if len(report["by_model"]) > 1:
        parts.append(
            section_of(
                "By model",
                "Who answered, all horizons together.",
                table_of(columns_of(MODEL_COLUMNS, report), report["by_model"]),
            )
        )
    if len(report["by_symbol"]) > 1:
        most = sorted(report["by_symbol"], key=lambda row: (-row["n"], row["symbol"]))[:MOST_SYMBOLS]
        remark = f"All horizons together; {len(most):,} of {len(report['by_symbol']):,} symbols, most scored first."
        parts.append(section_of("By symbol", remark, table_of(columns_of(SYMBOL_COLUMNS, report), most)))
    return "".join(parts)


def _why(why: dict[str, Any]) -> str:
    """What the worst had more often than all, and how each regime went."""
    if not why["forecasts"]:
        return ""
    said = " ".join(f"{sentence}." for sentence in sentences(why["causes"]).values()) or NOTHING_BEYOND_CHANCE
    rows = [{**row, "words": CAUSES[row["cause"]]} for row in why["causes"][:MOST_CAUSES]]
    parts = section_of("Why the worst tenth was wrong", said, table_of(CAUSE_COLUMNS, rows)) if rows else ""
    if why["regimes"]:
        parts += section_of("By regime", OF_REGIME, table_of(REGIME_COLUMNS, why["regimes"]))
    return parts


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


def _footer(report: Figures) -> str:
    parts = (
        "tickcast",
        f"replayed in {report['wall_s']:,.1f} s, {report['ticks_per_s']:,} ticks per second",
        f"digest {report['digest']}",
    )
    return " &middot; ".join(escape(part) for part in parts)
