"""A topic of ticks that is deleted and made again: its offsets begin anew, and what was committed means other ticks.

A daemon that runs ends with what to do, for nothing tells it what the old offsets stand for; the commits of the group
went with the topic, so the next start begins where `kafka.start` says. Stored bars bear offsets of the old topic:
windows begin anew, and each new tick but a symbol's first is answered once.
"""

import asyncio
import json

import pytest
from structlog.testing import capture_logs

from kafkakit import Deployment, Message
from kafkanode import ask
from livekit import alive, until
from tickcast.errors import EXIT_DIED, Fatal

T0, SECOND = 1_700_000_000 * 10**9, 10**9


def ticks(first: int, count: int) -> list[Message]:
    return [
        Message(0, None, json.dumps({"symbol": "A", "ts": T0 + n * SECOND, "price": 100 + n % 7, "size": 1}).encode())
        for n in range(first, first + count)
    ]


@pytest.fixture
def deployment(kafka, tmp_path) -> Deployment:
    return Deployment(
        kafka, tmp_path, partitions=1, bars__kind="tick", window__lookback=4, forecast__horizon=2, store__unit_ms=50,
        snapshot__every_s=1,
    )  # fmt: skip


async def make_anew(deployment: Deployment) -> None:
    def again() -> None:
        ask(deployment.broker.bootstrap, lambda admin: admin.delete_topics([deployment.ticks]))
        deployment.broker.create_topic(deployment.ticks, deployment.partitions)

    await asyncio.to_thread(again)


async def serve(deployment: Deployment) -> list[str]:
    """From one start to the drain, with all that the topic holds committed; the events of its log."""
    with capture_logs() as log:
        async with alive(deployment.daemon()):
            await deployment.caught_up()
    return [line["event"] for line in log]


def answered(forecasts: list[dict]) -> list[int]:
    return [(forecast["as_of_ns"] - T0) // SECOND for forecast in forecasts]


async def test_while_the_daemon_runs_it_ends_and_the_next_start_answers_every_new_tick(deployment):
    await deployment.send(ticks(0, 40))
    with pytest.raises(Fatal, match="kafka.lost_offsets") as ended:  # noqa: PT012
        async with alive(deployment.daemon()) as daemon:
            await deployment.caught_up()
            await make_anew(deployment)
            await deployment.send(ticks(100, 20))
            await until(lambda: daemon._running is None, "the end of the daemon")
    assert ended.value.exit_code == EXIT_DIED
    await serve(deployment)
    assert answered(await deployment.forecasts()) == [*range(1, 40), *range(101, 120)]


async def test_while_no_daemon_runs_the_next_start_resumes_nothing_and_answers_every_new_tick(deployment):
    await deployment.send(ticks(0, 40))
    await serve(deployment)
    await make_anew(deployment)
    await deployment.send(ticks(100, 20))
    events = await serve(deployment)
    assert "snapshot_refused" in events
    assert "snapshot_resumed" not in events
    assert answered(await deployment.forecasts()) == [*range(1, 40), *range(101, 120)]
