"""Routes: the narrowest that a symbol falls under decides; a share is drawn by names alone."""

import numpy as np
import pytest

from kit import rung
from snapshotkit import KINDS, Running, small_settings, tape, turns
from tickcast.engine.core.routes import NO_MODEL, Route, Routes, is_drawn, narrowness, route_of
from tickcast.errors import BadRequest
from tickcast.records import Command
from tickcast.symbols import SymbolTable

HOSTILE = [
    "default",
    "30%:default",
    "group:g",
    "symbol:A",
    "A\nB",
    "A ",
    " A",
    "é",
    "e\u0301",
    "\x00",
    "None",
    "😀" * 12,
]


def routes(names: list[str], **given: int) -> Routes:
    table = SymbolTable(64)
    for name in names:
        table.code(name)
    cards = Running(small_settings(**KINDS[0])).serving.cards
    found = Routes(table, {"g": ["G*"], "None": ["N*"]}, cards)
    for route, number in given.items():
        found.set(route, number)
    return found


def numbers(found: Routes, names: list[str]) -> dict[str, int]:
    return dict(zip(names, found.of(np.arange(len(names), dtype=np.int32)).tolist(), strict=True))


@pytest.mark.parametrize("text", ["", "30%", "0%:default", "100%:default", "05%:default", "٣%:default", "30%:symbol:A",
                                  "30%:30%:default", "default ", "symbol:", "group:", "group:unknown"])  # fmt: skip
def test_what_is_no_route_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        routes([]).set(text, 0)


def test_a_route_is_read_from_its_text_whatever_its_names_hold() -> None:
    assert route_of("default") == Route("default")
    assert route_of("7%:group:a:b%") == Route("group:a:b%", 7, "a:b%")
    assert [route_of(f"symbol:{name}").symbol for name in HOSTILE] == HOSTILE
    by_narrowness = sorted(["symbol:A", "default", "9%:group:g", "group:g", "9%:default"], key=narrowness)
    assert by_narrowness == ["default", "9%:default", "group:g", "9%:group:g", "symbol:A"]


def test_the_narrowest_decides_and_says_about_whom_the_others_do() -> None:
    names = ["A", "Ga", "Gb", *(f"G{i}" for i in range(20)), "Nobody", *HOSTILE]
    found = routes(names, **{"symbol:Ga": 1, "group:g": 2, "50%:group:g": 0, "symbol:A\nB": 1})
    told = numbers(found, names)
    of_group = [name for name in names if name.startswith("G") and name != "Ga"]
    share = {name for name in of_group if told[name] == 0}
    assert told["Ga"] == told["A\nB"] == 1
    assert 3 < len(share) < 18
    assert {told[name] for name in of_group} == {0, 2}
    assert all(told[name] == NO_MODEL for name in names if name not in (*of_group, "Ga", "A\nB"))
    reached = {route: {names[code] for code in np.flatnonzero(found.reach(route))} for route in
               ("default", "group:g", "50%:group:g", "symbol:Ga", "symbol:Gb", "symbol:?")}  # fmt: skip
    assert reached["50%:group:g"] == share
    assert reached["group:g"] == {*of_group} - share
    assert reached["default"] == {*names} - {*of_group, "Ga", "A\nB"}
    assert (reached["symbol:Ga"], reached["symbol:Gb"], reached["symbol:?"]) == ({"Ga"}, {"Gb"}, set())
    assert [found.stands(route) for route in ("symbol:Ga", "symbol:Gb", "group:g", "default", "symbol:?")] == [
        1, told["Gb"], 2, NO_MODEL, NO_MODEL
    ]  # fmt: skip


def test_a_share_is_the_same_for_the_same_model_and_another_for_another() -> None:
    names = [f"S{i}" for i in range(64)]
    one, again, other = (
        routes(order, **{"30%:default": number})
        for order, number in ((names, 0), (names[::-1], 0), (names, 1))
    )  # fmt: skip
    drawn = {name for name, number in numbers(one, names).items() if number == 0}
    assert drawn == {name for name, number in numbers(again, names[::-1]).items() if number == 0}
    assert drawn != {name for name, number in numbers(other, names).items() if number == 1}
    assert [name for name in names if is_drawn(name, 10, "k")] == [
        "S9", "S10", "S11", "S13", "S15", "S36", "S40", "S43",
    ]  # for ever  # fmt: skip
    many = sum(is_drawn(f"{name}{i}", 30, "k") for i in range(300) for name in HOSTILE) / (300 * len(HOSTILE))
    assert many == pytest.approx(0.3, abs=0.02)


def test_a_route_has_one_share() -> None:
    found = routes(["A"], **{"30%:default": 0})
    with pytest.raises(BadRequest, match="one share"):
        found.set("40%:default", 1)
    found.set("30%:default", 1)
    found.set("40%:group:g", 1)
    found.set("30%:default", NO_MODEL)
    found.set("40%:default", 1)
    assert found.number("40%:default") == 1


def test_a_share_answers_for_its_symbols_and_a_restart_goes_on_with_it() -> None:
    options = small_settings(**KINDS[0], model__default="naive", model__ladder='["naive"]', symbols__groups="{}")
    ticks = [[event for event in turn if not isinstance(event, Command)] for turn in turns(tape(6, 2500), 6)]
    order = Command(id="1", command="use_model", args={"model": "holt", "route": "50%:default"})
    first = Running(options)
    first.engine.install(rung("holt", options))
    first.take([[order], *ticks[: len(ticks) // 2]])
    drawn = first.engine.routes.reach("50%:default")
    again = Running(options)
    again.engine.install(rung("holt", options))
    again.engine.resume(first.engine.snapshot())
    again.take(ticks[len(ticks) // 2 :])
    for running in (first, again):
        answered = {(int(s), running.serving.cards[m].name) for o in running.outcomes for f in o.forecasts
                    for s, m in zip(f.symbol, f.model, strict=True)}  # fmt: skip
        by_holt = {symbol for symbol, name in answered if name == "holt"}
        assert by_holt
        drawn_later = {*np.flatnonzero(again.engine.routes.reach("50%:default")).tolist()}
        assert by_holt <= drawn_later < {symbol for symbol, _ in answered} | drawn_later
    assert (again.engine.routes.reach("50%:default") >= drawn).all()  # more symbols came
