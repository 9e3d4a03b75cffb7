"""A shadow answers as it would if it served, whatever the chunks, and changes nothing of what does."""

import numpy as np
import pytest

from kit import T0, Served, rung, settings, walk
from tickcast.engine.core.blocks import BlockRow
from tickcast.plugin import Runner
from tickcast.questions import Answers, Questions
from tickcast.records import Command

SMALL = {"window__lookback": 12, "forecast__horizon": 4, "uncertainty__memory_bars": 50}
KINDS = [{"bars__every_ms": 500}, {"bars__kind": "tick", "score__adapt_every_bars": 16}]
BLOCK_NS = 20 * 10**9


def order(**args: object) -> Command:
    return Command(id="", command="shadow_model", args={"model": "holt", "contest": "c", "block_ns": BLOCK_NS, **args})


class Shadowed(Served):
    """Last value serves; another model answers beside it from the first tick on."""

    def __init__(self, s, ticks, *, chunk, shadow: Runner, before=(), **args):  # type: ignore[no-untyped-def]
        super().__init__(s, [], chunk=chunk)
        self.engine.install(shadow)
        self.engine.turn([order(model=shadow.card.digest, **args)], T0)
        self.outcomes = [self.engine.turn([raw], T0) for raw in self.feed.batches(ticks, chunk)]
        self.outcomes.append(self.engine.turn([], T0))

    @property
    def blocks(self) -> list[BlockRow]:
        return [row for outcome in self.outcomes for row in outcome.blocks]


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_and_is_scored_as_if_it_served(kind: dict[str, object]) -> None:
    s, ticks = settings(**SMALL, **kind), walk(6000, 7, seed=1)
    serving = Served(s, ticks, chunk=500, runners=[rung("holt", s), rung("naive", s)])
    plain = Served(s, ticks, chunk=500)
    shadowed = Shadowed(s, ticks, chunk=500, shadow=rung("holt", s))
    np.testing.assert_array_equal(shadowed.forecasts.quantiles, plain.forecasts.quantiles)
    np.testing.assert_array_equal(shadowed.scores.loss, plain.scores.loss)

    said = type(plain.forecasts).concat([f for o in shadowed.outcomes for f in o.shadows])
    as_served = serving.forecasts.take(serving.forecasts.model == 0)
    assert len(said) == len(as_served) > 300
    for name in ("id_high", "id_low", "quantiles", "sigma", "confidence", "as_of"):
        np.testing.assert_array_equal(getattr(said, name), getattr(as_served, name))

    scores, beside = serving.scores.take(serving.scores.model == 0), plain.scores
    number = scores.as_of // BLOCK_NS
    for row in shadowed.blocks:
        own = scores.take(number == row.number)
        pairs = np.isin(beside.as_of * 1000 + beside.symbol, own.as_of * 1000 + own.symbol)
        assert row.labels == np.isfinite(own.loss).sum()
        assert row.loss_challenger == pytest.approx(np.nansum(own.loss), rel=1e-9)
        if kind.get("bars__kind") != "tick":  # of ticks several have one time
            assert row.loss == pytest.approx(np.nansum(beside.loss[pairs]), rel=1e-9)
    assert len(shadowed.blocks) > 3


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_change_no_block(kind: dict[str, object]) -> None:
    s, ticks = settings(**SMALL, **kind), walk(4000, 5, seed=2)
    whole = Shadowed(s, ticks, chunk=len(ticks), shadow=rung("holt", s))
    assert whole.blocks
    for chunk in (7, 1000):
        other = Shadowed(s, ticks, chunk=chunk, shadow=rung("holt", s))
        assert [row[:5] for row in other.blocks] == [row[:5] for row in whole.blocks]
        np.testing.assert_allclose([row[5:] for row in other.blocks], [row[5:] for row in whole.blocks], rtol=1e-6)


def test_a_share_of_the_blocks_is_asked_as_a_whole() -> None:
    s, ticks = settings(**SMALL, bars__every_ms=500), walk(6000, 5, seed=3)
    all_of_them = {row.number: row for row in Shadowed(s, ticks, chunk=300, shadow=rung("holt", s)).blocks}
    third = Shadowed(s, ticks, chunk=300, shadow=rung("holt", s), every=3).blocks
    assert third
    assert {row.number % 3 for row in third} == {0}
    assert all(row.labels == all_of_them[row.number].labels for row in third)


GROUPS = '{"few" = ["S1", "S2"], "some" = ["S3", "S4"]}'


@pytest.mark.parametrize(("route", "symbols"), [("group:few", {"S1", "S2"}), ("symbol:S3", {"S3"})])
def test_a_contest_of_a_route_is_of_its_symbols_and_a_promotion_changes_these_alone(
    route: str, symbols: set[str]
) -> None:
    s, ticks = settings(**SMALL, bars__every_ms=500, symbols__groups=GROUPS), walk(8000, 6, seed=7)
    shadowed = Shadowed(s, ticks[:6000], chunk=300, shadow=rung("holt", s), route=route)
    said = {shadowed.symbols.name(code) for o in shadowed.outcomes for f in o.shadows for code in f.symbol}
    assert said == symbols
    whole = Shadowed(s, ticks[:6000], chunk=300, shadow=rung("holt", s))
    part = {row.number: row for row in shadowed.blocks}
    both = {row.number: row for row in whole.blocks}
    assert len(part) > 3
    assert all(0 < row.labels < both[number].labels and row.loss < both[number].loss for number, row in part.items())

    engine, rest = shadowed.engine, shadowed.feed.batches(ticks, 300)[20:]
    engine.turn([Command(id="", command="use_model", args={"model": "holt", "route": route})], T0)
    assert not engine.shadows
    after = [f for raw in rest for f in engine.turn([raw], T0).forecasts]
    by_holt = {shadowed.symbols.name(int(code)) for f in after for code in f.symbol[f.model == 1]}
    assert by_holt == symbols


