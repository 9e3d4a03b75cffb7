"""A policy by its settings, the times and facts that tests of it share."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from tickcast.loop.actions import PolicyFacts
from tickcast.loop.policy import Policy
from tickcast.settings import Settings
from tickcast.settings.schedule import ScheduleSettings
from tickcast.settings.service import JobSettings
from tickcast.state import State

HOUR_NS, DAY_S = 3600 * 10**9, 86_400
IDLE = PolicyFacts(bars=0)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


def policy(group: str = "tickcast", job_cpu_s: int = 7200, **schedule: Any) -> Policy:
    given = {"autonomy": 2, **schedule}
    settings = Settings(schedule=ScheduleSettings(**given), jobs=JobSettings(cpu_s=job_cpu_s))
    return Policy(settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"group": group})}))


def restarted(held: Policy, **schedule: Any) -> Policy:
    fresh = policy(**schedule)
    fresh.resume(State(facts=msgspec.json.decode(msgspec.json.encode(held.snapshot().facts))))
    return fresh
