"""What a host of the policy goes by: drift with worse skill, and that last value serves in a loser's place."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tickcast.loop.build import Serving, build
from tickcast.loop.facts import facts_of, look_at
from tickcast.records import Drift, ModelCard
from tickcast.settings import load

SETTINGS = load(overrides={"bars.every_ms": "3600000"}, environ={})[0]


def alarm(family: str) -> Drift:
    return Drift(
        family=family, topic="t", partition=0, state="alarm", event="", statistic=0.0, threshold=1.0, bars=0.0,  # type: ignore[arg-type]
        since_ns=0, alarms=1, watched=1, streams=[], as_of_ns=0,
    )  # fmt: skip


def serving_with(kind: str, *alarms: Drift) -> Serving:
    """As built, but for the card of who serves and what is alarmed."""
    built: Any = build(SETTINGS)
    card = msgspec.structs.replace(built.ladder.first, kind=kind, name="mine", version="2", trained_to_ns=7)
    engine = SimpleNamespace(
        pace=built.engine.pace, newest_ns=built.engine.newest_ns, scorekeeper=built.engine.scorekeeper,
        drift=SimpleNamespace(alarms=lambda: [*alarms]),
    )  # fmt: skip
    found: Any = SimpleNamespace(engine=engine, settings=SETTINGS, ladder=SimpleNamespace(first=card, first_number=0))
    return found


@pytest.mark.parametrize(
    ("alarms", "lost", "said"),
    [
        ([], False, ""),
        ([alarm("skill")], False, "drift with worse skill"),
        ([alarm("coverage")], False, ""),  # nothing says that skill is worse
        ([], True, "last value serves"),
    ],
)
def test_why_what_serves_is_not_good_enough(alarms: list[Drift], lost: bool, said: str) -> None:
    told = look_at(serving_with("ridge", *alarms))
    assert facts_of(told, None, (), lost=lost).alarm == said


def test_before_the_first_bar_there_is_nothing_but_the_length_of_one() -> None:
    told = look_at(build(SETTINGS))
    assert (told.bars, told.newest_ns, told.bar_ns, told.alarm) == (0, 0, 3600 * 10**9, False)


@pytest.mark.parametrize(("trained_to_ns", "fitted_ns"), [(7, 7), (0, None)])
def test_a_rung_has_no_age(trained_to_ns: int, fitted_ns: int | None) -> None:
    told = look_at(build(SETTINGS))
    card: ModelCard = msgspec.structs.replace(build(SETTINGS).cards[0], trained_to_ns=trained_to_ns)
    assert facts_of(told, card, (), lost=False).fitted_ns == fitted_ns
    assert facts_of(told, None, (), lost=False).fitted_ns is None
