"""The commands that are answered at once, one handler each. Those that take long are in `job_commands`."""

import asyncio
import fnmatch
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tickcast.causes import sentences
from tickcast.columns import Bars
from tickcast.direction import KINDS, has_classes
from tickcast.engine.core import windows
from tickcast.engine.core.events import Ask, AskAnswer
from tickcast.engine.core.ladder import RUNGS
from tickcast.errors import BadRequest, CommandFault, CommandRefused, Quality, StoreStalled
from tickcast.io.jobs.host import JobHost
from tickcast.io.jobs.orders import FEE_BPS, SLIPPAGE_BPS
from tickcast.io.store.ledger import ChainCheck
from tickcast.io.store.scored import ScoreFilter, Trading
from tickcast.io.store.store import Store
from tickcast.live.alerts import Alerts
from tickcast.live.commands import argument_types, arguments
from tickcast.live.commands.data_folder import below
from tickcast.live.commands.inbox import Context
from tickcast.live.looking_back import LookingBack
from tickcast.live.serving_models import ServingModels
from tickcast.loop.build import Serving
from tickcast.loop.pump import Pump
from tickcast.records import WINDOWS, Accuracy, Health, ModelCard

Result = dict[str, Any]
NO_TIME = -1
BROKERS = ("kafka", "mqtt")  # sections of the settings
HOUR_NS = 3600 * 10**9
DRAIN_AFTER_S = 0.2  # so that the reply goes out first


class CommandParts(NamedTuple):
    """What the commands work with."""

    serving: Serving
    pump: Pump
    serving_models: ServingModels
    store: Store
    jobs: JobHost
    health: Callable[[], Health]
    accuracy: Callable[..., Any]  # windows -> Awaitable[list[Accuracy]]
    corrections: Callable[[str], Any]  # digest -> Awaitable[by group and step]
    drain: Callable[[], None]
    upkeep: Callable[[], Result]
    alerts: Alerts
    looking_back: LookingBack


