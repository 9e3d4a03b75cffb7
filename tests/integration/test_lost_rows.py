"""A store that lost rows: what Kafka still holds of them is read again, the rest is named. Real broker."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs
from test_kafka_recovery import TICK, TIME, Stream, asked, drained, parts, running, said, stored, tape

from tickcast.settings import Settings


@pytest.fixture
def stream(kafka, tmp_path) -> Stream:
    return Stream(kafka, tmp_path)


def store_files(settings: Settings) -> list[Path]:
    path = settings.store.path
    return [path, path.with_name(path.name + ".wal")]


@pytest.mark.parametrize("overrides", [TIME, TICK | {"kafka__delivery": "exactly_once"}], ids=["time", "tick-once"])
async def test_a_store_whose_log_was_cut_short_is_made_good_from_the_topic(stream, overrides):
    settings, undisturbed = stream.deployment(**overrides), stream.deployment(**overrides)
    first, last = parts(tape(90), 75)
    async with running(settings) as daemon:
        await stream.send_slowly(first, settings)
        await daemon.session.commits.saved()
        saved = [path.read_bytes() for path in store_files(settings)]
    for path, data in zip(store_files(settings), [saved[0], saved[1][: len(saved[1]) // 2]], strict=True):
        path.write_bytes(data)
    log = await drained(stream, settings, last)
    await drained(stream, undisturbed)
    (behind,) = said(log, "store_behind")
    assert sum(behind["records"].values()) > len(first) // 4
    assert all("ahead of the store" in line["reason"] for line in said(log, "snapshot_refused"))
    assert said(log, "snapshot_refused")
    assert not said(log, "store_lacks_rows")
    assert await stored(settings) == await stored(undisturbed)
    ours, theirs = await stream.forecasts(settings), await stream.forecasts(undisturbed)
    assert asked(ours) == asked(theirs)
    if settings.kafka.delivery == "exactly_once":
        assert len(ours) == len(theirs)


async def test_what_a_lost_store_lacks_beside_a_snapshot_is_said_by_that_start_alone(stream):
    settings = stream.deployment(**TIME)
    first, *rest = parts(tape(60), 40, 50)
    await drained(stream, settings, first)
    for path in store_files(settings):
        path.unlink(missing_ok=True)
    reached, lacks = dict(stream.ends), []
    for more in rest:
        with capture_logs() as log:
            async with running(settings) as daemon:
                await stream.send(more)
                await stream.all_committed(settings)
                lacks.append(daemon.health().store_lacks)
                await daemon.session.commits.saved()
        assert said(log, "snapshot_resumed")
    assert lacks == [{f"{topic}/{partition}": end for (topic, partition), end in reached.items()}, {}]


async def test_who_takes_a_slot_over_with_an_empty_store_says_what_it_lacks_and_what_it_cannot_answer(stream):
    settings = stream.deployment(**TIME)
    first, last = parts(tape(60), 40)
    await drained(stream, settings, first)
    elsewhere = settings.store.path.parent / "elsewhere"
    store = settings.store.model_copy(update={"path": elsewhere / "store.duckdb"})
    empty = settings.model_copy(update={"store": store})
    with capture_logs() as log:
        async with running(empty) as daemon:
            reached = dict(stream.ends)
            await stream.send(last)
            await stream.all_committed(empty)
            health = daemon.health()
            daemon.session.lookout.look([])
    assert health.store_lacks == {f"{topic}/{partition}": end for (topic, partition), end in reached.items()}
    assert said(log, "store_lacks_rows")
    assert health.unanswered > 0
    assert said(log, "heartbeat")[-1]["unanswered"] == health.unanswered
