"""`tickcast demo`: a synthetic market, a model fitted on its past, and the live daemon on what follows. No broker.

The daemon is wired as in production, with `bus.kind = "memory"`; event time runs faster than the clock.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from tickcast.batch.by_hand.fit import fit
from tickcast.batch.out_folder import claim, claim_file, claim_model
from tickcast.batch.synth import Market, json_messages
from tickcast.beside import beside
from tickcast.clock import Clock, SystemClock
from tickcast.io.jobs.prepare import fit_order
from tickcast.io.memory_bus import MemoryBus, Subscription
from tickcast.io.tape.tape import write_ticks
from tickcast.io.telemetry import set_up_logging
from tickcast.live.buses.memory import EmbeddedBus
from tickcast.live.daemon import Daemon
from tickcast.records import Accuracy
from tickcast.settings import Settings
from tickcast.ui.pages.page import form
from tickcast.ui.view import LastForecast, LiveView, ProgressBar, ViewSnapshot

SEED, SYMBOLS, RATE_HZ = 7, 50, 500.0
HISTORY_S = 3600  # event seconds that the model learns from
SPEED = 20  # event seconds per second
STEP_S = 0.05  # messages are produced in slices of so many seconds
LOOKBACK, HORIZON = 48, 12
FIT = {"epochs": 4, "windows_per_epoch": 32_768, "batch_size": 512, "learning_rate": 2e-3, "time_budget_s": 20.0}
CHANGE_S = 15.0  # seconds of the run after which the market gets another law, which the model does not know
CHANGE = "the market's law changes now: more volatility, another cycle. Watch: skill goes, coverage holds"
HISTORY, LOG, STORE = "history.parquet", "daemon.log", "tickcast.duckdb"
FILES = (HISTORY, LOG, STORE, STORE + ".wal")
TOLD_BY = (HISTORY, LOG, STORE)
QUERY = (
    "SELECT strftime(make_timestamp_ns(as_of_ns), '%H:%M') AS minute, count(*) AS n, "
    "round(1 - avg(loss) / avg(loss_naive), 3) AS skill, "
    "round(avg(covered::INT), 3) AS coverage "
    "FROM score_steps WHERE NOT void AND model = 'demo' GROUP BY ALL ORDER BY ALL"
)
SHOWN = 6  # symbols in the view
SECOND_NS = 10**9
Run = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class ShownForecast:
    """Of a forecast record, what the view shows; everything else is skipped when it is read."""

    symbol: str
    anchor: float
    quantiles: list[list[float]]
    point: list[float]
    rung: str


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
        market = Market(
            seed=SEED, symbols=SYMBOLS, tick_rate_hz=RATE_HZ, drift_points_s=(HISTORY_S + CHANGE_S * SPEED,)
        )
        settings = _learn(settings, market, out, console)
        view = LiveView(console, title="tickcast demo", headless=headless)
        daemon = run(lambda: _live(settings, market, console, view, seconds=seconds, picture=picture, clock=clock))
    _conclude(daemon, console, out, changed=seconds > CHANGE_S)


def demo_settings(settings: Settings, out: Path) -> Settings:
    """The user's settings with what the demo needs: short bars, its own store."""
    return settings.model_copy(
        update={
            "bars": settings.bars.model_copy(update={"every_ms": 1000, "history": out / HISTORY}),
            "window": settings.window.model_copy(update={"lookback": LOOKBACK}),
            "forecast": settings.forecast.model_copy(update={"horizon": HORIZON}),
            "quality": settings.quality.model_copy(update={"future_ms": 0}),  # the market's time is its own
            "score": settings.score.model_copy(update={"publish_every_s": 1.0}),
            "store": settings.store.model_copy(update={"path": out / STORE}),
            "runtime": settings.runtime.model_copy(update={"folder": out / "runtime"}),
        }
    )


def _learn(settings: Settings, market: Market, out: Path, console: Console) -> Settings:
    """Write the past, fit NHITS on it in a child process, and serve what came out."""
    history = market.ticks(market.start_ns + HISTORY_S * SECOND_NS)
    write_ticks(out / HISTORY, history)
    console.print(f"a synthetic market: {len(history):,} ticks of {SYMBOLS} symbols over {HISTORY_S // 60} minutes")
    console.print("fitting NHITS on it in a child process")
    order = fit_order(settings, kind="nhits", name="demo", params=FIT)
    result = fit(settings, out / HISTORY, out / "model", order=order, shown=ProgressBar)
    console.print(f"NHITS fitted ({result.status}); on the hold-out: {_held_out(result.metrics)}")
    model = settings.model.model_copy(update={"default": str(out / "model")})
    return settings.model_copy(update={"model": model})


def _held_out(metrics: dict[str, Any]) -> str:
    return (
        f"skill {metrics['skill']:+.1%} against last value, {metrics['coverage']['0.9']:.1%} of truths in the 90 % band"
    )


