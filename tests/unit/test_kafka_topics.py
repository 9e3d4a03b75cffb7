"""Which topics a daemon looks for at its start."""

from pathlib import Path

import pytest

from tickcast.app.kafka_bus import KafkaBus
from tickcast.settings import load
from tickcast_desk.reference import OF_COMMANDS, TOPIC_MEANING


@pytest.mark.parametrize(
    ("given", "without"),
    [
        ({}, {"features", *OF_COMMANDS}),
        ({"features.publish": "true", "control.keys_file": "keys.toml", "kafka.models": "follow"}, set()),
        ({"features.publish": "true", "control.keys_file": "keys.toml"}, {"models"}),
    ],
)
def test_every_topic_of_the_reference_that_the_settings_need(
    tmp_path: Path, given: dict[str, str], without: set[str]
) -> None:
    (tmp_path / "keys.toml").write_text("")
    paths = {key: str(tmp_path / value) if key == "control.keys_file" else value for key, value in given.items()}
    settings = load(overrides={"bus.kind": "kafka", **paths}, environ={})[0]
    looked_for = {name.removeprefix(settings.topics.prefix) for name in KafkaBus(settings)._outputs()}
    assert looked_for == {*TOPIC_MEANING, *OF_COMMANDS} - without
