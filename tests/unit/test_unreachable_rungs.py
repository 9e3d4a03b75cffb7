"""A rung that can never answer is found, and no settings that we ship have one."""

import tomllib
from pathlib import Path

import pytest

from kit import settings
from tickcast.loop.build import unreachable_rungs
from tickcast.settings import Settings

CONFIG = Path(__file__).parents[2] / "config"


@pytest.mark.parametrize(
    ("default", "ladder", "never"),
    [
        ("naive", '["naive","holt"]', ["holt"]),
        ("naive", '["holt","naive"]', ["holt"]),
        ("holt", '["naive"]', []),
        ("seasonal", '["holt","naive"]', []),
        ("holt", '["naive","seasonal"]', ["seasonal"]),
        ("a/model", '["naive","holt"]', ["holt"]),
        ("none", '["naive","holt"]', []),
    ],
)
def test_a_rung_after_one_that_needs_no_more_bars_is_never_asked(default: str, ladder: str, never: list[str]) -> None:
    assert unreachable_rungs(settings(model__default=default, model__ladder=ladder)) == never


@pytest.mark.parametrize("file", sorted(CONFIG.glob("*.toml")), ids=lambda file: file.stem)
def test_settings_that_we_ship_have_none(file: Path) -> None:
    assert not unreachable_rungs(Settings(**tomllib.loads(file.read_text())))
