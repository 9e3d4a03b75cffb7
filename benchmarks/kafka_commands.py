"""From a signed `forecast` or `predict` being sent to its reply being received, through a real broker, beside ticks.

    python benchmarks/run.py kafka_commands      needs Java and the jars (scripts/brokers.sh)

One person with a warm client asks one command after the other; the daemon is a process of its own that also answers
200 ticks a second by NHITS. Each command is kept in the ledger before it is carried out and once more with its reply.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from kafka_job import PARTITIONS
from kafka_latency import CLOCK, OUTPUTS, Daemon, Market
from live import fitted
from stats import Figure
from tickcast.clock import fresh_id
from tickcast.live.commands.envelope import seal
from tickcast.live.commands.keys import Signer, read_signer
from tickcast.ui.keygen import keygen

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from brokerkit import KafkaBroker, unique

COMMANDS, WARM_UP, RATE_HZ, SYMBOLS, WARM_TICKS = 300, 20, 200, 20, 130
PAUSE_S, WAIT_S = 0.05, 60


class Person:
    def __init__(self, bootstrap: str, prefix: str, signer: Signer) -> None:
        self._prefix, self._signer = prefix, signer
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
        self._replies = AIOKafkaConsumer(f"{prefix}replies", bootstrap_servers=bootstrap)

    async def __aenter__(self) -> "Person":
        await self._producer.start()
        await self._replies.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()
        await self._replies.stop()

    async def ask_ms(self, command: str, args: dict[str, object]) -> float:
        began = CLOCK.monotonic_ns()
        id = fresh_id()
        sealed = seal(
            command, args, id=id, audience="fleet", key="ops", private=self._signer, now_ms=CLOCK.now_ns() // 10**6
        )
        await self._producer.send(f"{self._prefix}control", sealed)
        async with asyncio.timeout(WAIT_S):
            while True:
                reply = json.loads((await self._replies.getone()).value)
                if reply["id"] == id:
                    if not reply["ok"]:
                        raise RuntimeError(f"{reply['error_code']}: {reply['error']}")
                    return (CLOCK.monotonic_ns() - began) / 1e6


async def ask_on(person: Person, command: str, args: dict[str, object]) -> np.ndarray:
    taken = []
    for number in range(WARM_UP + COMMANDS):
        waited = await person.ask_ms(command, args)
        taken += [waited] if number >= WARM_UP else []
        await asyncio.sleep(PAUSE_S)
    return np.array(taken)


async def trade(market: Market) -> None:
    while True:
        await market.send(1)
        await asyncio.sleep(1 / RATE_HZ)


async def measure(broker: KafkaBroker, folder: Path, model: Path) -> dict[str, np.ndarray]:
    prefix = unique("commands") + "."
    ticks = broker.create_topic(unique("ticks"), PARTITIONS)
    for name in (*OUTPUTS, "control", "replies", "jobs"):
        broker.create_topic(prefix + name, 1)
    (folder / "keys.toml").write_text(keygen("ops", role="admin", algorithm="ed25519", out=folder / "ops.key"))
    given = {"prefix": prefix, "control.keys_file": str(folder / "keys.toml"), "control.per_minute": "100000"}
    daemon = Daemon(broker.bootstrap, folder, ticks, model, **given)
    try:
        async with (
            Market(broker.bootstrap, ticks, prefix + "forecasts", symbols=SYMBOLS) as market,
            Person(broker.bootstrap, prefix, read_signer(folder / "ops.key")) as person,
        ):
            await market.warm_up(SYMBOLS * WARM_TICKS)
            await market.receive(until=1)
            trading = asyncio.create_task(trade(market))
            await asyncio.sleep(5)
            closes = (100 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 1e-3, 200)))).tolist()
            found = {
                "forecast": await ask_on(person, "forecast", {"symbols": ["S00001"]}),
                "predict": await ask_on(person, "predict", {"closes": closes}),
            }
            trading.cancel()
            return found
    finally:
        daemon.end()


def main() -> list[Figure]:
    with tempfile.TemporaryDirectory() as place, KafkaBroker(heap_mb=512, full_speed=True) as broker:
        model = fitted(Path(place), bars__kind="tick")
        (folder := Path(place) / "daemon").mkdir()
        taken = uvloop.run(measure(broker, folder, model))
    figures = []
    for command, bar in (("forecast", 20.0), ("predict", None)):
        p50, p99 = np.percentile(taken[command], (50, 99))
        figures += [
            Figure(f"{command}: sent to reply received, p50", float(p50), "ms", bar=bar, note=f"{COMMANDS} commands"),
            Figure(f"{command}: sent to reply received, p99", float(p99), "ms"),
        ]
    return figures


if __name__ == "__main__":
    main()