def test_of_two_contests_the_narrower_has_the_symbol_and_neither_has_a_share_that_another_model_serves() -> None:
    s = settings(**SMALL, bars__every_ms=500, symbols__groups=GROUPS, model__season_bars=4)
    ticks = walk(8000, 12, seed=8)
    shadowed = Shadowed(s, [], chunk=300, shadow=rung("holt", s))
    engine = shadowed.engine
    engine.install(rung("seasonal", s))
    serve = Command(id="", command="use_model", args={"model": "seasonal", "route": "40%:default"})
    more = [("holt", "group:few", "g"), ("holt", "symbol:S3", "s"), ("naive", "default", "naive")]
    engine.turn([*(order(model=model, route=route, contest=name) for model, route, name in more), serve], T0)
    shadowed.outcomes = [engine.turn([raw], T0) for raw in shadowed.feed.batches(ticks, 300)]
    shadowed.outcomes.append(engine.turn([], T0))
    share = {shadowed.symbols.name(code) for code in np.flatnonzero(engine.routes.reach("40%:default"))}
    assert share
    said = {shadowed.symbols.name(code) for o in shadowed.outcomes for f in o.shadows for code in f.symbol}
    default = {f"S{i}" for i in range(12)} - share
    assert said == default
    rows = {contest: [row for row in shadowed.blocks if row.contest == contest] for contest in ("c", "g", "s", "naive")}
    assert all(rows.values())
    number = max(min(row.number for row in each) for each in rows.values()) + 1
    labels = {contest: next(row.labels for row in each if row.number == number) for contest, each in rows.items()}
    scores = shadowed.scores
    names = np.array([shadowed.symbols.name(code) for code in scores.symbol])
    here = scores.as_of // BLOCK_NS == number
    known = {
        name: int(np.isfinite(scores.loss[here & (names == name) & (scores.model == 0)]).sum()) for name in default
    }
    assert labels["naive"] == sum(known.values())
    assert labels["g"] == sum(known.get(name, 0) for name in ("S1", "S2"))
    assert labels["s"] == known.get("S3", 0)
    assert labels["c"] == labels["naive"] - labels["g"] - labels["s"]


class Failing(Runner):
    def __init__(self, like: Runner) -> None:
        import msgspec

        self.card = msgspec.structs.replace(like.card, name="bad", kind="bad", digest="bad")

    def answer(self, questions: Questions) -> Answers:
        return Answers(np.full((len(questions), 4, 5), np.nan, np.float32))


def test_a_shadow_that_gives_no_number_is_counted_as_failed_and_disturbs_nobody() -> None:
    s, ticks = settings(**SMALL, bars__every_ms=500), walk(4000, 5, seed=4)
    shadowed, plain = Shadowed(s, ticks, chunk=300, shadow=Failing(rung("holt", s))), Served(s, ticks, chunk=300)
    np.testing.assert_array_equal(shadowed.forecasts.quantiles, plain.forecasts.quantiles)
    assert not [f for o in shadowed.outcomes for f in o.shadows]
    assert shadowed.blocks
    assert all(row.failed > 0 and row.labels == 0 for row in shadowed.blocks)


def test_promoted_it_goes_on_with_the_widths_that_it_had_and_is_no_shadow_any_more() -> None:
    """What it had open goes unscored: widths are the same at first, and later differ by the labels of these."""
    s, ticks = settings(**SMALL, bars__every_ms=500), walk(6000, 5, seed=5)
    served = Served(s, ticks, chunk=500, runners=[rung("holt", s), rung("naive", s)])
    shadowed = Shadowed(s, ticks[:4000], chunk=500, shadow=rung("holt", s))
    engine, batches = shadowed.engine, shadowed.feed.batches(ticks, 500)[8:]
    engine.turn([Command(id="", command="use_model", args={"model": "holt"})], T0)
    assert not engine.shadows
    ours = engine.turn(batches[:1], T0).forecasts[0]
    first = ours.take(ours.as_of == ours.as_of.min())
    theirs = served.forecasts.take(served.forecasts.as_of == ours.as_of.min())
    np.testing.assert_array_equal(first.quantiles, theirs.quantiles)
    fresh = Served(s, [], chunk=500)
    fresh.engine.install(rung("holt", s))
    for raw in fresh.feed.batches(ticks[:4000], 500):
        fresh.engine.turn([raw], T0)
    fresh.engine.turn([Command(id="", command="use_model", args={"model": "holt"})], T0)
    without = fresh.engine.turn(fresh.feed.batches(ticks, 500)[8:9], T0).forecasts[0]
    assert not np.array_equal(without.quantiles[: len(first)], first.quantiles)  # one that was no shadow has none


def test_a_snapshot_goes_on_with_the_shadow_bit_by_bit() -> None:
    s, ticks = settings(**SMALL, bars__every_ms=500), walk(6000, 5, seed=6)
    whole = Shadowed(s, ticks, chunk=500, shadow=rung("holt", s))
    half = Shadowed(s, ticks[:3000], chunk=500, shadow=rung("holt", s))
    other = Served(s, [], chunk=500)
    other.engine.install(rung("holt", s))
    other.engine.resume(half.engine.snapshot())
    outcomes = [other.engine.turn([raw], T0) for raw in other.feed.batches(ticks, 500)[6:]]
    outcomes.append(other.engine.turn([], T0))
    later = [row for o in outcomes for row in o.blocks]
    assert half.blocks + later == whole.blocks
