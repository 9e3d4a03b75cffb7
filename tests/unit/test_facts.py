"""What a host of the policy goes by: an alarm counts that is about who serves, or about whom a rung stands in for."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tickcast.loop.build import Serving, build
from tickcast.loop.facts import facts_of, look_at
from tickcast.records import Drift, DriftStream, ModelCard
from tickcast.settings import load

SETTINGS = load(overrides={"bars.every_ms": "3600000"}, environ={})[0]


def alarm(family: str, model: str, *, named: bool = True) -> Drift:
    stream = DriftStream(
        model=model, group="all", channel="", named=named, statistic=0.0, share=0.0, limit=0.0, block_bars=1.0,
        autocorrelation=None, psi=None, ks=None, wasserstein=None,
    )  # fmt: skip
    return Drift(
        family=family, topic="t", partition=0, state="alarm", event="", statistic=0.0, threshold=1.0, bars=0.0,  # type: ignore[arg-type]
        since_ns=0, alarms=1, watched=1, streams=[stream], as_of_ns=0,
    )  # fmt: skip


def serving_with(kind: str, *alarms: Drift) -> Serving:
    """As built, but for the card of who serves and what is alarmed."""
    built: Any = build(SETTINGS)
    card = msgspec.structs.replace(built.ladder.first, kind=kind, name="mine", version="2", trained_to_ns=7)
    engine = SimpleNamespace(
        pace=built.engine.pace, newest_ns=built.engine.newest_ns, scorekeeper=built.engine.scorekeeper,
        drift=SimpleNamespace(alarms=lambda: [*alarms]),
    )  # fmt: skip
    found: Any = SimpleNamespace(engine=engine, settings=SETTINGS, ladder=SimpleNamespace(first=card))
    return found


@pytest.mark.parametrize(
    ("kind", "alarms", "is_one"),
    [
        ("ridge", [], False),
        ("ridge", [alarm("skill", "mine@2")], True),
        ("ridge", [alarm("skill", "mine@1")], False),
        ("ridge", [alarm("skill", "mine@2", named=False)], False),
        ("naive", [alarm("skill", "mine@1")], True),
        ("ridge", [alarm("coverage", "mine@2")], False),
    ],
)
def test_an_alarm_is_reason_where_it_is_about_who_serves_or_a_rung_does(
    kind: str, alarms: list[Drift], is_one: bool
) -> None:
    assert look_at(serving_with(kind, *alarms)).alarm == is_one


def test_before_the_first_bar_there_is_nothing_but_the_length_of_one() -> None:
    told = look_at(build(SETTINGS))
    assert (told.bars, told.newest_ns, told.bar_ns, told.alarm) == (0, 0, 3600 * 10**9, False)


@pytest.mark.parametrize(("trained_to_ns", "fitted_ns"), [(7, 7), (0, None)])
def test_a_rung_has_no_age(trained_to_ns: int, fitted_ns: int | None) -> None:
    told = look_at(build(SETTINGS))
    card: ModelCard = msgspec.structs.replace(build(SETTINGS).cards[0], trained_to_ns=trained_to_ns)
    assert facts_of(told, card, ()).fitted_ns == fitted_ns
    assert facts_of(told, None, ()).fitted_ns is None
