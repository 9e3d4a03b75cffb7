"""Commands and orders of docs/evaluate.md and docs/backtest.md run as they stand; the tables name what exists."""

import json
import re
import shlex
from pathlib import Path

import msgspec
import polars as pl
import pytest

from tickcast.io.jobs.orders import BacktestOrder, EvaluateOrder
from tickcast.ui.cli import main

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {name: (DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("evaluate", "backtest")}


def run(page: str, capfd: pytest.CaptureFixture[str]) -> str:
    """All commands of the page; returns what they printed."""
    for block in re.findall(r"<!-- run -->\n```sh\n(.*?)```", PAGES[page], re.DOTALL):
        for command in block.splitlines():
            program, *arguments = shlex.split(command)
            assert program == "tickcast"
            assert main(arguments) == 0, capfd.readouterr().err
    return capfd.readouterr().out


@pytest.mark.slow
def test_the_example_of_evaluate_judges_what_was_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = run("evaluate", capfd)
    found = json.loads(Path("out/evaluate/evaluate.json").read_text())
    card = json.loads(Path("out/model/card.json").read_text())
    assert found["from_ns"] > card["trained_to_ns"]
    assert found["in_sample"]["windows"] > 1000
    assert found["headline"]["n"] == 4 * (found["windows"] - found["in_sample"]["windows"])
    assert [row["horizon"] for row in found["by_horizon"]] == [1, 2, 4, 6]
    assert f"{found['headline']['skill']['value']:+.1%}" in printed
    figures = set(found["headline"]) - {"group", "horizon", "n"}
    assert not [name for name in figures if f"`{name}`" not in PAGES["evaluate"]]


@pytest.mark.slow
def test_the_examples_of_backtest_leave_what_the_page_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = run("backtest", capfd)
    assert "buy and hold" in printed
    for name, models in (("holt", {"holt"}), ("walk", {"ar-1", "ar-2"})):
        out = Path("out") / name
        found = json.loads((out / "backtest.json").read_text())
        assert set(found["traded_models"]) == models
        assert found["moments"] > 200
        listed = re.findall(r"`(\w+\.(?:json|html|parquet))`", PAGES["backtest"].split("## ")[3])
        assert len(set(listed)) == 7
        assert not [file for file in listed if not (out / file).is_file()]
        columns = pl.read_parquet(out / "equity.parquet").columns
        assert columns == ["as_of_ns", "return", "equity", "drawdown", "turnover", "exposure", "buy_and_hold"]
        contestants = {"before_costs", "buy_and_hold", "random_walk", "random_signs"}
        assert not [each for each in contestants if f"`{each}`" not in PAGES["backtest"] or each not in found]


@pytest.mark.parametrize(("page", "kind"), [("evaluate", EvaluateOrder), ("backtest", BacktestOrder)])
def test_the_orders_of_the_pages_are_orders_and_name_every_field(page: str, kind: type[msgspec.Struct]) -> None:
    (text,) = re.findall(r"```json\n(.*?)```", PAGES[page], re.DOTALL)
    order = msgspec.json.decode(text, type=kind)
    assert msgspec.to_builtins(order).keys() == json.loads(text).keys()
