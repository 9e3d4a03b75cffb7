"""What a search of the schedule goes on from: the last one for the same, if that had no time left to try enough."""

from typing import Any

import msgspec
import pytest

from tickcast.io.jobs.orders import Against, FitOrder, TuneOrder
from tickcast.io.jobs.past import NO_PAST
from tickcast.io.store.ledger_rows import TrajectoryRow
from tickcast.live.commands.past_searches import going_on, past_of
from tickcast.records import JobRow, TrialRow

ORDER = TuneOrder(fit=FitOrder(kind="ridge", against=Against(alpha=0.05, most_bars=10)), trials=9)


class Books:
    """A ledger in memory."""

    def __init__(self, *jobs: JobRow) -> None:
        self.rows = jobs

    async def jobs(self, state: str) -> list[JobRow]:
        assert state == "done"
        return [*self.rows]

    async def trajectories(self, kind: str) -> list[TrajectoryRow]:
        assert kind == "ridge"
        return [trajectory(row.id) for row in self.rows if row.id != "of no known data"]

    async def trials(self, job: str) -> list[TrialRow]:
        return [
            TrialRow(job=job, number=n, state="complete", params={}, value=1.0, epochs=0, seconds=1.0) for n in range(4)
        ]


def trajectory(job: str) -> TrajectoryRow:
    return TrajectoryRow(
        job=job, made_by="optimize", kind="ridge", fit={}, params={}, metric="pinball", skill=None, skill_low=None,
        skill_high=None, cost_us=None, signature={"of": 1.0}, at_ns=1,
    )  # fmt: skip


def job(name: str, order: Any = ORDER, status: str = "out_of_time", kind: str = "optimize") -> JobRow:
    return JobRow(
        id=name, kind=kind, command_id="", state="done", why="", created_ns=1,
        order_json=msgspec.json.encode(order).decode(),
        result_json=msgspec.json.encode({"ok": True, "status": status}).decode(),
    )  # fmt: skip


async def gone_on(*jobs: JobRow, order: TuneOrder = ORDER) -> list[str]:
    books: Any = Books(*jobs)
    told, past = await going_on(order, books)
    assert isinstance(told, TuneOrder)
    assert [search.job for search in past.earlier] == told.earlier
    assert all(len(search.trials) == 4 and search.signature for search in past.earlier)
    return told.earlier


async def test_it_goes_on_from_the_last_one_that_ran_out_of_time_and_all_before_that() -> None:
    later = msgspec.structs.replace(ORDER.fit, against=Against(alpha=0.01, most_bars=99))
    before = msgspec.structs.replace(ORDER, fit=later, seconds=7.0)  # another contest, another time limit
    assert await gone_on(job("a", before)) == ["a"]
    chain = msgspec.structs.replace(ORDER, earlier=["a"])
    assert await gone_on(job("b", chain), job("a")) == ["a", "b"]


@pytest.mark.parametrize(
    "jobs",
    [
        (), (job("a", status="done"),), (job("b", status="done"), job("a")), (job("of no known data"),),
        (job("a", msgspec.structs.replace(ORDER, metric="mae")),), (job("a", kind="train"),), (job("a", {"job": "x"}),),
        (job("a", msgspec.structs.replace(ORDER, fit=FitOrder(kind="ridge", horizon=3))),),
        (job("c", msgspec.structs.replace(ORDER, earlier=["a", "b"])), job("b"), job("a")),  # twelve of nine trials
    ],
)  # fmt: skip
async def test_else_it_begins_anew(jobs: tuple[JobRow, ...]) -> None:
    assert await gone_on(*jobs) == []


async def test_what_past_searches_found_is_left_out_where_nobody_wants_it_and_of_no_use_to_a_fit() -> None:
    books: Any = Books(job("a"))
    alone = msgspec.structs.replace(ORDER, past_searches=0)
    assert await going_on(alone, books) == (alone, NO_PAST)
    assert await past_of(ORDER.fit, books) == NO_PAST
    assert [row.job for row in (await past_of(ORDER, books)).trajectories] == ["a"]
