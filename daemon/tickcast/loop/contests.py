"""The contests with the model that serves: who stands against it, on what terms, and how it goes. It counts what its
host, live or replay, brings, and says who is to answer beside it next; it asks no model and stores nothing.
"""

import math
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tickcast.engine.core.blocks import BlockRow
from tickcast.engine.core.contest import ALPHA, Contest, ContestTerms
from tickcast.engine.core.routes import DEFAULT
from tickcast.errors import BadRequest
from tickcast.loop.actions import Action, Challenger, ChallengerRole
from tickcast.settings import Settings
from tickcast.state import State

USUAL_BLOCK, USUAL_BOUND = 4, 0.25  # horizons, and of a gain


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a job of the schedule fitted, with the terms of its contest and of that with last value after it."""

    model: str  # digest
    champion: str
    terms: dict[str, Any]
    last_value: dict[str, Any]


class OpenContest(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    model: str
    champion: str
    role: ChallengerRole
    terms: dict[str, Any]
    last_value: dict[str, Any]  # the terms with it, should the challenger win
    block_ns: int
    every: int = 1
    tally: dict[str, Any] = {}  # of blocks up to `settled`
    settled: int = -1


class NewContest(NamedTuple):
    """A contest that is to begin."""

    role: ChallengerRole
    model: str
    terms: ContestTerms
    lasting: ContestTerms  # with last value, should the challenger win


class Contests:
    def __init__(self, settings: Settings, route: str = DEFAULT) -> None:
        """Of the model that serves a route."""
        self.route = route
        self.champion = ""  # whose contests these are
        self.ready: list[Candidate] = []
        self.open: list[OpenContest] = []
        self._settings = settings
        self._held: dict[str, Contest] = {}
        self._settled: dict[str, int] = {}  # the newest block of each that was counted

    def challengers(self) -> tuple[Challenger, ...]:
        ready = [Challenger(model=one.model, role="candidate", route=self.route) for one in self.ready]
        running = [
            Challenger(model=one.model, role=one.role, verdict=self._held[one.id].verdict, route=self.route)
            for one in self.open
        ]
        return (*ready, *running)

    def take(self, model: str, against: dict[str, Any]) -> None:
        """A fitted model, with what its job found of its contests: a candidate where the hold-out speaks for it."""
        if not against["terms"]["refusal"]:
            rest = [one for one in self.ready if one.model != model]
            self.ready = [*rest, Candidate(
                model=model, champion=self.champion, terms=against["terms"], last_value=against["last_value"]
            )]  # fmt: skip

    def settle(self, block: BlockRow) -> None:
        """A block of one that is on; in which the challenger had no answer it counts as lost."""
        held = self._held.get(block.contest)
        if held is None or block.number <= self._settled[block.contest]:
            return
        self._settled[block.contest] = block.number
        if block.labels or block.failed:
            held.settle(block.loss, math.nan if block.failed else block.loss_challenger)

    def settled(self, contest: str) -> int:
        """Its newest block."""
        return self._settled[contest]

    # ------------------------------------------------------------ beginning and ending

    def of_candidate(self, action: Action) -> NewContest:
        candidate = next((one for one in self.ready if one.model == action.model), None)
        if candidate is None:
            raise BadRequest(f"{action.model[:12]} is no candidate any more")
        terms = ContestTerms(**candidate.terms)
        terms = terms._replace(alpha=action.alpha, most_blocks=action.most_bars // terms.block_bars)
        return NewContest("candidate", action.model, terms, ContestTerms(**candidate.last_value))

    def asked(self, model: str) -> NewContest:
        """Of a model that a person wants to see beside the one that serves; refused while a candidate is there."""
        if model == self.champion or any(one.model == model or one.role == "candidate" for one in self.open):
            raise BadRequest(
                f"{model[:12]} serves {self.route}, or a candidate is in a contest there",
                remedy="`status section=decisions` shows contests; `shadow` without a model ends that of a route",
            )
        terms = self._usual_terms()
        return NewContest("candidate", model, terms, terms)

    def candidate(self) -> OpenContest:
        """Of the candidate that answers in shadow."""
        found = [one for one in self.open if one.role == "candidate"]
        if not found:
            raise BadRequest(f"no candidate is in a contest on {self.route}")
        return found[0]

    def begin(self, opening: NewContest, *, id: str, bar_ns: int, every: int = 1) -> OpenContest:
        """From now on; its blocks are spans of event time."""
        if bar_ns <= 0:  # blocks would have no length
            raise BadRequest("there are too few bars to say how long a block is")
        contest = OpenContest(
            id=id, model=opening.model, champion=self.champion, role=opening.role, terms=opening.terms._asdict(),
            last_value=opening.lasting._asdict(), block_ns=opening.terms.block_bars * bar_ns, every=every,
        )  # fmt: skip
        self.resume(contest)
        return contest

    def leave(self, model: str) -> None:
        """It answers in shadow by now, and waits no more."""
        self.ready = [one for one in self.ready if one.model != model]

    def resume(self, contest: OpenContest) -> None:
        """From its tally; a block is one observation."""
        fresh = Contest(ContestTerms(**contest.terms)._replace(block_bars=1))
        if contest.tally:
            state = fresh.snapshot()
            arrays = {name: np.array(contest.tally["arrays"][name], a.dtype) for name, a in state.arrays.items()}
            fresh = Contest.resumed(State(arrays, contest.tally["facts"]))
        self._held[contest.id], self._settled[contest.id] = fresh, contest.settled
        self.open = [one for one in self.open if one.id != contest.id] + [contest]

    def of(self, model: str) -> OpenContest:
        found = [one for one in self.open if one.model == model]
        if not found:
            raise BadRequest(f"{model[:12]} is in no contest any more")
        return found[0]

    def end(self, contest: OpenContest) -> None:
        self.open = [one for one in self.open if one.id != contest.id]

    def won(self, model: str, champion: str) -> OpenContest:
        """The contest that the model has won; refused where somebody else serves by now."""
        contest = self.of(model)
        if contest.champion != champion:
            raise BadRequest(f"the contest was with {contest.champion[:12]}, which serves no more")
        return contest

    def follow(self, champion: str, last_value: str, *, is_new: bool) -> list[NewContest]:
        """Another one serves: what was on is over, and these begin. After a promotion, `is_new`, the roles are swapped:
        who served before answers beside it, to serve again if that is shown better. Last value is a challenger at all
        times."""
        before, known = self.champion, [one for one in self.open if one.model == champion]
        terms = ContestTerms(**known[0].terms) if known else self._usual_terms()
        lasting = ContestTerms(**known[0].last_value) if known else terms
        self.champion, self.open = champion, []
        if champion == last_value:
            return []
        most = max(self._settings.schedule.shadow_bars // lasting.block_bars, 1)
        endless = lasting._replace(alpha=ALPHA, rounds=True, most_blocks=most)
        beside = [NewContest("last_value", last_value, endless, lasting)]
        if is_new and before not in ("", last_value):
            beside.insert(0, NewContest("former", before, terms._replace(alpha=ALPHA, rounds=False), lasting))
        return beside

    def _usual_terms(self) -> ContestTerms:
        """Of a model that no hold-out spoke for, such as one that a person promoted."""
        block_bars = USUAL_BLOCK * self._settings.forecast.horizon
        most = max(self._settings.schedule.shadow_bars // block_bars, 1)
        return ContestTerms(alpha=ALPHA, block_bars=block_bars, most_blocks=most, bound=USUAL_BOUND)

    # ------------------------------------------------------------ what is told and noted

    def told(self, contest: OpenContest) -> dict[str, Any]:
        """Its evidence, in what JSON can hold."""
        found = self._held[contest.id].evidence()._asdict()
        found = {name: None if isinstance(value, float) and not math.isfinite(value) else value
                 for name, value in found.items()}  # fmt: skip
        who = {"route": self.route, "model": contest.model, "champion": contest.champion, "role": contest.role}
        return {"contest": contest.id, **who, **found}

    def noted(self) -> list[OpenContest]:
        """Those that are on, each with its tally."""
        return [self._tallied(contest) for contest in self.open]

    def _tallied(self, contest: OpenContest) -> OpenContest:
        state = self._held[contest.id].snapshot()
        tally = {"arrays": {name: array.tolist() for name, array in state.arrays.items()}, "facts": state.facts}
        return msgspec.structs.replace(contest, tally=tally, settled=self._settled[contest.id])
