"""The daemon as kafka_job.py measures it: from the start of a topic until so many ticks are consumed, then a drain.

Prints wall and CPU nanoseconds per tick, the first tenth left out.
"""

import asyncio
import json
import sys
import time
from contextlib import suppress

import uvloop

from tickcast.live.buses.kafka import KafkaBus
from tickcast.live.daemon import Daemon
from tickcast.settings import load

SAMPLE_S = 0.01


async def run(given: dict[str, str], ticks: int) -> dict[str, float]:
    settings = load(overrides=given, environ={})[0]
    daemon = Daemon(settings, KafkaBus(settings))
    running = asyncio.create_task(daemon.run())
    counts = daemon.session.serving.engine.builder.counts
    started = None
    while (consumed := int(counts().sum())) < ticks:
        if started is None and consumed >= ticks // 10:
            started = consumed, time.perf_counter_ns(), time.process_time_ns()
        if running.done():
            running.result()
        await asyncio.sleep(SAMPLE_S)
    daemon.drain()
    await running  # what was published and committed belongs to the work
    first, wall, cpu = started or (0, 0, 0)
    measured = ticks - first
    return {
        "wall_ns": (time.perf_counter_ns() - wall) / measured, "cpu_ns": (time.process_time_ns() - cpu) / measured
    }  # fmt: skip


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        print(json.dumps(uvloop.run(run(json.loads(sys.argv[1]), int(sys.argv[2])))))
