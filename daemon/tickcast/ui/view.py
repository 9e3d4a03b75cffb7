"""The terminal while a run goes on: a live page, or plain lines where there is no terminal. It only shows.

The live page starts no thread and waits for nothing: the caller shows a new snapshot when it has one.
"""

import re
from dataclasses import dataclass, field
from io import StringIO

from rich import progress
from rich.box import SIMPLE_HEAD
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tickcast.records import Accuracy, Health
from tickcast.ui.pages.page import form

BLOCKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 32
PICTURE_COLUMNS = 110
LINE_EVERY_S = 2.0  # without a terminal, one line each so many seconds of the run


@dataclass(frozen=True, slots=True)
class LastForecast:
    """The newest forecast of a symbol, at its last step, and the closes before it."""

    symbol: str
    closes: list[float]
    anchor: float
    point: float
    low: float
    high: float
    model: str


@dataclass(frozen=True, slots=True)
class ViewSnapshot:
    """All that the view shows of one moment; `lag` counts messages that wait, None where that is not known."""

    health: Health
    accuracy: list[Accuracy] = field(default_factory=list)
    forecasts: list[LastForecast] = field(default_factory=list)
    lag: int | None = None
    note: str = ""


class LiveView:
    """`with LiveView(console) as view: view.show(snapshot)`."""

    def __init__(self, console: Console, *, title: str = "tickcast", headless: bool = False) -> None:
        self._console, self._title = console, title
        self._plain = headless or not console.is_terminal
        self._live = None if self._plain else Live(console=console, auto_refresh=False, transient=True)
        self._before: Health | None = None
        self._next_line_s = 0.0

    def __enter__(self) -> "LiveView":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, now: ViewSnapshot) -> None:
        if self._live:
            self._live.update(self._page(now), refresh=True)
            self._before = now.health
        elif now.health.uptime_s >= self._next_line_s:
            self._next_line_s = now.health.uptime_s + LINE_EVERY_S
            self._console.print(self._line(now), highlight=False, markup=False, soft_wrap=True)
            self._before = now.health

    def picture(self, now: ViewSnapshot) -> str:
        """The page as an SVG that stands alone: rich would fetch a font from elsewhere."""
        console = Console(record=True, width=PICTURE_COLUMNS, file=StringIO(), force_terminal=True)
        console.print(self._page(now))
        return re.sub(r"@font-face \{.*?\}", "", console.export_svg(title=self._title), flags=re.DOTALL)

    def _rate(self, health: Health) -> float:
        """Messages per second since the snapshot before."""
        past = self._before
        if past is None or health.uptime_s <= past.uptime_s:
            return health.consumed / health.uptime_s if health.uptime_s > 0 else 0.0
        return (health.consumed - past.consumed) / (health.uptime_s - past.uptime_s)

    def _line(self, now: ViewSnapshot) -> str:
        health = now.health
        parts = [
            f"{health.uptime_s:6.1f}s {health.state}",
            f"{self._rate(health):,.0f} ticks/s",
            f"{health.consumed:,} consumed",
            f"{health.forecasts:,} forecasts",
            f"latency {_percentiles(health.latency_ms)}",
        ]
        if now.lag is not None:
            parts.append(f"lag {now.lag:,}")
        scored = [row for row in now.accuracy if row.n]
        if scored:
            last = scored[-1]
            parts.append(f"h{last.horizon} skill {_skill(last)} coverage {_covered(last)}")
        return " | ".join([*parts, *([now.note] if now.note else [])])

    def _page(self, now: ViewSnapshot) -> RenderableType:
        parts: list[RenderableType] = [
            Columns([_flow(now, self._rate(now.health)), _speed(now.health)], equal=True, expand=True)
        ]
        if now.accuracy:
            parts.append(_accuracy(now.accuracy))
        if now.forecasts:
            parts.append(_forecasts(now.forecasts))
        subtitle = f"{now.health.state} · {now.health.uptime_s:,.0f} s"
        note = [Text(now.note, style="dim")] if now.note else []
        return Panel(Group(*parts, *note), title=f"[bold]{self._title}", subtitle=subtitle, border_style="blue")


