"""Which kinds are worth trying: what was found on data like these first, then what the data themselves show."""

from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import msgspec
import pytest
from rich.console import Console

from measured_kinds import USES, table
from tickcast.errors import BadRequest
from tickcast.io.store.ledger_rows import TrajectoryRow
from tickcast.io.store.store import Store
from tickcast.live.commands.arguments import Recommend
from tickcast.live.commands.recommender import MOST_READ, Recommender
from tickcast.loop.recommend import MeasuredCase, MeasuredKind, MeasuredTable, measured, recommend
from tickcast.loop.signature import ALIKE, MOST_BARS, Signature, distance
from tickcast.plugin import names
from tickcast.ui.recommend_command import show

QUIET = Signature(
    symbols=1.0, bars=4.0, interval=0.0, spread=-3.0, unevenness=0.2, tails=0.1, turning=0.0, memory=0.0,
    clustering=0.0, season=0.0, season_of_size=0.0, gaps=0.0, together=0.2, persistence=0.5,
)  # fmt: skip
FAR = msgspec.structs.replace(QUIET, interval=5.0)
USED = {"memory": ["line"], "clustering": ["wide"], "season": ["wave"], "season of size": ["wide"]}
KINDS = ["line", "wide", "wave", "net", "tree"]


def like(**changed: float) -> Signature:
    return msgspec.structs.replace(QUIET, **changed)


def case(signature: Signature, **skills: tuple[float, float | None, float | None]) -> MeasuredCase:
    kinds = [MeasuredKind(kind, *skill, 1.5) for kind, skill in skills.items()]
    return MeasuredCase("public data", 12, "last value", "a file", signature, kinds)


def own(kind: str, skill: float | None, signature: Signature = QUIET, *, job: str = "j", at_ns: int = 1) -> Any:
    low, high = (None, None) if skill is None else (skill - 0.01, skill + 0.01)
    return TrajectoryRow(
        job=job, made_by="train", kind=kind, fit={}, params={}, metric="", skill=skill, skill_low=low, skill_high=high,
        cost_us=None, signature=msgspec.to_builtins(signature), at_ns=at_ns,
    )  # fmt: skip


def told(signature: Signature = QUIET, *rows: TrajectoryRow, cases: tuple[MeasuredCase, ...] = ()) -> Any:
    return recommend(signature, rows, MeasuredTable([*cases], USED), kinds=KINDS)


def test_where_nothing_is_known_it_says_so_and_names_what_is_nearest() -> None:
    found = told()
    assert (found.is_known, found.kinds) == (False, [])
    assert found.says[-1] == "nothing is known of such data"
    away = distance(FAR, QUIET)
    found = told(QUIET, own("net", 0.5, like(interval=9.0)), cases=(case(FAR, tree=(0.9, None, None)),))
    assert (found.is_known, found.kinds) == (False, [])
    assert f"nearest is public data, {away:.2f} away" in found.says[-1]
    assert away > ALIKE


def test_the_low_end_of_what_was_found_ranks_and_what_lost_is_named_and_left_out() -> None:
    cases = (case(QUIET, net=(0.03, -0.01, 0.07), tree=(0.02, 0.01, 0.03), line=(-0.01, -0.02, 0.0)),)
    found = told(cases=cases)
    assert [one.kind for one in found.kinds] == ["tree", "net"]
    assert found.is_known
    assert "no better than last value on data like these: line" in found.says
    assert found.kinds[0].why == [
        "skill +2.00% (+1.00% to +3.00%) on public data, horizon 12, 0.00 away, beside last value"
    ]


def test_what_the_deployment_found_itself_comes_before_what_was_measured_elsewhere() -> None:
    cases = (case(QUIET, net=(0.09, 0.08, 0.1)),)
    rows = (own("net", 0.02, job="old"), own("net", 0.04, job="newer", at_ns=9), own("net", 0.9, FAR, job="far"))
    (only,) = told(QUIET, *rows, cases=cases).kinds
    assert (only.skill, only.skill_low) == (0.04, pytest.approx(0.03))
    assert [why.split(" on ")[1][:12] for why in only.why] == ["the hold-out", "public data,"]
    assert "job newer (train), 0.00 away" in only.why[0]
    assert told(QUIET, own("net", None)).kinds == []  # it never said what it was worth
    assert told(QUIET, own("gone", 0.5)).kinds == []  # no kind of this installation


