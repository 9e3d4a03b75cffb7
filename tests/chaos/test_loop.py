"""The loop of promotion over a real broker, killed at its seams: what was decided is done once, and all of it."""

import asyncio
import signal
from pathlib import Path

import duckdb
import numpy as np
import pytest
from chaoskit import Daemon, Deployment, is_long

from brokerkit import KafkaBroker
from kafkakit import OUTPUTS, Message
from tickcast.errors import EXIT_OK

T0, SECOND = 1_700_000_000_000_000_000, 10**9
SYMBOLS = ("A", "B")
LIMIT_S = 120.0
ENDED = "SELECT kind, event FROM decisions WHERE event IN ('done', 'failed') ORDER BY sequence"

pytestmark = pytest.mark.timeout(300)


class Market:
    """Moves that turn back, one tick a second for each symbol."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(1)
        self._move, self._price, self._bar = np.zeros(len(SYMBOLS)), np.zeros(len(SYMBOLS)), 0

    def ticks(self, bars: int) -> list[Message]:
        found = []
        for _ in range(bars):
            self._move = -0.6 * self._move + self._rng.normal(0, 1e-3, len(SYMBOLS))
            self._price = self._price + self._move
            self._bar += 1
            for partition, (name, price) in enumerate(zip(SYMBOLS, self._price, strict=True)):
                text = (
                    f'{{"symbol":"{name}","ts":{T0 + self._bar * SECOND},"price":{100 * np.exp(price):.10f},"size":1}}'
                )
                found.append(Message(partition, name.encode(), text.encode()))
        return found


def feed(deployment: Deployment, market: Market, daemon: Daemon, *, until: str) -> None:
    """Ticks until it has done an action of that kind, or has died."""
    for _ in range(200):
        done = any(line["event"] == "upkeep_done" and line["kind"] == until for line in daemon.events())
        if done or not daemon.is_alive:
            return
        asyncio.run(deployment.send(market.ticks(40)))
    raise TimeoutError(f"no {until}\n{daemon.log()[-4000:]}")


SEAMS = [("decide", 2), ("promote", 1)] + ([("decide", times) for times in (1, 3, 4, 5)] if is_long() else [])


@pytest.mark.parametrize(("seam", "times"), SEAMS)
def test_a_candidate_is_fitted_and_promoted_once_whatever_dies_when(
    kafka: KafkaBroker, tmp_path: Path, seam: str, times: int
) -> None:
    deployment = Deployment(
        kafka, tmp_path, partitions=2, outputs=(*OUTPUTS, "shadow"), forecast__horizon=2, model__default="naive",
        schedule__autonomy=3, schedule__kind="ridge", schedule__max_new_bars=1000, schedule__shadow_bars=4000,
        schedule__look_every_s=1, store__unit_ms=50, quality__future_ms=0,
    )  # fmt: skip
    market = Market()
    asyncio.run(deployment.send(market.ticks(1200)))
    first = deployment.start_to_die(seam, times)
    feed(deployment, market, first, until="promote")
    assert first.ended(limit_s=LIMIT_S) == -signal.SIGKILL, first.log()[-4000:]
    second = deployment.start()
    second.wait_for("daemon_started")
    feed(deployment, market, second, until="promote")
    second.wait_until(deployment.is_caught_up, "the end of the topic", limit_s=LIMIT_S)
    assert second.drain() == EXIT_OK, second.log()[-4000:]
    with duckdb.connect(str(deployment.store), read_only=True) as store:
        rows = store.sql(
            "SELECT kind, event FROM decisions WHERE event IN ('done', 'failed') ORDER BY sequence"
        ).fetchall()
        assert rows[:3] == [("fit", "done"), ("shadow", "done"), ("promote", "done")]
        (promotions,) = store.sql("SELECT count(*) FROM promotions WHERE action = 'promote'").fetchall()
        (versions,) = store.sql("SELECT count(*) FROM versions").fetchall()
        assert (promotions, versions) == ((1,), (1,))
        (twice,) = store.sql("SELECT count(*) - count(DISTINCT (contest, number)) FROM contest_blocks").fetchall()
        assert twice == (0,)
    beside = asyncio.run(deployment.read("shadow"))
    assert {b'"model": "ridge"' in record.value or b'"model":"ridge"' in record.value for record in beside} >= {True}
