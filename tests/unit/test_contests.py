"""Who stands against the model that serves: what begins when another one serves, what a block counts."""

from typing import Any

import msgspec
import pytest

from tickcast.engine.core.blocks import BlockRow
from tickcast.engine.core.contest import ALPHA, ContestTerms
from tickcast.errors import BadRequest
from tickcast.loop.actions import READY, Action, ActionKind
from tickcast.loop.contests import Contests, NewContest, OpenContest
from tickcast.settings import Settings

TERMS = ContestTerms(alpha=0.05, block_bars=4, most_blocks=100, bound=0.5)
NAIVE, OLD, NEW = "naive", "old", "new"


def held() -> Contests:
    contests = Contests(Settings())
    contests.champion = OLD
    return contests


def against(refusal: str = "") -> dict[str, Any]:
    terms = TERMS._replace(refusal=refusal)._asdict()
    return {"terms": terms, "last_value": TERMS._replace(block_bars=8)._asdict()}


def block(contest: str, number: int, *, gain: float = 0.1, **more: Any) -> BlockRow:
    found = {"ended_ns": 0, "labels": 10, "failed": 0, "loss": 1.0 + gain, "loss_challenger": 1.0 - gain, **more}
    return BlockRow(contest, number, **found)


def begun(contests: Contests, **more: Any) -> OpenContest:
    return contests.begin(NewContest("candidate", NEW, TERMS, TERMS), id="c", bar_ns=10, **more)


def test_a_fitted_model_is_a_candidate_only_where_its_hold_out_speaks_for_it() -> None:
    contests = held()
    contests.take(NEW, against("it is no better there"))
    assert not contests.challengers()
    contests.take(NEW, against())
    contests.take(NEW, against())
    assert [(one.model, one.verdict) for one in contests.challengers()] == [(NEW, READY)]


def test_a_candidates_contest_has_the_terms_of_its_hold_out_and_the_alpha_of_its_turn() -> None:
    contests = held()
    contests.take(NEW, against())
    action = Action(id="a", kind=ActionKind.SHADOW, why=(), waits=False, model=NEW, alpha=0.01, most_bars=400)
    opening = contests.of_candidate(action)
    assert opening.terms == TERMS._replace(alpha=0.01, most_blocks=100)
    contest = contests.begin(opening, id="a", bar_ns=10)
    assert (contest.block_ns, contest.champion) == (40, OLD)
    contests.leave(NEW)
    assert [one.verdict for one in contests.challengers()] == ["open"]
    with pytest.raises(BadRequest, match="no candidate any more"):
        contests.of_candidate(action)


def test_blocks_of_no_length_are_refused() -> None:
    with pytest.raises(BadRequest, match="too few bars"):
        held().begin(NewContest("candidate", NEW, TERMS, TERMS), id="c", bar_ns=0)


def test_each_block_counts_once_in_its_order_and_only_where_it_has_labels() -> None:
    contests = held()
    contest = begun(contests)
    for row in (block("c", 3), block("c", 3), block("c", 2), block("c", 4, labels=0), block("other", 5)):
        contests.settle(row)
    assert contests.told(contest)["blocks"] == 1
    assert contests.settled("c") == 4


def test_a_block_in_which_the_challenger_failed_is_lost() -> None:
    contests = held()
    contest = begun(contests)
    contests.settle(block("c", 1, failed=1))
    assert (contests.told(contest)["unusable"], contests.told(contest)["gain"]) == (1, -0.5)


def test_evidence_decides_and_goes_on_from_what_was_noted() -> None:
    contests, other = held(), held()
    contest = begun(contests)
    for number in range(30):
        contests.settle(block("c", number))
        if number == 4:
            (noted,) = msgspec.json.decode(msgspec.json.encode(contests.noted()), type=list[OpenContest])
            other.resume(noted)
    for number in range(30):
        other.settle(block("c", number))
    assert [one.verdict for one in contests.challengers()] == ["better"]
    assert other.told(other.of(NEW)) == contests.told(contest)


def test_after_a_promotion_the_roles_are_swapped_and_last_value_stands_against_the_new_one() -> None:
    contests = held()
    contests.begin(NewContest("candidate", NEW, TERMS, TERMS._replace(block_bars=8)), id="c", bar_ns=10)
    former, lasting = contests.follow(NEW, NAIVE, is_new=True)
    assert (former.role, former.model, former.terms) == ("former", OLD, TERMS._replace(alpha=ALPHA))
    assert (lasting.role, lasting.model) == ("last_value", NAIVE)
    assert (lasting.terms.rounds, lasting.terms.block_bars, lasting.terms.most_blocks) == (True, 8, 1250)
    assert not contests.open
    assert contests.champion == NEW


@pytest.mark.parametrize(("before", "champion", "is_new"), [("", OLD, True), (NAIVE, OLD, True), (NEW, OLD, False)])
def test_nobody_is_to_come_back_who_did_not_serve_before_a_promotion(before: str, champion: str, is_new: bool) -> None:
    contests = held()
    contests.champion = before
    assert [one.role for one in contests.follow(champion, NAIVE, is_new=is_new)] == ["last_value"]


def test_last_value_has_nobody_against_it_but_candidates() -> None:
    assert held().follow(NAIVE, NAIVE, is_new=False) == []


def test_who_won_against_somebody_that_serves_no_more_does_not_serve() -> None:
    contests = held()
    begun(contests)
    assert contests.won(NEW, OLD).id == "c"
    with pytest.raises(BadRequest, match="serves no more"):
        contests.won(NEW, NAIVE)
    contests.end(contests.of(NEW))
    with pytest.raises(BadRequest, match="no contest any more"):
        contests.won(NEW, OLD)
