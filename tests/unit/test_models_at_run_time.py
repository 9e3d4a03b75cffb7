"""Models that come while ticks flow: installing one changes nothing, a command lets it answer, a restart renumbers it.

And answers that somebody asks for: they are what would be published, and they change nothing.
"""

import msgspec
import numpy as np
import pytest

from kit import T0, rung
from snapshotkit import KINDS, Running, differences, small_settings, tape, turns
from tickcast.engine.core import windows
from tickcast.engine.core.engine import Engine
from tickcast.engine.core.events import Ask, Outcome
from tickcast.errors import BadRequest, BadStore, Quality
from tickcast.plugin import Runner
from tickcast.questions import Answers, Questions
from tickcast.records import Command
from tickcast.settings import Settings
from tickcast.symbols import find_or_add

TURNS = [turn for turn in turns(tape(6, 4000), 6) if turn]
TICKS_ONLY = [[event for event in turn if not isinstance(event, Command)] for turn in TURNS]
CUT = len(TICKS_ONLY) // 2


@pytest.fixture
def options() -> Settings:
    return small_settings(**KINDS[0], model__default="naive", model__ladder='["naive"]')


def said(outcomes: list[Outcome]) -> list[object]:
    """What was published and scored, but for the numbers that models have here."""
    parts = [part for outcome in outcomes for part in (*outcome.forecasts, *outcome.scores)]
    return [(p.id_high, p.id_low, getattr(p, "quantiles", None), getattr(p, "pinball", None)) for p in parts]


def use(model: str, route: str = "default") -> Command:
    return Command(id="1", command="use_model", args={"model": model, "route": route})


def test_a_model_that_is_installed_and_not_used_changes_nothing(options: Settings) -> None:
    one, other = Running(options).take(TICKS_ONLY[:CUT]), Running(options).take(TICKS_ONLY[:CUT])
    other.engine.install(rung("holt", options))
    other.engine.install(rung("holt", options))
    assert len(other.serving.cards) == len(one.serving.cards) + 1
    for running in (one, other):
        running.take(TICKS_ONLY[CUT:])
    assert not [*differences(said(one.outcomes), said(other.outcomes))]
    assert not [*differences(one.accuracy(), other.accuracy())]


def test_from_the_command_on_it_answers_and_what_was_open_is_scored_under_the_old_one(options: Settings) -> None:
    running = Running(options).take(TICKS_ONLY[:CUT])
    running.engine.install(rung("holt", options))
    running.take([[use("holt")], *TICKS_ONLY[CUT:]])
    before = np.concatenate([f.model for o in running.outcomes[:CUT] for f in o.forecasts])
    after = np.concatenate([f.model for o in running.outcomes[CUT:] for f in o.forecasts])
    assert set(before) == {0}
    assert (after == 1).mean() > 0.5
    by_model = {figures.model for figures in running.accuracy()}
    assert by_model == {"naive", "holt"}
    undisturbed = Running(options).take(TICKS_ONLY)
    scored = {(s.id_high[i], s.id_low[i]) for o in running.outcomes for s in o.scores for i in range(len(s))}
    open_then = {
        (f.id_high[i], f.id_low[i]) for o in running.outcomes[:CUT] for f in o.forecasts for i in range(len(f))
    }
    expected = {(s.id_high[i], s.id_low[i]) for o in undisturbed.outcomes for s in o.scores for i in range(len(s))}
    assert scored & open_then == expected & open_then


def test_a_restart_that_numbers_the_models_otherwise_goes_on_as_if_nothing_had_been(options: Settings) -> None:
    first = Running(options)
    first.engine.install(rung("holt", options))
    first.engine.install(rung("seasonal", options))
    first.take([*TICKS_ONLY[:5], [use("holt")], *TICKS_ONLY[5:9], [use("seasonal", "group:few")], *TICKS_ONLY[9:CUT]])
    state = first.engine.snapshot()
    other = Running(small_settings(**KINDS[0], model__default="seasonal", model__ladder='["holt", "naive"]'))
    assert [c.name for c in other.serving.cards] != [c.name for c in first.serving.cards]
    other.engine.resume(state)
    first.outcomes.clear()
    for running in (first, other):
        running.take(TICKS_ONLY[CUT:])
    assert len({*np.concatenate([f.model for o in first.outcomes for f in o.forecasts])}) >= 2
    assert not [*differences(said(first.outcomes), said(other.outcomes))]
    figures = [
        sorted(running.accuracy(), key=lambda a: (a.model, a.group, a.horizon, a.window)) for running in (first, other)
    ]
    assert not [*differences(*figures)]


