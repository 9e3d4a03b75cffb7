"""`tickcast demo`: a synthetic market that breaks, a model fitted on its past, and the live daemon on what follows.

The daemon is wired as in production, with `bus.kind = "memory"`, and keeps its models good by itself; event time runs
faster than the clock. No broker. Nothing here tells the daemon what to do: it is given ticks, and asked what it did.
"""

import asyncio
import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from rich.console import Console

from tickcast import figures
from tickcast.batch.by_hand.fit import fit
from tickcast.batch.out_folder import claim, claim_file, claim_model
from tickcast.batch.synth import Market, json_messages
from tickcast.beside import beside
from tickcast.clock import Clock, SystemClock
from tickcast.io.jobs.prepare import fit_order
from tickcast.io.memory_bus import MemoryBus
from tickcast.io.store.query import query_direct
from tickcast.io.tape.tape import write_ticks
from tickcast.io.telemetry import set_up_logging
from tickcast.live.buses.memory import EmbeddedBus
from tickcast.live.daemon import Daemon
from tickcast.records import Accuracy, Alert
from tickcast.settings import Settings
from tickcast.topics import ALERTS
from tickcast.ui.demo_story import DemoStory, goes_on
from tickcast.ui.pages.page import form
from tickcast.ui.view import LastForecast, LiveView, ProgressBar, ViewSnapshot, model_name

SEED, SYMBOLS, RATE_HZ = 7, 20, 40.0
HISTORY_S = 7200  # event seconds that the model learns from
SPEED = 150  # event seconds per second, where the daemon keeps up
BAR_S = 4
STEP_S = 0.05  # messages are produced in slices of so many seconds
MOST_STEP_S = 0.2  # of a machine that is slow
MOST_UNREAD, MOST_BEHIND = 5_000, 4  # messages, and commit units, at which the market waits for the daemon
LOOKBACK, HORIZON = 24, 1
KIND = "ridge"
BREAK_S = 4.0  # seconds of the run after which the market gets another law, which the model does not know
MENDED_S = 10.0  # the run ends so long after a candidate was promoted
BROKE = "the market breaks: another law from now on, more volatility and another cycle"
HISTORY, LOG, STORE = "history.parquet", "daemon.log", "tickcast.duckdb"
FILES = (HISTORY, LOG, STORE, STORE + ".wal")
TOLD_BY = (HISTORY, LOG, STORE)
SKILL = "count(DISTINCT as_of_ns) AS moments, 1 - avg(loss) / avg(loss_naive) AS skill, avg(covered::INT) AS coverage"
QUERY = (
    "SELECT strftime(make_timestamp_ns(as_of_ns // 300000000000 * 300000000000), '%H:%M') AS time, model, "
    f"left(version, 6) AS version, {SKILL} FROM score_steps WHERE NOT void GROUP BY ALL ORDER BY ALL"
)
SERVED = (
    f"SELECT as_of_ns >= {{broke_ns}} AS broken, model, version, min(as_of_ns), max(as_of_ns), {SKILL} "
    "FROM score_steps WHERE NOT void GROUP BY ALL ORDER BY min(as_of_ns)"
)
SHOWN = 3  # symbols in the view
LOOKS_PER_S = 4
SECOND_NS = 10**9
Run = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class ShownForecast:
    """Of a forecast record, what the view shows; everything else is skipped when it is read."""

    symbol: str
    as_of_ns: int
    anchor: float
    quantiles: list[list[float]]
    point: list[float]
    model: str
    version: str


FORECAST = msgspec.json.Decoder(ShownForecast)


class DemoSpan(NamedTuple):
    """What a model was worth while it served, before the break or after it."""

    broken: bool
    model: str
    version: str
    from_ns: int
    to_ns: int
    moments: int
    skill: float
    coverage: float


def demo(
    settings: Settings, out: Path, *, seconds: float, headless: bool, picture: Path | None = None, run: Run
) -> None:
    """`run` runs a coroutine function to its end; `picture` becomes an SVG of what the view showed last."""
    clock, console = SystemClock(), Console(soft_wrap=True)
    claim(out, writes=FILES, told_by=TOLD_BY)
    claim_model(out / "model")
    if picture:
        claim_file(picture)
    for file in FILES:
        (out / file).unlink(missing_ok=True)
    settings = demo_settings(settings, out)
    with (out / LOG).open("w") as log:
        set_up_logging(settings.log, clock=clock, stream=log)
        breaks_s = HISTORY_S + BREAK_S * SPEED
        market = Market(seed=SEED, symbols=SYMBOLS, tick_rate_hz=RATE_HZ, drift_points_s=(breaks_s,))
        settings = _learn(settings, market, out, console)
        view = LiveView(console, title="tickcast demo", headless=headless)
        console.print(_note())
        shown = DemoRun(settings, market, view, clock=clock)
        run(lambda: shown.run(seconds, picture))
    _conclude(shown, console, settings)


