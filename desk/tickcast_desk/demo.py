"""`tickcast demo`: a synthetic market, a model fitted on its past, and the live daemon on what follows. No broker.

The daemon is wired as in production, with `bus.kind = "memory"`; event time runs faster than the clock.
"""

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console

from tickcast.app.bus_edges import EmbeddedBus
from tickcast.app.daemon import Daemon
from tickcast.clock import Clock, SystemClock
from tickcast.edges.memory_bus import MemoryBus, Subscription
from tickcast.edges.tape import write_ticks
from tickcast.edges.telemetry import set_up_logging
from tickcast.records import Accuracy
from tickcast.settings import Settings
from tickcast_desk.fit import fit, make_order
from tickcast_desk.synth import Market, json_messages
from tickcast_desk.view import LastForecast, LiveView, Snapshot

SEED, SYMBOLS, RATE_HZ = 7, 50, 500.0
HISTORY_S = 3600  # event seconds that the model learns from
SPEED = 20  # event seconds per second
STEP_S = 0.05  # messages are produced in slices of so many seconds
LOOKBACK, HORIZON = 48, 12
FIT = {"epochs": 4, "windows_per_epoch": 32_768, "batch_size": 512, "learning_rate": 2e-3, "time_budget_s": 20.0}
SHOWN = 6  # symbols in the view
SECOND_NS = 10**9


@dataclass(frozen=True, slots=True)
class Forecast:
    """Of a forecast record, what the view shows; everything else is skipped when it is read."""

    symbol: str
    anchor: float
    quantiles: list[list[float]]
    point: list[float]
    rung: str


async def demo(settings: Settings, out: Path, *, seconds: float, headless: bool, clock: Clock | None = None) -> None:
    clock = clock or SystemClock()
    console = Console()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    settings = demo_settings(settings, out)
    with (out / "daemon.log").open("w") as log:
        set_up_logging(settings.log, clock=clock, stream=log)
        market = Market(seed=SEED, symbols=SYMBOLS, tick_rate_hz=RATE_HZ, drift_points_s=(HISTORY_S + 300.0,))
        settings = await _learn(settings, market, out, console)
        daemon = await _live(settings, market, console, seconds=seconds, headless=headless, clock=clock)
    _conclude(daemon, console, out)


def demo_settings(settings: Settings, out: Path) -> Settings:
    """The user's settings with what the demo needs: short bars, its own store."""
    return settings.model_copy(
        update={
            "bars": settings.bars.model_copy(update={"every_ms": 1000, "history": out / "history.parquet"}),
            "window": settings.window.model_copy(update={"lookback": LOOKBACK}),
            "forecast": settings.forecast.model_copy(update={"horizon": HORIZON}),
            "quality": settings.quality.model_copy(update={"future_ms": 0}),  # the market's time is its own
            "score": settings.score.model_copy(update={"publish_every_s": 1.0}),
            "store": settings.store.model_copy(update={"path": out / "tickcast.duckdb"}),
            "runtime": settings.runtime.model_copy(update={"folder": out / "runtime"}),
        }
    )


async def _learn(settings: Settings, market: Market, out: Path, console: Console) -> Settings:
    """Write the past, fit NHITS on it in a child process, and serve what came out."""
    history = market.ticks(market.start_ns + HISTORY_S * SECOND_NS)
    write_ticks(out / "history.parquet", history)
    console.print(f"a synthetic market: {len(history):,} ticks of {SYMBOLS} symbols over {HISTORY_S // 60} minutes")
    order = make_order(settings, kind="nhits", name="demo", split="default", params=FIT)
    result = await asyncio.to_thread(fit, settings, out / "history.parquet", out / "model", order=order)
    console.print(f"NHITS fitted ({result.status}); on the hold-out: {_held_out(result.metrics)}")
    model = settings.model.model_copy(update={"default": str(out / "model")})
    return settings.model_copy(update={"model": model})


def _held_out(metrics: dict[str, Any]) -> str:
    return (
        f"error {metrics['skill']:+.1%} against last value, {metrics['coverage']['0.9']:.1%} of truths in the 90 % band"
    )