@pytest.mark.parametrize(
    ("signature", "kind", "reason"),
    [
        (like(turning=-0.3), "line", "moves turn back: lag-1 autocorrelation -0.30, chance alone up to 0.03; that is"),
        (like(turning=0.2), "line", "moves go on: lag-1 autocorrelation +0.20"),
        (like(clustering=0.17), "wide", "sizes of moves cluster: mean autocorrelation +0.17"),
        (like(season=0.03), "wave", "the season explains 3.0% of the variance of moves"),
        (like(season_of_size=0.02), "wide", "the season explains 2.0% of the variance of their sizes"),
    ],
)  # fmt: skip
def test_each_reason_of_the_signature_is_computed_from_what_it_names(
    signature: Signature, kind: str, reason: str
) -> None:
    found = told(signature)
    (only,) = found.kinds
    assert only.kind == kind
    assert only.why[0].startswith(reason)
    assert found.says[0] == only.why[0]
    assert ("that is 9% of the variance" in only.why[0]) == (signature.turning == -0.3)
    assert not found.is_known


@pytest.mark.parametrize(
    "signature",
    [like(turning=0.04), like(turning=0.2, bars=2.0), like(clustering=0.2, bars=2.0), like(season=0.03, bars=2.0)],
)
def test_what_chance_alone_may_show_speaks_for_nobody(signature: Signature) -> None:
    assert told(signature).kinds == []


def test_it_does_not_promise_what_the_data_do_not_hold() -> None:
    no_memory = "no memory in moves: autocorrelation +0.01 at lag 1, +0.00 at lags 2 to 8; do not expect a better point"
    says = told(like(turning=0.01, clustering=0.2, gaps=0.3)).says
    assert [line for line in says if line.startswith(no_memory)]
    assert [line for line in says if line.startswith("30% of the bars were carried")]
    assert not [line for line in told(like(turning=-0.3)).says if line.startswith("no memory")]
    assert [line for line in told(like(bars=2.5)).says if line.startswith("about 3,162 bars are few")]


def test_so_few_bars_that_a_memory_would_not_show_are_not_said_to_have_none() -> None:
    (few,) = (line for line in told(like(turning=0.07, memory=0.04, bars=2.8)).says if "memory" in line)
    assert few.endswith("so few bars would not show one below 0.12")
    assert "do not expect" not in few
    (kind,) = told(like(memory=-0.05)).kinds
    assert "moves turn back at lags 2 to 8: mean autocorrelation -0.05, chance alone up to 0.01" in kind.why


def test_the_table_of_the_package_is_what_the_results_of_the_benchmarks_say() -> None:
    """Run benchmarks/measured_kinds.py anew where they changed."""
    packaged = measured()
    names_of = {case.origin: case for case in packaged.cases}
    assert len(names_of) == len(packaged.cases) == 6
    signatures = {"crypto_1h": names_of["benchmarks/results/loop_volatility.json"].signature}
    signatures |= {
        data: names_of[f"benchmarks/results/accuracy/{data}-96.jsonl"].signature for data in ("ettm2", "exchange")
    }
    again = table(signatures)
    assert msgspec.to_builtins(again) == msgspec.to_builtins(packaged)
    kinds = set(names("models"))
    assert {kind for of in USES.values() for kind in of} <= kinds
    assert {one.kind for case in packaged.cases for one in case.kinds} <= kinds


def test_on_hours_of_crypto_the_kinds_of_volatility_lead() -> None:
    hourly = measured().cases[0].signature
    found = recommend(hourly, [], measured(), kinds=names("models"))
    assert [one.kind for one in found.kinds[:2]] == ["realised_range", "har"]
    assert any("sizes of moves cluster" in why for why in found.kinds[0].why)
    assert any("do not expect a better point" in line for line in found.says)


def test_it_is_shown_as_a_table_with_its_reasons() -> None:
    console = Console(record=True, width=200)
    show(told(like(turning=-0.3), own("net", 0.02, like(turning=-0.3))), console)
    shown = console.export_text()
    assert "net" in shown
    assert "+2.00%" in shown
    assert "moves turn back" in shown
    show(told(), console)
    assert "no kind is worth trying on what is known" in console.export_text()


async def test_of_more_bars_than_it_looks_at_none_is_read(tmp_path: Path) -> None:
    """Whoever may read could else have a whole store written out by one command."""
    store = Mock(spec=Store)
    store.count_bars.return_value = MOST_READ + 1
    look = AsyncMock(return_value=Mock(newest_ns=10**18, bar_ns=10**9))
    with pytest.raises(BadRequest, match="1,000,001 bars") as refused:
        await Recommender(store, tmp_path, look).recommend(Recommend(), Mock())
    assert refused.value.remedy == "name fewer symbols"
    store.save_bars.assert_not_called()
    (from_ns, *_), _ = store.count_bars.call_args
    assert from_ns == 10**18 - MOST_BARS * 10**9
