"""The whole core: same answers for any chunks, no look-ahead, and scores equal to a plain computation."""

from collections import defaultdict

import numpy as np
import pytest

from driftkit import report
from kit import T0, Off, Served, Tick, rung, settings, walk
from tickcast.engine.core import ladder, scoring
from tickcast.errors import BadOutput, Quality, Reason
from tickcast.plugin import Runner
from tickcast.questions import Answers, Questions
from tickcast.records import Command

KINDS = [
    {"bars__every_ms": 500},
    {"bars__every_ms": 500, "bars__lateness_ms": 300},
    {"bars__every_ms": 500, "forecast__every_bars": 3},
    {"bars__kind": "tick"},
    {"bars__kind": "tick", "bars__every_ticks": 4, "score__adapt_every_bars": 16},
    {"bars__kind": "volume", "bars__every_size": 20.0},
]
SMALL = {"window__lookback": 12, "forecast__horizon": 4, "uncertainty__memory_bars": 50}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_any_chunking_gives_the_same_forecasts_and_scores(kind: dict[str, object]) -> None:
    s, ticks = settings(**SMALL, **kind), walk(6000, 7, seed=1)
    whole = Served(s, ticks, chunk=len(ticks))
    assert len(whole.forecasts) > 300
    for chunk in (1, 7, 1000):
        other = Served(s, ticks, chunk=chunk)
        assert other.ids() == whole.ids()
        np.testing.assert_allclose(other.forecasts.quantiles, whole.forecasts.quantiles, rtol=1e-9)
        np.testing.assert_allclose(other.scores.pinball, whole.scores.pinball, rtol=1e-6, atol=1e-12)
        np.testing.assert_array_equal(other.scores.actual, whole.scores.actual)
        assert report(other) == report(whole)
        assert [one for o in other.outcomes for one in o.drift] == [one for o in whole.outcomes for one in o.drift]


CORRECTED = {"inference__bias_correction": True, "forecast__horizon": 2}  # so that memory of 50 bars suffices