async def _live(
    settings: Settings, market: Market, console: Console, *, seconds: float, headless: bool, clock: Clock
) -> Daemon:
    bus = MemoryBus(clock)
    daemon = Daemon(settings, EmbeddedBus(bus), clock=clock)
    forecasts = bus.subscribe(settings.topics.prefix + "forecasts")
    async with asyncio.TaskGroup() as group:
        running = group.create_task(daemon.run())
        await _started(daemon, running)
        view = group.create_task(_watch(daemon, forecasts, console, headless=headless))
        await _trade(bus, settings.topics.ticks[0], market, seconds=seconds, clock=clock)
        daemon.drain()
        await running
        view.cancel()
    return daemon


async def _started(daemon: Daemon, running: "asyncio.Task[None]") -> None:
    live = asyncio.ensure_future(daemon.live.wait())
    await asyncio.wait({live, running}, return_when=asyncio.FIRST_COMPLETED)
    live.cancel()


async def _trade(bus: MemoryBus, topic: str, market: Market, *, seconds: float, clock: Clock) -> None:
    """Produce the market's ticks as event time passes, SPEED times as fast as the clock."""
    began, start_ns = clock.monotonic_ns(), market.start_ns + HISTORY_S * SECOND_NS
    while (passed := (clock.monotonic_ns() - began) / SECOND_NS) < seconds:
        ticks = await asyncio.to_thread(market.ticks, start_ns + int(passed * SPEED * SECOND_NS))
        if len(ticks):
            await bus.produce(topic, [message for _, message in json_messages(ticks)])
        await asyncio.sleep(STEP_S)


async def _watch(daemon: Daemon, forecasts: Subscription, console: Console, *, headless: bool) -> None:
    decoder = msgspec.json.Decoder(Forecast)
    newest: dict[str, Forecast] = {}
    closes: dict[str, list[float]] = {}
    with LiveView(console, title="tickcast demo", headless=headless) as view:
        while True:
            for batch in await forecasts.next_batches(0.25):
                for row in range(max(0, len(batch) - SYMBOLS), len(batch)):
                    forecast = decoder.decode(batch.message(row))
                    newest[forecast.symbol] = forecast
                    closes.setdefault(forecast.symbol, []).append(forecast.anchor)
            last = [_shown(f, closes[f.symbol]) for _, f in sorted(newest.items())[:SHOWN]]
            note = f"event time runs {SPEED} times as fast as the clock"
            view.show(Snapshot(daemon.health(), await daemon.accuracy(), last, daemon.unread, note))
            await asyncio.sleep(0.25)


def _shown(forecast: Forecast, closes: list[float]) -> LastForecast:
    last = forecast.quantiles[-1]
    return LastForecast(
        forecast.symbol, closes[-64:], forecast.anchor, forecast.point[-1], last[0], last[-1], forecast.rung
    )


def _conclude(daemon: Daemon, console: Console, out: Path) -> None:
    health = daemon.health()
    engine = daemon.serving.engine
    rows: list[Accuracy] = engine.scorekeeper.accuracy(engine.newest_ns(), window="all")
    console.print(
        f"\n{health.consumed:,} ticks, {health.bars:,} bars, {health.forecasts:,} forecasts, {health.scored:,} scored; "
        f"tick to forecast p50 {health.latency_ms['p50']:.1f} ms, p99 {health.latency_ms['p99']:.1f} ms"
    )
    for row in rows:
        inside = [*row.coverage.values()]
        console.print(
            f"  {row.model:>6} {row.horizon:>3} s ahead: error {row.mae_pct:.4f} %, "
            f"{row.skill:+.1%} against last value, "
            f"{np.subtract(inside[-1], inside[0]):.1%} of truths in the 90 % band (n = {row.n:,})"
        )
    console.print(
        f"what it stored: tickcast query --set store.path={out / 'tickcast.duckdb'} 'SELECT * FROM scores LIMIT 5'"
    )
