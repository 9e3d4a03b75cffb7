"""The loop replayed: the same bars once for every arm, then the arms beside each other. It draws nothing."""

import hashlib
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl

from tickcast.batch.loop_replay.arm_figures import beside, by_horizon, edges_of, over_time, overall, read_scores
from tickcast.batch.loop_replay.arms import BY_LOOP, LAST_VALUE, STATIC, Arm, arms_of, begins_fitted
from tickcast.batch.loop_replay.host import FirstModel, HostTerms, LoopHost
from tickcast.batch.out_folder import drop_models
from tickcast.batch.replay import FILES_OF_REPLAY, ReplayOrder, in_folder, replay, storing_nothing
from tickcast.errors import BadData, BadRequest
from tickcast.progress import Progress, Shown
from tickcast.settings import Settings

ARMS, FITS, JSON = "arms", "fits", "loop.json"
KEPT = "scores.parquet"  # of each arm's replay: what the figures are computed from
CHUNK, FIRST_BARS, JOB_BARS, TRIALS = 1_000, 2_000, 1, 20


@dataclass(frozen=True, slots=True)
class LoopOrder:
    """What to replay, and how its fits go."""

    history: ReplayOrder
    first_bars: int = FIRST_BARS
    job_bars: int = JOB_BARS
    trials: int = TRIALS


class ArmDone(NamedTuple):
    """An arm after its replay."""

    arm: Arm
    host: LoopHost
    folder: Path  # that holds its scores
    summary: dict[str, Any]
    cpu_s: float

    def scores(self) -> pl.DataFrame:
        """From the file: those of all arms at once would be large."""
        return read_scores(self.folder / KEPT)


async def replay_loop(settings: Settings, order: LoopOrder, *, shown: Shown) -> dict[str, Any]:
    """All arms, one after the other; leaves loop.json and each arm's scores in the folder of the history."""
    if not isinstance(order.history.data, Path):
        raise BadRequest("--loop goes over the same bars once for every arm", remedy="write them to a file: --data")
    out, first = order.history.out, FirstModel()
    for folder in (out / FITS).glob("*"):
        drop_models(folder)
    done = [await replayed(arm, order, first, shown) for arm in arms_of(settings)]
    found = _figures(settings, order, done)
    (out / JSON).write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2))
    return found


async def replayed(arm: Arm, order: LoopOrder, first: FirstModel, shown: Shown) -> ArmDone:
    out = order.history.out
    folder, began_cpu = out / ARMS / arm.key, time.process_time()

    def of_arm(total: int | None, title: str) -> AbstractContextManager[Progress]:
        return shown(total, title if title.startswith(arm.title) else f"{arm.title}: {title}")

    first_bars = 0 if begins_fitted(arm.settings) else order.first_bars
    host = LoopHost(arm, HostTerms(out / FITS / arm.key, first_bars, order.job_bars, order.trials, of_arm), first)
    history = replace(order.history, out=folder)
    summary = await replay(storing_nothing(in_folder(arm.settings, folder)), history, walk=host, shown=of_arm)
    if summary["nearly_all_refused"]:
        raise BadData(f"{history.data}: {summary['refused']}")
    if arm.fits and not host.serves_from_ns:
        raise BadData(
            "the history ended before the first model served", remedy="a longer one, or --first-bars with fewer"
        )
    host.end()
    for name in FILES_OF_REPLAY:
        if name != KEPT:
            (folder / name).unlink(missing_ok=True)
    return ArmDone(arm=arm, host=host, folder=folder, summary=summary, cpu_s=time.process_time() - began_cpu)


def _figures(settings: Settings, order: LoopOrder, done: list[ArmDone]) -> dict[str, Any]:
    summary, levels = done[0].summary, settings.forecast.quantiles
    from_ns, to_ns = max(one.host.serves_from_ns for one in done), int(summary["to_ns"])
    told = _told(done, from_ns, to_ns, log_return=settings.forecast.transform == "log_return")
    return {
        "title": summary["title"].replace("Replay", "The loop replayed"), "data": summary["data"],
        "from_ns": from_ns, "to_ns": to_ns, "symbols": summary["symbols"], "bars": summary["bars"],
        "consumed": summary["consumed"], "accepted": summary["accepted"], "refused": summary["refused"],
        "levels": levels, "nominal_coverage": round(levels[-1] - levels[0], 9),
        "horizons": settings.scored_horizons(), "first_bars": order.first_bars, "job_bars": order.job_bars,
        "trials": order.trials,
        "schedule": settings.schedule.model_dump(mode="json", exclude_defaults=True), "arms": told,
        "digest": _digest(done, told), "spent": {one.arm.key: _spent(one) for one in done},
    }  # fmt: skip


def _told(done: list[ArmDone], from_ns: int, to_ns: int, *, log_return: bool) -> list[dict[str, Any]]:
    """Each arm beside last value, and what the loop made of it beside the static one."""
    reference = next(one for one in done if one.arm.name == LAST_VALUE).scores()
    static = {one.arm.adaptive: one.scores() for one in done if one.arm.name == STATIC}
    told, edges = [], edges_of(from_ns, to_ns)
    for one in done:
        arm, host, scores = one.arm, one.host, one.scores()
        labels = beside(scores, reference, log_return=log_return, from_ns=from_ns)
        more = {}
        if arm.name in BY_LOOP:
            more = overall(beside(scores, static[arm.adaptive], log_return=log_return, from_ns=from_ns))
        told.append({
            "name": arm.name, "key": arm.key, "title": arm.title, "adaptive": arm.adaptive, **overall(labels),
            **{f"gain{end}": more.get(f"skill{end}") for end in ("", "_low", "_high")},
            "width": _mean_width(host, from_ns), **host.story.counts(), "by_horizon": by_horizon(labels),
            "over_time": over_time(labels, host.widths.all(), edges), **msgspec.to_builtins(host.story),
        })  # fmt: skip
    return told


def _spent(one: ArmDone) -> dict[str, Any]:
    """On this machine."""
    jobs = one.host.cpu_s
    return {"cpu_s": one.cpu_s, "jobs_cpu_s": sum(jobs), "of_jobs": jobs, "wall_s": one.summary["wall_s"]}


def _mean_width(host: LoopHost, from_ns: int) -> float | None:
    as_of, width = host.widths.all()
    judged = width[as_of >= from_ns]
    return float(judged.mean()) if len(judged) else None


def _digest(done: list[ArmDone], told: list[dict[str, Any]]) -> str:
    """Over all losses and all that was decided; not over what it cost."""
    found = hashlib.blake2b(digest_size=16)
    for one in done:
        found.update(np.ascontiguousarray(one.scores()["loss"].explode().to_numpy()).tobytes())
    found.update(msgspec.json.encode([[arm["decisions"], arm["jobs"], arm["served"]] for arm in told]))
    return found.hexdigest()