class Broken(Runner):
    """A model whose first row of every call is no use, or which raises."""

    def __init__(self, options: Settings, *, raises: bool) -> None:
        self._rung, self._raises = rung("seasonal", options), raises
        need_bars = rung("holt", options).card.need_bars
        self.card = msgspec.structs.replace(
            self._rung.card, name="broken", kind="net", digest="b" * 64, need_bars=need_bars
        )

    def answer(self, questions: Questions) -> Answers:
        if self._raises:
            raise ValueError("broken")
        answers = self._rung.answer(questions)
        answers.quantiles[0] = np.nan
        return answers


@pytest.mark.parametrize("raises", [True, False])
def test_where_a_model_fails_the_one_that_was_first_before_it_stands_in_and_the_forecast_says_so(
    options: Settings, raises: bool
) -> None:
    running, plain = Running(options), Running(options)
    third, two_thirds = len(TICKS_ONLY) // 3, 2 * len(TICKS_ONLY) // 3
    for one in (running, plain):
        one.engine.install(rung("holt", options))
        one.take([*TICKS_ONLY[:third], [use("holt")]])
    running.engine.install(Broken(options, raises=raises))
    running.outcomes.clear()
    running.take([[use("broken")], *TICKS_ONLY[third:two_thirds]])
    names = [card.name for card in running.serving.cards]
    who = {
        (names[f.model[i]], bool(f.flags[i] & Quality.FALLBACK))
        for o in running.outcomes for f in o.forecasts for i in range(len(f))
    }  # fmt: skip
    assert ("holt", True) in who
    assert who <= {("holt", True), ("naive", False), ("broken", False)}
    assert (("broken", False) in who) == (not raises)
    again = Running(options)
    again.engine.install(rung("holt", options))
    again.engine.install(Broken(options, raises=raises))
    again.engine.resume(running.engine.snapshot())
    running.outcomes.clear()
    for one in (running, again):
        one.take([*TICKS_ONLY[two_thirds:], [use("holt")]])
        assert one.engine.ladder is not None
        assert one.engine.ladder._firsts == [0, one.engine.ladder.number("holt")]  # broken stands in for nobody
    assert not [*differences(said_of(running), said_of(again))]


def said_of(running: Running) -> list[object]:
    return said(running.outcomes)


def test_a_snapshot_that_knows_a_model_which_is_not_loaded_is_refused_by_its_digest(options: Settings) -> None:
    first = Running(options)
    first.engine.install(rung("holt", options))
    digest = first.serving.cards[-1].digest
    with pytest.raises(BadStore, match=digest[:12]):
        Running(options).engine.resume(first.engine.snapshot())


def test_routes_of_symbols_go_before_those_of_groups_and_can_be_taken_back(options: Settings) -> None:
    running = Running(options)
    for name in ("holt", "seasonal"):
        running.engine.install(rung(name, options))

    def who() -> dict[str, set[str]]:
        names: dict[str, set[str]] = {}
        for forecasts in (f for o in running.outcomes for f in o.forecasts):
            for symbol, model in zip(forecasts.symbol, forecasts.model, strict=True):
                names.setdefault(running.serving.symbols.name(symbol), set()).add(running.serving.cards[model].name)
        running.outcomes.clear()
        return names

    third, two_thirds = len(TICKS_ONLY) // 3, 2 * len(TICKS_ONLY) // 3
    running.take(TICKS_ONLY[:third])
    running.outcomes.clear()
    running.take([[use("holt", "group:few"), use("seasonal", "symbol:S2")], *TICKS_ONLY[third:two_thirds]])
    by_symbol = who()
    assert by_symbol["S1"] - {"naive"} == {"holt"}  # last value where a gap left it too few bars
    assert by_symbol["S2"] - {"naive"} == {"seasonal"}
    assert by_symbol["S3"] == {"naive"}
    running.take([[use("", "symbol:S2")], *TICKS_ONLY[two_thirds:]])
    assert who()["S2"] - {"naive"} == {"holt"}
    for route in ("group:none", "symbol:", "somewhere"):
        with pytest.raises(BadRequest):
            running.engine.routes.set(route, 0)


