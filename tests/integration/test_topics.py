"""`tickcast topics` and `check` against a real broker: what is missing is named at once, made, and then there."""

from pathlib import Path

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from brokerkit import KafkaBroker, unique
from kafkanode import ask
from netkit import free_port
from tickcast.errors import EXIT_DIED, EXIT_OK, EXIT_REFUSED
from tickcast.ui.cli import main


def flags(bootstrap: str, prefix: str, folder: Path) -> list[str]:
    settings = {
        "bus.kind": "kafka", "kafka.bootstrap_servers": bootstrap, "topics.prefix": prefix, "kafka.models": "lead",
        "topics.ticks": f'["{prefix}ticks"]', "kafka.topic_partitions": "3", "store.path": str(folder / "store"),
        "runtime.folder": str(folder / "run"), "features.publish": "true",
    }  # fmt: skip
    return [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]


def test_all_that_is_missing_is_named_at_once_and_made_by_one_command(
    kafka: KafkaBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = unique("own") + "."
    given = flags(kafka.bootstrap, prefix, tmp_path)
    outputs = ("forecasts", "features", "accuracy", "drift", "health", "alerts", "dlq", "models")
    names = [prefix + name for name in ("ticks", *outputs)]

    assert main(["run", *given]) == EXIT_REFUSED
    refused = capsys.readouterr().err
    assert all(f"'{name}' of topics." in refused for name in names)
    assert "tickcast topics --create" in refused

    assert main(["check", *given]) == EXIT_DIED
    assert f"missing {', '.join(names)}" in capsys.readouterr().out
    assert main(["check", "--offline", *given]) == EXIT_OK
    capsys.readouterr()
    assert main(["topics", *given]) == EXIT_DIED
    assert capsys.readouterr().out.count("missing (topics.") == 9

    assert main(["topics", "--create", *given, "--set", "kafka.topic_replicas=9"]) == EXIT_REFUSED  # of one broker
    assert "kafka.topic_partitions and kafka.topic_replicas" in capsys.readouterr().err
    assert main(["topics", "--create", *given]) == EXIT_OK
    made = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in made] == names
    assert ["made, 3" in line for line in made] == [True, True, True, *[False] * 6]
    assert made[-1].endswith("1 partition, compacted")
    assert main(["topics", "--create", *given]) == EXIT_OK  # all are there: nothing is made
    assert "made" not in capsys.readouterr().out
    assert main(["check", *given]) == EXIT_OK
    assert "all 9 topics are there" in capsys.readouterr().out
    assert main(["check", *given, "--set", "schedule.autonomy=2"]) == EXIT_DIED  # its fits are told of, and its shadows
    assert f"missing {prefix}shadow, {prefix}jobs" in capsys.readouterr().out

    resource = ConfigResource(ConfigResourceType.TOPIC, prefix + "models", configs={"cleanup.policy": None})
    (answer,) = ask(kafka.bootstrap, lambda admin: admin.describe_configs([resource]))
    assert ("cleanup.policy", "compact") in [(entry[0], entry[1]) for entry in answer.resources[0][4]]


def test_without_kafka_there_is_nothing_to_make(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topics", "--create"]) == EXIT_REFUSED
    assert "bus.kind is 'memory'" in capsys.readouterr().err


def test_check_gives_up_a_broker_that_is_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", *flags(f"127.0.0.1:{free_port()}", "own.", tmp_path)]) == EXIT_DIED
    assert "no broker answers" in capsys.readouterr().out
