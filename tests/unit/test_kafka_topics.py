"""Which topics a daemon looks for at its start."""

from pathlib import Path

import pytest

from tickcast.live.buses.kafka_topics import wanted
from tickcast.settings import load
from tickcast.topics import MODELS
from tickcast.ui.documents.reference import OF_COMMANDS, TOPIC_MEANING


@pytest.mark.parametrize(
    ("given", "without"),
    [
        ({}, {"features", "shadow", *OF_COMMANDS}),
        ({"features.publish": "true", "control.keys_file": "keys.toml", "kafka.models": "follow"}, {"shadow"}),
        ({"schedule.autonomy": "2"}, {"features", *OF_COMMANDS} - {"jobs"}),
        ({"features.publish": "true", "control.keys_file": "keys.toml"}, {"models", "shadow"}),
    ],
)
def test_every_topic_of_the_reference_that_the_settings_need(
    tmp_path: Path, given: dict[str, str], without: set[str]
) -> None:
    (tmp_path / "keys.toml").write_text("")
    paths = {key: str(tmp_path / value) if key == "control.keys_file" else value for key, value in given.items()}
    settings = load(overrides={"bus.kind": "kafka", **paths}, environ={})[0]
    needed = [topic for topic in wanted(settings) if topic.setting == "topics.prefix"]
    assert {topic.name.removeprefix("tickcast.") for topic in needed} == {*TOPIC_MEANING, *OF_COMMANDS} - without
    assert [topic.name for topic in needed if topic.compacted] == ["tickcast.models"] * (MODELS not in without)
    assert {topic.name for topic in needed if topic.partitions > 1} == {
        f"tickcast.{name}" for name in {"forecasts", "shadow", "features"} - without
    }
    assert [topic.name for topic in wanted(settings) if topic.setting == "topics.ticks"] == settings.topics.ticks
