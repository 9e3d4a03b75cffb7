"""Studies over a function in place of a fit: what is tried, what is given up, and what a kill leaves."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import optuna
import pytest
import torch

from tickcast.batch.tune.samplers import GRID_POINTS, distributions, make_sampler
from tickcast.batch.tune.spaces import TELLING
from tickcast.batch.tune.starts import Start
from tickcast.batch.tune.study import STUDY, Study
from tickcast.errors import BadData, BadSettings
from tickcast.io.jobs.orders import FitOrder, TuneOrder
from tickcast.io.jobs.past import EarlierSearch
from tickcast.plugin import Parameter
from tickcast.records import TrialRow

SPACE = {
    "deep": Parameter("int", 1, 8), "layers": Parameter("choice", choices=[[], [16], [16, 8]]),
    "rate": Parameter("float", 1e-4, 1e-1, log=True), "wide": Parameter("float", -1.0, 2.0),
}  # fmt: skip
FIRST = {"deep": 1, "layers": [], "rate": 0.05, "wide": 1.5}
SAMPLERS = ("grid", "random", "tpe", "cmaes", "gp")


def loss(params: dict[str, Any]) -> float:
    """Least, at 0, for a rate of 1e-2, width 0, depth 5, one layer."""
    off = (np.log10(params["rate"]) + 2, params["wide"], (params["deep"] - 5) / 4, 0.5 * (len(params["layers"]) != 1))
    return float(np.square(off).sum())


CHANCE = 1.97  # half of all points lie below it


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # as a job has it


def opened(
    folder: Path, sampler: str = "random", *, space: Any = SPACE, data: str = "d", starts: Sequence[Start] = (),
    earlier: Sequence[EarlierSearch] = (), **order: Any,
) -> Study:  # fmt: skip
    folder.mkdir(exist_ok=True)
    asked = TuneOrder(fit=FitOrder(epochs=4), **{"pruner": "none", "sampler": sampler, "trials": 13, **order})
    first = {n: FIRST[n] for n in space}
    return Study(
        folder, asked, space, first, fingerprint=asked.fingerprint(data), starts=starts, earlier=earlier
    )  # fmt: skip


def go_on(study: Study, most: int = 10**9) -> list[TrialRow]:
    """Until it has had enough, or so many trials."""
    for _ in range(most):
        if (asked := study.ask()) is None:
            break
        number, params = asked
        keeps = all(study.epoch(number, epoch, loss(params) + 1 / epoch) for epoch in (1, 2, 3))
        study.end(number, loss(params) if keeps else None, epochs=3, seconds=0.5)
    return study.rows()


def what(rows: list[TrialRow]) -> list[tuple[Any, ...]]:
    return [(row.params, row.value, row.state) for row in rows if row.why != "interrupted"]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_that_was_killed_ends_as_one_that_was_not(sampler: str, tmp_path: Path) -> None:
    with opened(tmp_path / "whole", sampler, pruner="median") as study:
        whole = go_on(study)
    with opened(tmp_path / "cut", sampler, pruner="median") as study:
        before = what(go_on(study, 11))
        study.ask()  # and nobody ever tells how this one went
    with opened(tmp_path / "cut", sampler, pruner="median") as study:
        after = go_on(study)
    assert what(after) == what(whole)
    assert what(after)[:11] == before
    assert [row.number for row in after if row.why == "interrupted"] == [11]
    assert whole[0].params == FIRST
    assert len(whole) == 13


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "trials", "share"), [("tpe", 60, 0.5), ("cmaes", 100, 0.5), ("gp", 18, 0.0)])
def test_what_is_learnt_from_earlier_trials_finds_better_ones_than_chance(
    sampler: str, trials: int, share: float
) -> None:
    space = {name: parameter for name, parameter in SPACE.items() if name != "layers"}
    study = optuna.create_study()  # in memory
    study.enqueue_trial({name: FIRST[name] for name in space})
    values = []
    for place in range(trials):
        study.sampler = make_sampler(sampler, space, seed=0, place=place)
        trial = study.ask(distributions(space))
        values.append(loss({**trial.params, "layers": [16]}))
        study.tell(trial, values[-1])
    late = (
        values[-20:] if trials > 20 else values[-8:]
    )  # a model of ten trials finds one good one, and then looks around
    assert np.quantile(late, share) < (CHANCE / 3 if share else 0.1)


def test_other_seeds_give_other_studies(tmp_path: Path) -> None:
    rows = []
    for seed in (1, 2):
        with opened(tmp_path / str(seed), seed=seed) as study:
            rows.append(what(go_on(study, 4)))
    assert rows[0][0] == rows[1][0]  # the order as it stands
    assert all(a != b for a, b in zip(rows[0][1:], rows[1][1:], strict=True))


def test_a_grid_has_each_of_its_points_once_and_then_ends(tmp_path: Path) -> None:
    space = {name: SPACE[name] for name in ("layers", "rate")}
    with opened(tmp_path, "grid", space=space, trials=100) as study:
        number, points = study.ask(), []
        while number is not None:
            points.append((tuple(number[1]["layers"]), number[1]["rate"]))
            study.end(number[0], 1.0, epochs=1, seconds=0.0)
            number = study.ask()
    assert len(points) == 1 + 3 * GRID_POINTS
    assert set(points[1:]) == {(layers, rate) for layers in ((), (16,), (16, 8)) for rate in points_of("rate")}


def points_of(name: str) -> list[float]:
    low, high = SPACE[name].low, SPACE[name].high
    return [low, float(np.exp((np.log(low) + np.log(high)) / 2)), high]


def test_a_grid_beyond_all_measure_is_refused(tmp_path: Path) -> None:
    space = {f"p{i}": Parameter("float", 0.0, 1.0) for i in range(13)}
    order = TuneOrder(fit=FitOrder(), sampler="grid")
    with Study(tmp_path, order, space, dict.fromkeys(space, 0.5), fingerprint="") as study:
        study.end(study.ask()[0], 1.0, epochs=1, seconds=0.0)  # type: ignore[index]
        with pytest.raises(BadSettings, match="1,594,323 points"):
            study.ask()


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_trial_that_falls_behind_is_given_up_but_never_the_first(pruner: str, tmp_path: Path) -> None:
    with opened(tmp_path, pruner=pruner, trials=30) as study:
        rows, best = go_on(study), study.best()
    given_up = [row for row in rows if row.state == "pruned"]
    assert given_up
    assert rows[0].state == "complete"
    assert best.value == min(row.value for row in rows if row.state == "complete")


def test_nothing_in_a_study_is_pickled(tmp_path: Path) -> None:
    with opened(tmp_path, "cmaes") as study:
        go_on(study)
    kept = (tmp_path / STUDY).read_bytes()
    assert b"fixed_params" in kept  # what the study keeps of a trial beside its values
    assert b"cma:" not in kept


def test_what_failed_is_told_and_counts_as_tried(tmp_path: Path) -> None:
    with opened(tmp_path, trials=3) as study:
        number, _ = study.ask()  # type: ignore[misc]
        row = study.fail(number, "worker_died: its process ended with -9", seconds=2.0)
        with pytest.raises(BadData, match="worker_died"):
            study.best()
        go_on(study)
        assert study.counts() == {"failed": 1, "complete": 2}
        assert (study.first(), row.state, row.value, row.seconds) == (None, "failed", None, 2.0)
        assert study.importance() == {}


@pytest.mark.slow
def test_the_importance_names_what_makes_the_difference_and_says_nothing_of_few_trials(tmp_path: Path) -> None:
    told = {}
    with opened(tmp_path, trials=60) as study:
        for place in range(1, 61):
            number, params = study.ask()  # type: ignore[misc]
            study.end(number, params["wide"], epochs=1, seconds=0.0)
            if place in (TELLING - 1, TELLING):
                told[place] = bool(study.importance())
        shares = study.importance()
    assert told == {TELLING - 1: False, TELLING: True}
    assert max(shares, key=shares.__getitem__) == "wide"
    assert sum(shares.values()) == pytest.approx(1.0, abs=0.01)


def test_a_study_of_another_order_or_of_other_bars_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as study:
        go_on(study, 1)
    with pytest.raises(BadSettings, match="another order"):
        opened(tmp_path, seed=5)
    with pytest.raises(BadSettings, match="other bars"):
        opened(tmp_path, data="e")
    with opened(tmp_path, trials=14, workers=2) as study:  # how long it may take is no part of it
        assert len(study.rows()) == 1


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """All that are opened during the test."""
    made: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def noted(*given: Any, **named: Any) -> sqlite3.Connection:
        made.append(connect(*given, **named))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", noted)
    return made


def are_closed(connections: list[sqlite3.Connection]) -> bool:
    for connection in connections:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
    return bool(connections)


def test_a_damaged_file_is_refused_and_closed(tmp_path: Path, connections: list[sqlite3.Connection]) -> None:
    (tmp_path / STUDY).write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 40)
    with pytest.raises(BadData, match="cannot be opened"):
        opened(tmp_path)
    assert are_closed(connections)


def test_a_refused_study_leaves_no_connection_open(tmp_path: Path, connections: list[sqlite3.Connection]) -> None:
    with opened(tmp_path) as study:
        go_on(study, 1)
    with pytest.raises(BadSettings):
        opened(tmp_path, seed=5)
    assert are_closed(connections)


STARTS = [Start(f"job{deep}", 0.1, {**FIRST, "deep": deep}) for deep in (4, 6)]


def test_after_the_order_as_it_stands_a_search_begins_with_what_past_ones_found(tmp_path: Path) -> None:
    with opened(tmp_path / "with", starts=STARTS, trials=5) as study:
        rows = go_on(study)
    assert [row.params for row in rows[:3]] == [FIRST, *(start.params for start in STARTS)]
    assert [row.origin for row in rows] == ["", "job4", "job6", "", ""]
    with opened(tmp_path / "without", trials=5) as study:
        alone = go_on(study)
    assert alone[0].params == FIRST
    assert not [row for row in alone if row.origin]
    assert all(row.params not in [start.params for start in STARTS] for row in alone)


def test_a_kill_among_the_first_trials_loses_none_of_them_and_asks_none_twice(tmp_path: Path) -> None:
    with opened(tmp_path, starts=STARTS, trials=5) as study:
        go_on(study, 1)
        study.ask()  # job4, and nobody tells how it went
    with opened(tmp_path, starts=STARTS, trials=5) as study:
        rows = [row for row in go_on(study) if row.why != "interrupted"]
    assert sorted(row.origin for row in rows) == ["", "", "", "job4", "job6"]
    assert [row.params for row in rows if row.origin == "job4"] == [STARTS[0].params]


def test_a_grid_after_what_past_searches_found_is_whole(tmp_path: Path) -> None:
    space = {"rate": SPACE["rate"]}
    with opened(tmp_path, "grid", space=space, trials=100, starts=[Start("job", 0.1, {"rate": 0.02})]) as study:
        tried = []
        while (asked := study.ask()) is not None:
            tried.append(study.end(asked[0], 1.0, epochs=1, seconds=0.0).params["rate"])
    assert tried[:2] == [FIRST["rate"], 0.02]
    assert sorted(tried[2:]) == sorted(points_of("rate"))


def earlier_search(found: list[TrialRow], job: str = "before") -> EarlierSearch:
    return EarlierSearch(job=job, signature={}, trials=found)


def test_a_search_goes_on_from_an_earlier_one_and_takes_none_of_its_trials_for_the_best(tmp_path: Path) -> None:
    """Values are moved by what the first trial differs in: here all bars are harder by 7."""
    with opened(tmp_path / "before", "tpe", trials=13) as study:
        before = go_on(study, 9)
    with opened(tmp_path / "after", "tpe", trials=13, earlier=[earlier_search(before)]) as study:
        rows = []
        while (asked := study.ask()) is not None:
            rows.append(study.end(asked[0], loss(asked[1]) + 7, epochs=1, seconds=0.0))
        known = {t.user_attrs["earlier"]: t.value for t in study._study.trials if "earlier" in t.user_attrs}
        assert study.rows() == rows
        assert study.counts() == {"complete": 4}  # with its own first, thirteen in all
        assert study.best().value == min(row.value or 0.0 for row in rows)
    assert known == {f"before/{row.number}": pytest.approx((row.value or 0.0) + 7) for row in before}


def test_earlier_trials_are_taken_over_once_whenever_it_is_killed(tmp_path: Path) -> None:
    with opened(tmp_path / "before", trials=13) as study:
        before = earlier_search(go_on(study, 5))
    for asked in (0, 1, 2):
        with opened(tmp_path / "after", earlier=[before]) as study:
            go_on(study, asked)
            taken = [trial for trial in study._study.trials if "earlier" in trial.user_attrs]
            assert len(taken) == (5 if asked else 0)


def test_of_an_earlier_search_without_its_first_trial_and_of_impossible_trials_nothing_is_taken(tmp_path: Path) -> None:
    with opened(tmp_path / "before", trials=13) as study:
        before = go_on(study, 4)
    odd = [
        msgspec.structs.replace(before[1], params={**before[1].params, "deep": 99}),
        msgspec.structs.replace(before[2], params={"deep": 3}), msgspec.structs.replace(before[3], state="pruned"),
    ]  # fmt: skip
    given = [earlier_search(before[1:], "no first"), earlier_search([before[0], *odd], "odd")]
    with opened(tmp_path / "after", earlier=given) as study:
        go_on(study, 2)
        assert [t.user_attrs["earlier"] for t in study._study.trials if "earlier" in t.user_attrs] == ["odd/0"]
