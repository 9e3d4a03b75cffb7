"""docs/ensembles.md: every parameter and method is there with its default, and the worked example runs."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from tickcast import plugin
from tickcast.engine.inference.model_folder import read_card
from tickcast.live.commands.argument_types import members_of
from tickcast.live.commands.arguments import Train, parse
from tickcast_plugins.models.ensemble import EnsembleParams

PAGE = (Path(__file__).parents[2] / "docs" / "ensembles.md").read_text(encoding="utf-8")
KINDS = ("ensemble", "gated", "hybrid")


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_names_every_parameter_with_its_default(kind: str) -> None:
    (row,) = re.findall(rf"^\| `{kind}` \|.*$", PAGE, re.MULTILINE)
    for name, default in msgspec.to_builtins(plugin.find("models", kind).params_type()).items():
        spoken = f"`{default}`" if isinstance(default, str) else f"{default}"
        assert name == "members" or re.search(rf"`{name}` \({re.escape(spoken)}[,)]", row), name


def test_the_page_tells_of_every_method() -> None:
    methods = get_args(EnsembleParams.__annotations__["method"])
    table = PAGE.split("| `method` | weights |\n")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [*methods]


def test_the_command_of_the_page_is_one() -> None:
    (text,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    said = json.loads(text)
    given: Any = parse(said["command"], said["args"])
    assert isinstance(given, Train)
    assert members_of(given.params) == ("ridge", "tree")


@pytest.mark.timeout(400)  # children of the lowest priority, each of which imports torch
def test_the_worked_example_runs_and_prints_what_the_page_says(
    run_example: Callable[[str], list[str]], tmp_path: Path
) -> None:
    said = run_example(PAGE)
    told = json.loads(said[-1])
    card = read_card(tmp_path / "out/both")
    assert told["together"] == card.metrics["skill"]
    assert set(told) == {"ridge", "tree", "together"}
    assert card.model_params["members"] == [read_card(tmp_path / "out" / name).digest for name in ("ridge", "tree")]
