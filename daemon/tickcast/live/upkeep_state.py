"""What the upkeep goes on from after a restart: the policy's state, candidates that wait, contests that are on."""

from typing import Any

import msgspec

from tickcast.loop.actions import ChallengerRole


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


class UpkeepState(msgspec.Struct, kw_only=True):
    """What it goes on from."""

    champion: str = ""  # whose contests these are
    lost: str = ""  # to last value, the last time that one did
    policy: dict[str, Any] = {}
    ready: list[Candidate] = []
    contests: list[OpenContest] = []
