"""The commands that take long: each fills a job's folder and waits for its end. What a job made is kept in any case.

What a job does is the child's; what it reads lies in its folder, put there by a thread while ticks flow.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from tickcast.clock import Clock
from tickcast.engine.inference.model_folder import RESERVED
from tickcast.errors import BadData, BadRequest, JobFailed
from tickcast.io.jobs import prepare
from tickcast.io.jobs.folder import (
    BARS,
    DATASETS,
    MEMBERS,
    MODEL,
    SOURCE,
    START,
    TRIALS,
    FileSource,
    Result,
    write_whole,
)
from tickcast.io.jobs.host import REGISTERED, JobHost
from tickcast.io.jobs.orders import Order
from tickcast.io.store.ledger_rows import DatasetRow
from tickcast.io.store.store import Store
from tickcast.live.commands import argument_types, arguments, job_params
from tickcast.live.commands.data_folder import below
from tickcast.live.commands.inbox import Context
from tickcast.live.commands.past_searches import going_on, past_of
from tickcast.live.serving_models import ServingModels
from tickcast.loop.build import RUNGS
from tickcast.loop.refit import Refit, refit_models, refit_order
from tickcast.records import JobRow, ModelCard, TrialRow
from tickcast.settings import Settings

EVER_NS = (1 << 63) - 1
SECRET = {"control", "kafka", "mqtt"}  # sections of the settings that a backtest has no need of
KEPT_ON = ("queued", "running", "done")  # jobs that need no second one
LONG_RESULT = 200_000  # characters; the rest of it lies in the job's folder


class JobCommandParts(NamedTuple):
    """What the work needs of the daemon."""

    settings: Settings
    store: Store
    serving_models: ServingModels
    jobs: JobHost
    clock: Clock


class JobCommands:
    def __init__(self, parts: JobCommandParts) -> None:
        self._parts, self._settings = parts, parts.settings

    async def train(self, given: arguments.Train, context: Context) -> dict[str, Any]:
        job_params.refuse_fit(given.params)
        params, models, asked = given.params, dict[str, Path](), dict[str, Any]()
        if given.start_with is not None:
            start = given.start_with
            asked["start"] = {"mode": start.mode, "freeze": start.freeze}
            models[START] = await self._folder(await self._registered(start.model))
        if members := argument_types.members_of(params):
            cards = [await self._registered(name) for name in members]
            params = {**params, "members": [card.digest for card in cards]}
            models |= {f"{MEMBERS}/{number}": await self._folder(card) for number, card in enumerate(cards)}
        order = prepare.fit_order(
            self._settings, kind=prepare.known_kind(given.kind), name=_named(given.name or given.kind), params=params,
            tags=given.tags, seed=given.seed, created_ns=self._parts.clock.now_ns(), **asked,
        )  # fmt: skip
        return await self._done(order, models, given, context)

    async def refit(self, asked: Refit) -> Result:
        """On stored bars; with the terms of its contest with who serves. The model is in the registry then: the
        judged one where these refuse it, else one that was fitted once more."""
        jobs, champion = self._parts.jobs, asked.champion
        models = refit_models(asked, None if champion is None else await self._folder(champion))
        _named(asked.name)
        order = refit_order(self._settings, asked, created_ns=self._parts.clock.now_ns())
        begun = [row for row in jobs.rows() if row.command_id == asked.id and row.state in (*KEPT_ON, "interrupted")]
        if begun and begun[-1].state == "interrupted":
            begun = [await jobs.resume(begun[-1].id)]
        elif not begun:
            bars = partial(self._stored, start=asked.from_ns, end=EVER_NS, symbols=[])
            order, past = await going_on(order, self._parts.store.ledger)
            inputs = prepare.JobInputs(lambda folder: bars(folder / BARS), models, past)
            begun = [await jobs.submit(order, inputs, command_id=asked.id, cpu_s=asked.cpu_s)]
        row = await jobs.ended(begun[-1].id)
        result = msgspec.json.decode(row.result_json, type=Result)
        if row.state != "done":
            raise JobFailed(row.why, f"job {row.id} {row.state}: {result.error or row.why}")
        return result

    async def optimize(self, given: arguments.Optimize, context: Context) -> dict[str, Any]:
        job_params.refuse_fit(given.params)
        job_params.refuse_space(given.space)
        space = {
            name: {key: value for key, value in msgspec.to_builtins(wanted).items() if value is not None}
            for name, wanted in given.space.items()
        }
        order = prepare.tune_order(
            self._settings, kind=given.kind, name=_named(given.name or given.kind), params=given.params, space=space,
            trials=given.trials, metric=given.metric, sampler=given.sampler, pruner=given.pruner,
            seconds=given.seconds, seed=given.seed,
        )  # fmt: skip
        return await self._done(order, {}, given, context)

    async def auto(self, given: arguments.Auto, context: Context) -> dict[str, Any]:
        job_params.refuse_others(given.params, ())
        order = prepare.auto_order(
            self._settings, name=_named(given.name), kinds=given.kinds, budget_s=given.budget_s, seed=given.seed
        )
        return await self._done(order, {}, given, context)

    async def evaluate(self, given: arguments.Evaluate, context: Context) -> dict[str, Any]:
        job_params.refuse_others(given.params, job_params.EVALUATE)
        card = await self._card(given.model)
        if card is None:
            raise BadRequest("a rung has no folder to judge", remedy="name a registered model; backtest takes rungs")
        order = prepare.evaluate_order(self._settings, seed=given.seed, **given.params)
        return await self._done(order, {MODEL: await self._folder(card)}, given, context)

    async def backtest(self, given: arguments.Backtest, context: Context) -> dict[str, Any]:
        job_params.refuse_backtest(given.params)
        card = await self._card(given.model)
        models = {} if card is None else {MODEL: await self._folder(card)}
        settings = self._settings.model_dump(mode="json", exclude_defaults=True, exclude=SECRET)
        if card is None and given.model:
            settings["model"] = settings.get("model", {}) | {"default": given.model}
        asked = dict(given.params)
        if given.retrain_every_bars:
            asked["retrain"] = {"every_bars": given.retrain_every_bars, "kind": given.retrain_kind}
        order = prepare.backtest_order(
            settings=settings, fee_bps=given.fee_bps, slippage_bps=given.slippage_bps, trials=given.trials,
            seed=given.seed, **asked,
        )  # fmt: skip
        return await self._done(order, models, given, context)

    async def _card(self, model: str) -> ModelCard | None:
        """Of a registered model, or of the one that serves; None where a rung is meant."""
        name = model or self._parts.serving_models.serving_now()["default"]
        if model in RUNGS or not (model or await self._is_registered(name)):
            return None
        return await self._registered(name)

    async def _registered(self, name: str) -> ModelCard:
        return await self._parts.serving_models.models.resolve(name)

    async def _is_registered(self, digest: str) -> bool:
        return any(row.digest == digest for row in await self._parts.serving_models.models.versions())

    async def _done(
        self, order: Order, models: dict[str, Path], given: arguments.JobData, context: Context
    ) -> dict[str, Any]:
        """The job's result; what it fitted is in the registry by then: the host keeps it before it calls a job done."""
        jobs, resume = self._parts.jobs, given.resume
        if not resume:
            past = await past_of(order, self._parts.store.ledger)
            row = await jobs.submit(order, prepare.JobInputs(self._bars(given), models, past), command_id=context.id)
        elif (row := jobs.row(resume)).state != "done":  # else it is told again
            row = await jobs.resume(resume)
        await context.accepted({"job": row.id})
        row = await jobs.ended(row.id)
        result = msgspec.json.decode(row.result_json, type=Result)
        if row.state != "done":
            raise JobFailed(row.why, f"job {row.id} {row.state}: {result.error or row.why}")
        registered = result.content.pop(REGISTERED, {})
        found = {"metrics": result.metrics, **result.content}
        told = {"job": row.id, "status": result.status, **registered}
        return told | (found if len(msgspec.json.encode(found)) <= LONG_RESULT else {"metrics": result.metrics})

    async def keep(self, row: JobRow, result: Result) -> Result:
        """What a job made, into ledger and registry: once, however often; the result says what it is called."""
        folder, parts = self._parts.jobs.folder_of(row.id), self._parts
        if (folder / TRIALS).exists():
            trials = [msgspec.json.decode(line, type=TrialRow) for line in (folder / TRIALS).read_bytes().splitlines()]
            await parts.store.ledger.put_trials([msgspec.structs.replace(trial, job=row.id) for trial in trials])
        if not result.model:
            return result
        for name in DATASETS:
            if name in result.content:
                await parts.store.ledger.add_dataset(self._dataset(row, folder, result.content[name]))
        card = await parts.serving_models.models.register(folder / result.model, origin="fit")
        structlog.get_logger().info("model_registered", name=card.name, version=card.version, digest=card.digest[:12])
        registered = {"model": f"{card.name}@{card.version}", "digest": card.digest}
        return msgspec.structs.replace(result, content={**result.content, REGISTERED: registered})

    def _dataset(self, job: JobRow, folder: Path, found: dict[str, Any]) -> DatasetRow:
        """Bars that came from no file are those of a span or of rows, which are in the command's row."""
        file, source = folder / SOURCE, f"command {job.command_id}"
        if file.exists():
            source = msgspec.json.decode(file.read_bytes(), type=FileSource).path
        return msgspec.convert({"source": source, "added_ns": self._parts.clock.now_ns(), **found}, DatasetRow)

    async def _folder(self, card: ModelCard) -> Path:
        return await asyncio.to_thread(self._parts.serving_models.models.artefacts.open, card.digest)

    def _bars(self, given: arguments.JobData) -> Callable[[Path], object]:
        """Stored bars and rows are written here; a file is read by the child, which takes its time."""
        start, end = given.span_ns()
        if given.data:
            path = below(self._settings.control.data_folder, given.data)
            settings = self._settings.model_dump(mode="json", exclude_defaults=True)
            source = FileSource(str(path), settings, [*given.symbols], start, end)
            return lambda folder: write_whole(folder / SOURCE, msgspec.json.encode(source))
        if given.rows:
            rows = _wanted(given)
            return lambda folder: pq.write_table(_rows_table(rows), folder / BARS)
        return lambda folder: self._stored(folder / BARS, start or 0, EVER_NS if end is None else end, [*given.symbols])

    def _stored(self, path: Path, start: int, end: int, symbols: list[str]) -> None:
        if not self._parts.store.save_bars(path, start, end, symbols or None):
            raise BadData("the store has no bars of that span and those symbols", remedy="store.bars = all keeps them")


