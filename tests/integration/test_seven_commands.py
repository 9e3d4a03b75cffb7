"""The seven work commands, signed, through a real broker, to a daemon in a process of its own; every result beside one
that is worked out here from the prices alone.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import numpy as np
import onnxruntime
import pytest
from aiokafka import AIOKafkaProducer

from brokerkit import KafkaBroker, unique
from tickcast.clock import SystemClock
from tickcast.columns import F64
from tickcast.io.jobs.orders import FEE_BPS, SLIPPAGE_BPS
from tickcast.live.commands.keys import read_signer
from tickcast.settings import Settings, load
from tickcast.ui.keygen import keygen
from tickcast.ui.send import Replies, SendRequest, send

SECOND, T0 = 10**9, 1_767_600_000 * 10**9
BARS, LOOKBACK, HORIZON = 600, 16, 4
LIMIT_S = 180.0
KINDS = ("train", "evaluate", "backtest", "optimize")
QUICK = {"epochs": 2, "windows_per_epoch": 512, "batch_size": 64}


class Person(NamedTuple):
    """Gives commands to one daemon."""

    settings: Settings
    key: Path
    daemon: "subprocess.Popen[bytes]"

    async def say(self, command: str, args: dict[str, Any], *, timeout_s: float = LIMIT_S) -> Replies:
        signer, audience = read_signer(self.key), f"{self.settings.kafka.group}/0"
        request = SendRequest(command, args, audience, "ops", signer, timeout_s)
        return await send(self.settings, request, clock=SystemClock())

    async def ask(self, command: str, **args: Any) -> dict[str, Any]:
        (reply,) = (await self.say(command, args)).by.values()
        assert reply.ok, f"{reply.error_code}: {reply.error}"
        assert reply.final, f"{command} was taken, and not done within {LIMIT_S:g} s"
        return reply.result


def walk(seed: int, bars: int = BARS) -> F64:
    """Prices whose moves turn back by half: a linear model can learn that."""
    noise, moves = np.random.default_rng(seed).normal(0, 1e-3, bars), np.zeros(bars)
    for i in range(1, bars):
        moves[i] = noise[i] - 0.5 * moves[i - 1]
    return np.round(100 * np.exp(np.cumsum(moves)), 6)


PRICES = {"A": walk(1), "B": walk(2)}
LATER = walk(3, 300)  # of C, which no fit ever saw


@pytest.fixture
def person(kafka: KafkaBroker, tmp_path: Path) -> Iterator[Person]:
    prefix = unique("seven") + "."
    ticks = kafka.create_topic(unique("ticks"), 1)
    for name in ("forecasts", "dlq", "accuracy", "drift", "health", "alerts", "control", "replies", "jobs"):
        kafka.create_topic(prefix + name, 1)
    (tmp_path / "keys.toml").write_text(keygen("ops", role="admin", algorithm="ed25519", out=tmp_path / "ops.key"))
    given = {
        "bus.kind": "kafka", "kafka.bootstrap_servers": kafka.bootstrap, "kafka.group": prefix[:-1],
        "topics.ticks": f'["{ticks}"]', "topics.prefix": prefix, "control.keys_file": str(tmp_path / "keys.toml"),
        "store.path": str(tmp_path / "t.duckdb"), "runtime.folder": str(tmp_path / "run"), "quality.future_ms": "0",
        "bars.every_ms": "1000", "bars.idle_ms": "0", "window.lookback": str(LOOKBACK),
        "forecast.horizon": str(HORIZON), "features.set": "[]", "features.future": "[]", "model.default": "naive",
        "log.level": "error",
    }  # fmt: skip
    options = [text for key, value in given.items() for text in ("--set", f"{key}={value}")]
    daemon = subprocess.Popen([sys.executable, "-m", "tickcast", "run", *options])
    try:
        yield Person(load(overrides=given, environ={})[0], tmp_path / "ops.key", daemon)
    finally:
        daemon.kill()
        daemon.wait(LIMIT_S)


async def trade(person: Person) -> None:
    """One tick a second and symbol; returns when the daemon has counted all of them."""
    settings = person.settings
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers, acks="all") as producer:
        for i in range(BARS):
            for symbol, prices in PRICES.items():
                text = json.dumps({"symbol": symbol, "ts": T0 + i * SECOND, "price": prices[i], "size": 1})
                await producer.send(settings.topics.ticks[0], text.encode(), key=symbol.encode())
        await producer.flush()
    until = time.monotonic() + LIMIT_S
    while not (await person.say("status", {}, timeout_s=3)).complete:  # one that comes before the daemon is for nobody
        assert time.monotonic() < until
    while (health := (await person.ask("status"))["health"])["consumed"] < len(PRICES) * BARS:
        assert time.monotonic() < until, health
    assert (health["accepted"], health["rejected"], health["late"]) == (len(PRICES) * BARS, 0, 0)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_each_does_what_it_says_through_a_broker(person: Person) -> None:
    await trade(person)  # which asks for `status`
    await forecast_is_the_newest_close(person)
    await predict_is_the_last_of_what_was_given(person)
    told = await person.ask("train", kind="ridge", name="mine", seed=1)
    assert told["model"].startswith("mine@")
    await evaluate_counts_what_the_graph_itself_is_wrong_by(person)
    await backtest_of_last_value_trades_nothing_and_beside_it_stands_the_market(person)
    found = await person.ask("optimize", kind="micro", trials=3, sampler="random", params=QUICK, seed=4)
    rows = (await person.ask("jobs"))["jobs"]
    assert {row["kind"]: row["state"] for row in rows} == dict.fromkeys(KINDS, "done")
    everyone = (await person.ask("status", section="models"))["models"]
    assert sorted(model["name"] for model in everyone) == ["micro", "mine"]
    assert await person.ask("drain") == {"draining": True}
    assert person.daemon.wait(LIMIT_S) == 0
    with duckdb.connect(str(person.settings.store.path), read_only=True) as store:
        trials = store.execute(
            "SELECT number, value FROM trials WHERE job = ? ORDER BY number", [found["job"]]
        ).fetchall()
    assert [number for number, _ in trials] == [0, 1, 2]
    assert found["first"]["value"] == trials[0][1]
    assert found["best"]["value"] == min(value for _, value in trials)


async def forecast_is_the_newest_close(person: Person) -> None:
    told = (await person.ask("forecast", symbols=["A", "B"]))["forecasts"]
    for each in told:
        bar = (each["as_of_ns"] - T0) // SECOND - 1
        assert BARS - 5 <= bar < BARS
        assert each["point"] == pytest.approx([PRICES[each["symbol"]][bar]] * HORIZON, rel=1e-9)
        assert each["target_ns"] == [each["as_of_ns"] + step * SECOND for step in range(1, HORIZON + 1)]


async def predict_is_the_last_of_what_was_given(person: Person) -> None:
    closes = LATER[:50]
    told = (await person.ask("predict", closes=closes.tolist()))["forecast"]
    assert told["point"] == pytest.approx([closes[-1]] * HORIZON, rel=1e-6)
    assert told["scale"] == pytest.approx(np.sqrt((np.diff(np.log(closes))[-LOOKBACK:] ** 2).mean()), rel=1e-9)


async def evaluate_counts_what_the_graph_itself_is_wrong_by(person: Person) -> None:
    told = await person.ask("evaluate", model="mine", rows=rows_of(LATER))
    (graph,) = {path for path in person.settings.runtime.folder.parent.rglob("model.onnx") if "jobs" not in path.parts}
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    moves = np.diff(np.log(LATER))
    ends = np.arange(LOOKBACK, len(LATER) - HORIZON)  # the bar that each window ends with
    past = np.stack([moves[end - LOOKBACK : end] for end in ends])[:, :, None].astype(np.float32)
    given = {"past": past, "mask": np.ones(past.shape[:2], np.float32)}
    answer = session.run(["quantiles"], {node.name: given[node.name] for node in session.get_inputs()})[0]
    for row in told["by_horizon"]:
        actual = np.log(LATER[ends + row["horizon"]] / LATER[ends])
        point = answer[:, row["horizon"] - 1, 2]
        assert row["n"] == len(ends)
        assert row["mae_naive"]["value"] == pytest.approx(np.abs(actual).mean(), rel=1e-5)
        assert row["mae"]["value"] == pytest.approx(np.abs(actual - point).mean(), rel=1e-5)
    assert told["headline"]["skill"]["value"] > 0


async def backtest_of_last_value_trades_nothing_and_beside_it_stands_the_market(person: Person) -> None:
    told = await person.ask("backtest", model="naive", rows=rows_of(LATER), params={"tosses": 2, "draws": 100})
    assert (told["strategy"]["return"], told["strategy"]["trades"], told["decisions"]) == (0, 0, 0)
    closed = LATER[:-1]  # nothing comes that would close the last bar
    paid = 1 - (FEE_BPS + SLIPPAGE_BPS) / 10_000
    held = paid * closed[-1] / closed[1] - 1  # it needs two bars
    assert told["buy_and_hold"]["return"] == pytest.approx(held, rel=1e-9)
    asked = np.arange(1, len(closed) - HORIZON)
    for row in told["skill"]["by_horizon"]:
        assert row["n"] == len(asked)
        assert row["mae"] == pytest.approx(np.abs(closed[asked + row["horizon"]] - closed[asked]).mean(), rel=1e-9)


def rows_of(prices: F64) -> list[dict[str, Any]]:
    """Bars that begin where the one before ended."""
    opens = np.concatenate([prices[:1], prices[:-1]])
    return [
        {
            "symbol": "C", "open": float(begin), "high": float(max(begin, end)), "low": float(min(begin, end)),
            "close": float(end), "volume": 1.0,
            "ts": datetime.fromtimestamp(T0 // SECOND + 86_400 + i, UTC).isoformat(),
        }
        for i, (begin, end) in enumerate(zip(opens, prices, strict=True), start=1)
    ]  # fmt: skip