def demo_settings(settings: Settings, out: Path) -> Settings:
    """The user's settings with what the demo needs: its own store, and a pace at which minutes are months."""
    pace: dict[str, dict[str, Any]] = {
        "bars": {"every_ms": BAR_S * 1000, "history": out / HISTORY},
        "window": {"lookback": LOOKBACK},
        "forecast": {"horizon": HORIZON},
        "quality": {"future_ms": 0},  # the market's time is its own
        "score": {"publish_every_s": 1.0, "window_bars": 150},
        "schedule": {"autonomy": 3, "kind": KIND, "keep_bars": 500, "rest_s": 5, "look_every_s": 1},
        "alerts": {"quiet_s": 3},
        "store": {"path": out / STORE},
        "runtime": {"folder": out / "runtime"},
    }
    return settings.model_copy(
        update={name: getattr(settings, name).model_copy(update=values) for name, values in pace.items()}
    )


def _learn(settings: Settings, market: Market, out: Path, console: Console) -> Settings:
    """Write the past, fit a model on it in a child process, and serve what came out."""
    history = market.ticks(market.start_ns + HISTORY_S * SECOND_NS)
    write_ticks(out / HISTORY, history)
    console.print(f"a synthetic market: {len(history):,} ticks of {SYMBOLS} symbols over {HISTORY_S // 60} minutes")
    console.print("fitting a ridge regression on it in a child process")
    order = fit_order(settings, kind=KIND, params={})
    result = fit(settings, out / HISTORY, out / "model", order=order, shown=ProgressBar)
    console.print(f"fitted ({result.status}); on the hold-out: {_held_out(result.metrics)}")
    model = settings.model.model_copy(update={"default": str(out / "model")})
    return settings.model_copy(update={"model": model})


def _note() -> str:
    return f"event time runs {SPEED} times as fast as the clock; the market breaks after {BREAK_S:g} s"


def _held_out(metrics: dict[str, Any]) -> str:
    return (
        f"skill {metrics['skill']:+.1%} against last value, {metrics['coverage']['0.9']:.1%} of truths in the 90 % band"
    )


class DemoRun:
    """A daemon and its market on one bus, and what is shown of both."""

    def __init__(self, settings: Settings, market: Market, view: LiveView, *, clock: Clock) -> None:
        self.story = DemoStory()
        self.waits_for = ""  # what the upkeep is at, in words
        self.broke_ns = market.drift_points_ns[0]
        self._reached = [(0, market.start_ns + HISTORY_S * SECOND_NS)]  # time of the clock, of the market
        self._settings, self._market, self._view, self._clock = settings, market, view, clock
        self._bus = MemoryBus(clock)
        self.daemon = Daemon(settings, EmbeddedBus(self._bus), clock=clock)
        topics = (settings.topics.prefix + name for name in ("forecasts", ALERTS))
        self._forecasts, self._alerts = map(self._bus.subscribe, topics)
        self._newest: dict[str, ShownForecast] = {}
        self._closes: dict[str, list[float]] = {}
        self._answers = "", 0  # who, and since when
        self._skills: list[float] = []  # of who serves, second by second

    async def run(self, seconds: float, picture: Path | None) -> None:
        running = asyncio.ensure_future(self.daemon.run())
        try:
            await _unless_over(self.daemon.live.wait(), running)
            async with beside(self._watch(picture)):
                await _unless_over(self.trade(seconds), running)
                self.daemon.drain()
                await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        self._view.tell(self.told())

    async def trade(self, seconds: float) -> None:
        """Produce the market's ticks as event time passes, SPEED times as fast as the clock where the daemon keeps up;
        until what was promoted has served for a while."""
        passed, mended_s, before = 0.0, seconds, self._clock.monotonic_ns()
        start_ns, topic = self._reached[0][1], self._settings.topics.ticks[0]
        while passed < min(seconds, mended_s + MENDED_S):
            event_ns = start_ns + int(passed * SPEED * SECOND_NS)
            self._reach(event_ns)
            ticks = await asyncio.to_thread(self._market.ticks, event_ns)
            if len(ticks):
                await self._bus.produce(topic, [message for _, message in json_messages(ticks)])
            await asyncio.sleep(STEP_S)
            now = self._clock.monotonic_ns()
            session = self.daemon.session
            if session.unread() < MOST_UNREAD and session.commits.behind < MOST_BEHIND:
                passed += min((now - before) / SECOND_NS, MOST_STEP_S)
            before = now
            if self.story.done("promote"):
                mended_s = min(mended_s, passed)
        await self._ask()

    def _reach(self, event_ns: int) -> None:
        if self._reached[-1][1] < self.broke_ns <= event_ns:
            self.story.tell(self.broke_ns, BROKE)
        self._reached.append((self._clock.now_ns(), event_ns))

    def _event_ns(self, clock_ns: int) -> int:
        """Which time the market had then."""
        return self._reached[bisect_right(self._reached, clock_ns, key=itemgetter(0)) - 1][1]

    async def _watch(self, picture: Path | None) -> None:
        with self._view:
            for look in itertools.count():
                await self._read()
                now = await self._snapshot()
                if look % LOOKS_PER_S == 0 and now.health.state == "live":
                    await self._ask()
                    self._skills.append(math.nan if now.served is None else now.served.skill)
                self._view.show(now)
                if picture and now.forecasts and now.health.state == "live":
                    picture.write_text(self._view.picture(now), encoding="utf-8")
                await asyncio.sleep(1 / LOOKS_PER_S)

    async def _read(self) -> None:
        """What the daemon published."""
        for batch in await self._alerts.next_batches(0):
            for row in range(len(batch)):
                alert = msgspec.json.decode(batch.message(row), type=Alert)
                self.story.alert(alert, self._event_ns(alert.at_ns))
        for batch in await self._forecasts.next_batches(0):
            for row in range(max(0, len(batch) - SYMBOLS), len(batch)):
                forecast = FORECAST.decode(batch.message(row))
                self._newest[forecast.symbol] = forecast
                self._closes.setdefault(forecast.symbol, []).append(forecast.anchor)
                if (name := model_name(forecast.model, forecast.version)) != self._answers[0]:
                    self._answers = name, forecast.as_of_ns

    async def _ask(self) -> None:
        """What it decided and is at: as `history` and `status section=decisions` tell it."""
        session = self.daemon.session
        self.story.decided(await session.store.ledger.decisions(), self._event_ns)
        self.story.serves(*self._answers)
        self.story.gather()
        self.waits_for = goes_on(session.commands.upkeep.told())

    async def _snapshot(self) -> ViewSnapshot:
        session = self.daemon.session
        accuracy, newest = await session.accuracy(), sorted(self._newest.items())
        return ViewSnapshot(
            self.daemon.health(), accuracy, [_shown(f, self._closes[symbol]) for symbol, f in newest[:SHOWN]],
            lag=session.unread(), note=_note(), served=self._served(accuracy), skills=self._skills,
            story=self.told(), waits_for=self.waits_for,
        )  # fmt: skip

    def _served(self, accuracy: list[Accuracy]) -> Accuracy | None:
        return next((row for row in accuracy if model_name(row.model, row.version) == self.story.serving), None)

    def told(self) -> list[str]:
        return [f"{_time(line.at_ns)}  {line.text}" for line in self.story.lines]