def test_an_answer_on_demand_is_what_was_published_of_the_newest_bar_and_changes_nothing(options: Settings) -> None:
    plain, asked = Running(options), Running(options)
    compared = 0
    for turn in TICKS_ONLY:
        plain.take([turn])
        names = tuple(asked.serving.symbols.names())
        asked.take([[*turn, *(Ask((name,)) for name in names)]])
        newest = {f.symbol[i]: (f, i) for f in asked.outcomes[-1].forecasts for i in range(len(f))}  # of this turn
        for answer in asked.outcomes[-1].answers:
            code = asked.serving.symbols.code(answer.ask.symbols[0])
            if answer.refused is None and code in newest and newest[code][0].as_of[newest[code][1]] == answer.as_of[0]:
                forecasts, i = newest[code]
                np.testing.assert_array_equal(answer.target_ns[0], forecasts.target_ns[i])
                np.testing.assert_array_equal(answer.quantiles[0][:, 2], forecasts.quantiles[i][:, 2])
                assert answer.anchor[0] == forecasts.anchor[i]
                compared += 1
    assert compared > 50
    assert not [*differences(said(plain.outcomes), said(asked.outcomes))]
    assert not [*differences(plain.engine.snapshot().arrays, asked.engine.snapshot().arrays)]


def test_widths_on_demand_are_those_of_the_published_forecast() -> None:
    running = Running(small_settings(**KINDS[0], model__default="naive", uncertainty__memory_bars=80)).take(TICKS_ONLY)
    last = {f.symbol[i]: (f, i) for o in running.outcomes for f in o.forecasts for i in range(len(f))}
    move = running.engine.scorekeeper._conformal.move
    assert np.abs(move).max() > 0
    compared = 0
    outcome = running.engine.turn([Ask((name,)) for name in running.serving.symbols.names()], T0)
    for answer in outcome.answers:
        forecasts, i = last[running.serving.symbols.code(answer.ask.symbols[0])]
        if answer.refused is None and forecasts.as_of[i] == answer.as_of[0]:
            spread = answer.quantiles[0][:, -1] - answer.quantiles[0][:, 0]
            np.testing.assert_allclose(spread, forecasts.quantiles[i][:, -1] - forecasts.quantiles[i][:, 0], rtol=0.2)
            compared += 1
    assert compared > 2


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (Ask(("NOBODY",)), "NOBODY"),
        (Ask(("S1",), "no such model"), "no such model"),
        (Ask(("COLD",)), "too few bars"),
    ],
)
def test_what_cannot_be_answered_says_why_and_the_others_are(options: Settings, ask: Ask, why: str) -> None:
    running = Running(options).take(TICKS_ONLY[:CUT])
    find_or_add(running.serving.symbols.arrays, np.frombuffer(b"COLD", np.uint8), 0, 4)
    refused, answered = running.engine.turn([ask, Ask(("S1",))], T0).answers
    assert why in str(refused.refused)
    assert answered.refused is None
    assert answered.quantiles.shape == (1, 3, 5)


def test_a_given_window_is_answered_by_the_model_as_it_is(options: Settings) -> None:
    running = Running(options).take(TICKS_ONLY[:CUT])
    engine: Engine = running.engine
    code = np.array([running.serving.symbols.code("S1")], np.int32)
    ordinal, _, as_of = engine.builder.newest_bars(code)
    rings = engine.builder.bars
    at = rings.start[code] + ((ordinal + np.arange(-39, 1)) & rings.wrap)
    bars = windows.whole([column[at] for column in rings[:5]])
    own, given = engine.turn([Ask(("S1",)), Ask((), "naive", bars=bars, as_of=int(as_of[0]))], T0).answers
    assert own.refused is None
    assert given.refused is None
    np.testing.assert_array_equal(own.quantiles[0][:, 2], given.quantiles[0][:, 2])