async def _live(
    settings: Settings, market: Market, console: Console, view: LiveView, *, seconds: float, picture: Path | None,
    clock: Clock,
) -> Daemon:  # fmt: skip
    changes = f"the market's law changes {CHANGE_S:g} s into the run" if seconds > CHANGE_S else ""
    notes = [f"event time runs {SPEED} times as fast as the clock", *([changes] if changes else [])]
    bus = MemoryBus(clock)
    daemon = Daemon(settings, EmbeddedBus(bus), clock=clock)
    forecasts = bus.subscribe(settings.topics.prefix + "forecasts")
    running = asyncio.ensure_future(daemon.run())
    try:
        await _started(daemon, running)
        async with beside(_watch(daemon, forecasts, view, note="; ".join(notes), picture=picture)):
            await _trade(bus, settings.topics.ticks[0], market, console, seconds=seconds, clock=clock)
            daemon.drain()
            await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return daemon


async def _started(daemon: Daemon, running: "asyncio.Task[None]") -> None:
    live = asyncio.ensure_future(daemon.live.wait())
    await asyncio.wait({live, running}, return_when=asyncio.FIRST_COMPLETED)
    live.cancel()


async def _trade(bus: MemoryBus, topic: str, market: Market, console: Console, *, seconds: float, clock: Clock) -> None:
    """Produce the market's ticks as event time passes, SPEED times as fast as the clock."""
    has_changed = False
    began, start_ns = clock.monotonic_ns(), market.start_ns + HISTORY_S * SECOND_NS
    while (passed := (clock.monotonic_ns() - began) / SECOND_NS) < seconds:
        ticks = await asyncio.to_thread(market.ticks, start_ns + int(passed * SPEED * SECOND_NS))
        if len(ticks):
            await bus.produce(topic, [message for _, message in json_messages(ticks)])
        if passed > CHANGE_S and not has_changed:
            has_changed = True
            console.print(f"{passed:.1f} s: {CHANGE}", highlight=False)
        await asyncio.sleep(STEP_S)


async def _watch(daemon: Daemon, forecasts: Subscription, view: LiveView, *, note: str, picture: Path | None) -> None:
    decoder = msgspec.json.Decoder(ShownForecast)
    newest: dict[str, ShownForecast] = {}
    closes: dict[str, list[float]] = {}
    with view:
        while True:
            for batch in await forecasts.next_batches(0.25):
                for row in range(max(0, len(batch) - SYMBOLS), len(batch)):
                    forecast = decoder.decode(batch.message(row))
                    newest[forecast.symbol] = forecast
                    closes.setdefault(forecast.symbol, []).append(forecast.anchor)
            last = [_shown(f, closes[f.symbol]) for _, f in sorted(newest.items())[:SHOWN]]
            now = ViewSnapshot(daemon.health(), await daemon.session.accuracy(), last, daemon.session.unread(), note)
            view.show(now)
            if picture and last:
                picture.write_text(view.picture(now), encoding="utf-8")
            await asyncio.sleep(0.25)


def _shown(f: ShownForecast, closes: list[float]) -> LastForecast:
    last = f.quantiles[-1]
    return LastForecast(
        symbol=f.symbol, closes=closes[-64:], anchor=f.anchor, point=f.point[-1], low=last[0], high=last[-1],
        model=f.rung,
    )  # fmt: skip


def _conclude(daemon: Daemon, console: Console, out: Path, *, changed: bool) -> None:
    health = daemon.health()
    engine = daemon.session.serving.engine
    rows: list[Accuracy] = engine.scorekeeper.accuracy(engine.newest_ns(), window="all")
    console.print(
        f"\n{health.consumed:,} ticks, {health.bars:,} bars, {health.forecasts:,} forecasts, {health.scored:,} scored; "
        f"tick to forecast p50 {health.latency_ms['p50']:.1f} ms, p99 {health.latency_ms['p99']:.1f} ms"
    )
    for row in rows:
        band = row.intervals["0.9"]
        console.print(
            f"  {row.model:>6} {row.horizon:>3} s ahead: " + (
                f"insufficient (n = {row.n:,} in {row.blocks:,} blocks)" if row.insufficient else
                f"error {row.mae_pct:.4f} %, skill {form(row.skill, '+.1%')} against last value, "
                f"{band.coverage:.1%} of truths in the 90 % band (n = {row.n:,})"
            )
        )  # fmt: skip
    if changed:
        console.print(
            f"The market's law changed after {CHANGE_S:g} s. The model has learnt the one before, so its skill is gone "
            "since; the bands, which learn as they are scored, still hold. A fit on the new law would bring skill back."
        )
    console.print("\nskill and coverage by the minute of the market's time:")
    console.print(f'  tickcast query --set store.path={out / STORE} "{QUERY}"', highlight=False, markup=False)