async def _unless_over(body: Coroutine[Any, Any, object], running: "asyncio.Task[None]") -> None:
    """The body; a daemon that ends before it ends it, too."""
    task = asyncio.ensure_future(body)
    try:
        await asyncio.wait({task, running}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
    finally:
        task.cancel()


def _shown(f: ShownForecast, closes: list[float]) -> LastForecast:
    last = f.quantiles[-1]
    return LastForecast(
        symbol=f.symbol, closes=closes[-64:], anchor=f.anchor, point=f.point[-1], low=last[0], high=last[-1],
        model=model_name(f.model, f.version),
    )  # fmt: skip


def _time(event_ns: int) -> str:
    return f"{datetime.fromtimestamp(event_ns / SECOND_NS, UTC):%H:%M:%S}"


def _conclude(shown: DemoRun, console: Console, settings: Settings) -> None:
    health = shown.daemon.health()
    console.print(
        f"\n{health.consumed:,} ticks, {health.bars:,} bars, {health.forecasts:,} forecasts, {health.scored:,} scored; "
        f"tick to forecast p50 {health.latency_ms['p50']:.1f} ms, p99 {health.latency_ms['p99']:.1f} ms"
    )
    spans = [DemoSpan(*row) for row in query_direct(settings, SERVED.format(broke_ns=shown.broke_ns)).rows]
    console.print("\nwho served, and what that was worth beside last value:")
    for span in spans:
        console.print(
            f"  {_time(span.from_ns)} to {_time(span.to_ns)}  {model_name(span.model, span.version):13} "
            f"{'after' if span.broken else 'before'} the break: skill {_skill(span)}, "
            f"{span.coverage:.1%} of truths in the 90 % band"
        )
    console.print(_verdict(spans, shown))
    console.print("\nskill and coverage over the market's time:")
    console.print(f'  tickcast query --set store.path={settings.store.path} "{QUERY}"', highlight=False, markup=False)


def _skill(span: DemoSpan) -> str:
    return "insufficient" if span.moments < figures.LEAST_BLOCKS else form(span.skill, "+.1%")


def _verdict(spans: list[DemoSpan], shown: DemoRun) -> str:
    before, after = ([span for span in spans if span.broken is broken] for broken in (False, True))
    if not before or not after:
        return "The market did not break in this time."
    fell = f"skill was {_skill(before[-1])} before the break and {_skill(after[0])} after it"
    if not shown.story.done("promote"):
        return f"The loop did not finish in this time: {shown.waits_for}; {fell}."
    mended_min = (after[-1].from_ns - shown.broke_ns) / SECOND_NS / 60
    return (
        f"It mended itself: {fell}; {mended_min:.0f} minutes of the market later what was fitted anew served, "
        f"{_skill(after[-1])}."
    )
