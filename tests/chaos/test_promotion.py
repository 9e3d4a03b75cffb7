"""A promotion by a signed command while ticks flow, and SIGKILL right after it: who answered which tick stays true."""

import json
from pathlib import Path
from typing import Any

import pytest
from chaoskit import TICKCAST, Deployment, Supervisor, modes, seed_of
from feeder import Feeder, tape
from ledger import read

import nursery
from brokerkit import KafkaBroker
from kafkakit import COMMANDS, OUTPUTS, toml
from tickcast.batch.synth import Market
from tickcast.errors import EXIT_OK
from tickcast.io.tape.tape import write_ticks
from tickcast.ui.cli import main

LIMIT_S = 90
TICKS_PER_S = 300
QUICK = ("epochs=1", "windows_per_epoch=256", "batch_size=64")


class Ordered(Deployment):
    """A deployment that takes commands, and a person who gives them."""

    def __init__(self, kafka: KafkaBroker, folder: Path, *, delivery: str) -> None:
        super().__init__(kafka, folder, delivery=delivery, outputs=OUTPUTS + COMMANDS)
        entry = tickcast("keygen", "--id", "ops", "--role", "admin", "--out", folder / "ops.key")
        (folder / "keys.toml").write_text(entry)
        self.settings["control.keys_file"] = str(folder / "keys.toml")
        self.config = folder / "person.toml"
        self.config.write_text(toml(self.settings))

    def order(self, command: str, *arguments: str) -> dict[str, Any]:
        told = nursery.run(
            [*TICKCAST, "send", command, *arguments, "--config", self.config, "--key-id", "ops", "--key-file",
             self.folder / "ops.key", "--audience", f"{self.group}/0", "--timeout", "60", "--json"],
            timeout=LIMIT_S,
        )  # fmt: skip
        assert told.stdout, told.stderr
        (reply,) = json.loads(told.stdout)["replies"]
        return dict(reply)


def tickcast(*arguments: object) -> str:
    told = nursery.run([*TICKCAST, *map(str, arguments)], timeout=2 * LIMIT_S)
    assert told.returncode == 0, told.stderr
    return told.stdout


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def micro_net(folder: Path, deployment: Ordered) -> Path:
    """Fitted once for all deployments: what a model has to fit is the same in each."""
    if not (folder / "model").exists():
        source = Market(seed=2, symbols=4, tick_rate_hz=20)
        write_ticks(folder / "ticks.parquet", source.ticks(source.start_ns + 120 * 10**9))
        params = [part for pair in QUICK for part in ("--param", pair)]
        given = ("--config", deployment.config, "--data", folder / "ticks.parquet", "--out", folder / "model")
        assert main(["fit", "--model", "micro", *map(str, given), *params]) == EXIT_OK
    return folder / "model"


@pytest.mark.timeout(300)
@modes("at_least_once", "exactly_once")
def test_who_answered_a_tick_is_decided_once_whatever_dies_after_the_promotion(kafka, tmp_path, models, delivery):
    messages = tape(seed_of(f"promotion, {delivery}"), partitions=4)
    deployment = Ordered(kafka, tmp_path / "daemon", delivery=delivery)
    card = json.loads((model := micro_net(models, deployment)).joinpath("card.json").read_text())
    tickcast("import", model, "--config", deployment.config)
    deployment.begin(messages)
    with (
        Feeder(kafka.bootstrap, deployment.ticks, messages, per_s=TICKS_PER_S) as feeder,
        Supervisor(deployment) as supervisor,
    ):
        supervisor.wait_for(lambda daemon: daemon.has_logged("daemon_started"), "a start")
        asked = deployment.order("forecast", "symbols=S1,S2")
        assert asked["ok"], asked
        assert [f["symbol"] for f in asked["result"]["forecasts"]] == ["S1", "S2"]
        promoted = deployment.order("promote", f"model={card['name']}", "force=true")
        assert promoted["ok"], promoted
        supervisor.kill_after(0.0)
        supervisor.wait_for(lambda daemon: daemon.has_logged("daemon_started"), "the start after the kill")
        again = deployment.order("status", "section=routes")
        assert again["result"]["routes"] == {"default": card["digest"]}
        supervisor.kill_after(0.5)
        supervisor.end(feeder)
    positions = {p: offset for _, p, offset in json.loads(promoted["result"]["promotion"]["positions_json"])}
    by_tick: dict[tuple[int, int], set[str]] = {}
    for record in read(deployment, deployment.prefix + "forecasts"):
        forecast = json.loads(record.value)
        source = forecast["source"]
        if forecast["rung"] in ("holt", "model"):  # else too few bars yet
            by_tick.setdefault((source["partition"], source["offset"]), set()).add(forecast["rung"])
    wrong = {
        place: who for place, who in by_tick.items()
        if who != ({"model"} if place[1] >= positions[place[0]] else {"holt"})
    }  # fmt: skip
    assert len(by_tick) > 500
    assert not {place: who for place, who in wrong.items() if who != {"holt"}}  # Holt: a symbol with few bars yet
    assert sum(who == {"model"} for who in by_tick.values()) > 100
