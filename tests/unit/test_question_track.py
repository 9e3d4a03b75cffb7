"""Ticks' questions and asked ones go one way: one call of the model; and no state moves on for who asks."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from kit import T0, Served, rung, settings, walk
from tickcast.columns import Inputs
from tickcast.engine.core.events import Ask
from tickcast.errors import BadOutput
from tickcast.plugin import Runner
from tickcast.questions import ALONE, TICKS, Answers, Questions
from tickcast.settings import Settings
from tickcast.state import Arrays
from tickcast.testing import walks

SMALL: dict[str, object] = {"window__lookback": 8, "forecast__horizon": 4}


class Plain(Runner):
    """All that a model must be: it answers. It notes what it was asked."""

    def __init__(self, like: Runner) -> None:
        self._like, self.asked = like, list[Questions]()
        self.card = msgspec.structs.replace(like.card, name="plain", kind="plain", digest="p" * 64)

    def answer(self, questions: Questions) -> Answers:
        self.asked.append(questions)
        return self._like.answer(questions)


class Counting(Plain):
    """Remembers how many questions of ticks there were."""

    def answer(self, questions: Questions) -> Answers:
        self.count = getattr(self, "count", 0) + int((questions.asker == TICKS).sum())
        return super().answer(questions)

    def state(self) -> Arrays:
        return {"count": np.array([self.count])}


def served(s: Settings, runner: Runner, *, ticks: int = 600) -> Served:
    return Served(s, walk(ticks, 3, seed=2), chunk=200, runners=[runner])


def questions(rows: int) -> Questions:
    inputs = walks(rung("naive", settings(**SMALL)), rows=rows, lookback=8)
    symbol, ordinal = np.arange(rows, dtype=np.int32), np.arange(rows) + 100
    return Questions.of(inputs, symbol, ordinal, tile=32)


def test_who_asks_rides_in_the_ticks_own_call_and_is_told_what_is_published() -> None:
    s = settings(**SMALL, bars__kind="tick")
    runner = Plain(rung("naive", s))
    one = served(s, runner)
    runner.asked.clear()
    batches = one.feed.batches([("S0", T0 + 10**12, 100.0, 1.0), ("S1", T0 + 10**12, 50.0, 1.0)], 2)
    outcome = one.engine.turn([Ask(("S2", "S0")), *batches, Ask(("S1",))], T0 + 10**12)
    (asked,) = runner.asked
    assert sorted(asked.asker.tolist()) == [TICKS, TICKS, 0, 0, 1]
    assert (asked.row[asked.asker == TICKS] == [0, 1]).all()
    (forecasts,), (before, after) = outcome.forecasts, outcome.answers
    assert [answer.ask.symbols for answer in (before, after)] == [("S2", "S0"), ("S1",)]
    np.testing.assert_array_equal(after.quantiles[0][:, 2], forecasts.quantiles[1][:, 2])
    assert before.anchor[1] != forecasts.anchor[0], "S0 was asked about before its tick came"


def test_who_asks_is_told_the_widths_that_the_ticks_of_the_turn_have_brought() -> None:
    s = settings(**SMALL, bars__kind="tick", score__adapt_every_bars=16, uncertainty__memory_bars=80)
    runner = Plain(rung("naive", s))
    together, apart = served(s, runner), served(s, runner)
    rng = np.random.default_rng(5)
    ticks = [("S0", T0 + 10**12 + i * 10**9, float(100 + rng.normal(0, 3)), 1.0) for i in range(80)]
    (with_ask,) = together.engine.turn([*together.feed.batches(ticks, 80), Ask(("S0",))], T0).answers
    apart.engine.turn(apart.feed.batches(ticks, 80), T0)
    (later,) = apart.engine.turn([Ask(("S0",))], T0).answers
    np.testing.assert_array_equal(with_ask.quantiles, later.quantiles)


@pytest.mark.parametrize("overload", ["conflate", "skip"])
def test_what_is_shed_is_the_ticks_alone(overload: str) -> None:
    s = settings(**SMALL, bars__kind="tick", forecast__overload=overload)
    runner = Plain(rung("naive", s))
    one = served(s, runner)
    runner.asked.clear()
    batches = one.feed.batches([("S0", T0 + 10**12 + i, 100.0 + i, 1.0) for i in range(5)], 5)
    asks = [Ask(("S0",)) for _ in range(3)]
    stamped = [replace(batch, stamps_ns=np.full(5, T0 + 10**12)) for batch in batches]
    outcome = one.engine.turn([asks[0], *stamped, *asks[1:]], T0 + 10**13)
    kept = 1 if overload == "conflate" else 0
    assert (outcome.questions, outcome.unasked) == (kept, 5 - kept)
    assert len(outcome.answers) == 3
    assert all(answer.refused is None for answer in outcome.answers)
    assert [len(asked) for asked in runner.asked] == [3 + kept]


def test_a_model_that_only_answers_has_no_state_in_a_snapshot_and_one_that_remembers_has() -> None:
    s = settings(**SMALL, bars__kind="tick")
    plain, counting = (served(s, kind(rung("naive", s))).engine for kind in (Plain, Counting))
    before = counting.snapshot().arrays["ladder.0.count"]
    counting.turn([Ask(("S0",))], T0)
    assert counting.snapshot().arrays["ladder.0.count"] == before > 100
    assert not [name for name in plain.snapshot().arrays if name.startswith("ladder")]


def test_windows_by_themselves_are_asked_beside_the_ticks() -> None:
    s = settings(**SMALL)
    runner = Plain(rung("naive", s))
    inputs = walks(runner, rows=3, lookback=8)
    assert runner.predict(inputs).shape == (3, 4, len(s.forecast.quantiles))
    assert runner.asked[0].asker.tolist() == [ALONE] * 3
    with pytest.raises(BadOutput, match="no probabilities"):
        runner.probs(inputs)


def test_questions_are_picked_and_joined_with_their_windows() -> None:
    whole = questions(6)
    parts = [whole.take(slice(0, 2)), whole.take(np.arange(6) >= 2)]
    joined = Questions.concat(parts)
    for name in ("symbol", "ordinal", "asker"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
    for name in Inputs.__slots__:
        np.testing.assert_array_equal(getattr(joined.inputs, name), getattr(whole.inputs, name))
    assert (len(joined), joined.tile) == (6, 32)
    assert Questions.concat([whole]) is whole
    assert whole.alone().asker.tolist() == [ALONE] * 6
