"""docs/drift.md: its example runs, and finds what the page has changed."""

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "drift.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_example_finds_the_change_and_nothing_without_one(run_example: Callable[[str], list[str]]) -> None:
    said = dict(line.split(maxsplit=1) for line in run_example(PAGE) if line.startswith(("market [", "wild [")))
    assert ast.literal_eval(said["market"]) == []
    assert "range" in ast.literal_eval(said["wild"])