class Commands:
    def __init__(self, parts: CommandParts) -> None:
        self._parts = parts
        self._settings = parts.serving.settings

    async def forecast(self, given: arguments.Forecast, context: Context) -> Result:
        self._refuse_beyond(given.horizon)
        level, bounds = given.confidence_level, given.bounds
        answer = await self._ask(Ask(given.symbols, given.model, confidence_level=level, bounds=bounds))
        return {"forecasts": self._told(answer, given.horizon or None)}

    async def predict(self, given: arguments.Predict, context: Context) -> Result:
        self._refuse_beyond(given.horizon)
        as_of = NO_TIME if given.as_of is None else argument_types.nanoseconds(given.as_of)
        symbols = (given.symbol,) if given.symbol else ()
        answer = await self._ask(Ask(symbols, given.model, bars=_bars_of(given), as_of=as_of))
        return {"forecast": self._told(answer, given.horizon or None)[0]}

    def _refuse_beyond(self, horizon: int) -> None:
        if horizon > self._settings.forecast.horizon:
            raise CommandRefused(
                CommandFault.BAD_ARGUMENT, f"horizon is at most {self._settings.forecast.horizon}",
                remedy="ask for fewer bars, or raise forecast.horizon",
            )  # fmt: skip

    async def _ask(self, ask: Ask) -> AskAnswer:
        """Of a model that does not serve, its runner is asked."""
        if ask.model:
            digest, runner = await self._parts.serving_models.runner_of(ask.model)
            ask = replace(ask, model="" if runner else digest, runner=runner)
        answer = await self._parts.pump.ask(ask)
        if answer.refused is not None:
            raise answer.refused
        return answer

    def _told(self, answer: AskAnswer, steps: int | None) -> list[Result]:
        """One record for each symbol, with the fields of a published forecast that mean something here."""
        ladder, forecast = self._parts.serving.ladder, self._settings.forecast
        assert ladder is not None
        median, told, classes = forecast.quantiles.index(0.5), [], has_classes(answer.probs).tolist()
        for i in range(len(answer.as_of)):
            card = answer.ask.runner.card if answer.ask.runner else ladder.cards[answer.model[i]]
            quantiles, targets = answer.quantiles[i][:steps], answer.target_ns[i][:steps].tolist()
            as_of = int(answer.as_of[i])
            told.append({
                "symbol": answer.ask.symbols[i] if answer.ask.symbols else None,
                "as_of_ns": None if as_of < 0 else as_of, "target_step": [*range(1, len(quantiles) + 1)],
                "target_ns": None if as_of < 0 or min(targets) < 0 else targets, "levels": forecast.quantiles,
                "quantiles": quantiles.tolist(), "point": quantiles[:, median].tolist(),
                "anchor": float(answer.anchor[i]), "transform": forecast.transform, "scale": float(answer.scale[i]),
                "sigma": answer.sigma[i][:steps].tolist(),
                "model": card.name, "version": card.version, "rung": RUNGS[answer.rung[i]],
                "kind": KINDS[classes[i]], "probs": answer.probs[i].tolist() if classes[i] else None,
                "confidence": float(answer.confidence[i]),
                "quality": [str(flag.name).lower() for flag in Quality if flag & int(answer.flags[i])],
            })  # fmt: skip
            if answer.interval is not None:
                level, interval = answer.ask.confidence_level, answer.interval[i][:steps].tolist()
                told[-1] |= {"confidence_level": level, "interval": interval}
            if answer.leaving is not None:
                told[-1] |= {"leaving": answer.leaving[i][:steps].tolist()}
        return told

    async def status(self, given: arguments.Status, context: Context) -> Result:
        sections: dict[str, Callable[[], Any]] = {
            "health": self._health, "alerts": self._alerts, "models": partial(self._models, given.model, given.tag),
            "accuracy": partial(self._accuracy, given.model), "jobs": self._job_counts, "routes": self._routes,
            "decisions": self._decisions, "store": self._store,
            "settings": partial(self._changed_settings, context.role),
        }  # fmt: skip
        summary = ("models",) if given.model or given.tag else ("health", "alerts", "routes", "jobs")
        wanted = summary if given.section == "summary" else (given.section,)
        return {name: await sections[name]() for name in wanted}

    async def _health(self) -> Result:
        told: Result = msgspec.to_builtins(self._parts.health())
        return told

    async def _alerts(self) -> Result:
        """The open ones, in the order in which they were raised, and what the hooks did."""
        alerts = self._parts.alerts
        return {"open": msgspec.to_builtins(alerts.open()), "hooks": alerts.hook_counts()}

    async def _models(self, model: str, tag: str) -> list[Result]:
        """All versions, or those that are meant, with all that is known of them."""
        models, serving = self._parts.serving_models.models, self._parts.serving_models.serving_now().values()
        stages, told = await models.stages(), list[Result]()
        for row in await models.versions_of(model):
            card = row.card
            if tag and tag not in card.tags:
                continue
            told.append({
                "name": row.name, "version": row.version, "digest": row.digest, "kind": row.kind, "origin": row.origin,
                "stage": "active" if row.digest in serving else stages[row.digest], "tags": card.tags,
                "skill": card.metrics.get("skill"), "parameters": card.parameters, "cost_us": card.cost_us,
                "created_ns": row.created_ns, **(await self._all_of(card) if model else {}),
            })  # fmt: skip
        return told

    async def _all_of(self, card: ModelCard) -> Result:
        serving_models = self._parts.serving_models
        routes = [route for route, digest in serving_models.serving_now().items() if digest == card.digest]
        return {
            "card": msgspec.to_builtins(card), "bytes": serving_models.models.artefacts.bytes_of(card),
            "loaded": serving_models.is_loaded(card.digest), "routes": routes,
            "evaluated": await serving_models.models.evaluated(card.digest),
            "accuracy": await self._accuracy(f"{card.name}@{card.version}"),
            "corrections": await self._parts.corrections(card.digest),
        }  # fmt: skip

    async def _accuracy(self, model: str = "") -> list[Result]:
        figures: list[Accuracy] = await self._parts.accuracy(*WINDOWS)
        wanted = [f for f in figures if model in ("", f.model, f"{f.model}@{f.version}")]
        told: list[Result] = msgspec.to_builtins(wanted)
        return told

    async def _job_counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for row in self._parts.jobs.rows():
            counts[row.state] = counts.get(row.state, 0) + 1
        return counts

    async def _routes(self) -> dict[str, str]:
        return self._parts.serving_models.serving_now()

    async def _decisions(self) -> Result:
        return self._parts.upkeep()

    async def _store(self) -> Result:
        path = self._settings.store.path
        return {"path": str(path), "bytes": path.stat().st_size if path.exists() else 0}

    async def _changed_settings(self, role: str) -> Result:
        """Those that are not the defaults; secrets are files, so none is among them. Who may only read learns neither
        of paths nor of brokers."""
        if role != "read":
            return self._settings.model_dump(mode="json", exclude_defaults=True)
        shown: Result = _without_places(self._settings.model_dump(exclude_defaults=True))
        return shown

    async def jobs(self, given: arguments.Jobs, context: Context) -> Result:
        rows = [*reversed(self._parts.jobs.rows())]
        rows = [
            row for row in rows
            if given.job in ("", row.id) and given.kind in ("", row.kind) and given.state in ("", row.state)
        ]  # fmt: skip
        return {"jobs": [msgspec.to_builtins(row) for row in rows[: given.limit]]}

    async def cancel(self, given: arguments.Cancel, context: Context) -> Result:
        return {"job": msgspec.to_builtins(await self._parts.jobs.cancel(given.job))}

    async def report(self, given: arguments.ReportArguments, context: Context) -> Result:
        newest_ns = self._parts.serving.engine.newest_ns()
        from_ns = max(newest_ns - given.hours * HOUR_NS, 0)
        trading = Trading(FEE_BPS + SLIPPAGE_BPS, self._settings.forecast.every_bars == 1)
        wanted = ScoreFilter(from_ns, newest_ns + 1, [*given.symbols], given.model)
        return {
            "accuracy": await self._accuracy(given.model), "from_ns": from_ns, "to_ns": newest_ns,
            "side_bps": trading.side_bps, **await self._parts.store.scored(wanted, trading),
            "shares": await self._shares(from_ns, newest_ns + 1),
            "why": await self._parts.looking_back.why([*given.symbols], given.hours),
            "health": await self._health(),
        }  # fmt: skip

    async def _shares(self, from_ns: int, to_ns: int) -> list[Result]:
        """Of each route that two models share out."""
        shares = await self._parts.serving_models.shares()
        return [await self._parts.store.share(each, from_ns, to_ns) for each in shares]

    async def diagnose(self, given: arguments.Diagnose, context: Context) -> Result:
        found = _findings(self._parts.health(), await self._parts.store.ledger.verify_chain())
        found += [
            {"code": alert.name, "subject": alert.subject, "detail": alert.detail}
            for alert in self._parts.alerts.open()
        ]  # fmt: skip
        found += [*self._refused_models(), *self._failed_jobs(), *self._of_symbol(given.symbol)]
        try:
            why = await self._parts.looking_back.why([given.symbol] if given.symbol else [])
        except (BadRequest, StoreStalled) as problem:
            return {
                "findings": [*found, {"code": "no_causes", "subject": "store", "detail": str(problem)}],
                "why": None,
            }
        said = sentences(why["causes"]).items()
        found += [{"code": "worst_tenth", "subject": cause, "detail": sentence} for cause, sentence in said]
        return {"findings": found, "why": why}

    def _refused_models(self) -> list[Result]:
        counts = self._parts.serving_models.refused.items()
        return [{"code": "model_refused", "subject": code, "detail": f"{n} since the start"} for code, n in counts]

    def _failed_jobs(self) -> list[Result]:
        return [
            {"code": "job_failed", "subject": row.id, "detail": row.why}
            for row in self._parts.jobs.rows()
            if row.state in ("failed", "interrupted")
        ]

    def _of_symbol(self, symbol: str) -> list[Result]:
        if not symbol:
            return []
        serving = self._parts.serving
        code = serving.symbols.find(symbol)
        if code < 0:
            raise BadRequest(f"no symbol '{symbol}' has been seen", remedy="`symbols` lists those that have")
        bars = int(serving.engine.builder.bars_held()[code])
        needs = serving.ladder.first.need_bars if serving.ladder else 0
        return [{"code": "cold" if bars < needs else "warm", "subject": symbol, "detail": f"{bars} bars of {needs}"}]

    async def promote(self, given: arguments.Promote, context: Context) -> Result:
        row = await self._parts.serving_models.promote(
            given.model, given.route, force=given.force, by=context.key, note=given.note, command_id=context.id
        )
        return {"promotion": msgspec.to_builtins(row)}

    async def rollback(self, given: arguments.Rollback, context: Context) -> Result:
        row = await self._parts.serving_models.rollback(
            given.route, by=context.key, note=given.note, command_id=context.id
        )
        return {"promotion": msgspec.to_builtins(row)}

    async def symbols(self, given: arguments.Listing, context: Context) -> Result:
        serving = self._parts.serving
        held = serving.engine.builder.bars_held()
        fitting = sorted(
            name for name in serving.symbols.names() if name > given.after and fnmatch.fnmatchcase(name, given.like)
        )
        page = fitting[: given.limit]
        return {
            "symbols": [{"symbol": name, "bars": int(held[serving.symbols.find(name)])} for name in page],
            "more": len(fitting) > len(page),
        }

    async def export(self, given: arguments.Export, context: Context) -> Result:
        start, end = given.span_ns()
        name = f"{given.table}-{context.id}.{given.format}"
        target = below(self._settings.control.data_folder, name)
        rows = await self._parts.store.export(
            given.table, target, format=given.format, from_ns=start, to_ns=end, symbols=list(given.symbols)
        )
        return {"file": name, "rows": rows, "bytes": target.stat().st_size}

    async def pause(self, given: arguments.Pause, context: Context) -> Result:
        self._parts.pump.paused = True
        return {"paused": True}

    async def resume(self, given: arguments.Resume, context: Context) -> Result:
        self._parts.pump.paused = False
        return {"paused": False}

    async def drain(self, given: arguments.Drain, context: Context) -> Result:
        asyncio.get_running_loop().call_later(DRAIN_AFTER_S, self._parts.drain)
        return {"draining": True}


