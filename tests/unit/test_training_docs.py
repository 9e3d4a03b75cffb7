"""docs/training.md: every key, default, choice and code is there, and the worked example runs."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
import pytest

from tickcast.batch.train.analysis import ADVICE
from tickcast.io.jobs.orders import FitOrder, WarmStart

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
ORDER = PAGE.split("## The order\n", 1)[1].split("\n## ", 1)[0]
ROWS = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", ORDER, re.MULTILINE))


def test_the_tables_hold_every_key_of_an_order_with_its_default() -> None:
    spoken = {"name": "the kind", "levels": ".05 .25 .5 .75 .95", "learning_rate": "0.001"}
    assert set(ROWS) == set(FitOrder.__struct_fields__)
    for field in msgspec.structs.fields(FitOrder):
        assert ROWS[field.name] == spoken.get(field.name, default(field)), field.name


def default(field: Any) -> str:
    value = field.default
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"`{value}`"
    if isinstance(value, int | float):
        return f"{value:,g}"
    return "none"


def test_every_choice_of_an_order_and_every_code_of_advice_is_told() -> None:
    kinds = {name: kind for struct in (FitOrder, WarmStart) for name, kind in struct.__annotations__.items()}
    choices = {str(choice) for kind in kinds.values() if get_origin(kind) for choice in literals(kind)}
    assert {"sgd", "mape", "plateau", "bf16", "transfer"} <= choices
    left = {"paper", "difference", "level", "start"}  # docs/commands.md and docs/models.md tell of these
    assert not [choice for choice in sorted((choices | set(ADVICE)) - left) if f"`{choice}`" not in PAGE]


def literals(kind: Any) -> tuple[Any, ...]:
    return tuple(choice for choice in get_args(kind) if isinstance(choice, str))


@pytest.mark.slow
@pytest.mark.timeout(400)  # children of the lowest priority, each of which imports torch
def test_the_worked_example_runs_and_prints_what_the_page_says(run_example: Callable[[str], list[str]]) -> None:
    said = run_example(PAGE)
    start, advice = (json.loads(line) for line in said if line[:1] in ("[", "{"))
    assert start["loaded"] == start["of"] > start["frozen"] > 0
    assert {one["code"] for one in advice} <= set(ADVICE)
