"""docs/direction.md: parameters with their defaults, figures, and the worked example."""

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from rich.console import Console

from tickcast.batch.train.classes import FREQUENCIES
from tickcast.direction import classes_of
from tickcast.io.store.query import query_direct
from tickcast.plugin import find
from tickcast.settings import load
from tickcast.ui.evaluate_command import print_evaluation
from tickcast_plugins.models.direction import PIECES
from tickcast_plugins.models.torch_net import HeadParams
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
    (last,) = ast.literal_eval(next(line for line in said if line.startswith("[")))
    assert sum(last[-1]) == pytest.approx(1, abs=1e-6)
    check_the_question_to_the_store()


def check_the_question_to_the_store() -> None:
    """Against the files of the same replay."""
    (sql,) = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    answer = query_direct(load(overrides={"store.path": "out/replay/replay.duckdb"}, environ={})[0], sql)
    forecasts = pl.read_parquet("out/replay/forecasts.parquet").filter(pl.col("kind") == "class").select("id", "probs")
    both = pl.read_parquet("out/replay/scores.parquet").join(forecasts, on="id")
    both = both.filter(pl.col("actual").list.last().is_not_nan(), pl.col("scale") > 1e-8, ~pl.col("in_sample"))
    move = np.log(both["actual"].list.last().to_numpy() / both["anchor"].to_numpy()) / both["scale"].to_numpy()
    known = classes_of(move[:, None] / np.sqrt(4), 0.3)[:, 0]
    probs = np.array(both["probs"].to_list())
    ((_, _, n, accuracy, log_loss),) = answer.rows
    assert n == len(known) > 100
    assert accuracy == pytest.approx((probs.argmax(axis=1) == known).mean())
    assert log_loss == pytest.approx(-np.log(probs[np.arange(n), known]).mean())
