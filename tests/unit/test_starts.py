"""What a search takes from past ones: the nearest of the same, moved into its space, and nothing that is broken."""

from typing import Any

import msgspec
import numpy as np
import pytest

from tickcast.batch.tune.starts import starts_of, still_alike
from tickcast.io.jobs.orders import FitOrder, TuneOrder
from tickcast.io.jobs.past import EarlierSearch
from tickcast.io.store.ledger_rows import TrajectoryRow
from tickcast.loop.signature import ALIKE, STILL, UNLIKE, Signature, distance
from tickcast.plugin import Parameter

SPACE = {
    "deep": Parameter("int", 1, 8), "layers": Parameter("choice", choices=[[], [16]]),
    "rate": Parameter("float", 1e-4, 1e-1, log=True),
}  # fmt: skip
FIRST: dict[str, Any] = {"deep": 2, "layers": [], "rate": 1e-2}
HERE = Signature(
    symbols=1.0, bars=3.0, interval=0.0, spread=-3.0, unevenness=0.2, tails=0.1, turning=-0.1, memory=0.0,
    clustering=0.1, season=0.0, season_of_size=0.0, gaps=0.0, together=0.2, persistence=0.5,
)  # fmt: skip
ORDER = TuneOrder(fit=FitOrder(kind="micro", bars={"kind": "time", "every_ms": 1000}))


def away(by: float) -> dict[str, float]:
    """A signature at that distance, all of it in how moves turn."""
    unit = UNLIKE.turning * float(np.sqrt(len(Signature.__struct_fields__)))
    return dict(msgspec.to_builtins(msgspec.structs.replace(HERE, turning=HERE.turning + by * unit)))


def row(job: str, by: float, params: dict[str, Any] | None = None, **changed: Any) -> TrajectoryRow:
    fit = {"kind": "micro", "transform": "log_return", "horizon": 12, "bars": {"kind": "time", "every_ms": 60_000}}
    plain: dict[str, Any] = {
        "job": job, "made_by": "optimize", "kind": "micro", "fit": fit, "metric": "pinball",
        "params": {**FIRST, "rate": 0.001 * (1 + len(job) + by)} if params is None else params, "skill": None,
        "skill_low": None, "skill_high": None, "cost_us": None, "signature": away(by), "at_ns": 1,
    }  # fmt: skip
    return TrajectoryRow(**plain | changed)


def begun(*rows: TrajectoryRow, order: TuneOrder = ORDER) -> list[tuple[str, dict[str, Any]]]:
    return [(start.origin, start.params) for start in starts_of(rows, HERE, order, SPACE, FIRST)]


def test_it_begins_with_the_five_nearest_of_all_that_are_near_enough() -> None:
    rows = [row(f"job{n}", 0.1 * n) for n in (6, 2, 9, 4, 1, 3, 5)]
    assert [origin for origin, _ in begun(*rows)] == [f"job{n}" for n in (1, 2, 3, 4, 5)]
    far = [row("near", ALIKE - 0.01), row("far", ALIKE + 0.01)]
    (only,) = starts_of(far, HERE, ORDER, SPACE, FIRST)
    assert (only.origin, only.distance) == ("near", pytest.approx(ALIKE - 0.01, abs=1e-3))
    assert [origin for origin, _ in begun(*rows, order=msgspec.structs.replace(ORDER, past_searches=2))] == [
        "job1", "job2"
    ]  # fmt: skip


def test_of_equals_the_newest_and_the_same_parameters_once() -> None:
    new = row("new", 0.1, {**FIRST, "deep": 3}, at_ns=9)
    assert begun(row("old", 0.1, {**FIRST, "deep": 3}), new) == [("new", {**FIRST, "deep": 3})]
    assert begun(row("as ordered", 0.0, FIRST)) == []


def test_parameters_are_moved_into_the_space_and_what_they_leave_out_is_as_ordered() -> None:
    assert begun(row("j", 0.0, {"deep": 99, "rate": 5})) == [("j", {"deep": 8, "layers": [], "rate": 0.1})]
    assert begun(row("j", 0.0, {"deep": 3.4, "layers": [16]})) == [("j", {"deep": 3, "layers": [16], "rate": 1e-2})]
    fixed = msgspec.structs.replace(ORDER, space={"hidden": None})  # a person gave it: it is not tuned
    assert begun(row("j", 0.0, {"deep": 3, "hidden": 64}), order=fixed) == [("j", {**FIRST, "deep": 3})]


@pytest.mark.parametrize(
    "poisoned",
    [
        row("j", 0.0, {"rate": float("nan")}), row("j", 0.0, {"deep": float("inf")}), row("j", 0.0, {"deep": True}),
        row("j", 0.0, {"deep": "3"}), row("j", 0.0, {"layers": [64]}), row("j", 0.0, {"mood": 1.0}),
        row("j", 0.0, signature={**away(0), "tails": float("nan")}), row("j", 0.0, signature={"tails": 1.0}),
    ],
)  # fmt: skip
def test_a_poisoned_row_is_passed_over(poisoned: TrajectoryRow) -> None:
    assert begun(poisoned, row("sound", 0.5)) == begun(row("sound", 0.5)) != []


@pytest.mark.parametrize(
    "other",
    [
        {"made_by": "train"}, {"metric": "mae"}, *(
            {"fit": {**row("j", 0.0).fit, **fit}}
            for fit in ({"kind": "ridge"}, {"transform": "level"}, {"horizon": 3}, {"bars": {"kind": "tick"}})
        ), {"fit": {}},
    ],
)  # fmt: skip
def test_what_was_sought_otherwise_tells_nothing(other: dict[str, Any]) -> None:
    assert begun(row("j", 0.0, {"deep": 3})) != []
    assert begun(row("j", 0.0, {"deep": 3}, **other)) == []


def test_trials_count_on_only_while_the_data_are_as_alike_as_one_market_at_two_times() -> None:
    searches = [
        EarlierSearch(job="same", signature=away(STILL - 0.01), trials=[]),
        EarlierSearch(job="other", signature=away(STILL + 0.01), trials=[]),
        EarlierSearch(job="poisoned", signature={}, trials=[]),
    ]
    assert [search.job for search in still_alike(searches, HERE)] == ["same"]
    assert distance(HERE, Signature(**away(0.25))) == pytest.approx(0.25)
