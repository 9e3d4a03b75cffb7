"""The terminal while a run goes on: a live page, or plain lines where there is no terminal. It only shows.

The live page starts no thread and waits for nothing: the caller shows a new snapshot when it has one.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO

from rich import progress
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tickcast.records import Accuracy, Health
from tickcast.ui.pages.page import form

BLOCKS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 32
SKILLS_WIDTH = 44
PICTURE_COLUMNS, PICTURE_LINES = 110, 40
VERSION_CHARS = 6  # of a fitted model, that tell it from others of its name
PAGE_LINES = 18  # of a page, without the rows of its tables and its story; one stays free
BLANK = Text()
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
    served: Accuracy | None = None  # figures of who serves
    skills: Sequence[float] = ()  # of whoever served, up to now
    story: Sequence[str] = ()  # all of it
    waits_for: str = ""


class LiveView:
    """`with LiveView(console) as view: view.show(snapshot)`."""

    def __init__(self, console: Console, *, title: str = "tickcast", headless: bool = False) -> None:
        self._console, self._title = console, title
        self._plain = headless or not console.is_terminal
        self._live = None if self._plain else Live(console=console, auto_refresh=False, transient=True)
        self._before: Health | None = None
        self._next_line_s = 0.0
        self._told = 0  # lines of the story

    def __enter__(self) -> "LiveView":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, now: ViewSnapshot) -> None:
        if self._live:
            self._live.update(self._page(now, self._console.height), refresh=True)
            self._before = now.health
            return
        self.tell(now.story)
        if now.health.uptime_s >= self._next_line_s:
            self._next_line_s = now.health.uptime_s + LINE_EVERY_S
            self._console.print(self._line(now), highlight=False, markup=False, soft_wrap=True)
            self._before = now.health

    def tell(self, story: Sequence[str]) -> None:
        """Print what of it was not printed; a live page shows it, and prints all of it when it is over."""
        for line in story[self._told :]:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._told = len(story)

    def picture(self, now: ViewSnapshot) -> str:
        """The page as an SVG that stands alone: rich would fetch a font from elsewhere."""
        console = Console(record=True, width=PICTURE_COLUMNS, file=StringIO(), force_terminal=True)
        console.print(self._page(now, PICTURE_LINES))
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
        if now.served is not None:
            parts.append(f"{_model(now.served)} skill {_skill(now.served)} coverage {_covered(now.served)}")
        return " | ".join(parts)

    def _page(self, now: ViewSnapshot, lines: int) -> RenderableType:
        parts: list[RenderableType] = [
            _beside(_flow(now, self._rate(now.health)), _speed(now.health)),
            BLANK,
        ]
        figures = [row for row in now.accuracy if row.n]
        room = max(lines - PAGE_LINES - len(figures) - len(now.forecasts), 1)
        parts += [_accuracy(figures)] if figures else []
        parts += [BLANK, _forecasts(now.forecasts)] if now.forecasts else []
        parts += [BLANK, _skills(now), *map(_one_line, now.story[-room:])] if now.served is not None else []
        parts += [_one_line(f"now: {now.waits_for}", "bold")] if now.waits_for else []
        parts += [_one_line(now.note, "dim")] if now.note else []
        subtitle = f"{now.health.state} · {now.health.uptime_s:,.0f} s"
        return Panel(Group(*parts), title=f"[bold]{self._title}", subtitle=subtitle, border_style="blue")


def _beside(*tables: Table) -> Table:
    both = Table.grid(expand=True)
    for _ in tables:
        both.add_column()
    both.add_row(*tables)
    return both


def _one_line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _skills(now: ViewSnapshot) -> Text:
    known = [skill for skill in now.skills if math.isfinite(skill)]
    spread = f"  {min(known):+.1%} to {max(known):+.1%}" if known else ""
    return _one_line(f"skill of who serves  {sparkline(now.skills, SKILLS_WIDTH)}{spread}", "bold")


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
    return " ".join(f"{name} {_ms(value)}" for name, value in figures.items()) + " ms" if figures else "-"


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def _accuracy(rows: list[Accuracy]) -> Table:
    table = Table(box=SIMPLE_HEAD, expand=True, show_edge=False)
    for heading in ("model", "bars ahead", "scored", "skill", "of the point", "coverage", "nominal", "direction right"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for row in rows:
        table.add_row(
            Text(_model(row)), str(row.horizon), f"{row.n:,}", _skill(row), form(row.skill_mae, "+.1%"),
            _covered(row), _nominal(row), form(row.directional, ".1%"),
        )  # fmt: skip
    return table


def model_name(model: str, version: str) -> str:
    """Of a rung the version says nothing."""
    return f"{model} {version[:VERSION_CHARS]}" if len(version) > VERSION_CHARS else model


def _model(row: Accuracy) -> str:
    return model_name(row.model, row.version)


def _skill(row: Accuracy) -> str:
    return "insufficient" if row.insufficient else form(row.skill, "+.1%")


def _covered(row: Accuracy) -> str:
    """Share of actuals between the outermost quantiles."""
    return next((form(within.coverage, ".1%") for within in row.intervals.values()), "-")


def _nominal(row: Accuracy) -> str:
    return next((f"{float(nominal):.0%}" for nominal in row.intervals), "-")


def _forecasts(rows: list[LastForecast]) -> Table:
    table = Table(box=SIMPLE_HEAD, expand=True, show_edge=False)
    for heading in ("symbol", "closes", "now", "forecast", "from", "to", "model"):
        table.add_column(heading, justify="right" if heading in ("now", "forecast", "from", "to") else "left")
    for row in rows:
        colour = "green" if row.low > row.anchor else "red" if row.high < row.anchor else ""
        table.add_row(
            Text(row.symbol), sparkline(row.closes), f"{row.anchor:.6g}", Text(f"{row.point:.6g}", colour),
            f"{row.low:.6g}", f"{row.high:.6g}", Text(row.model),
        )  # fmt: skip
    return table


def sparkline(values: Sequence[float], width: int = SPARK_WIDTH) -> str:
    """The last `width` values as a line of blocks; a gap where one is not known."""
    shown = values[-width:]
    known = [value for value in shown if math.isfinite(value)]
    if not known:
        return " " * len(shown)
    low, span = min(known), max(known) - min(known)
    return "".join(
        " " if not math.isfinite(value) else BLOCKS[int((value - low) / span * (len(BLOCKS) - 1)) if span else 0]
        for value in shown
    )


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
