"""The loop of promotion over a real broker, killed at its seams: what was decided is done once, and all of it."""

import asyncio
import json
import signal
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import duckdb
import pytest
from chaoskit import Daemon, Deployment, is_long

from brokerkit import KafkaBroker
from kafkakit import OUTPUTS, Message
from marketkit import SYMBOLS, Market
from tickcast.errors import EXIT_OK

FIRST, MOST = 1250, 6000  # bars of each symbol before anything runs, and in all
LIMIT_S = 120.0
NOTES = [(kind, event) for kind in ("fit", "shadow", "promote") for event in ("begun", "done")]
SEAMS = [("decide", 2), ("decide", 5), ("promote", 1)]
SEAMS += [("decide", times) for times in (1, 3, 4, 6)] if is_long() else []

pytestmark = pytest.mark.timeout(300)


def trade(deployment: Deployment, market: Market, bars: int) -> None:
    """Moves that turn back; each symbol in a partition of its own."""
    ticks = enumerate(market.ticks(bars, persistence=-0.6))
    asyncio.run(deployment.send(Message(n % 2, SYMBOLS[n % 2].encode(), tick) for n, tick in ticks))


def feed(deployment: Deployment, market: Market, daemon: Daemon, *, until: str) -> None:
    """Ticks until it has done an action of that kind, or has died."""
    while daemon.is_alive and not any(
        line["event"] == "upkeep_done" and line["kind"] == until for line in daemon.events()
    ):
        assert market.bars < MOST, f"no {until}\n{daemon.log()[-4000:]}"
        if daemon.has_logged("daemon_started"):
            trade(deployment, market, 20)
        time.sleep(0.25)


def rows(deployment: Deployment, sql: str) -> list[tuple[Any, ...]]:
    """Of the store of a daemon that has ended."""
    with duckdb.connect(str(deployment.store)) as store:
        return store.sql(sql).fetchall()


@pytest.mark.parametrize(("seam", "times"), SEAMS)
def test_a_candidate_is_fitted_and_promoted_once_whatever_dies_when(
    kafka: KafkaBroker, tmp_path: Path, seam: str, times: int
) -> None:
    deployment = Deployment(
        kafka, tmp_path, partitions=2, outputs=(*OUTPUTS, "jobs", "shadow"), forecast__horizon=2,
        model__default="naive", schedule__rest_s=3600,
        schedule__autonomy=3, schedule__kind="ridge", schedule__max_new_bars=FIRST - 50,
        schedule__shadow_bars=4000, schedule__look_every_s=1, store__unit_ms=50,
    )  # fmt: skip
    market = Market()
    trade(deployment, market, FIRST)
    first = deployment.start_to_die(seam, times)
    feed(deployment, market, first, until="promote")
    assert first.ended(limit_s=LIMIT_S) == -signal.SIGKILL, first.log()[-4000:]
    noted = "SELECT kind, event FROM decisions ORDER BY sequence"
    assert rows(deployment, noted) == NOTES[: times - 1 if seam == "decide" else -1]
    assert rows(deployment, "SELECT count(*) FROM promotions") == [(seam == "promote",)]
    second = deployment.start()
    feed(deployment, market, second, until="promote")
    trade(deployment, market, 20)
    second.wait_until(deployment.is_caught_up, "the end of the topic", limit_s=LIMIT_S)
    assert second.drain() == EXIT_OK, second.log()[-4000:]
    assert rows(deployment, noted) == NOTES
    assert rows(deployment, "SELECT kind FROM versions") == [("ridge",)]
    twice = "SELECT count(*) - count(DISTINCT (contest, number)) FROM contest_blocks"
    assert rows(deployment, twice) == [(0,)]
    ((positions,),) = rows(deployment, "SELECT positions_json FROM promotions")
    assert_answered_once(deployment, dict(place[1:] for place in json.loads(positions)))


def assert_answered_once(deployment: Deployment, promoted: dict[int, int]) -> None:
    """By the model from where it was promoted on, whoever died, and nowhere before; there it answered in shadow."""
    answered = defaultdict(set)
    for forecast in asyncio.run(deployment.forecasts()):
        answered[forecast["source"]["partition"], forecast["source"]["offset"]].add(forecast["model"])
    assert len(answered) > 2 * FIRST
    for (partition, offset), models in answered.items():
        assert models == {"ridge" if offset >= promoted[partition] else "naive"}, (partition, offset)
    beside = [json.loads(record.value) for record in asyncio.run(deployment.read("shadow"))]
    assert {forecast["model"] for forecast in beside} == {"ridge"}
    assert all(forecast["source"]["offset"] < promoted[forecast["source"]["partition"]] for forecast in beside)