def _bars_of(given: arguments.Predict) -> Bars:
    if given.closes:
        close = np.array(given.closes, np.float64)
        return windows.whole([close, close, close, close, np.zeros(len(close))])
    rows = [
        [bar.close if price is None else price for price in (bar.open, bar.high, bar.low)] + [bar.close, bar.volume]
        for bar in given.bars
    ]
    return windows.whole([*np.array(rows, np.float64).T])


def _findings(health: Health, chain: ChainCheck) -> list[Result]:
    """What a person should look at, each with a stable code."""
    looked_at = (
        (health.state != "live", "not_live", health.instance, health.state),
        (health.cold > 0, "cold_symbols", "symbols", f"{health.cold} of {health.symbols} have too few bars"),
        (health.lag_records > 0, "lag", "source", f"{health.lag_records} records wait, {health.lag_s:.1f} s old"),
        (health.rejected > 0, "rejected", "ticks", str(health.reasons)),
        (bool(health.feature_failures), "feature_failures", "features", str(health.feature_failures)),
        (any(health.dropped.values()), "dropped", "messages", str(health.dropped)),
        (health.unasked > 0, "unasked", "questions", f"{health.unasked} were not asked under load"),
        (health.store_units_behind > 2, "store_behind", "store", f"{health.store_units_behind} units wait"),
        (chain.broken_at is not None, "chain_broken", "commands", f"row {chain.broken_at} is not as it was"),
    )
    return [{"code": code, "subject": subject, "detail": detail} for found, code, subject, detail in looked_at if found]


def _without_places(value: Any) -> Any:
    """Without the sections of brokers, and without what names a file. Patterns of symbols have slashes of their own."""
    if isinstance(value, dict):
        return {
            name: each if name == "groups" else _without_places(each)
            for name, each in value.items()
            if name not in BROKERS and not _is_place(each)
        }
    if isinstance(value, list):
        return [_without_places(each) for each in value if not _is_place(each)]
    return value


def _is_place(value: Any) -> bool:
    return isinstance(value, Path) or (isinstance(value, str) and os.sep in value)