def corrected(kind: dict[str, object], ticks: list[Tick], chunk: int) -> Served:
    s = settings(**{**SMALL, **CORRECTED, **kind})
    return Served(s, ticks, chunk=chunk, runners=[Off(rung("naive", s), by=0.8), rung("naive", s)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [KINDS[0], KINDS[1], KINDS[4]])
def test_neither_chunks_nor_the_future_change_what_is_corrected(kind: dict[str, object]) -> None:
    ticks = walk(8000, 3, seed=6)
    whole = corrected(kind, ticks, len(ticks))
    assert (whole.forecasts.flags & Quality.CORRECTED).any()
    for chunk in (1, 7, 1000):
        other = corrected(kind, ticks, chunk)
        np.testing.assert_allclose(other.forecasts.quantiles, whole.forecasts.quantiles, rtol=1e-9)
        np.testing.assert_array_equal(other.forecasts.flags, whole.forecasts.flags)
        np.testing.assert_allclose(other.scores.loss, whole.scores.loss, rtol=1e-6, atol=1e-9)
    turn = ticks[6000][1]
    changed = [(symbol, ts, price * (3.0 if ts > turn else 1.0), size) for symbol, ts, price, size in ticks]
    other = corrected(kind, changed, 500)
    before, theirs = (each.forecasts.take(each.forecasts.as_of <= turn) for each in (whole, other))
    assert (before.flags & Quality.CORRECTED).any()
    np.testing.assert_allclose(theirs.quantiles, before.quantiles, rtol=1e-9)


def test_ids_are_unique_and_change_with_model_symbol_time_tie_and_horizon() -> None:
    ticks: list[Tick] = [(f"S{i % 3}", T0 + (i // 6) * 10**6, 100.0 + i % 5, 1.0) for i in range(3000)]
    s = settings(**SMALL, bars__kind="tick")
    served = Served(s, ticks, chunk=100)
    assert served.forecasts.tie.max() >= 1
    assert len(set(served.ids())) == len(served.forecasts)
    longer = Served(settings(**{**SMALL, "forecast__horizon": 5}, bars__kind="tick"), ticks, chunk=100)
    assert not set(served.ids()) & set(longer.ids())


@pytest.mark.parametrize("kind", KINDS)
def test_changing_the_future_changes_no_forecast_and_no_score_of_the_past(kind: dict[str, object]) -> None:
    s, ticks = settings(**SMALL, **kind), walk(6000, 5, seed=2)
    turn = ticks[4000][1]
    changed = [
        (symbol, ts, price * (3.0 if ts > turn else 1.0), size * (7.0 if ts > turn else 1.0))
        for symbol, ts, price, size in ticks
    ]
    one, other = Served(s, ticks, chunk=500), Served(s, changed, chunk=500)
    for a, b, moment in ((one.forecasts, other.forecasts, "as_of"), (one.scores, other.scores, "settled_ns")):
        before_a, before_b = (x.take(getattr(x, moment) <= turn) for x in (a, b))
        assert len(before_a) > 100
        values = "quantiles" if moment == "as_of" else "pinball"
        np.testing.assert_array_equal(getattr(before_a, values), getattr(before_b, values))
    assert not np.array_equal(one.forecasts.quantiles[-1], other.forecasts.quantiles[-1])


@pytest.mark.slow
def test_scores_equal_a_plain_computation_from_the_published_forecasts() -> None:
    s = settings(**SMALL, bars__every_ms=500)
    served = Served(s, walk(6000, 5, seed=3), chunk=300)
    bars = [b for o in served.outcomes for b in o.bars]
    close = {(b.symbol[i], b.ordinal[i]): (b.close[i], b.mask[i]) for b in bars for i in range(len(b))}
    f, horizons, levels = served.forecasts, served.engine.scorekeeper.horizons, np.array(s.forecast.quantiles)
    published = {(f.id_high[i], f.id_low[i]): i for i in range(len(f))}
    errors: dict[int, list[float]] = defaultdict(list)
    for k in range(len(served.scores)):
        i = published[served.scores.id_high[k], served.scores.id_low[k]]
        for j, h in enumerate(horizons):
            actual, real = close[f.symbol[i], f.ordinal[i] + h]
            if not real:
                assert np.isnan(served.scores.actual[k, j])
                continue
            quantiles = f.quantiles[i, h - 1]
            loss = np.mean(np.maximum(levels * (actual - quantiles), (levels - 1) * (actual - quantiles)))
            assert served.scores.actual[k, j] == actual
            assert served.scores.pinball[k, j] == pytest.approx(loss, rel=1e-4, abs=1e-9)
            assert served.scores.covered[k, j] == (quantiles[0] <= actual <= quantiles[-1])
            errors[h].append(abs(actual - f.anchor[i]))
    assert len(errors[1]) > 500
    figures = {a.horizon: a for a in served.engine.scorekeeper.accuracy(0, window="all")}
    for h in horizons:
        assert figures[h].mae == pytest.approx(np.mean(errors[h]), rel=0.02)  # the last open questions are in it too
        assert figures[h].mae == pytest.approx(figures[h].mae_naive, rel=1e-9)
        assert figures[h].skill == pytest.approx(0.0, abs=1e-9)
    assert scoring.settle.py_func is not None


def test_coverage_becomes_nominal_on_a_random_walk() -> None:
    served = Served(settings(**SMALL, bars__every_ms=500), walk(40_000, 5, seed=4), chunk=2000)
    for row in served.engine.scorekeeper.accuracy(0, window="all"):
        for level, share in row.coverage.items():
            assert share == pytest.approx(float(level), abs=0.03)


class Broken(Runner):
    """A model that gives what it is told to give."""

    def __init__(self, like: object, answer: object) -> None:
        import msgspec

        self.card = msgspec.structs.replace(like.card, name="broken", kind="broken", digest="broken")  # type: ignore[attr-defined]
        self._answer = answer

    def answer(self, questions: Questions) -> Answers:
        if isinstance(self._answer, Exception):
            raise self._answer
        out = np.zeros((len(questions), 4, 5), np.float32)
        out[...] = self._answer
        return Answers(out)


@pytest.mark.parametrize("answer", [np.nan, np.inf, np.array([3.0, 2, 1, 0, -1]), RuntimeError("boom")])
def test_unusable_model_output_is_answered_by_last_value_and_flagged(answer: object) -> None:
    s = settings(**SMALL, bars__every_ms=500)
    served = Served(s, walk(2000, 3, seed=5), chunk=100, runners=[Broken(rung("naive", s), answer)])
    assert len(served.forecasts) > 100
    assert (served.forecasts.flags & Quality.FALLBACK).all()
    np.testing.assert_allclose(
        served.forecasts.quantiles[:, :, 2], served.forecasts.anchor[:, None].repeat(4, 1), rtol=1e-12
    )


@pytest.mark.parametrize("transform", ["log_return", "difference", "level"])
def test_prices_that_leave_every_measure_get_forecasts_without_a_spread_and_no_warning(transform: str) -> None:
    s = settings(**SMALL, bars__kind="tick", forecast__transform=transform, score__adapt_every_bars=16)
    doubling: list[Tick] = [("A", T0 + i * 10**6, 2.0**i, 1.0) for i in range(400)]
    served = Served(s, doubling, chunk=50, runners=[rung("holt", s)])
    forecasts, cards = served.forecasts, served.engine.ladder.cards
    assert len(forecasts) > 380
    assert np.isfinite(forecasts.quantiles).all()
    assert [cards[m].kind for m in np.unique(forecasts.model[forecasts.flags & Quality.FALLBACK > 0])] in (
        [],
        ["naive"],
    )
    if transform != "log_return":  # its moves stay small
        last = forecasts.take(slice(-1, None))
        assert last.flags[0] & Quality.FALLBACK
        assert (last.quantiles[0, :, 2] == last.anchor[0]).all()


def test_usable_is_what_is_a_number_within_bounds_and_in_order() -> None:
    rng = np.random.default_rng(0)
    moves = np.sort(rng.normal(size=(400, 3, 5)), axis=2)
    moves[rng.random(moves.shape) < 0.02] = rng.choice([np.nan, np.inf, -np.inf, 9.0, -9.0, 0.0])
    moves[::7, 1, 2] = rng.choice([np.nan, 5.0, -5.0, 6.0], len(moves[::7]))
    with np.errstate(invalid="ignore"):
        good = (np.abs(moves) <= 5.0) & (np.diff(moves, axis=2, prepend=-np.inf) >= 0)
    unusable = np.empty(400, np.bool_)
    ladder.find_unusable(moves, 5.0, unusable)
    np.testing.assert_array_equal(unusable, ~good.all(axis=(1, 2)))
    assert 0 < unusable.sum() < 400


def test_a_command_is_a_barrier_questions_before_it_go_to_the_model_before_it() -> None:
    s = settings(**SMALL, bars__kind="tick")
    naive, flat = rung("naive", s), Broken(rung("naive", s), 0.0)
    served = Served(s, [], chunk=100, runners=[naive, flat])
    from kit import TickFeed

    feed = TickFeed(served.symbols)
    served.engine._decoder = feed
    one, two = feed.batches(walk(200, 1, seed=6), 100)
    outcome = served.engine.turn([one, Command(id="1", command="use_model", args={"model": "broken"}), two], T0)
    first, second = outcome.forecasts
    assert set(first.model) == {0}
    assert set(second.model) == {1}
    assert len(first) + len(second) == 199


def test_conflate_asks_only_the_newest_question_of_each_symbol_and_counts_the_rest() -> None:
    s, ticks = settings(**SMALL, bars__kind="tick", forecast__overload="conflate"), walk(500, 4, seed=7)
    outcome = Served(s, ticks, chunk=500).outcomes[0]
    assert outcome.questions == 4
    assert outcome.unasked == 500 - 4 - 4


def test_consumed_is_always_accepted_plus_rejected_plus_late_plus_held() -> None:
    ticks = walk(3000, 5, seed=8)
    ticks = [
        (s, ts - (10**9 if i % 17 == 0 else 0), p * (-1 if i % 23 == 0 else 1), z)
        for i, (s, ts, p, z) in enumerate(ticks)
    ]
    engine = Served(settings(**SMALL, bars__every_ms=500), ticks, chunk=64).engine
    counts = engine.builder.counts()
    assert counts.sum() == 3000
    assert counts[Reason.NON_POSITIVE] == 131
    assert counts[Reason.LATE] > 50


def test_a_feature_that_fails_costs_its_forecasts_the_model_but_not_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    from tickcast.engine.core import features

    s = settings(**SMALL, bars__every_ms=500, features__set='[{kind="rolling_mean", window=3}]')
    monkeypatch.setattr(features, "_ask", lambda *_: (_ for _ in ()).throw(BadOutput("it broke")))
    served = Served(s, walk(2000, 3, seed=9), chunk=100)
    assert served.engine.questioner.feature_failures == {"rolling_mean": pytest.approx(20, abs=5)}
    assert served.engine.questioner.last_failure == "it broke"
    assert len(served.forecasts) > 100
    assert np.isfinite(served.forecasts.quantiles).all()
