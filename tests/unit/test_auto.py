"""From a history to a candidate: what it tries, what it may not look at, when there is none, and what a stop leaves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tickcast.batch.tune import auto
from tickcast.batch.tune.auto import run
from tickcast.batch.tune.sweep import NOTED
from tickcast.engine.inference.model_folder import read_card
from tickcast.io.jobs.folder import Result
from tickcast.io.jobs.orders import AutoOrder
from tickcast.ui.auto_command import show
from tickcast.ui.pages.auto_page import page, swept_rows, verdict
from trainkit import Progress, Ticking, autoregressive, job, series, trials_here, walk

N = 3000


@pytest.fixture(autouse=True)
def few_trials(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In this process."""
    monkeypatch.setattr(auto, "TRIALS", 4)
    with trials_here():
        yield


def ordered(folder: Path, close: Any, **more: Any) -> AutoOrder:
    made = job(folder, [series("A", close)], kind="ridge", model_params={}, lookback=8, horizon=2, epochs=1)
    order = AutoOrder(**{"fit": made, "budget_s": 300.0, "kinds": ["ar", "ridge"], "seed": 1, **more})
    order.write(folder)
    return order


def ended(found: dict[str, Any]) -> Result:
    named = {name: found[name] for name in ("model", "status", "metrics") if name in found}
    return Result(ok=True, content={name: found[name] for name in found if name not in named}, **named)


@pytest.mark.slow
def test_moves_that_turn_back_lead_to_a_candidate_whose_hold_out_no_step_looked_at(tmp_path: Path) -> None:
    """Another hold-out, and all that was chosen is the same; the progress is told in shares of the budget."""
    close = autoregressive(N, seed=1, phi=-0.45)
    told = Progress()
    ordered(tmp_path / "one", close)
    found = run(tmp_path / "one", told)
    assert (found["verdict"], found["status"], found["model"]) == ("candidate", "done", "model")
    card = read_card(tmp_path / "one" / "model")
    assert (card.kind, card.metrics["skill"]) == (found["won"], found["metrics"]["skill"])
    assert found["metrics"]["skill_low"] > 0
    assert {row["kind"] for row in found["swept"]} == {"ar", "ridge"}
    assert all(row["value"] < found["last_value"] for row in found["swept"])
    assert told.lines[-1] == {"step": 100, "steps": 100}
    assert {line["steps"] for line in told.lines} == {100}
    cut = int(N * 0.9) + 1
    close[cut:] = close[cut - 1] * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.05, N - cut)))
    ordered(tmp_path / "other", close)
    again = run(tmp_path / "other", Progress())
    for name in ("last_value", "won", "recommended"):
        assert again[name] == found[name]
    for kind, search in found["searches"].items():
        assert again["searches"][kind]["best"]["value"] == search["best"]["value"]
    assert again["metrics"]["skill"] != found["metrics"]["skill"]
    lines = [*verdict(ended(found))]
    assert lines[1].startswith("On the hold-out, which no step before looked at: better than last value: skill +")
    drawn = page(ended(found))
    assert "It is a candidate" in drawn
    assert "moves turn back" in drawn
    best = swept_rows(ended(found))[0]
    assert (best["kind"], best["tuned"] >= best["skill"]) == (found["won"], True)


@pytest.mark.slow
def test_on_a_random_walk_there_is_no_candidate_and_a_kind_that_cannot_be_fitted_is_told(tmp_path: Path) -> None:
    ordered(tmp_path, walk(N, seed=2), kinds=["ar", "realised_range"])
    found = run(tmp_path, Progress())
    assert found["verdict"] in ("no_better", "not_told_apart")
    assert "model" not in found
    assert not (tmp_path / "model").exists()
    why = {row["kind"]: row["why"] for row in found["swept"]}
    assert why["ar"] == ""
    assert "realised_range" in why["realised_range"]
    console = Console(record=True, width=200)
    show(ended(found), tmp_path, console)
    shown = console.export_text()
    assert "so there is no candidate" in shown
    assert "serve it" not in shown


def test_data_that_are_not_fit_to_learn_from_are_told_and_nothing_is_fitted(tmp_path: Path) -> None:
    ordered(tmp_path, np.repeat(np.linspace(1.0, 2.0, 30), 100))
    found = run(tmp_path, Progress())
    assert (found["verdict"], found["status"]) == ("bad_data", "done")
    assert "searches" not in found
    (line,) = verdict(ended(found))
    assert line.startswith("The data are not fit to learn from, and nothing was fitted: stale prices of A")
    assert "stale prices" in page(ended(found))


@pytest.mark.slow
def test_what_was_stopped_goes_on_and_sweeps_no_kind_twice(tmp_path: Path) -> None:
    ordered(tmp_path, autoregressive(N, seed=1, phi=-0.45))
    stopped = run(tmp_path, Progress(enough=4))
    assert stopped["status"] == "stopped"
    assert "model" not in stopped
    assert [*verdict(ended(stopped))] == ["It was stopped before there was a verdict."]
    noted = (tmp_path / "sweep" / NOTED).read_bytes()
    found = run(tmp_path, Progress())
    assert (tmp_path / "sweep" / NOTED).read_bytes().startswith(noted)
    kinds = [row["kind"] for row in found["swept"]]
    assert (found["verdict"], sorted(kinds)) == ("candidate", ["ar", "ridge"])


@pytest.mark.slow
def test_what_the_budget_cuts_off_is_told_and_what_was_found_by_then_is_judged(tmp_path: Path) -> None:
    """A second passes whenever somebody looks: each step is over when its first fit is."""
    ordered(tmp_path, autoregressive(N, seed=1, phi=-0.45), budget_s=6.0)
    found = run(tmp_path, Progress(), clock=Ticking())
    assert [(row["kind"], row["why"]) for row in found["swept"]] == [("ar", ""), ("ridge", "there was no time for it")]
    search = found["searches"]["ar"]
    assert (search["status"], search["trials"]) == ("out_of_time", {"complete": 1})
    assert (found["verdict"], found["won"], found["status"]) == ("candidate", "ar", "done")