def _pairs(rows: list[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(justify="right")
    for name, value in rows:
        table.add_row(name, value)
    return table


def _flow(now: ViewSnapshot, rate: float) -> Table:
    health = now.health
    refused = f"{health.late:,} late · {health.rejected:,} rejected · {health.held:,} held"
    lag = "-" if now.lag is None else f"{now.lag:,}"
    return _pairs(
        [
            ("ticks per second", f"[bold]{rate:,.0f}"),
            ("consumed", f"{health.consumed:,}"),
            ("not accepted", refused),
            ("symbols", f"{health.symbols:,} ({health.cold:,} cold)"),
            ("lag", lag),
        ]
    )


def _speed(health: Health) -> Table:
    return _pairs(
        [
            ("forecasts", f"[bold]{health.forecasts:,}"),
            ("scored", f"{health.scored:,}"),
            ("batch size, mean", f"{health.batch_mean:,.1f}"),
            ("tick to forecast", _percentiles(health.latency_ms)),
            ("event-loop lag", _percentiles(health.loop_lag_ms)),
        ]
    )


def _percentiles(figures: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.2f}" for name, value in figures.items()) + " ms" if figures else "-"


def _accuracy(rows: list[Accuracy]) -> Table:
    table = Table(box=SIMPLE_HEAD, expand=True)
    for heading in ("model", "bars ahead", "scored", "skill", "of the point", "coverage", "nominal", "direction right"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for row in rows:
        if not row.n:
            continue
        table.add_row(
            Text(row.model), str(row.horizon), f"{row.n:,}", _skill(row), form(row.skill_mae, "+.1%"),
            _covered(row), _nominal(row), form(row.directional, ".1%"),
        )  # fmt: skip
    return table


def _skill(row: Accuracy) -> str:
    return "insufficient" if row.insufficient else form(row.skill, "+.1%")


def _covered(row: Accuracy) -> str:
    """Share of actuals between the outermost quantiles."""
    return next((form(within.coverage, ".1%") for within in row.intervals.values()), "-")


def _nominal(row: Accuracy) -> str:
    return next((f"{float(nominal):.0%}" for nominal in row.intervals), "-")


def _forecasts(rows: list[LastForecast]) -> Table:
    table = Table(box=SIMPLE_HEAD, expand=True)
    for heading in ("symbol", "closes", "now", "forecast", "from", "to", "model"):
        table.add_column(heading, justify="right" if heading in ("now", "forecast", "from", "to") else "left")
    for row in rows:
        colour = "green" if row.low > row.anchor else "red" if row.high < row.anchor else ""
        table.add_row(
            Text(row.symbol), sparkline(row.closes), f"{row.anchor:.6g}", Text(f"{row.point:.6g}", colour),
            f"{row.low:.6g}", f"{row.high:.6g}", Text(row.model),
        )  # fmt: skip
    return table


def sparkline(values: list[float], width: int = SPARK_WIDTH) -> str:
    """The last `width` values as a line of blocks."""
    shown = values[-width:]
    if not shown:
        return ""
    low, span = min(shown), max(shown) - min(shown)
    return "".join(BLOCKS[int((value - low) / span * (len(BLOCKS) - 1)) if span else 0] for value in shown)


class ProgressBar:
    """`with Progress(total, title) as progress: progress.advance(n)`: a bar; without a terminal, a line each tenth."""

    def __init__(self, total: int | None, title: str, console: Console | None = None) -> None:
        self._total, self._title = total, title
        self._console = console or Console(stderr=True)
        self._done = self._tenths = 0
        self._bar = progress.Progress(
            progress.SpinnerColumn(), progress.TextColumn("{task.description}"), progress.BarColumn(),
            progress.MofNCompleteColumn(), progress.TimeElapsedColumn(), console=self._console,
        ) if self._console.is_terminal else None  # fmt: skip

    def __enter__(self) -> "ProgressBar":
        if self._bar:
            self._bar.start()
            self._bar.add_task(self._title, total=self._total)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, amount: int = 1) -> None:
        self._done += amount
        if self._bar:
            self._bar.advance(self._bar.task_ids[0], amount)
        elif self._total and self._done * 10 // self._total > self._tenths:
            self._tenths = self._done * 10 // self._total
            self._console.print(
                f"{self._title}: {10 * self._tenths} % ({self._done:,} of {self._total:,})", highlight=False
            )
