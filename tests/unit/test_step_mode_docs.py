"""docs/step_mode.md: its example runs, and leaves and prints what the page says."""

import re
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest

from tickcast.engine.inference.model_folder import GRAPH, STEP_GRAPH, read_card
from tickcast.engine.inference.stepping import GIVEN, OUTPUTS

PAGE = (Path(__file__).parents[2] / "docs" / "step_mode.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(400)  # children of the lowest priority, each of which imports torch
def test_the_worked_example_runs_and_prints_what_the_page_says(run_example: Callable[[str], list[str]]) -> None:
    said = run_example(PAGE)
    folder = Path("out/stepping")
    assert {GRAPH, STEP_GRAPH} <= set(read_card(folder).artefacts)
    graph = onnxruntime.InferenceSession(str(folder / STEP_GRAPH), providers=["CPUExecutionProvider"])
    table = set(re.findall(r"^\| `(\w+)` \| `\[", PAGE, re.MULTILINE))
    assert {node.name for node in graph.get_inputs()} | {"future", "static"} == table == GIVEN
    assert [node.name for node in graph.get_outputs()] == OUTPUTS
    assert all(f"`{name}` `[" in PAGE for name in OUTPUTS)
    assert [line.split()[-1] for line in said] == ["True", "False"]
