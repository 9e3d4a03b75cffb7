"""docs/direction.md: parameters with their defaults, figures, and the worked example."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from tickcast.plugin import find
from tickcast_desk.evaluate import print_evaluation
from tickcast_plugins.models.direction import PIECES
from tickcast_plugins.models.torch_net import HeadParams
from tickcast_trainer.classes import FREQUENCIES
from zookit import card

PAGE = (Path(__file__).parents[2] / "docs" / "direction.md").read_text(encoding="utf-8")


def test_the_page_names_every_parameter_with_its_default_and_the_size_of_a_table() -> None:
    assert dict(re.findall(r"^\| `(head|band)` \| `?([\w.]+)`? \|", PAGE, re.MULTILINE)) == {
        name: str(default) for name, default in msgspec.to_builtins(HeadParams()).items()
    }
    for kind in ("naive_bayes", "svm"):
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{kind}` |")]
        params = msgspec.to_builtins(find("models", kind)(card(kind)).params)
        assert re.findall(r"`(\w+)` \(([\d.]+)\)", row) == [(name, f"{value}") for name, value in params.items()]
    assert f"{PIECES} pieces" in PAGE


@pytest.mark.slow
@pytest.mark.timeout(400)  # children of the lowest priority, each of which imports torch
def test_the_worked_example_runs_and_prints_what_the_page_says(
    run_example: Callable[[str], list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    said = run_example(PAGE)
    probs, told = (json.loads(line) for line in said if line.startswith("{"))
    assert sum(probs.values()) == pytest.approx(1, abs=0.002)
    assert not [name for name in {*told, FREQUENCIES} if f"| `{name}` |" not in PAGE]
    judged = json.loads(Path("out/evaluate/evaluate.json").read_text())["headline"]
    assert set(told) <= set(judged)
    print_evaluation(Console(width=200), json.loads(Path("out/evaluate/evaluate.json").read_text()))
    (row,) = [line for line in capfd.readouterr().out.splitlines() if line.split()[:2] == ["all", "all"]]
    assert row.split()[-4:] == [
        f"{judged[name]['value']:{form}}"
        for name, form in (
            ("accuracy", ".1%"), ("accuracy_majority", ".1%"), ("log_loss", ".4f"), ("log_loss_frequencies", ".4f")
        )
    ]  # fmt: skip
    bayes = json.loads(Path("out/bayes/card.json").read_text())
    assert bayes["labels"] == list(probs)
    assert bayes["model_params"]["band"] == 0.3