def _named(name: str) -> str:
    if name in RESERVED:
        raise BadRequest(f"a model cannot be named '{name}': a rung is", remedy="give it a `name`")
    return name


def _wanted(given: arguments.JobData) -> list[arguments.Bar]:
    """Of the rows that were given those of the span and of the symbols that were named."""
    rows = [
        row for row in given.rows
        if row.ts is not None and (given.start is None or given.start <= row.ts)
        and (given.end is None or row.ts < given.end) and (not given.symbols or row.symbol in given.symbols)
    ]  # fmt: skip
    if not rows:
        raise BadData("none of `rows` is of that span and those symbols", remedy="widen `from`, `to` or `symbols`")
    return rows


def _rows_table(rows: Sequence[arguments.Bar]) -> pa.Table:
    """Bars as a job reads them: by symbol, then in time."""
    by_place = sorted(rows, key=lambda row: (row.symbol, row.ts or datetime.min))
    counts: Counter[str] = Counter()
    ordinals = []
    for row in by_place:
        ordinals.append(counts[row.symbol])
        counts[row.symbol] += 1
    n = len(by_place)
    prices = {
        name: [row.close if getattr(row, name) is None else getattr(row, name) for row in by_place]
        for name in ("open", "high", "low")
    }
    return pa.table({
        "symbol": [row.symbol for row in by_place], "ordinal": pa.array(ordinals, pa.int64()),
        "as_of_ns": pa.array([argument_types.nanoseconds(row.ts) for row in by_place if row.ts], pa.int64()),
        "tie": pa.array([0] * n, pa.int32()), **prices, "close": [row.close for row in by_place],
        "volume": [row.volume for row in by_place], "ticks": pa.array([1] * n, pa.int64()),
        "mask": pa.array([True] * n), "gap": pa.array([False] * n),
    })  # fmt: skip
