"""What raises which alert: one function for each, from what the daemon knows of itself to the subjects for which it is
so now, with the figures. They are pure; who calls them has looked.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tickcast import remedies
from tickcast.errors import Reason
from tickcast.records import Accuracy, Health, JobRow
from tickcast.settings import Settings

FEWEST = 10  # ticks or forecasts between two looks, from which a share of them says something
SILENT_BARS = 3
MINUTE_S = 60.0  # that the figures of the last minute are of
AWAY_S = 10.0  # a broker that answers no sooner is away

Subjects = Mapping[str, str]  # subject -> detail


class ServedFigures(NamedTuple):
    """The figures of who serves."""

    accuracy: Sequence[Accuracy]  # as it was last published
    serving: frozenset[tuple[str, str]]  # name and version of the models that are asked first


class AlertLook(NamedTuple):
    """What there was to see at one moment."""

    health: Health
    before: Health  # at the look before
    live_s: float  # since when it is live
    accuracy: Sequence[Accuracy]  # as it was last published
    serving: frozenset[tuple[str, str]]  # name and version of the models that are asked first
    model: str  # the first of them all
    drift: Subjects  # families that alarm, by partition, with what they name
    proposed: Subjects  # what waits for a person, by its kind, with why
    stepped_down: Subjects  # routes that last value answers, for their model lost to it
    unserved: Subjects  # routes whose model cannot serve, and why
    jobs: Sequence[JobRow]
    silent_s: Mapping[str, float]  # by partition: since when nothing came, although all was read
    away_s: Mapping[str, float]  # by broker: since when it owes an answer
    rebuilds: int  # new clients since the look before
    disk_free: Mapping[str, float]  # share of what holds the store, the archive, the jobs
    memory_bytes: int  # that the process may take; 0 = nobody says


Rule = Callable[[AlertLook, Settings], Subjects]


def silent_limit_s(settings: Settings) -> float:
    """How long nothing may come."""
    bars_ms = SILENT_BARS * settings.bars.every_ms if settings.bars.kind == "time" else 0
    return max(settings.alerts.silent_s, bars_ms / 1000) if settings.alerts.silent_s else math.inf


def _source_silent(look: AlertLook, settings: Settings) -> Subjects:
    limit_s = silent_limit_s(settings)
    return {source: f"nothing for {for_s:.0f} s" for source, for_s in look.silent_s.items() if for_s >= limit_s}


def _source_behind(look: AlertLook, settings: Settings) -> Subjects:
    age_s, waiting = look.health.lag_s, look.health.lag_records
    return {"source": f"{waiting:,} records wait, {age_s:.0f} s old"} if age_s > settings.alerts.behind_s else {}


def _partition_late(look: AlertLook, settings: Settings) -> Subjects:
    return _in_trouble(look, "late")


def _partition_stopped(look: AlertLook, settings: Settings) -> Subjects:
    return _in_trouble(look, "stopped")


def _in_trouble(look: AlertLook, what: str) -> Subjects:
    return {source: what for source, trouble in look.health.partitions.items() if trouble == what}


def _ticks_refused(look: AlertLook, settings: Settings) -> Subjects:
    """Late ticks are no dead letters: `partition_late` is about those."""
    before = look.before.reasons
    came = {name: more for name, n in look.health.reasons.items() if (more := n - before.get(name, 0)) > 0}
    fine = {reason.name.lower() for reason in (*remedies.UNREFUSED, Reason.LATE)}
    total = sum(came.values())
    most = max(settings.alerts.bad_share * total, 1)
    return {
        name: remedies.sentence({"accepted": total - bad, name: bad}, settings)
        for name, bad in came.items()
        if name not in fine and total >= FEWEST and bad >= most
    }


def _store_stalled(look: AlertLook, settings: Settings) -> Subjects:
    stalled = look.health.state == "store_stalled"
    return {"store": f"{look.health.store_units_behind} units wait"} if stalled else {}


def _disk_low(look: AlertLook, settings: Settings) -> Subjects:
    least = settings.alerts.disk_free_share
    return {place: f"{free:.1%} free" for place, free in look.disk_free.items() if free < least}


def _memory_high(look: AlertLook, settings: Settings) -> Subjects:
    taken, most = look.health.rss_bytes, look.memory_bytes
    is_high = most and taken >= settings.alerts.memory_share * most
    return {"process": f"{taken >> 20:,} of {most >> 20:,} MiB"} if is_high else {}


def _loop_lag(look: AlertLook, settings: Settings) -> Subjects:
    """Not of a minute in which it was still starting."""
    late_ms, limit_ms = look.health.loop_lag_ms["p99"], settings.alerts.loop_lag_ms
    is_late = limit_ms and late_ms >= limit_ms and look.live_s >= MINUTE_S
    return {"loop": f"p99 {late_ms:.0f} ms in the last minute"} if is_late else {}


def _client_rebuilt(look: AlertLook, settings: Settings) -> Subjects:
    return {"kafka": f"{look.rebuilds} new clients"} if look.rebuilds else {}


def _broker_away(look: AlertLook, settings: Settings) -> Subjects:
    return {name: f"no answer for {for_s:.0f} s" for name, for_s in look.away_s.items() if for_s >= AWAY_S}


def _jobs_failing(look: AlertLook, settings: Settings) -> Subjects:
    """The last two of a kind that came to an end of their own."""
    ended: dict[str, list[JobRow]] = {}
    for row in sorted(look.jobs, key=lambda row: row.ended_ns):
        if row.state in ("done", "failed"):
            ended.setdefault(row.kind, []).append(row)
    last = {kind: rows[-2:] for kind, rows in ended.items()}
    return {
        kind: ", ".join(row.why for row in two)
        for kind, two in last.items()
        if len(two) == 2 and all(row.state == "failed" for row in two)
    }


def _model_refused(look: AlertLook, settings: Settings) -> Subjects:
    return look.unserved


def _model_failing(look: AlertLook, settings: Settings) -> Subjects:
    failed = look.health.fallbacks - look.before.fallbacks
    asked = look.health.forecasts - look.before.forecasts
    fails = asked >= FEWEST and failed >= max(settings.alerts.bad_share * asked, 1)
    return {look.model: f"{failed:,} of {asked:,} forecasts are another's"} if fails else {}


def skill_low(look: AlertLook | ServedFigures, settings: Settings) -> Subjects:
    """The worst step of each model and group."""
    low = [row for row in _judged(look, settings) if row.skill < settings.alerts.skill_below]
    low.sort(key=lambda row: -row.skill)
    return {_of(row): f"{row.skill:+.1%} at step {row.horizon}, {row.n:,} labels" for row in low}


def coverage_off(look: AlertLook | ServedFigures, settings: Settings) -> Subjects:
    """The step of each model and group that is furthest from its outer band."""
    off = [(row, *_outer_band(row)) for row in _judged(look, settings)]
    off = [(row, band, held) for row, band, held in off if abs(held - band) > settings.alerts.coverage_off]
    off.sort(key=lambda found: abs(found[2] - found[1]))
    return {
        _of(row): f"{held:.1%} in the {band:.0%} band at step {row.horizon}, {row.n:,} labels"
        for row, band, held in off
    }


def _drift(look: AlertLook, settings: Settings) -> Subjects:
    return look.drift


def _approval_wanted(look: AlertLook, settings: Settings) -> Subjects:
    return look.proposed


def _stepped_down(look: AlertLook, settings: Settings) -> Subjects:
    return look.stepped_down


def _judged(look: AlertLook | ServedFigures, settings: Settings) -> list[Accuracy]:
    """Figures of who serves, of enough labels."""
    return [
        row for row in look.accuracy
        if row.n >= settings.alerts.least_labels and (row.model, row.version) in look.serving
    ]  # fmt: skip


def _outer_band(row: Accuracy) -> tuple[float, float]:
    """What it says that it holds, and what it held."""
    return next(((float(nominal), within.coverage) for nominal, within in row.intervals.items()), (0.0, 0.0))


def _of(row: Accuracy) -> str:
    return f"{row.model}@{row.version}/{row.group}"


RULES: dict[str, Rule] = {
    "source_silent": _source_silent, "source_behind": _source_behind, "partition_late": _partition_late,
    "partition_stopped": _partition_stopped, "ticks_refused": _ticks_refused, "store_stalled": _store_stalled,
    "disk_low": _disk_low, "memory_high": _memory_high, "loop_lag": _loop_lag, "client_rebuilt": _client_rebuilt,
    "broker_away": _broker_away, "jobs_failing": _jobs_failing, "model_refused": _model_refused,
    "model_failing": _model_failing, "skill_low": skill_low, "coverage_off": coverage_off,
    "drift": _drift, "approval_wanted": _approval_wanted, "stepped_down": _stepped_down,
}  # fmt: skip
